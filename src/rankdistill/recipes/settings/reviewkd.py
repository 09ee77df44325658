"""Distillation by knowledge review, as its authors train it."""

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, Setting

_LIGHT = ("shufflenetv1", "shufflenetv2", "mobilenetv2")

_WEIGHTS = {
    ("resnet56", "resnet20"): 0.6,
    ("resnet110", "resnet32"): 1.0,
    ("resnet32x4", "resnet8x4"): 5.0,
    ("wrn_40_2", "wrn_16_2"): 5.0,
    ("wrn_40_2", "wrn_40_1"): 5.0,
    ("wrn_40_2", "shufflenetv1"): 5.0,
    ("resnet32x4", "shufflenetv1"): 5.0,
    ("resnet32x4", "shufflenetv2"): 8.0,
}


def setting(teacher: str, student: str) -> Setting:
    """Return the authors' weight and, on CIFAR-100, their optimizer.

    Where they publish no weight it is 8 for MobileNets, as they have on ImageNet, and for ShuffleNetV2; else 5.
    Their rate drops one epoch later than elsewhere.
    """
    pair = (teacher, student)
    fallback = 8.0 if "mobilenet" in student or "shufflenetv2" in student else 5.0
    authors = {
        "batch_size": 128,
        "lr": 0.02 if student in _LIGHT else 0.1,
        "milestones": (151, 181, 211),
        "nesterov": True,
    }
    published = pair in _WEIGHTS
    source = "ReviewKD, CIFAR-100/script" if published else "ours: 8 for MobileNets and ShuffleNetV2, else 5"
    return Setting(
        {"task": loss("ce"), "reviewkd": loss("reviewkd", _WEIGHTS.get(pair, fallback), warmup_epochs=20)},
        source=source,
        published=published,
        optim=authors if pair in CIFAR100_PAIRS else {},
    )
