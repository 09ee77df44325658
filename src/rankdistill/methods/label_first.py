"""A teacher whose largest logit is the label's (Limantoro, 2025). arXiv:2508.16544.

The label's class takes the largest of the teacher's logits of a sample. The other classes keep their order, and take
the other values, the largest first. Where the teacher is right, nothing changes; where it is wrong, the classes above
the label go down by one place each. Any loss on logits can be given this teacher.

Differs from the authors' code: it was not at hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..contract import Batch, Losses, Method, Output, Runs
from ..numerics import checked_classes


def label_first_order(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the classes of each row, [B, K] int64: the label, then the others from the largest logit on."""
    lifted = logits.detach().scatter(1, labels.long().unsqueeze(1), torch.inf)
    return lifted.sort(dim=1, descending=True, stable=True).indices


def label_first(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, "batch classes"]:
    """Return logits of which the label's is the largest; the other classes keep their order. No gradient passes.

    Args:
        logits: [B, K].
        labels: classes, [B].

    Example:
        >>> import torch
        >>> from rankdistill import label_first
        >>> label_first(torch.tensor([[1.0, 5.0, 3.0, 4.0]]), torch.tensor([2]))
        tensor([[1., 4., 5., 3.]])
    """
    logits = logits.detach()
    ordered = logits.sort(dim=1, descending=True).values
    return torch.empty_like(logits).scatter_(1, label_first_order(logits, labels), ordered)


class LabelFirst(Method):
    """A method whose teacher puts the label first. No state beside the method's; labels are classes.

    Args:
        method: one that reads logits of both networks and no features, such as KD, DIST or RA. For two views:
            `EachView(LabelFirst(method))`.

    Raises:
        ValueError: it is another method.

    Example:
        >>> from rankdistill import DIST, CrossEntropy, LabelFirst, Sum
        >>> method = Sum(task=(1.0, CrossEntropy()), dist=(2.0, LabelFirst(DIST(temperature=4.0))))
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        on_features = method.student_needs or method.teacher_needs or type(method).forward is not Method.forward
        if on_features or not method.reads_teacher:
            raise ValueError(
                f"{type(method).__name__} cannot have a teacher with the label first: only losses on logits can, such "
                "as KD, DIST and RA; leave it as it is"
            )
        self.method = method
        self.views = method.views
        self.observes = method.observes

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return the method's losses, under its names.

        Raises:
            ValueError: labels are missing or mixed.
        """
        return self.method.losses(batch, student, self._with_label_first(batch, teacher))

    def prepare(self, teacher: Runs | None, batches: Callable[[], Iterable[Batch]]) -> list[str]:
        """As the method does; the values of the teacher's logits are the same in any order."""
        return self.method.prepare(teacher, batches)

    def observe(self, batch: Batch, student: Output, teacher: Output) -> dict[str, float]:
        """As the method does."""
        return self.method.observe(batch, student, self._with_label_first(batch, teacher))

    def _with_label_first(self, batch: Batch, teacher: Output) -> Output:
        labels = checked_classes(batch.labels, teacher.logits.shape[1], "a teacher with the label first")
        strong = teacher.strong and dataclasses.replace(
            teacher.strong, logits=label_first(teacher.strong.logits, labels)
        )
        return dataclasses.replace(teacher, logits=label_first(teacher.logits, labels), strong=strong)
