"""A Comprehensive Overhaul of Feature Distillation (Heo et al., ICCV 2019). arXiv:1904.01866.

At each stage, before its ReLU, the student's feature s goes through a learned 1x1 convolution and batch norm c to the
teacher's feature t, of which only what survives the ReLU and, per channel, the mean of what does not (the margin m < 0)
are kept. Over B samples,

    OFD = (1 / B) sum over stages of 2^-(stages after it) |c(s) - max(t, m)|^2, summed where c(s) > max(t, m) or t > 0

m is the mean of a normal variable where it is negative, its deviation and mean being weight and bias of the batch norm
before the teacher's ReLU. Recipes add cross-entropy; the weight of OFD is 0.001. Take that one: the squares are summed
over all positions, and with weight 1 the loss diverges within a few steps of stochastic gradient descent.

Differs from the authors' code:
- The teacher normalises with the statistics of the batch, as there; there, it is in train mode and its running
  statistics drift as well, here they are never written.
- Stages are aligned from the deepest, so that networks of unequal depth go together.
- Where a student's feature before the activation is not known, its stage's output is read. That of a linear bottleneck
  (MobileNetV2) is the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..contract import Batch, Losses, Method, Output, Pair, Runs, given
from ..numerics import at_least_float32, full_precision
from ..taps import roles, without
from ._features import bridged
from ._stages import stage_roles

_SHORTCUTS = ("downsample", "shortcut")


def negative_margin(weight: Float[Tensor, " channels"], bias: Float[Tensor, " channels"]) -> Float[Tensor, " channels"]:
    """Return E[x | x < 0] of normal x with deviation |weight| and mean bias, per channel, in float32.

    Args:
        weight: of a batch norm, [C].
        bias: of the same, [C].

    Where less than one in a thousand values is negative, it is -3 |weight|, as in the authors' code. Where the weight
    is zero, x is the bias, and the margin the lesser of it and zero.

    Example:
        >>> import torch
        >>> from rankdistill import negative_margin
        >>> negative_margin(torch.ones(2), torch.zeros(2))
        tensor([-0.7979, -0.7979])
    """
    deviation, mean = weight.detach().double().abs(), bias.detach().double()
    ratio = mean / torch.where(deviation == 0.0, 1.0, deviation)
    negative = 0.5 * torch.erfc(ratio / math.sqrt(2.0))  # P(x < 0)
    density = torch.exp(-0.5 * ratio.square()) / math.sqrt(2.0 * math.pi)
    seldom = negative <= 0.001
    margin = mean - deviation * density / torch.where(seldom, 1.0, negative)
    margin = torch.where(seldom, -3.0 * deviation, margin)
    return torch.where(deviation == 0.0, mean.clamp(max=0.0), margin).float()


def margin_distance(
    student: Float[Tensor, "batch channels height width"],
    teacher: Float[Tensor, "batch channels teacher_height teacher_width"],
    margin: Float[Tensor, " channels"],
) -> Float[Tensor, " batch"]:
    """Return the squared distance of the student's feature from the teacher's margin-ReLU, per sample, summed.

    Args:
        student: [B, C, H, W], already with the teacher's channels. Half precision is computed in float32.
        teacher: [B, C, H', W'], before the ReLU; averaged to H x W. No gradient flows into it.
        margin: [C], negative: what replaces lower values.

    Zero where the teacher is not positive and the student not above its margin-ReLU.

    Example:
        >>> import torch
        >>> from rankdistill import margin_distance
        >>> student, teacher = torch.randn(2, 4, 16, 8, 8)  # maps [batch, channels, height, width] of each
        >>> margin_distance(student, teacher, torch.full((16,), -0.1)).shape
        torch.Size([4])
    """
    with full_precision(student):
        student = at_least_float32(student)
        height, width = student.shape[2:]
        teacher = F.adaptive_avg_pool2d(teacher.detach().to(student), (height, width))
        target = torch.maximum(teacher, margin.to(student)[:, None, None])
        counts = (student > target) | (teacher > 0.0)
        return torch.where(counts, student - target, 0.0).square().flatten(1).sum(1)


class OFD(Method):
    """The student's maps before the ReLU approach the teacher's, where that is active, above a margin.

    Its parameters are a 1x1 convolution and a batch norm for each stage. The batch norms need more than one value per
    channel. The margins are constants, which the state dict has, too. The recipes' weight is 0.001: with weight 1, the
    loss diverges.

    Args:
        student_channels: role -> channels of the student's feature, from the shallowest.
        margins: role -> margins of the teacher's channels, [C], from the shallowest: as many roles, pairwise.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, OFD, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "ofd": (0.001, OFD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    teacher_mode = "batch_stats"

    def __init__(self, student_channels: Mapping[str, int], margins: Mapping[str, Tensor]) -> None:
        super().__init__()
        if not margins or len(student_channels) != len(margins):
            raise ValueError(
                f"the student's roles are {list(student_channels)}, the teacher's {list(margins)}: "
                "give equally many, at least one"
            )
        self.student_needs = tuple(student_channels)
        self.teacher_needs = tuple(margins)
        self.connectors = nn.ModuleList(
            _connector(channels, len(margin))
            for channels, margin in zip(student_channels.values(), margins.values(), strict=True)
        )
        for number, margin in enumerate(margins.values()):
            self.register_buffer(f"margin{number}", margin.detach().clone())
        self.advice: list[str] = []

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> OFD:
        """Return the method for this pair: as many of the deepest stages as both networks have.

        Raises:
            ValueError: a network has no such roles, or no batch norm is known to precede one of the teacher's ReLUs.
        """
        teacher = given(pair.teacher, "OFD")
        before = [f"pre{number}" for number in _numbers(pair.teacher_shapes) if f"pre{number}" in pair.teacher_shapes]
        if not before:
            what = "features before the last ReLU of each stage"
            lacking = without("the teacher", "pre1", pair.teacher_shapes, what=what)
            raise ValueError(f"OFD reads pre1, pre2, ..., before ReLUs that are not in place, and {lacking}")
        shapes = pair.student_shapes
        near = [f"pre{n}" if f"pre{n}" in shapes else f"stage{n}" for n in _numbers(shapes)]
        if not near:
            raise ValueError(without("the student of OFD", "stage1", shapes, what="stages [B, C, H, W]"))
        count = min(len(near), len(before))
        norms = {role: _norm_before(teacher, role, pair.teacher_shapes[role][0]) for role in before[-count:]}
        method = cls(
            {role: shapes[role][0] for role in near[-count:]},
            {role: _margin(norm) for role, norm in norms.items()},
            **options,
        )
        if len(near) != len(before):
            method.advice = [
                f"the student has {len(near)} stages and the teacher {len(before)}: OFD uses the last {count} of each"
            ]
        return method

    def prepare(self, teacher: Runs | None, batches: Callable[[], Iterable[Batch]]) -> list[str]:
        """Say if stages of one network are left out."""
        return self.advice

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"ofd": mean loss}."""
        terms = []
        roles_of_both = zip(self.student_needs, self.teacher_needs, strict=True)
        for number, (connect, (near, far)) in enumerate(zip(self.connectors, roles_of_both, strict=True)):
            connected = bridged(self, connect, student.features[near])
            distance = margin_distance(connected, teacher.features[far], self.get_buffer(f"margin{number}"))
            terms.append(distance / 2.0 ** (len(self.connectors) - 1 - number))
        return {"ofd": torch.stack(terms).sum(0).mean()}


def _connector(student_channels: int, teacher_channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)
    nn.init.normal_(convolution.weight, std=math.sqrt(2.0 / teacher_channels))
    return nn.Sequential(convolution, nn.BatchNorm2d(teacher_channels))


def _margin(norm: _BatchNorm) -> Tensor:
    if not norm.affine:
        return negative_margin(torch.ones(norm.num_features), torch.zeros(norm.num_features))
    return negative_margin(norm.weight, norm.bias)


def _numbers(shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
    """Return the numbers N of the maps [C, H, W] called stageN or preN, ascending."""
    found = stage_roles((role for role, shape in shapes.items() if len(shape) == 3), "stage|pre")
    return sorted({int(re.sub(r"\D", "", role)) for role in found})


def _norm_before(teacher: nn.Module, role: str, channels: int) -> _BatchNorm:
    """Return the batch norm that a feature preN comes from, alone or in a sum with a shortcut.

    It is the last one registered in the tapped module, or, where the input of an activation is tapped, before that
    activation among its siblings. Where the tap is not known, the tap of stageN says where to look.

    Raises:
        ValueError: there is none with so many channels.
    """
    taps = roles(teacher)
    tap = taps.get(role) or taps.get(role.replace("pre", "stage"), "<nowhere")
    name = tap.removeprefix("<")
    around = name.rpartition(".")[0] if tap.startswith("<") else name
    found = None
    for path, module in teacher.named_modules():
        if tap == f"<{path}":
            break
        inside = path == around or path.startswith(f"{around}." if around else "")
        beside = any(part in _SHORTCUTS for part in path.split("."))
        if inside and not beside and isinstance(module, _BatchNorm) and module.num_features == channels:
            found = module
    if found is None or tap == "<nowhere":
        raise ValueError(
            f"no batch norm of {channels} channels is known before {role!r} of {type(teacher).__name__}: OFD takes its "
            "margins from there; build OFD(student_channels, margins) by hand, with negative_margin(weight, bias)"
        )
    return found
