"""From Knowledge Distillation to Self-Knowledge Distillation (Yang et al., ICCV 2023), normalised KD. arXiv:2303.13005.

With p = softmax(s), q = softmax(t), the label k, and s', t' the logits without class k:

    NKD(s, t) = -q_k log p_k - gamma T^2 sum_i softmax(t' / T)_i log softmax(s' / T)_i

The second term is a cross-entropy and not a divergence: at s = t it is the teacher's entropy, not zero. Recipes add
cross-entropy of weight 1; on CIFAR-100 with T = 1, gamma = 1.5 (CRLD's runs) or T = 3, gamma = 3.5 (ResNet-34 to 18).
Differs from the authors' code: nothing in value. The label's column is masked rather than taken out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import check_not_negative, check_positive, checked_labels, full_precision, paired_logits


def nkd_terms(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"] | Float[Tensor, "batch classes"],
    *,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Return the target and the non-target term, the latter without gamma, per sample, in nats.

    Args:
        student: logits, [B, K] with K at least 2. Half precision is computed in float32.
        teacher: logits, [B, K]; no gradient flows into them.
        labels: classes, [B], or distributions, [B, K], whose largest entry is taken for the class.
        temperature: T, positive, of the non-target term, which has the factor T^2; the target term has no temperature.

    With two classes one is left beside the label, and the non-target term is zero.

    Raises:
        ValueError: the shapes differ, there is one class, or the temperature is not positive.

    Example:
        >>> import torch
        >>> from rankdistill import nkd_terms
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> target, others = nkd_terms(student, teacher, torch.randint(100, (4,)))
    """
    check_positive("temperature", temperature)
    student, teacher = paired_logits(student, teacher)
    if student.shape[1] < 2:
        raise ValueError(f"there are {student.shape[1]} classes: NKD needs some beside the label, give it at least 2")
    with full_precision(student):
        column = (labels.argmax(1) if labels.ndim == 2 else labels).unsqueeze(1)
        is_label = torch.arange(student.shape[1], device=student.device) == column
        log_student, log_teacher = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
        target = -(log_teacher.gather(1, column).exp() * log_student.gather(1, column)).squeeze(1)

        others = _log_softmax_of_others(teacher / temperature, is_label).exp().masked_fill(is_label, 0.0)
        rest = -(others * _log_softmax_of_others(student / temperature, is_label)).sum(1)
        return target, temperature**2 * rest


def _log_softmax_of_others(logits: Tensor, is_label: Tensor) -> Tensor:
    """Return the log-probabilities of all classes but the label, [B, K]; the entry of the label has no meaning."""
    return logits - logits.masked_fill(is_label, -torch.inf).logsumexp(1, keepdim=True)


def nkd_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"] | Float[Tensor, "batch classes"],
    *,
    gamma: float = 1.5,
    temperature: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Return target + gamma non-target per sample, in nats; arguments and errors as in `nkd_terms`.

    Example:
        >>> import torch
        >>> from rankdistill import nkd_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> labels = torch.randint(100, (4,))
        >>> nkd_loss(student, teacher, labels).shape
        torch.Size([4])
    """
    target, rest = nkd_terms(student, teacher, labels, temperature=temperature)
    return target + gamma * rest


class NKD(Method):
    """KD in two parts, the label's class and the normalised others; mean over the batch, in nats.

    The method has no state. The labels are classes or distributions.

    Args:
        gamma: the weight of the non-target term.
        temperature: the temperature T of the non-target term, positive.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, NKD, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "nkd": (1.0, NKD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, *, gamma: float = 1.5, temperature: float = 1.0) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_not_negative("gamma", gamma)
        self.gamma = gamma
        self.temperature = temperature

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"target": mean, "nontarget": mean}, weighted.

        Raises:
            ValueError: labels are missing.
        """
        labels = checked_labels(batch.labels, student.logits.shape[1], "NKD")
        target, rest = nkd_terms(student.logits, teacher.logits, labels, temperature=self.temperature)
        return {"target": target.mean(), "nontarget": self.gamma * rest.mean()}
