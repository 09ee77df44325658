"""Distillation of singular vectors."""

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, Setting
from .shared import one_weight

# RepDistiller's form needs maps of equal width, and fails on the other pairs.
_RUNS = tuple(pair for pair in CIFAR100_PAIRS[:6] if pair != ("wrn_40_2", "wrn_40_1"))


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of RepDistiller and mdistiller, the same for every pair."""
    return one_weight(
        teacher,
        student,
        loss("kdsvd", 1.0, num_vectors=1, form="channels"),
        source="RepDistiller, -b 1; mdistiller, cifar100/kdsvd.yaml",
        published=_RUNS,
    )
