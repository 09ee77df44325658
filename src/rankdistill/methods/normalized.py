"""Cross-entropy and distillation on logits that are normalised to one scale, as NORM trains with them.

    z' = 2.5 (z - mean z) / sqrt(var z + 1e-7), over the classes of each sample

NORM: Better Knowledge Distillation with N-to-One Representation Matching (Liu, Li, Li and Yao, ICLR 2023),
arXiv:2305.13803, adds its feature loss (`norm.py`). The order of the classes, and so the accuracy, does not change.

Differs from the authors' code: nothing.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import at_least_float32, check_positive, checked_labels, full_precision
from .kd import kd_loss


def normalized_logits(logits: Float[Tensor, "batch classes"], *, scale: float = 2.5) -> Float[Tensor, "batch classes"]:
    """Return logits with mean 0 and standard deviation `scale` (over K, not K - 1, classes) in each row.

    Args:
        logits: [B, K]. Half precision is computed in float32.
        scale: positive; NORM's is 2.5.

    A constant row gives zeros. Multiplying a row by a positive number, or adding one, changes nothing, but for the 1e-7
    that is added to the variance.

    Raises:
        ValueError: the scale is not positive and finite.

    Example:
        >>> import torch
        >>> from rankdistill import normalized_logits
        >>> normalized_logits(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[-3.0619,  0.0000,  3.0619]])
    """
    check_positive("scale", scale)
    with full_precision(logits):
        return scale * F.layer_norm(at_least_float32(logits), logits.shape[1:], eps=1e-7)


class NormalizedCE(Method):
    """Cross-entropy with the labels of logits that are normalised to one scale, as NORM trains; in nats.

    The method has no state.

    Labels are classes [B] int64 or distributions [B, K].

    Args:
        scale: the standard deviation of the normalised logits.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, CrossEntropy, NormalizedCE, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "normalized_ce": (0.1, NormalizedCE)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    reads_teacher = False

    def __init__(self, *, scale: float = 2.5) -> None:
        super().__init__()
        check_positive("scale", scale)
        self.scale = scale

    def losses(self, batch: Batch, student: Output, teacher: Output | None = None) -> Losses:
        """Return {"task": mean loss}."""
        del teacher
        labels = checked_labels(batch.labels, student.logits.shape[1], "cross-entropy")
        logits = normalized_logits(student.logits, scale=self.scale)
        with full_precision(logits):
            return {"task": F.cross_entropy(logits, labels)}


class NormalizedKD(Method):
    """KD between logits that are normalised to one scale, as NORM trains; mean over the batch, in nats.

    The method has no state.

    Args:
        temperature: the temperature T, positive, which divides the normalised logits.
        scale: the standard deviation of the normalised logits.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, CrossEntropy, NormalizedKD, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "normalized_kd": (0.9, NormalizedKD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, *, temperature: float = 4.0, scale: float = 2.5) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_positive("scale", scale)
        self.temperature = temperature
        self.scale = scale

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"kd": mean loss}."""
        student_logits = normalized_logits(student.logits, scale=self.scale)
        teacher_logits = normalized_logits(teacher.logits, scale=self.scale)
        return {"kd": kd_loss(student_logits, teacher_logits, temperature=self.temperature).mean()}
