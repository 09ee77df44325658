"""Contrastive representation distillation."""

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, Setting


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of RepDistiller, the same for every pair of CIFAR-100. Others use them too, untuned."""
    losses = {
        "task": loss("ce"),
        "crd": loss("crd", 0.8, dim=128, num_negatives=16384, temperature=0.07, momentum=0.5),
    }
    published = (teacher, student) in CIFAR100_PAIRS
    source = "RepDistiller, scripts/run_cifar_distill.sh, -b 0.8; mdistiller, cifar100/crd.yaml"
    return Setting(losses, source=source if published else f"as on CIFAR-100: {source}", published=published)
