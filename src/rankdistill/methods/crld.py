"""Cross-View Consistency Regularisation for Knowledge Distillation (Zhang et al., ACM MM 2024). arXiv:2412.16493.

With KD_b(t, s) = T^2 KL(softmax(t / T) || softmax(s / T)) of sample b, in its weak view w or strong view v, and masks
of the samples on which the teacher is confident, m_w = [max softmax(t_w) >= 0.9], m_v = [max softmax(t_v) >= 0.2]:

    within_b = m_w (KD_b(t_w, s_w) + KD_b(t_v, s_v))
    cross_b  = m_v (KD_b(t_w, s_v) + KD_b(t_v, s_w))
    CRLD     = mean_b (2 within_b + 0.5 cross_b)            mean over all samples: masked ones count as 0

Recipes add cross-entropy on each view, with weight 1. T = 4; on Tiny-ImageNet T = 2 and weights 4 and 1.

This is what the public code computes (`mask_source="official"`). With `mask_source="label_view"` each divergence is
masked by the confidence of the teacher's view that it follows, which reads more naturally; we could not check which of
the two the paper describes.

Differs from the code: nothing else. It was read in a public mirror of the authors' repository.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import check_choice, check_not_negative, check_positive, check_range, full_precision, paired_logits
from .kd import kd_loss

MaskSource = Literal["official", "label_view"]


class CRLDTerms(NamedTuple):
    """The divergences of each sample, [B], in nats and not weighted: `within` views and `cross`, across views.

    Example:
        >>> import torch
        >>> from rankdistill import crld_loss
        >>> terms = crld_loss(*torch.randn(4, 8, 100))  # student and teacher on the weak view, then on the strong one
        >>> loss = (terms.within + terms.cross).mean()
    """

    within: Tensor
    cross: Tensor


def crld_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    student_strong: Float[Tensor, "batch classes"],
    teacher_strong: Float[Tensor, "batch classes"],
    *,
    temperature: float = 4.0,
    weak_threshold: float = 0.9,
    strong_threshold: float = 0.2,
    mask_source: MaskSource = "official",
) -> CRLDTerms:
    """Return the masked divergences within and across views, per sample.

    Args:
        student: logits of the weak view, [B, K]. Half precision is computed in float32.
        teacher: the teacher's logits of the weak view, [B, K]; no gradient flows into them.
        student_strong: logits of the strong view, [B, K], of the same samples.
        teacher_strong: the teacher's logits of the strong view, [B, K]; no gradient flows into them.
        temperature: T, positive, of the divergences; confidences are at temperature 1.
        weak_threshold: the teacher's confidence in the weak view from which a sample counts, 0 to 1.
        strong_threshold: the same for the strong view.
        mask_source: "official": the weak view's mask on terms within views, the strong view's on terms across them.
            "label_view": on each divergence, the mask of the teacher's view in it.

    Zero, with a zero gradient, for masked samples.

    Raises:
        ValueError: shapes differ, or an option is out of range.

    Example:
        >>> import torch
        >>> from rankdistill import crld_loss
        >>> student, teacher, student_strong, teacher_strong = torch.randn(4, 4, 100)  # two views of each
        >>> within, cross = crld_loss(student, teacher, student_strong, teacher_strong)
    """
    _check(temperature, weak_threshold, strong_threshold, mask_source)
    weak = paired_logits(student, teacher)
    strong = paired_logits(student_strong, teacher_strong)

    def divergence(student: Tensor, teacher: Tensor) -> Tensor:
        return kd_loss(student, teacher, temperature=temperature)

    with full_precision(weak[0]):
        sure = F.softmax(weak[1], dim=1).amax(dim=1) >= weak_threshold
        sure_strong = F.softmax(strong[1], dim=1).amax(dim=1) >= strong_threshold
        masks = (sure, sure, sure_strong, sure_strong)
        if mask_source == "label_view":
            masks = (sure, sure_strong, sure, sure_strong)
        divergences = (
            divergence(weak[0], weak[1]),
            divergence(strong[0], strong[1]),
            divergence(strong[0], weak[1]),
            divergence(weak[0], strong[1]),
        )
        of_weak, of_strong, to_weak, to_strong = (value * mask for value, mask in zip(divergences, masks, strict=True))
        return CRLDTerms(of_weak + of_strong, to_weak + to_strong)


def _check(temperature: float, weak_threshold: float, strong_threshold: float, mask_source: MaskSource) -> None:
    check_positive("temperature", temperature)
    check_range("weak_threshold", weak_threshold, 0.0, 1.0)
    check_range("strong_threshold", strong_threshold, 0.0, 1.0)
    check_choice("mask_source", mask_source, get_args(MaskSource))


class CRLD(Method):
    """KD within and across two views of each sample, where the teacher is confident; mean over the batch, in nats.

    The method has no state.

    Args:
        temperature: the temperature T, positive; 4 on CIFAR-100, 2 on Tiny-ImageNet, 1 on ImageNet.
        within_weight: the weight of the terms within views; 2 on CIFAR-100, 4 on Tiny-ImageNet.
        cross_weight: the weight of the terms across views; 0.5 on CIFAR-100, 1 on Tiny-ImageNet.
        weak_threshold: the teacher's confidence in the weak view from which a sample counts.
        strong_threshold: the teacher's confidence in the strong view from which a sample counts.
        mask_source: which view's confidence masks a divergence: "official", the weak view's within views and the strong
            view's across them; "label_view", that of the teacher's view in it.

    Example:
        >>> import torch
        >>> from rankdistill import CRLD, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "crld": (1.0, CRLD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    views = 2

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        within_weight: float = 2.0,
        cross_weight: float = 0.5,
        weak_threshold: float = 0.9,
        strong_threshold: float = 0.2,
        mask_source: MaskSource = "official",
    ) -> None:
        super().__init__()
        _check(temperature, weak_threshold, strong_threshold, mask_source)
        check_not_negative("within_weight", within_weight)
        check_not_negative("cross_weight", cross_weight)
        self.temperature = temperature
        self.within_weight, self.cross_weight = within_weight, cross_weight
        self.weak_threshold, self.strong_threshold = weak_threshold, strong_threshold
        self.mask_source: MaskSource = mask_source

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"within", "cross"}, weighted."""
        if student.strong is None or teacher.strong is None:
            raise ValueError("CRLD needs Batch.strong, the second view, which is None: use a two-view augmentation")
        terms = crld_loss(
            student.logits,
            teacher.logits,
            student.strong.logits,
            teacher.strong.logits,
            temperature=self.temperature,
            weak_threshold=self.weak_threshold,
            strong_threshold=self.strong_threshold,
            mask_source=self.mask_source,
        )
        return {"within": self.within_weight * terms.within.mean(), "cross": self.cross_weight * terms.cross.mean()}
