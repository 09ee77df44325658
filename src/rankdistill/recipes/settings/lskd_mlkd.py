"""Multi-level logit distillation with standardised logits, as the authors of logit standardisation train it."""

from typing import Any

from ...runs.options import loss
from ..setting import Pair, Setting

_WEIGHT: dict[Pair, float] = {
    ("resnet110", "resnet20"): 9.0,
    ("resnet110", "resnet32"): 9.0,
    ("resnet50", "mobilenetv2"): 9.0,
    ("resnet32x4", "shufflenetv2"): 6.0,
    ("resnet32x4", "resnet8x4"): 9.0,
    ("resnet32x4", "wrn_16_2"): 9.0,
    ("resnet32x4", "wrn_40_2"): 9.0,
    ("vgg13", "mobilenetv2"): 6.0,
    ("vgg13", "vgg8"): 6.0,
    ("wrn_40_2", "resnet8x4"): 9.0,
    ("wrn_40_2", "wrn_16_2"): 9.0,
    ("wrn_40_2", "wrn_40_1"): 9.0,
}
"""Weights in the names of the published logs; all have temperature 2."""

_OPTIM: dict[Pair, dict[str, Any]] = {
    **{pair: {"lr": 0.025, "epochs": 480} for pair in (*_WEIGHT, ("resnet56", "resnet20"))},
    ("vgg13", "vgg8"): {"lr": 0.01, "epochs": 480},
    ("vgg13", "mobilenetv2"): {"lr": 0.01, "epochs": 480},
    ("resnet50", "mobilenetv2"): {"lr": 0.01, "epochs": 480},
    ("wrn_40_2", "shufflenetv1"): {"lr": 0.01, "epochs": 480},
    ("wrn_40_2", "mobilenetv2"): {"lr": 0.005, "epochs": 480},
    ("resnet32x4", "shufflenetv2"): {"lr": 0.01, "epochs": 960},
    ("resnet32x4", "shufflenetv1"): {"lr": 0.01, "epochs": 960},
}
"""The configuration files, which are there for more pairs than there are logs."""


def setting(teacher: str, student: str) -> Setting:
    """Return the weight in the name of the pair's published log, else the code's default, 9."""
    pair = teacher, student
    weight = _WEIGHT.get(pair, 9.0)
    losses = {
        "task": loss("ce", 0.1, each_view=True),
        "mlkd": loss("mlkd", weight, temperature=2.0, variant="official", standardize=True),
    }
    published = pair in _WEIGHT
    source = "logit standardisation, mlkd configurations and names of its logs"
    return Setting(
        losses,
        source=source if published else f"{source}; none for this pair, the code's default weight",
        published=published,
        protocol="mlkd",
        views=2,
        optim=_OPTIM.get(pair, {}),
    )
