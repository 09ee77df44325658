"""Attention transfer."""

from ...runs.options import loss
from ..setting import Setting
from .shared import one_weight


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of RepDistiller and mdistiller, the same for every pair."""
    return one_weight(
        teacher,
        student,
        loss("at", 1000.0, power=2.0),
        source="RepDistiller, -b 1000; mdistiller, cifar100/at.yaml",
    )
