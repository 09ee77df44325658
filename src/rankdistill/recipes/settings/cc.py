"""Correlation congruence."""

from ...runs.options import loss
from ..setting import Setting
from .shared import one_weight


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of RepDistiller, the same for every pair."""
    return one_weight(
        teacher,
        student,
        loss("cc", 0.02, dim=128),
        source="RepDistiller, -b 0.02",
    )
