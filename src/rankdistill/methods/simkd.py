"""Knowledge Distillation with the Reused Teacher Classifier (Chen, Mei, Zhang, Wang, Feng and Chen, CVPR 2022).

arXiv:2203.14001. The student has no classifier of its own: a projector p takes its last stage's map s to the teacher's
map t, whose average feeds the teacher's classifier, and the student uses that one.

    SimKD = mean over elements of (p(s) - t)^2,   logits = W_t mean(p(s)) + b_t

There is no other loss, not even cross-entropy, in the recipe. The deployed student is the one that is trained: the
student up to its last stage, the projector, and the teacher's classifier, which does not learn.

Differs from the authors' code:
- The student's own classifier, and what else follows its last stage, is gone before training; there it stays, unused,
  and weight decay shrinks it.
- The size of the teacher's map is stored; their evaluation runs the teacher to find it out.
- A WRN teacher's map is taken after its last batch norm and ReLU, where its classifier reads it.

The file is long because the method makes another network of the student, which is saved and rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output, Pair, Runs, check_classes
from ..numerics import at_least_float32, check_range, full_precision
from ..taps import Segment, Staged
from ._surgery import (
    Composite,
    averaged_classifier,
    borders_of,
    check_averaged_classifier,
    last_stage,
    map_shape,
    require_staged,
    require_unchanged,
    then,
    without_tail,
)


def projected_feature_loss(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels teacher_height teacher_width"],
) -> Float[Tensor, " batch"]:
    """Return the mean squared difference of the projected map from the teacher's, per sample, over all elements.

    Args:
        student: projected map, [B, C, H, W]. Half precision is computed in float32.
        teacher: [B, C, H', W']; averaged to H x W. No gradient flows into it.

    Zero where the two are equal.

    Raises:
        ValueError: samples or channels differ.

    Example:
        >>> import torch
        >>> from rankdistill import projected_feature_loss
        >>> student, teacher = torch.randn(2, 4, 16, 8, 8)  # maps [batch, channels, height, width] of each
        >>> projected_feature_loss(student, teacher).shape
        torch.Size([4])
    """
    if student.shape[:2] != teacher.shape[:2]:
        raise ValueError(
            f"the student's projected map has shape {tuple(student.shape)}, the teacher's map {tuple(teacher.shape)}: "
            "maps of the same samples and channels are needed; has SimKD.adapt changed the student?"
        )
    with full_precision(student):
        student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
        if student.shape[2:] != teacher.shape[2:]:
            teacher = F.adaptive_avg_pool2d(teacher, (student.shape[2], student.shape[3]))
        return (student - teacher).square().mean(dim=(1, 2, 3))


def projector(student_channels: int, teacher_channels: int, *, factor: int = 2) -> nn.Sequential:
    """Return three convolutions, 1x1, 3x3 and 1x1, the middle one of Ct / factor channels, each with norm and ReLU."""
    middle = teacher_channels // factor
    return nn.Sequential(
        *(nn.Conv2d(student_channels, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()),
        *(nn.Conv2d(middle, middle, 3, padding=1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()),
        *(nn.Conv2d(middle, teacher_channels, 1, bias=False), nn.BatchNorm2d(teacher_channels), nn.ReLU()),
    )


class Reusing(Composite):
    """A student up to a border, a projector, and the teacher's classifier, which is kept in buffers.

    Args:
        network: a `Staged` student without what follows the border.
        border: the role where it ends.
        project: maps [B, Cs, H, W] to [B, Ct, H, W].
        size: height and width of the teacher's map; a student's map that is higher is averaged to it.
        weight: of the teacher's classifier, [K, Ct].
        bias: of the same, [K], or None.
    """

    deployed_as = "simkd"
    projector: nn.Module

    def __init__(
        self,
        network: nn.Module,
        border: str,
        project: nn.Module,
        size: tuple[int, int],
        weight: Tensor,
        bias: Tensor | None,
    ) -> None:
        own = borders_of(network)
        super().__init__(network, [*own[: own.index(border) + 1], "last", "pooled"], projector=project)
        self.border = border
        self.size = size
        self.register_buffer("classifier_weight", weight.detach().clone())
        self.register_buffer("classifier_bias", None if bias is None else bias.detach().clone())
        self.register_buffer("teacher_size", torch.tensor(size))  # for `rebuild`: reading it would wait for the device

    def segments(self) -> Sequence[Segment]:
        """Return the student's up to the border, then projection, pooling and the teacher's classifier."""
        segments = cast("Staged", self.network).segments()
        place = [border for border, _ in segments].index(self.border)
        return [
            *segments[:place],
            (self.border, then(self._averaged, self.projector)),
            ("last", _pooled),
            ("pooled", self._classify),
        ]

    @classmethod
    def rebuild(cls, plain: nn.Module, weights: Mapping[str, Tensor]) -> Reusing:
        """Return what `SimKD.adapt` makes of a plain network, with a projector of the weights' shapes."""
        first, last = weights["projector.0.weight"], weights["projector.6.weight"]
        border = last_stage(cast("Staged", plain).roles, "student")
        network = without_tail(plain, border, torch.zeros(1, first.shape[1], 4, 4))
        project = projector(first.shape[1], len(last), factor=len(last) // len(first))
        height, width = map(int, weights["teacher_size"].tolist())
        classifier = weights["classifier_weight"], weights.get("classifier_bias")
        return cls(network, border, project, (height, width), *classifier)

    def _averaged(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.size) if x.shape[2] > self.size[0] else x

    def _classify(self, pooled: Tensor) -> Tensor:
        weight = self.get_buffer("classifier_weight")
        return F.linear(pooled, weight, cast("Tensor | None", self.classifier_bias))


def _pooled(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


class SimKD(Method):
    """The student reuses the teacher's classifier, and learns the map that this reads; mean over the batch.

    The student that is trained and deployed has the projector and the teacher's classifier in its state dict; the
    method has no state but its copy of the classifier. The projector's batch norms need more than one value a channel.

    Args:
        student_stage: the role of the student's last stage.
        student_shape: (C, H, W) of the student's map there.
        teacher_shape: (C, H, W) of the teacher's map `last`.
        weight: the weight of the teacher's classifier, [K, C].
        bias: the bias of the teacher's classifier, [K], or None.
        factor: the number of the teacher's channels divided by that of the projector's middle; 2 in the paper.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, CrossEntropy, SimKD, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "simkd": (1.0, SimKD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    student_needs = teacher_needs = ("last",)

    def __init__(
        self,
        student_stage: str,
        student_shape: tuple[int, int, int],
        teacher_shape: tuple[int, int, int],
        weight: Tensor,
        bias: Tensor | None,
        *,
        factor: int = 2,
    ) -> None:
        super().__init__()
        check_range("factor", factor, 1, teacher_shape[0])  # it divides the teacher's channels
        self.student_stage = student_stage
        self.student_shape = student_shape
        self.teacher_shape = teacher_shape
        self.factor = factor
        # Not saved with the method: the student has them.
        self.register_buffer("weight", weight.detach().clone(), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach().clone(), persistent=False)

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> SimKD:
        """Return the method for this pair.

        Raises:
            ValueError: the student has no stages, the teacher has other classes, or its classifier does not read the
                average of `last`.
            TypeError: the student cannot be cut after a stage.
        """
        check_classes(pair, "SimKD")
        require_staged(pair.student, "SimKD", "cuts the student after its last stage")
        weight, bias = averaged_classifier(pair.teacher, pair.teacher_shapes, whose="teacher", method="SimKD")
        stage = last_stage(pair.student_shapes, "student")
        student_shape = map_shape(pair.student_shapes, stage, "student")
        teacher_shape = map_shape(pair.teacher_shapes, "last", "teacher")
        return cls(stage, student_shape, teacher_shape, weight, bias, **options)

    def adapt(self, student: nn.Module) -> nn.Module:
        """Return a copy of the student that ends with the projector and the teacher's classifier."""
        require_staged(student, "SimKD", "cuts the student after its last stage")
        require_unchanged(student, "SimKD")
        if "classifier" in cast("Staged", student).roles:
            raise ValueError("SimKD takes away the student's classifier, which CAT-KD reads: leave one of the two out")
        parameter = next(student.parameters())
        network = without_tail(student, self.student_stage, parameter.new_zeros(1, *self.student_shape))
        project = projector(self.student_shape[0], self.teacher_shape[0], factor=self.factor)
        classifier = self.get_buffer("weight"), cast("Tensor | None", self.bias)
        _, height, width = self.teacher_shape
        adapted = Reusing(network, self.student_stage, project, (height, width), *classifier)
        return adapted.to(parameter)

    def prepare(self, teacher: Runs | None, batches: Callable[[], Iterable[Batch]]) -> list[str]:
        """Check that the teacher's classifier on the average of `last` gives its logits."""
        if teacher is not None:
            check_averaged_classifier(teacher, batches, self.get_buffer("weight"), "SimKD")
        return []

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"simkd": mean loss}."""
        return {"simkd": projected_feature_loss(student.features["last"], teacher.features["last"]).mean()}
