"""Tiny-ImageNet with the ranking alignment paper's optimizer: batch 128, 240 epochs, rate 0.05 dropped at 150/180/210.

The paper does not state its augmentation for this set: ours is a crop with padding 8 and a flip (one view).
"""

from __future__ import annotations

from ..run import Data, Optim, Run, loss

_DATA = Data(name="tiny_imagenet", padding=8, flip=True)
_OPTIM = Optim(epochs=240, batch_size=128, lr=0.05, milestones=(150, 180, 210))


def teacher(model: str = "resnet56") -> Run:
    """Return the training of a teacher."""
    return Run("tiny_imagenet.teacher", model, None, {"task": loss("ce")}, _DATA, _OPTIM)


def plain(student: str = "resnet20") -> Run:
    """Return the training of a student without a teacher."""
    return Run("tiny_imagenet.plain", student, None, {"task": loss("ce")}, _DATA, _OPTIM)


def kd(teacher: str = "resnet56", student: str = "resnet20") -> Run:
    """Return vanilla knowledge distillation, with mdistiller's weights (0.1 and 0.9, T = 4)."""
    losses = {"task": loss("ce", 0.1), "kd": loss("kd", 0.9, temperature=4.0)}
    return Run("tiny_imagenet.kd", student, teacher, losses, _DATA, _OPTIM)


def ra(teacher: str = "resnet56", student: str = "resnet20") -> Run:
    """Return ranking alignment with the paper's weight (10) and epsilon (1)."""
    losses = {"task": loss("ce"), "ra": loss("ra", 10.0, epsilon=1.0)}
    return Run("tiny_imagenet.ra", student, teacher, losses, _DATA, _OPTIM)
