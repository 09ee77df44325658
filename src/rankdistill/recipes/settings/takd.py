"""Distillation through teacher assistants (Mirzadeh et al., AAAI 2020): each stage is vanilla distillation."""

from typing import Any

from ...runs.options import loss
from ..setting import Setting


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of one stage: those of KD, since the authors' are searched for by pair, on other pairs."""
    del teacher, student
    losses = {"task": loss("ce", 0.1), "kd": loss("kd", 0.9, temperature=4.0)}
    return Setting(losses, source="ours: the KD of mdistiller in each stage", published=False)


def authors_losses(num_classes: int, *, temperature: float = 5.0, weight: float = 0.04) -> dict[str, Any]:
    """Return the losses as the authors' code weights them.

    Its divergence is a mean over samples and classes, so that the usual one gets the weight divided by the classes.

    Args:
        num_classes: of the data set.
        temperature: 1, 2, 5, 10, 15 or 20 were searched; 5 is a hint of the authors for CIFAR-100.
        weight: lambda, 0.05 to 1 were searched; 0.04 is their hint. Cross-entropy has 1 - lambda.
    """
    return {
        "task": loss("ce", 1.0 - weight),
        "kd": loss("kd", weight / num_classes, temperature=temperature),
    }
