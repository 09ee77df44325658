"""Relational knowledge distillation."""

from ...runs.options import loss
from ..setting import Setting
from .shared import one_weight


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of RepDistiller and mdistiller, the same for every pair."""
    return one_weight(
        teacher,
        student,
        loss("rkd", 1.0, distance_weight=25.0, angle_weight=50.0),
        source="RepDistiller, -b 1; mdistiller, cifar100/rkd.yaml",
    )
