"""PLD: A Choice-Theoretic List-Wise Knowledge Distillation (Bassam, Zhu and Bian, NeurIPS 2025). arXiv:2506.12542.

With the classes in the order pi that has the label first and then the others as the teacher ranks them, and with
q = softmax(t):

    PLD(s, t) = sum_k q_{pi_k} (log sum_{l >= k} exp s_{pi_l} - s_{pi_k})

Each place of the order is a choice among the classes that are left. The first is cross-entropy with the label, with the
weight that the teacher gives it. So the recipe has PLD alone, and no loss on labels beside it.

Differs from the authors' code: it was not at hand, and this follows the formula. The temperature of q is an option
here.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from ..contract import Batch, Losses, Method, Output
from ..numerics import check_positive, checked_classes, full_precision, paired_logits
from .label_first import label_first_order


def pld_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    *,
    temperature: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Return the weighted negative log-likelihood of the teacher's order, the label first, per sample, in nats.

    Args:
        student: logits, [B, K]. Half precision is computed in float32.
        teacher: logits, [B, K]; no gradient flows into them. Equal ones are in the order of the classes.
        labels: classes, [B].
        temperature: T > 0 of the weights, q = softmax(t / T).

    At least 0. It is convex in the student's logits, and a constant added to them changes nothing.

    Raises:
        ValueError: the shapes differ, or the temperature is not positive.

    Example:
        >>> import torch
        >>> from rankdistill import pld_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> pld_loss(student, teacher, torch.randint(100, (4,))).shape
        torch.Size([4])
    """
    check_positive("temperature", temperature)
    student, teacher = paired_logits(student, teacher)
    with full_precision(student):
        order = label_first_order(teacher, labels)
        chosen = student.gather(1, order)
        left = chosen.flip(1).logcumsumexp(1).flip(1)
        weights = (teacher / temperature).softmax(1).gather(1, order)
        return (weights * (left - chosen)).sum(1)


class PLD(Method):
    """The student ranks the label first and the other classes as its teacher does, in place of cross-entropy.

    No state; labels are classes.

    Args:
        temperature: of the teacher's probabilities, which weight the places.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, PLD, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> method, student, teacher = assemble(
        ...     {"pld": (1.0, PLD)}, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000
        ... )
    """

    reads_logits_once = True

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"pld": mean loss}.

        Raises:
            ValueError: labels are missing or mixed.
        """
        labels = checked_classes(batch.labels, student.logits.shape[1], "PLD")
        return {"pld": pld_loss(student.logits, teacher.logits, labels, temperature=self.temperature).mean()}
