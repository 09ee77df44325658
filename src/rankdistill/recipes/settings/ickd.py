"""Inter-channel correlation."""

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, Setting
from .shared import one_weight


def setting(teacher: str, student: str) -> Setting:
    """Return the weight of the authors' README, which has one command, and results for the six pairs of one family."""
    return one_weight(
        teacher,
        student,
        loss("ickd", 2.5),
        source="ICKD, Cifar100/README.md, -b 2.5",
        published=CIFAR100_PAIRS[:6],
    )
