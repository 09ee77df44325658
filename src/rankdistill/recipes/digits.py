"""scikit-learn's handwritten digits, 8x8 pixels at their own size: real images that need no download.

The students see few labels, so that a teacher's help shows. Their settings were chosen on held-out training images by
`benchmarks/select_digits.py`; its output is `benchmarks/results/select_digits.csv`.
"""

from __future__ import annotations

import dataclasses

from ..runs.config import Data, Optim, Run
from ..runs.options import loss

_DATA = Data(name="digits", image_size=8, padding=1, flip=False)
_FEW_LABELS = dataclasses.replace(_DATA, num_labels=300)
_OPTIM = Optim(epochs=60, lr=0.1, schedule="cosine", milestones=())


def teacher(model: str = "resnet8x4") -> Run:
    """Return the training of a teacher on all labels."""
    optim = dataclasses.replace(_OPTIM, epochs=15, lr=0.05)
    return Run("digits.teacher", model, None, {"task": loss("ce")}, _DATA, optim, threads=1)


def plain(student: str = "resnet8") -> Run:
    """Return the training of a student on 300 labels, without a teacher."""
    return Run("digits.plain", student, None, {"task": loss("ce")}, _FEW_LABELS, _OPTIM, threads=1)


def kd(teacher: str = "resnet8x4", student: str = "resnet8") -> Run:
    """Return vanilla knowledge distillation on 300 labels."""
    losses = {"task": loss("ce", 0.1), "kd": loss("kd", 0.9, temperature=2.0)}
    return Run("digits.kd", student, teacher, losses, _FEW_LABELS, _OPTIM, threads=1)


def ra(teacher: str = "resnet8x4", student: str = "resnet8") -> Run:
    """Return ranking alignment on 300 labels.

    On the held-out images no epsilon was better than the linear regime (centred mean squared error); of the two best
    settings, which were equal, this is the one that ranks.
    """
    losses = {"task": loss("ce"), "ra": loss("ra", 0.3, epsilon=3.0, units="logit")}
    optim = dataclasses.replace(_OPTIM, lr=0.05)
    return Run("digits.ra", student, teacher, losses, _FEW_LABELS, optim, threads=1)
