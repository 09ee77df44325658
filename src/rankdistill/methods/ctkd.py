"""Curriculum Temperature for Knowledge Distillation (Li et al., AAAI 2023). arXiv:2211.16231.

    T = lowest + span sigmoid(p),    CTKD(s, t) = T^2 KL(softmax(t / T) || softmax(s / T))

The student goes down the gradient of the loss and p up: its gradient, taken through both softmaxes and T^2, is
multiplied by lambda(e) = -(1 - cos(pi min(e, E) / E)) / 2 in epoch e, which goes from near 0 to -1. p is one number
that begins at 1 (T = 15.6) and is trained with the student's optimizer, weight decay included. Recipes add
cross-entropy; on CIFAR-100 with weights 0.1 (labels) and 0.9 (CTKD) and E = 10.

Differs from the authors' code: nothing for the global temperature. The instance-wise one is a reconstruction, since
its code is not public: p is a network of two layers on the logits of student and teacher, which it reads without a
gradient, and begins near 1.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output, Pair
from ..numerics import at_least_float32, check_positive, check_range, full_precision, paired_logits


def ctkd_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    temperature: Float[Tensor, " #batch"],
) -> Float[Tensor, " batch"]:
    """Return `kd_loss` at a temperature that is itself differentiable, per sample, in nats.

    Args:
        student: logits, [B, K]. Half precision is computed in float32.
        teacher: logits, [B, K]; no gradient flows into them.
        temperature: positive, [1] or one for each sample, [B]. Its gradient is through both softmaxes and T^2.

    Raises:
        ValueError: the logits' shapes differ.

    Example:
        >>> import torch
        >>> from rankdistill import ctkd_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> ctkd_loss(student, teacher, torch.tensor([4.0])).shape
        torch.Size([4])
    """
    student, teacher = paired_logits(student, teacher)
    with full_precision(student):
        temperature = temperature.to(student.dtype)
        log_student = F.log_softmax(student / temperature.unsqueeze(1), dim=1)
        log_teacher = F.log_softmax(teacher / temperature.unsqueeze(1), dim=1)
        prob_student, prob_teacher = log_student.exp(), log_teacher.exp()
        # The sum of student - teacher is 0, but not so rounded: it takes out the rounding of the logarithms, which T^2
        # makes visible where T is large.
        terms = prob_teacher * (log_teacher - log_student) + (prob_student - prob_teacher)
        return temperature.square() * terms.sum(dim=1)


def reversal_strength(epoch: int, num_epochs: int) -> float:
    """Return lambda, by which a gradient is multiplied in an epoch: 0 at epoch 0, then along a cosine to -1.

    Args:
        epoch: counted from 1.
        num_epochs: E, the first epoch at which it is -1.
    """
    return -0.5 * (1.0 - math.cos(math.pi * min(epoch / num_epochs, 1.0)))


class _ScaledGradient(torch.autograd.Function):
    """The input; its gradient is multiplied by a number."""

    @staticmethod
    def forward(value: Tensor, scale: float) -> Tensor:
        del scale
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        del output
        ctx.scale = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.scale * grad, None


class CTKD(Method):
    """KD at a temperature that learns to make the task harder, mean over the batch, in nats.

    Its state is the parameters that the temperature is computed from: a number, or the layers of a network.

    Args:
        num_classes: K; needed by, and only by, the instance-wise temperature.
        instance_wise: learn a temperature for each sample, rather than one for all.
        lowest: the temperature stays above this; positive.
        span: the temperature rises above `lowest` by less than this; positive.
        reversal_epochs: the number of epochs over which the reversed gradient grows (E of lambda); 10 on CIFAR-100, 5
            on ImageNet.

    Raises:
        ValueError: an argument is out of range, or num_classes is missing.

    Example:
        >>> import torch
        >>> from rankdistill import CTKD, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "ctkd": (0.9, CTKD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    observes = True

    reads_logits_once = True

    def __init__(
        self,
        num_classes: int | None = None,
        *,
        instance_wise: bool = False,
        lowest: float = 1.0,
        span: float = 20.0,
        reversal_epochs: int = 10,
    ) -> None:
        super().__init__()
        check_positive("lowest", lowest)
        check_positive("span", span)
        check_range("reversal_epochs", reversal_epochs, 1)
        if instance_wise and num_classes is None:
            raise ValueError("the instance-wise temperature reads logits, but num_classes is None: give their number")
        self.lowest = lowest
        self.span = span
        self.reversal_epochs = reversal_epochs
        self.raw: nn.Parameter | nn.Sequential
        if instance_wise and num_classes is not None:
            self.raw = _judge(num_classes)
        else:
            self.raw = nn.Parameter(torch.ones(1))

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> CTKD:
        """Return the method for logits of this pair."""
        return cls(pair.num_classes, **options)

    def temperature(self, student: Tensor, teacher: Tensor, epoch: int) -> Tensor:
        """Return the temperature, [1] or [B], for logits [B, K]; its gradient is reversed as in this epoch."""
        with full_precision(student):
            if isinstance(self.raw, nn.Parameter):
                raw: Tensor = self.raw
            else:
                logits = torch.cat([student.detach(), teacher.detach()], dim=1)
                raw = self.raw(logits.to(next(self.raw.parameters()).dtype)).squeeze(1)
            raw = _ScaledGradient.apply(raw, reversal_strength(epoch, self.reversal_epochs))
            return self.lowest + self.span * at_least_float32(raw).sigmoid()

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"ctkd": mean loss}."""
        temperature = self.temperature(student.logits, teacher.logits, batch.epoch)
        return {"ctkd": ctkd_loss(student.logits, teacher.logits, temperature).mean()}

    @torch.no_grad()
    def observe(self, batch: Batch, student: Output, teacher: Output) -> dict[str, float]:
        """Return the temperature, or the mean of those of the batch."""
        return {"temperature": self.temperature(student.logits, teacher.logits, batch.epoch).mean().item()}


def _judge(num_classes: int, width: int = 128) -> nn.Sequential:
    """Return a network from both logits, [B, 2 K], to a number near 1 for each sample, [B, 1]."""
    last = nn.Linear(width, 1)
    nn.init.normal_(last.weight, std=1e-3)
    nn.init.ones_(last.bias)
    return nn.Sequential(nn.Linear(2 * num_classes, width), nn.ReLU(), last)
