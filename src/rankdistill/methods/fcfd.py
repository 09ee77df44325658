"""Function-Consistent Feature Distillation (Liu, Kan, Shan and Chen, ICLR 2023). arXiv:2304.11832.

Features should not only look like the teacher's, the networks' later stages should do the same with them. Bridges take
the student's feature at a border between stages to the teacher's and back. In each step two paths are drawn; on a path
the first stages are one network's and, after a bridge, the later ones the other's. With t_k the teacher's feature at
border k, and v going through the bridged feature of the student and those of the paths that have crossed to the teacher
before border k,

    L2 = sum over k and v of mean (v - t_k)^2, and at the last border that of mean(relu(v)) too
    KL = KD(student) + w sum over paths of KD(path),   KD against the teacher's logits
    FCFD = W min(1, epoch / 20) L2 + KL

Recipes add cross-entropy of the student's own logits.

Differs from the authors' code:
- The teacher normalises with the statistics of the batch, as there; there, its running statistics drift as well, here
  they are never written. Mixed passes use the batch's statistics and write nothing, with the same result as their
  separate copies for each path.
- Bridges that no path uses, from the teacher at the last border, are left out.
- Their constructor runs the student once on a black image in train mode, which moves its statistics.
- Networks with unequal numbers of stages are aligned from the deepest. Between maps whose sizes are neither equal nor
  twice one another, the source is first averaged, or repeated, to the target's size.

The file is long because a step runs parts of both networks, on paths that it draws.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output, Pair, Runs, check_classes, given
from ..network import batch_statistics
from ..numerics import at_least_float32, check_not_negative, check_positive, check_range, full_precision
from ..taps import resume
from ._stages import stage_roles
from ._surgery import map_shape, require_staged
from .kd import kd_loss

Shape = tuple[int, int, int]


class Path(NamedTuple):
    """A mixed path.

    Attributes:
        border: where it changes from one network to the other, counted from 1.
        to_teacher: whether it starts in the student and ends in the teacher, or the other way round.
    """

    border: int
    to_teacher: bool


class Terms(NamedTuple):
    """The losses of one batch, unweighted.

    Attributes:
        features: L2, in the teacher's space.
        student: KD of the student's logits, in nats.
        paths: KD of the paths' logits, in nats, summed over paths.
    """

    features: Tensor
    student: Tensor
    paths: Tensor


def candidate_paths(num_borders: int) -> list[Path]:
    """Return every path that the authors draw from: from each border but the last, both ways."""
    return [Path(border, to_teacher) for to_teacher in (False, True) for border in range(1, num_borders)]


def draw_paths(step: int, num_borders: int, *, count: int = 2) -> list[Path]:
    """Return the paths of a step: `count` different ones, each equally likely, a function of the step alone."""
    candidates = candidate_paths(num_borders)
    generator = torch.Generator().manual_seed(step)
    chosen = torch.randperm(len(candidates), generator=generator)[:count].tolist()
    return [candidates[place] for place in chosen]


def teacher_space_loss(
    features: Sequence[Float[Tensor, "batch channels height width"]],
    teacher: Float[Tensor, "batch channels height width"],
    *,
    final: bool = False,
) -> Float[Tensor, " batch"]:
    """Return the mean squared difference of features from the teacher's, per sample, summed over the features.

    Args:
        features: of one border, in the teacher's space, [B, C, H, W] each. Half precision is computed in float32.
        teacher: its own feature there, [B, C, H, W]; no gradient flows into it.
        final: add the same of the averages over positions, after a ReLU: what the classifier reads.

    Zero where all features equal the teacher's.

    Raises:
        ValueError: there are no features.

    Example:
        >>> import torch
        >>> from rankdistill import teacher_space_loss
        >>> features, teacher = torch.randn(2, 4, 16, 8, 8), torch.randn(4, 16, 8, 8)
        >>> teacher_space_loss(list(features), teacher).shape
        torch.Size([4])
    """
    if not features:
        raise ValueError("there are no features to compare with the teacher's: give at least the student's")
    with full_precision(teacher):
        teacher = at_least_float32(teacher.detach())
        total = teacher.new_zeros(len(teacher))
        for feature in map(at_least_float32, features):
            total = total + (feature - teacher).square().mean(dim=(1, 2, 3))
            if final:
                averages = [F.relu(x).mean(dim=(2, 3)) for x in (feature, teacher)]
                total = total + (averages[0] - averages[1]).square().mean(dim=1)
        return total


def bridge(source: Shape, target: Shape, *, rectified: bool) -> nn.Sequential:
    """Return what takes a feature [B, *source] to [B, *target]: a convolution, batch norm and maybe a leaky ReLU.

    Args:
        source: (C, H, W). Its height decides: the target's, 3x3; twice that, 3x3 with stride 2; half of it, a
            transposed 4x4 with stride 2; otherwise, averaged or repeated to the target's size first.
        target: (C, H, W).
        rectified: whether the target's features come after a ReLU; then a leaky one, slope 0.1, ends the bridge.
    """
    channels, width = source[0], target[0]
    layers: list[nn.Module] = []
    if source[1] == 2 * target[1]:
        layers.append(nn.Conv2d(channels, width, 3, 2, 1))
    elif 2 * source[1] == target[1]:
        layers.append(nn.ConvTranspose2d(channels, width, 4, 2, 1))
    else:
        if source[1:] != target[1:]:
            layers.append(nn.AdaptiveAvgPool2d(target[1:]))
        layers.append(nn.Conv2d(channels, width, 3, 1, 1, bias=False))
    if isinstance(layers[-1], nn.Conv2d):
        nn.init.kaiming_normal_(layers[-1].weight, mode="fan_out", nonlinearity="relu")
    layers.append(nn.BatchNorm2d(width))
    if rectified:
        layers.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*layers)


class FCFD(Method):
    """The student's features look like the teacher's, and the networks' later stages do the same with them.

    Its parameters are a bridge to the teacher at each border, and a bridge back at each border but the last. The batch
    norms of bridges need more than one value per channel. The method has no other state.

    Args:
        student_shapes, teacher_shapes: role -> (C, H, W) of features that can be borders.
        student_rectified, teacher_rectified: the roles among them whose features come after a ReLU.
        feature_weight: the weight w of the distances of features; 5 in most of the authors' scripts, 0.02 for the plain
            ResNets.
        path_weight: the weight w of the divergences of paths; 0.2 for wrn_16_2.
        temperature: the temperature of KD; 4 or 8 on CIFAR-100, 1 on ImageNet.
        warmup_epochs: the number of epochs over which the weight of L2 grows linearly; 20 on CIFAR-100, 5 on ImageNet.
        num_paths: the number of paths that are drawn in each step.
        student_borders, teacher_borders: roles, from the shallowest. None: the stages, the last of them replaced by
            "last" where layers follow it. If one network has more, its shallowest are not used.

    Example:
        >>> import torch
        >>> from rankdistill import FCFD, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "fcfd": (1.0, FCFD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    teacher_mode = "batch_stats"

    def __init__(
        self,
        student_shapes: Mapping[str, Shape],
        teacher_shapes: Mapping[str, Shape],
        student_rectified: Collection[str],
        teacher_rectified: Collection[str],
        *,
        feature_weight: float = 5.0,
        path_weight: float = 1.0,
        temperature: float = 4.0,
        warmup_epochs: int = 20,
        num_paths: int = 2,
        student_borders: tuple[str, ...] | None = None,
        teacher_borders: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_not_negative("feature_weight", feature_weight)
        check_not_negative("path_weight", path_weight)
        check_range("warmup_epochs", warmup_epochs, 1)
        student_roles = student_borders or default_borders(student_shapes)
        teacher_roles = teacher_borders or default_borders(teacher_shapes)
        count = min(len(student_roles), len(teacher_roles))
        if count < 2:
            raise ValueError(
                f"the student's borders are {', '.join(student_roles)}, the teacher's {', '.join(teacher_roles)}: "
                "FCFD needs two or more of each, to change from one network to the other between them"
            )
        if not 1 <= num_paths <= len(candidate_paths(count)):
            raise ValueError(f"num_paths is {num_paths}: there are {len(candidate_paths(count))} paths to draw from")
        self.student_needs, self.teacher_needs = student_roles[-count:], teacher_roles[-count:]
        own = [map_shape(student_shapes, role, "student") for role in self.student_needs]
        other = [map_shape(teacher_shapes, role, "teacher") for role in self.teacher_needs]
        self.to_teacher = nn.ModuleList(
            bridge(source, target, rectified=role in teacher_rectified)
            for source, target, role in zip(own, other, self.teacher_needs, strict=True)
        )
        self.to_student = nn.ModuleList(
            bridge(source, target, rectified=role in student_rectified)
            for source, target, role in zip(other[:-1], own[:-1], self.student_needs[:-1], strict=True)
        )
        self.feature_weight = feature_weight
        self.path_weight = path_weight
        self.temperature = temperature
        self.warmup_epochs = warmup_epochs
        self.num_paths = num_paths

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> FCFD:
        """Return the method for this pair.

        Raises:
            ValueError: there is no teacher, or a network has not the borders.
            TypeError: a network cannot be entered at a border.
        """
        teacher = given(pair.teacher, "FCFD")
        check_classes(pair, "FCFD")
        own, other = _maps(pair.student_shapes), _maps(pair.teacher_shapes)
        rectified = _rectified(teacher, other)
        return cls(own, other, _rectified(pair.student, own), rectified, **options)

    def forward(self, batch: Batch, student: Runs, teacher: Runs | None) -> Losses:
        """Run both networks and the step's paths; return the weighted losses "features", "student" and "paths"."""
        teacher = given(teacher, "FCFD")
        paths = draw_paths(batch.step, len(self.to_teacher), count=self.num_paths)
        terms = self.terms(student.run(batch), teacher.run(batch), student.module, teacher.module, paths)
        weight = self.feature_weight * min(1.0, batch.epoch / self.warmup_epochs)
        return {
            "features": weight * terms.features,
            "student": terms.student,
            "paths": self.path_weight * terms.paths,
        }

    def terms(
        self, student: Output, teacher: Output, student_tail: nn.Module, teacher_tail: nn.Module, paths: Sequence[Path]
    ) -> Terms:
        """Return the unweighted losses of given paths.

        Args:
            student: of a pass of the student alone, with the features at its borders.
            teacher: the same of the teacher.
            student_tail: the student, which paths enter at borders; no statistics are written.
            teacher_tail: the teacher, which paths enter at borders; no statistics are written.
            paths: see `draw_paths`.
        """
        bridges = zip(self.to_teacher, self.student_needs, strict=True)
        crossed: list[Tensor] = [cross(student.features[role]) for cross, role in bridges]
        features = [[feature] for feature in crossed]
        logits = []
        for border, to_teacher in paths:
            place = border - 1
            if to_teacher:
                mixed = _enter(teacher_tail, self.teacher_needs[place], crossed[place])
                for later in range(border, len(crossed)):
                    features[later].append(mixed.features[self.teacher_needs[later]])
            else:
                returned = self.to_student[place](teacher.features[self.teacher_needs[place]])
                mixed = _enter(student_tail, self.student_needs[place], returned)
            logits.append(mixed.logits)
        last = len(features) - 1
        distances = [
            teacher_space_loss(features[place], teacher.features[role], final=place == last).mean()
            for place, role in enumerate(self.teacher_needs)
        ]
        divergences = [
            kd_loss(x, teacher.logits, temperature=self.temperature).mean() for x in (student.logits, *logits)
        ]
        return Terms(torch.stack(distances).sum(), divergences[0], torch.stack(divergences[1:]).sum())


def default_borders(shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Return the roles stage1, stage2, ..., the last of them replaced by "last" where that has another shape."""
    stages = stage_roles(shapes)
    if stages and "last" in shapes and shapes["last"] != shapes[stages[-1]]:
        stages[-1] = "last"
    return tuple(stages)


def _maps(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Shape]:
    return {role: (shape[0], shape[1], shape[2]) for role, shape in shapes.items() if len(shape) == 3}


def _enter(network: nn.Module, role: str, feature: Tensor) -> Output:
    with batch_statistics(network):
        return resume(network, role, feature)


def _rectified(network: nn.Module, shapes: Mapping[str, Shape]) -> set[str]:
    """Return the roles whose features are not negative in a dry run from a random stem."""
    require_staged(network, "FCFD", "enters networks between their stages")
    parameter = next(network.parameters())
    stem = torch.randn(2, *map_shape(shapes, "stem", "network"), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = resume(copy.deepcopy(network).eval(), "stem", stem.to(parameter)).features
    return {role for role, feature in features.items() if bool((feature >= 0.0).all())}
