"""Fashion-MNIST (Xiao et al., 2017) padded to 32x32. The values are ours, sensible but not tuned; no paper has them."""

from __future__ import annotations

from ..runs.config import Data, Optim, Run
from ..runs.options import loss

_DATA = Data(name="fashion_mnist", padding=4, flip=True)
_OPTIM = Optim(epochs=30, lr=0.05, schedule="cosine", milestones=())


def teacher(model: str = "resnet56") -> Run:
    """Return the training of a teacher."""
    return Run("fashion_mnist.teacher", model, None, {"task": loss("ce")}, _DATA, _OPTIM)


def plain(student: str = "resnet20") -> Run:
    """Return the training of a student without a teacher."""
    return Run("fashion_mnist.plain", student, None, {"task": loss("ce")}, _DATA, _OPTIM)


def kd(teacher: str = "resnet56", student: str = "resnet20") -> Run:
    """Return vanilla knowledge distillation, with the weights of CIFAR benchmarks (0.1 and 0.9, T = 4)."""
    losses = {"task": loss("ce", 0.1), "kd": loss("kd", 0.9, temperature=4.0)}
    return Run("fashion_mnist.kd", student, teacher, losses, _DATA, _OPTIM)


def ra(teacher: str = "resnet56", student: str = "resnet20") -> Run:
    """Return ranking alignment with the paper's weight for CIFAR-100 (5) and epsilon (1)."""
    losses = {"task": loss("ce"), "ra": loss("ra", 5.0, epsilon=1.0)}
    return Run("fashion_mnist.ra", student, teacher, losses, _DATA, _OPTIM)
