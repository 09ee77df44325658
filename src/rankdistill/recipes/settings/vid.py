"""Variational information distillation."""

from ...runs.options import loss
from ..setting import Setting
from .shared import one_weight


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of RepDistiller and mdistiller, the same for every pair."""
    return one_weight(
        teacher,
        student,
        loss("vid", 1.0, initial_variance=5.0, eps=1e-5),
        source="RepDistiller, -b 1; mdistiller, cifar100/vid.yaml",
    )
