"""Similarity-preserving distillation."""

from ...runs.options import loss
from ..setting import Setting
from .shared import one_weight


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of RepDistiller and mdistiller, the same for every pair."""
    return one_weight(
        teacher,
        student,
        loss("sp", 3000.0),
        source="RepDistiller, -b 3000; mdistiller, cifar100/sp.yaml",
    )
