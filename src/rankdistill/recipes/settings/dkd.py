"""Decoupled knowledge distillation."""

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, Setting

BETA = {
    ("resnet56", "resnet20"): 2.0,
    ("resnet32x4", "resnet8x4"): 8.0,
    ("wrn_40_2", "wrn_16_2"): 6.0,
    ("wrn_40_2", "wrn_40_1"): 6.0,
    ("vgg13", "vgg8"): 6.0,
    ("resnet110", "resnet32"): 2.0,
    ("resnet32x4", "shufflenetv2"): 8.0,
    ("vgg13", "mobilenetv2"): 6.0,
    ("resnet50", "mobilenetv2"): 8.0,
    ("wrn_40_2", "shufflenetv1"): 8.0,
    ("resnet32x4", "shufflenetv1"): 8.0,
}
"""Weight of NCKD by pair."""


def setting(teacher: str, student: str) -> Setting:
    """Return mdistiller's weights; for a pair without one, its default beta of 8."""
    pair = teacher, student
    options = {"alpha": 1.0, "beta": BETA.get(pair, 8.0), "temperature": 4.0, "warmup": 20}
    published = pair in CIFAR100_PAIRS
    source = "mdistiller, configs/cifar100/dkd" if published else "mdistiller's default; none for this pair"
    return Setting({"task": loss("ce"), "dkd": loss("dkd", **options)}, source=source, published=published)
