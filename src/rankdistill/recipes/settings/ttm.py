"""Transformed teacher matching."""

from ...runs.options import loss
from ..setting import Setting

TTM = {
    ("resnet56", "resnet20"): (0.3, 7.0),
    ("resnet32x4", "resnet8x4"): (0.1, 100.0),
    ("wrn_40_2", "wrn_16_2"): (0.1, 101.0),
    ("wrn_40_2", "wrn_40_1"): (0.1, 76.0),
    ("vgg13", "vgg8"): (0.1, 45.0),
    ("resnet110", "resnet32"): (0.1, 33.0),
    ("resnet110", "resnet20"): (0.2, 8.0),
    ("resnet32x4", "shufflenetv2"): (0.4, 40.0),
    ("vgg13", "mobilenetv2"): (0.2, 16.0),
    ("resnet50", "mobilenetv2"): (0.2, 20.0),
    ("wrn_40_2", "shufflenetv1"): (0.3, 8.0),
    ("resnet32x4", "shufflenetv1"): (0.2, 12.0),
}
"""Exponent and weight by pair."""


def setting(teacher: str, student: str) -> Setting:
    """Return the paper's exponent and weight; for a pair without one, those of vgg13 and mobilenetv2."""
    pair = teacher, student
    exponent, weight = TTM.get(pair, TTM["vgg13", "mobilenetv2"])
    published = pair in TTM
    return Setting(
        {"task": loss("ce"), "ttm": loss("ttm", weight, exponent=exponent)},
        source="the TTM paper, Table 8" if published else "chosen; the TTM paper's Table 8 lacks this pair",
        published=published,
    )
