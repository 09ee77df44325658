"""The reused teacher classifier."""

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, Setting


def setting(teacher: str, student: str) -> Setting:
    """Return the authors' weights, the same for every pair: 1, and none on labels."""
    published = (teacher, student) in CIFAR100_PAIRS
    source = "SimKD, train_student.py: -c 0 -d 0 -b 1 --factor 2, for every pair"
    return Setting(
        {"simkd": loss("simkd", factor=2)},
        source=source if published else f"{source}; not published for this one",
        published=published,
    )
