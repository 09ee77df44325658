"""Training on labels alone: every baseline."""

from ...runs.options import loss
from ..setting import Setting


def setting(teacher: str, student: str) -> Setting:
    """Return cross-entropy alone, the same for every pair."""
    del teacher, student
    return Setting({"task": loss("ce")}, source="RepDistiller, train_teacher.py", published=True)
