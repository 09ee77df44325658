"""Vanilla knowledge distillation."""

from ...runs.options import loss
from ..setting import Setting


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of RepDistiller and mdistiller, the same for every pair."""
    del teacher, student
    losses = {"task": loss("ce", 0.1), "kd": loss("kd", 0.9, temperature=4.0)}
    return Setting(losses, source="mdistiller, cifar100/kd.yaml; RepDistiller, -r 0.1 -a 0.9", published=True)
