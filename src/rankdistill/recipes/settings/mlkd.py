"""Multi-level logit distillation, as its authors' code trains it today."""

from typing import Any

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, Pair, Setting

_LIGHT = {"lr": 0.01, "epochs": 480}
_LONG = {"lr": 0.01, "epochs": 960}
_OPTIM: dict[Pair, dict[str, Any]] = {pair: {"lr": 0.025, "epochs": 240} for pair in CIFAR100_PAIRS} | {
    ("vgg13", "mobilenetv2"): _LIGHT,
    ("resnet50", "mobilenetv2"): _LIGHT,
    ("wrn_40_2", "shufflenetv1"): _LIGHT,
    ("resnet32x4", "shufflenetv2"): _LONG,
    ("resnet32x4", "shufflenetv1"): _LONG,
}


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of the authors' code, the same for every pair, and its epochs and rate for this one.

    At the time of the paper the same-family pairs had 480 epochs; the rate drops at 150, 180 and 210 in any case.
    """
    losses = {
        "task": loss("ce", 0.1, each_view=True),
        "mlkd": loss("mlkd", 0.9, temperature=4.0, variant="official"),
    }
    published = (teacher, student) in _OPTIM
    return Setting(
        losses,
        source="the authors' code, cifar100/ours/*.yaml of September 2024" if published else "as on CIFAR-100",
        published=published,
        protocol="mlkd",
        views=2,
        optim=_OPTIM.get((teacher, student), {}),
    )
