"""Weighted transformed teacher matching."""

from ...runs.options import loss
from ..setting import Setting

WTTM = {
    ("resnet56", "resnet20"): (0.3, 1.5),
    ("resnet32x4", "resnet8x4"): (0.1, 3.0),
    ("wrn_40_2", "wrn_16_2"): (0.1, 4.0),
    ("wrn_40_2", "wrn_40_1"): (0.1, 3.0),
    ("vgg13", "vgg8"): (0.1, 2.25),
    ("resnet110", "resnet32"): (0.1, 1.5),
    ("resnet110", "resnet20"): (0.2, 2.0),
    ("resnet32x4", "shufflenetv2"): (0.4, 16.0),
    ("vgg13", "mobilenetv2"): (0.2, 3.0),
    ("resnet50", "mobilenetv2"): (0.2, 5.0),
    ("wrn_40_2", "shufflenetv1"): (0.3, 3.0),
    ("resnet32x4", "shufflenetv1"): (0.2, 1.4),
}
"""Exponent and weight by pair."""


def setting(teacher: str, student: str) -> Setting:
    """Return the paper's exponent and weight; for a pair without one, those of vgg13 and mobilenetv2."""
    pair = teacher, student
    exponent, weight = WTTM.get(pair, WTTM["vgg13", "mobilenetv2"])
    published = pair in WTTM
    return Setting(
        {"task": loss("ce"), "wttm": loss("wttm", weight, exponent=exponent)},
        source="the TTM paper, Table 9" if published else "chosen; the TTM paper's Table 9 lacks this pair",
        published=published,
    )
