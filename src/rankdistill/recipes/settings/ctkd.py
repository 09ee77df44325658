"""Curriculum temperature, the global one."""

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, Setting


def setting(teacher: str, student: str) -> Setting:
    """Return the authors' weights and curriculum, the same for every pair of CIFAR-100, and here for every other."""
    published = (teacher, student) in CIFAR100_PAIRS
    return Setting(
        {"task": loss("ce", 0.1), "ctkd": loss("ctkd", 0.9, reversal_epochs=10)},
        source="CTKD's repository, its CIFAR-100 scripts" if published else "as on CIFAR-100; none for this pair",
        published=published,
    )
