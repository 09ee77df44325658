"""Cross-entropy of the student's softmax with the labels, in nats, mean over the batch.

The labels are classes [B] int64 or distributions [B, K].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..contract import Batch, Losses, Method, Output
from ..numerics import at_least_float32, check_not_negative, checked_labels, full_precision


class CrossEntropy(Method):
    """The student learns the labels: cross-entropy in nats, mean over the batch.

    Labels are classes [B] int64 or distributions [B, K]. The method has no state. The loss is computed in at least
    float32.

    Args:
        label_smoothing: the share of the label that is spread evenly over all classes, from 0 to less than 1.
        class_weights: one for each class, for classes of unequal size; the mean over the batch is then a weighted one.
            None weighs all classes alike.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy(label_smoothing=0.1))}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    reads_teacher = False

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: tuple[float, ...] | None = None) -> None:
        super().__init__()
        for weight in class_weights or ():
            check_not_negative("a weight of class_weights", weight)
        self.weighted = class_weights is not None
        self.register_buffer("class_weights", torch.tensor(class_weights or ()), persistent=False)
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing is {label_smoothing}: it must be at least 0 and less than 1")
        self.label_smoothing = label_smoothing

    def losses(self, batch: Batch, student: Output, teacher: Output | None = None) -> Losses:
        """Return {"task": cross-entropy}."""
        del teacher
        labels = checked_labels(batch.labels, student.logits.shape[1], "cross-entropy")
        weights = self.get_buffer("class_weights") if self.weighted else None  # [K]
        if weights is not None and len(weights) != student.logits.shape[1]:
            raise ValueError(
                f"there are {len(weights)} class_weights for {student.logits.shape[1]} classes: give one each"
            )
        with full_precision(student.logits):
            logits = at_least_float32(student.logits)
            weights = weights.to(logits) if weights is not None else None
            return {"task": F.cross_entropy(logits, labels, weights, label_smoothing=self.label_smoothing)}
