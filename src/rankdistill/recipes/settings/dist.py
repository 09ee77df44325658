"""DIST, by correlations between and within classes."""

from ...runs.options import loss
from ..setting import Setting

_REPORTED = (
    ("resnet32x4", "resnet8x4"),
    ("resnet56", "resnet20"),
    ("wrn_40_2", "wrn_40_1"),
    ("resnet50", "mobilenetv2"),
    ("resnet32x4", "shufflenetv1"),
    ("resnet32x4", "shufflenetv2"),
)


def setting(teacher: str, student: str) -> Setting:
    """Return weight 2 and temperature 4, the authors' on CIFAR-100, the same for every pair."""
    published = (teacher, student) in _REPORTED
    return Setting(
        {"task": loss("ce"), "dist": loss("dist", 2.0, temperature=4.0)},
        source="DIST's repository, dist_t4" if published else "as DIST's dist_t4 on CIFAR-100; none for this pair",
        published=published,
    )
