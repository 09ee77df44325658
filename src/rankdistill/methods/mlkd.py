"""Multi-Level Logit Distillation (Jin, Wang and Lin, CVPR 2023).

With P_T = softmax(z / T), [B, K], and five temperatures T in (T_0, 3, 5, 2, 6), levels are added over temperatures:

    kd: T^2 KL(P_T(t) || P_T(s)), mean over the batch     cc: (1 / K) |P_T(t)' P_T(t) - P_T(s)' P_T(s)|^2
                                                           bc: (1 / B) |P_T(t) P_T(t)' - P_T(s) P_T(s)'|^2

All published numbers come from the authors' code (`variant="official"`), which differs from this formula:

    kd = m sum_{all T} kd_T(weak) + sum_{T in T_0, 3, 5} kd_T(strong) + sum_{T in 2, 6} kd_T(weak)
    cc = n sum_{all T} cc_T(weak),  bc = m sum_{all T} bc_T(weak)

where m is the fraction of samples whose confidence is at most the median, n that of the classes by their summed
probability, both from the teacher's weak view at T = 1: masks that the code multiplies with losses that are already
means. `variant="fixed"` is the formula on both views, without masks. Recipes weight the method by 0.9 and add
cross-entropy on each view, weighted by 0.1, with T_0 = 4; on ImageNet 0.5, 0.5 and 1.

`standardized` is the variant of Logit Standardization in Knowledge Distillation (Sun et al., CVPR 2024): logits enter
the kd level, and no other, standardised by row; its recipes have T_0 = 2.

Differs from the authors' code: the fractions are written as fractions; what is computed there and dropped is not
computed.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import check_choice, check_positive, full_precision, paired_logits
from .kd import kd_loss

Variant = Literal["official", "fixed"]

_LATER = (3.0, 5.0, 2.0, 6.0)


class MLKDTerms(NamedTuple):
    """The three levels as scalars, each summed over temperatures: of samples (kd), of classes (cc), of the batch (bc).

    Example:
        >>> import torch
        >>> from rankdistill import mlkd_loss
        >>> terms = mlkd_loss(*torch.randn(4, 8, 100))  # student and teacher on the weak view, then on the strong one
        >>> loss = terms.kd + terms.cc + terms.bc
    """

    kd: Tensor
    cc: Tensor
    bc: Tensor


def class_relation_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, " classes"]:
    """Return, by class, the squared distance of its row of P'P from the teacher's; the mean is the paper's cc.

    Args:
        student: logits, [B, K]. Half precision is computed in float32.
        teacher: logits, [B, K]; no gradient flows into them.
        temperature: T, positive. There is no factor T^2, and no division by the batch.

    Zero where rows differ by constants; unchanged if samples are permuted, the same in both.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.

    Example:
        >>> import torch
        >>> from rankdistill import class_relation_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> class_relation_loss(student, teacher).shape
        torch.Size([100])
    """
    own, target = _probabilities(student, teacher, temperature)
    with full_precision(own):
        return (target.T @ target - own.T @ own).square().sum(dim=1)


def batch_relation_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Return, by sample, the squared distance of its row of PP' from the teacher's; the mean is the paper's bc.

    Arguments, edges and errors are those of `class_relation_loss`; permuting the classes changes nothing.

    Example:
        >>> import torch
        >>> from rankdistill import batch_relation_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> batch_relation_loss(student, teacher).shape
        torch.Size([4])
    """
    own, target = _probabilities(student, teacher, temperature)
    with full_precision(own):
        return (target @ target.T - own @ own.T).square().sum(dim=1)


def mlkd_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    student_strong: Float[Tensor, "batch classes"],
    teacher_strong: Float[Tensor, "batch classes"],
    *,
    temperature: float = 4.0,
    variant: Variant = "official",
    standardized: bool = False,
) -> MLKDTerms:
    """Return the three levels, not weighted; their sum is the loss, in nats for kd.

    Args:
        student: logits of the weak view, [B, K]. Half precision is computed in float32.
        teacher: the teacher's logits of the weak view, [B, K]; no gradient flows into them.
        student_strong: logits of the strong view, [B, K], of the same samples.
        teacher_strong: the teacher's logits of the strong view, [B, K]; no gradient flows into them.
        temperature: T_0, the first of the five; the others are 3, 5, 2 and 6.
        variant: "official" or "fixed", see above.
        standardized: standardise the logits of the kd level by row, over its unbiased standard deviation plus 1e-7. A
            constant row then has a gradient of the order of 1e7, as in its authors' code.

    Zero where student and teacher differ by a constant in each row. A batch of one has mask fractions of 1.

    Raises:
        ValueError: shapes differ, the temperature is not positive, or the variant is unknown.

    Example:
        >>> import torch
        >>> from rankdistill import mlkd_loss
        >>> student, teacher, student_strong, teacher_strong = torch.randn(4, 4, 100)  # two views of each
        >>> kd, cc, bc = mlkd_loss(student, teacher, student_strong, teacher_strong)
    """
    _check(temperature, variant)
    weak = paired_logits(student, teacher)
    strong = paired_logits(student_strong, teacher_strong)
    with full_precision(weak[0]):
        temperatures = (temperature, *_LATER)
        kd_weak = _instance_levels(weak, temperatures, standardized)
        kd_strong = _instance_levels(strong, temperatures, standardized)
        cc = torch.stack([class_relation_loss(*weak, temperature=each).mean() for each in temperatures]).sum()
        bc = torch.stack([batch_relation_loss(*weak, temperature=each).mean() for each in temperatures]).sum()
        if variant == "official":
            samples, classes = mask_fractions(teacher)
            kd = samples * kd_weak.sum() + kd_strong[:3].sum() + kd_weak[3:].sum()
            return MLKDTerms(kd, classes * cc, samples * bc)
        cc_strong = torch.stack([class_relation_loss(*strong, temperature=each).mean() for each in temperatures])
        bc_strong = torch.stack([batch_relation_loss(*strong, temperature=each).mean() for each in temperatures])
        return MLKDTerms(kd_weak.sum() + kd_strong.sum(), cc + cc_strong.sum(), bc + bc_strong.sum())


def mask_fractions(teacher: Float[Tensor, "batch classes"]) -> tuple[Tensor, Tensor]:
    """Return what fraction of samples, and of classes, is at most as confident as the median one; scalars.

    One half for an even number of distinct values; ties and odd numbers raise it, and for one it is 1.

    Example:
        >>> import torch
        >>> from rankdistill import mask_fractions
        >>> by_sample, by_class = mask_fractions(torch.randn(4, 100))
    """
    _, logits = paired_logits(teacher, teacher)
    with full_precision(logits):
        probabilities = F.softmax(logits, dim=1)
        confidences = probabilities.amax(dim=1), probabilities.sum(dim=0)
        samples, classes = ((each <= each.quantile(0.5)).to(logits.dtype).mean() for each in confidences)
    return samples, classes


def _check(temperature: float, variant: Variant) -> None:
    check_positive("temperature", temperature)
    check_choice("variant", variant, get_args(Variant))


class MLKD(Method):
    """KD at several temperatures, on samples, on batches and on classes, for two views of each image.

    The method has no state.

    Args:
        temperature: the first of five temperatures; the others are 3, 5, 2 and 6. 4 on CIFAR-100, 1 on ImageNet.
        variant: "official", what the authors' code computes, or "fixed", the paper's three levels on both views.
        standardized: standardise the logits of the kd level, as logit standardisation does; its recipes have
            temperature 2.

    Example:
        >>> import torch
        >>> from rankdistill import MLKD, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "mlkd": (0.9, MLKD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    views = 2

    def __init__(self, *, temperature: float = 4.0, variant: Variant = "official", standardized: bool = False) -> None:
        super().__init__()
        _check(temperature, variant)
        self.temperature, self.variant, self.standardized = temperature, variant, standardized

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"kd", "cc", "bc"}: the levels of samples, classes and the batch."""
        if student.strong is None or teacher.strong is None:
            raise ValueError("MLKD needs Batch.strong, the second view, which is None: use a two-view augmentation")
        terms = mlkd_loss(
            student.logits,
            teacher.logits,
            student.strong.logits,
            teacher.strong.logits,
            temperature=self.temperature,
            variant=self.variant,
            standardized=self.standardized,
        )
        return terms._asdict()


def _instance_levels(pair: tuple[Tensor, Tensor], temperatures: tuple[float, ...], standardized: bool) -> Tensor:
    """Return the mean tempered divergence at each temperature, [T]."""
    student, teacher = (_standardised(logits) if standardized else logits for logits in pair)
    return torch.stack([kd_loss(student, teacher, temperature=each).mean() for each in temperatures])


def _standardised(logits: Tensor) -> Tensor:
    centred = logits - logits.mean(dim=1, keepdim=True)
    return centred / (1e-7 + logits.std(dim=1, keepdim=True))


def _probabilities(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    check_positive("temperature", temperature)
    student, teacher = paired_logits(student, teacher)
    with full_precision(student):
        return F.softmax(student / temperature, dim=1), F.softmax(teacher / temperature, dim=1)
