"""Distilling Knowledge via Knowledge Review (Chen et al., CVPR 2021). arXiv:2104.09044.

Levels are the stages and, deepest, the pooled feature. From the deepest on, each student level is fused with what the
level below passed up (attention based fusion), and the result is compared with the teacher's level by the hierarchical
context loss (HCL): the mean squared error of the maps and of what is left of them at 4x4, 2x2 and 1x1, where that is
less, averaged with weights that halve each time.

    ReviewKD = min(epoch / warm-up, 1) * sum over levels of HCL(fused student, teacher)

Recipes add cross-entropy; the weight of ReviewKD depends on the pair, 5 for most.

Differs from the authors' code:
- Channels and sizes are read off the networks. If one has more stages, its shallowest are left out.
- Epochs count from 1 (as in mdistiller; there, from 0), and the teacher is in eval mode (likewise; there, it normalises
  with the batch's statistics on CIFAR-100).
- The teacher's stages are read before their last activation where that feature is known (preN), else as they are
  (stageN); the student's always as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output, Pair, Runs
from ..numerics import at_least_float32, full_precision
from ..taps import without
from ._features import bridged
from ._stages import pooled_widths, stage_roles


def hierarchical_context_loss(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, " batch"]:
    """Return the mean squared error of two maps at several resolutions, per sample, mean over channels and positions.

    Args:
        student: [B, C, H, W]. Half precision is computed in float32.
        teacher: [B, C, H, W]; no gradient flows into it.

    The maps count with weight 1; their adaptive averages of 4x4, 2x2 and 1x1, as far as these are less than H, each
    with half the weight before; the sum is divided by that of the weights. Zero where the maps are equal.

    Example:
        >>> import torch
        >>> from rankdistill import hierarchical_context_loss
        >>> student, teacher = torch.randn(2, 4, 16, 8, 8)  # maps [batch, channels, height, width] of each
        >>> hierarchical_context_loss(student, teacher).shape
        torch.Size([4])
    """
    with full_precision(student):
        student = at_least_float32(student)
        teacher = teacher.detach().to(student)
        loss = (student - teacher).square().flatten(1).mean(1)
        weight = total = 1.0
        for size in (4, 2, 1):
            if size < student.shape[2]:
                weight /= 2.0
                total += weight
                averages = F.adaptive_avg_pool2d(student, size) - F.adaptive_avg_pool2d(teacher, size)
                loss = loss + weight * averages.square().flatten(1).mean(1)
        return loss / total


class Fusion(nn.Module):
    """Attention based fusion of one level with what the level below passes up.

    Args:
        student_channels: of the level.
        mid_channels: of what is passed from level to level.
        teacher_channels: of the output.
        deepest: nothing is passed to this level.
    """

    def __init__(self, student_channels: int, mid_channels: int, teacher_channels: int, *, deepest: bool) -> None:
        super().__init__()
        reduce = nn.Conv2d(student_channels, mid_channels, 1, bias=False)
        expand = nn.Conv2d(mid_channels, teacher_channels, 3, padding=1, bias=False)
        for convolution in (reduce, expand):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
        self.reduce = nn.Sequential(reduce, nn.BatchNorm2d(mid_channels))
        self.attend = None if deepest else nn.Conv2d(2 * mid_channels, 2, 1)
        self.expand = nn.Sequential(expand, nn.BatchNorm2d(teacher_channels))

    def forward(self, feature: Tensor, passed: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Return the output and what is passed up, both of the teacher's size (height, width).

        Args:
            feature: [B, student_channels, h, w].
            passed: [B, mid_channels, h', w'] of the level below; None for the deepest.
            size: of the teacher's level.
        """
        fused: Tensor = self.reduce(feature)
        if self.attend is not None and passed is not None:
            below = F.interpolate(passed, fused.shape[2:], mode="nearest")
            attention = torch.sigmoid(self.attend(torch.cat([fused, below], dim=1)))  # [B, 2, h, w]
            fused = fused * attention[:, :1] + below * attention[:, 1:]
        if fused.shape[2:] != size:
            fused = F.interpolate(fused, size, mode="nearest")
        return self.expand(fused), fused


class ReviewKD(Method):
    """Each level of the teacher is compared with a fusion of the student's levels from there on down.

    Its parameters are the fusions, the deepest first. Their batch norms need batches of two or more. The method has no
    other state.

    Args:
        student_channels: role -> channels, from the shallowest; the last is "pooled", or another 1x1 map or vector.
        teacher_channels: the same for the teacher, as many.
        max_mid_channels: what is passed between levels has as many channels as the student's last level, but no more
            than these.
        warmup_epochs: the weight grows linearly until this epoch, counted from 1; 1 for no warm-up.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, CrossEntropy, ReviewKD, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "reviewkd": (0.6, ReviewKD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(
        self,
        student_channels: Mapping[str, int],
        teacher_channels: Mapping[str, int],
        *,
        max_mid_channels: int = 512,
        warmup_epochs: int = 20,
    ) -> None:
        super().__init__()
        if not student_channels or len(student_channels) != len(teacher_channels):
            raise ValueError(
                f"the student's levels are {list(student_channels)}, the teacher's {list(teacher_channels)}: "
                "give equally many, at least one"
            )
        if max_mid_channels < 1 or warmup_epochs < 1:
            raise ValueError(
                f"max_mid_channels is {max_mid_channels}, warmup_epochs {warmup_epochs}: both must be at least 1"
            )
        self.warmup_epochs = warmup_epochs
        self.student_needs = tuple(student_channels)
        self.teacher_needs = tuple(teacher_channels)
        mid = min(max_mid_channels, list(student_channels.values())[-1])
        deepest_first = reversed(list(zip(student_channels.values(), teacher_channels.values(), strict=True)))
        self.fusions = nn.ModuleList(
            Fusion(channels, mid, out_channels, deepest=number == 0)
            for number, (channels, out_channels) in enumerate(deepest_first)
        )
        self.advice: list[str] = []

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> ReviewKD:
        """Return the method for this pair: the pooled features, and as many of the deepest stages as both have.

        Raises:
            ValueError: a network has no stages, or no pooled feature.
        """
        pooled_widths(pair, "ReviewKD")  # refuses a pair that has none
        student, teacher = _levels(pair.student_shapes, "student"), _levels(pair.teacher_shapes, "teacher")
        teacher = [_before_activation(role, pair.teacher_shapes) for role in teacher]
        count = min(len(student), len(teacher))
        method = cls(
            {role: pair.student_shapes[role][0] for role in student[-count:]},
            {role: pair.teacher_shapes[role][0] for role in teacher[-count:]},
            **options,
        )
        if len(student) != len(teacher):
            method.advice.append(
                f"the student has {len(student) - 1} stages and the teacher {len(teacher) - 1}: "
                f"ReviewKD uses the last {count - 1} of each"
            )
        after = [role for role in method.teacher_needs if role.startswith("stage")]
        if after:
            method.advice.append(
                f"no features before the last activation of the teacher's {', '.join(after)} are known: "
                "ReviewKD reads what these stages give"
            )
        return method

    def prepare(self, teacher: Runs | None, batches: Callable[[], Iterable[Batch]]) -> list[str]:
        """Say if stages are left out, or read after their activation."""
        return self.advice

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"reviewkd": mean loss, warmed up}."""
        passed: Tensor | None = None
        terms = []
        levels = zip(reversed(self.student_needs), reversed(self.teacher_needs), strict=True)
        for fuse, (near, far) in zip(self.fusions, levels, strict=True):
            target = _as_map(teacher.features[far])
            output, passed = bridged(self, fuse, _as_map(student.features[near]), passed, target.shape[2:])
            terms.append(hierarchical_context_loss(output, target))
        return {"reviewkd": min(batch.epoch / self.warmup_epochs, 1.0) * torch.stack(terms).sum(0).mean()}


def _as_map(feature: Tensor) -> Tensor:
    """Return vectors [B, C] as maps [B, C, 1, 1]."""
    return feature if feature.ndim == 4 else feature[:, :, None, None]


def _levels(shapes: Mapping[str, tuple[int, ...]], whose: str) -> list[str]:
    """Return the roles of a network's maps [C, H, W], from the shallowest, and then "pooled"."""
    stages = stage_roles(role for role, shape in shapes.items() if len(shape) == 3)
    if not stages:
        raise ValueError(without(f"the {whose} of ReviewKD", "stage1", shapes, what="stages [B, C, H, W]"))
    return [*stages, "pooled"]


def _before_activation(role: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    before = role.replace("stage", "pre")
    return before if before in shapes else role
