"""What settings with one weight for every pair have in common."""

from collections.abc import Collection
from typing import Any

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, Pair, Setting


def one_weight(
    teacher: str,
    student: str,
    distillation: Any,
    *,
    source: str,
    published: Collection[Pair] = CIFAR100_PAIRS,
) -> Setting:
    """Return cross-entropy plus one loss, named as its method, with the same weight and options for every pair.

    Args:
        teacher: name of the teacher.
        student: name of the student.
        distillation: what `loss` returned.
        source: who published the values, and where.
        published: the pairs for which they did; for others the source says that the values are taken over.
    """
    known = (teacher, student) in published
    return Setting(
        {"task": loss("ce"), distillation.method: distillation},
        source=source if known else f"{source}; taken over, not published for this pair",
        published=known,
    )
