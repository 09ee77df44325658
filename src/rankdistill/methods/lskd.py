"""Logit Standardization in Knowledge Distillation (Sun, Ren, Li, Wang and Cao, CVPR 2024). arXiv:2403.01427.

    Z(x) = (x - mean x) / (std x + 1e-7),    of the row of a sample

is applied to both logits before the temperature of another loss: KD of Z(s) and Z(t) at T = 2 is what tables call LSKD.
Recipes give KD weight 9 beside 0.1 of cross-entropy; DKD keeps its weights times 9 or more.

Differs from the authors' code: a row whose entries are all equal passes no gradient, where theirs is multiplied by 1e7.
As in theirs, and not as in the paper, the standard deviation is the unbiased one.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import at_least_float32, full_precision

_EPSILON = 1e-7  # the authors'; added to the standard deviation


def standardize_logits(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch classes"]:
    """Return each row less its mean, over its standard deviation (of C - 1 degrees of freedom) plus 1e-7.

    Args:
        logits: [B, C] with C at least 2. Half precision is computed in, and returned as, float32.

    A row of equal entries becomes zeros and passes no gradient. A gradient through any other row is divided by its
    standard deviation, and so is large where that is small.

    Raises:
        ValueError: there is one class, whose deviation is not defined.

    Example:
        >>> import torch
        >>> from rankdistill import standardize_logits
        >>> standardize_logits(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[-1.0000,  0.0000,  1.0000]])
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"the logits have shape {tuple(logits.shape)}: to standardise them, [batch, classes] with at least 2 "
            "classes are needed"
        )
    with full_precision(logits):
        logits = at_least_float32(logits)
        is_constant = (logits == logits[:, :1]).all(1, keepdim=True)
        deviation, mean = torch.std_mean(logits, 1, keepdim=True)
        return ((logits - mean) / (deviation + _EPSILON)).masked_fill(is_constant, 0.0)


class Standardized(Method):
    """A method on standardised logits of student and teacher. It has no state beside that of the method.

    Args:
        method: one whose `reads_logits_once` is true: KD, DKD or CTKD. For two views:
            `EachView(Standardized(method))`.

    Raises:
        ValueError: it is another method, which does not read logits just once.

    Example:
        >>> from rankdistill import KD, CrossEntropy, Standardized, Sum
        >>> method = Sum(task=(0.1, CrossEntropy()), kd=(9.0, Standardized(KD(temperature=2.0))))
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        if not method.reads_logits_once:
            raise ValueError(
                f"{type(method).__name__} cannot be standardised: only methods that read logits once can, such as KD, "
                "DKD and CTKD; leave it as it is"
            )
        self.method = method
        self.observes = method.observes

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return the method's losses, under its names."""
        return self.method.losses(batch, _standardized(student), _standardized(teacher))

    def observe(self, batch: Batch, student: Output, teacher: Output) -> dict[str, float]:
        """Return what the inner method observes on standardised logits."""
        return self.method.observe(batch, _standardized(student), _standardized(teacher))


def _standardized(output: Output) -> Output:
    return dataclasses.replace(output, logits=standardize_logits(output.logits))
