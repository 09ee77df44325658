"""Mean squared error of centred logits: what ranking alignment is where it does not rank, without its operator.

    L(s, t) = (1 / C) sum_i ((s_i - mean s) - (t_i - mean t))^2

It is RA with the L2 distance at epsilon 1 wherever the soft ranks are linear (at 100 classes, nearly everywhere), and
twice the limit of the KD loss for a large temperature. A baseline of this project, after no paper: recipes give it RA's
weight, 5 on CIFAR-100 and 10 on Tiny-ImageNet.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import full_precision, paired_logits


def centred_mse_loss(
    student: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"]
) -> Float[Tensor, " batch"]:
    """Return the mean over classes of the squared difference of centred logits, per sample, in squared logits.

    Args:
        student: logits, [B, C]. Half precision is computed in float32.
        teacher: logits, [B, C]; no gradient flows into them.

    Zero where the two rows differ by a constant, so with one class always.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> from rankdistill import centred_mse_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> centred_mse_loss(student, teacher).shape
        torch.Size([4])
    """
    student, teacher = paired_logits(student, teacher)
    with full_precision(student):
        return (student - teacher).var(1, correction=0)


class CentredMSE(Method):
    """The student's logits approach the teacher's, each less its mean: squared error, mean over the batch.

    The method has no state.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, CentredMSE, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "centred_mse": (1.0, CentredMSE)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"centred_mse": mean loss}."""
        return {"centred_mse": centred_mse_loss(student.logits, teacher.logits).mean()}
