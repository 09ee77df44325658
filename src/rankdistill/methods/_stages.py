"""Which stage of the student meets which stage of the teacher, and how their features are read as maps [B, C, H, W].

Stages are counted from the deepest: the last stage of one network meets the last of the other, the one before it the
one before it, until one of the networks has no more; surplus shallow stages of the other are not used. Where both have
equally many, stage N meets stage N.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Output, Pair, given
from ..taps import without

Layout = Literal["channels_first", "channels_last", "tokens"]


@dataclass(frozen=True, slots=True)
class StageMap:
    """A feature of one network that is, or can be read as, a map.

    Attributes:
        role: where the network has it.
        shape: (C, H, W) of the map.
        layout: of the feature: [B, C, H, W], [B, H, W, C], or tokens [B, P + H W, C], of which the first P, that have
            no place in the image, are left out.

    Example:
        >>> import torch
        >>> from rankdistill import Output, StageMap
        >>> output = Output(torch.randn(4, 10), {"stage2": torch.randn(4, 1 + 8 * 8, 192)})  # a class token first
        >>> StageMap("stage2", (192, 8, 8), "tokens").read(output).shape
        torch.Size([4, 192, 8, 8])
    """

    role: str
    shape: tuple[int, int, int]
    layout: Layout = "channels_first"

    def read(self, output: Output) -> Float[Tensor, "batch channels height width"]:
        """Return the map of an output, [B, C, H, W]."""
        feature: Tensor = output.features[self.role]
        if self.layout == "channels_last":
            return feature.movedim(-1, 1)
        if self.layout == "tokens":
            _, height, width = self.shape
            return feature[:, -height * width :].movedim(-1, 1).reshape(len(feature), -1, height, width)
        return feature


class StagePair(NamedTuple):
    """A map of the student and the map of the teacher that it meets.

    Example:
        >>> from rankdistill import StageMap, StagePair
        >>> pair = StagePair(student=StageMap("stage3", (64, 8, 8)), teacher=StageMap("stage4", (512, 8, 8)))
    """

    student: StageMap
    teacher: StageMap


def stage_pairs(pair: Pair, method: str) -> list[StagePair]:
    """Return the stages that meet, shallow before deep (see the module's docstring).

    Args:
        pair: the networks' shapes.
        method: its name, for messages.

    Raises:
        ValueError: there is no teacher, a network has no stages, or a stage is not a map.

    Example:
        >>> from rankdistill import MODELS, Pair, stage_pairs
        >>> shapes = {"stage1": (16, 32, 32), "stage2": (32, 16, 16)}, {"stage1": (64, 16, 16)}
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> [pair] = stage_pairs(Pair(*networks, *shapes, num_classes=10, num_samples=50), "my method")
        >>> pair.student.role, pair.teacher.role
        ('stage2', 'stage1')
    """
    students = _stage_maps(pair.student, pair.student_shapes, "student", method)
    teachers = _stage_maps(given(pair.teacher, method), pair.teacher_shapes, "teacher", method)
    num_pairs = min(len(students), len(teachers))
    return [StagePair(s, t) for s, t in zip(students[-num_pairs:], teachers[-num_pairs:], strict=True)]


def deepest_roles(pair: Pair, method: str) -> tuple[str, str]:
    """Return the role of each network's deepest stage; "last" where a network has no stages.

    Raises:
        ValueError: there is no teacher, or a network has neither.
    """
    teacher = given(pair.teacher, method)
    student_role = _deepest_role(pair.student, pair.student_shapes, "student", method)
    return student_role, _deepest_role(teacher, pair.teacher_shapes, "teacher", method)


def deepest_pair(pair: Pair, method: str) -> StagePair:
    """Return the maps of `deepest_roles`.

    Raises:
        ValueError: as `deepest_roles`, or a feature is not a map.
    """
    student, teacher = deepest_roles(pair, method)
    return StagePair(
        _maps(pair.student_shapes, stage_roles(pair.student_shapes) or [student], "student", method)[-1],
        _maps(pair.teacher_shapes, stage_roles(pair.teacher_shapes) or [teacher], "teacher", method)[-1],
    )


def pooled_widths(pair: Pair, method: str) -> tuple[int, int]:
    """Return the widths of the student's and the teacher's pooled feature.

    Raises:
        ValueError: there is no teacher, or a network has no such role.
    """
    networks = ((pair.student, pair.student_shapes), (given(pair.teacher, method), pair.teacher_shapes))
    for (network, shapes), who in zip(networks, ("student", "teacher"), strict=True):
        if "pooled" not in shapes:
            raise ValueError(_without(network, shapes, who, method, 'role "pooled"', "pooled"))
    return math.prod(pair.student_shapes["pooled"]), math.prod(pair.teacher_shapes["pooled"])


def stage_roles(roles: Iterable[str], kind: str = "stage") -> list[str]:
    """Return the roles stage1, stage2, ... of these, in the order of their numbers; or those of another kind."""
    found = [role for role in roles if re.fullmatch(rf"(?:{kind})\d+", role)]
    return sorted(found, key=lambda role: int(re.sub(r"\D", "", role)))


def _stage_maps(network: nn.Module, shapes: Mapping[str, tuple[int, ...]], who: str, method: str) -> list[StageMap]:
    roles = stage_roles(shapes)
    if not roles:
        raise ValueError(_without(network, shapes, who, method, "stages", "stage1"))
    return _maps(shapes, roles, who, method)


def _deepest_role(network: nn.Module, shapes: Mapping[str, tuple[int, ...]], who: str, method: str) -> str:
    roles = stage_roles(shapes) or [role for role in shapes if role == "last"]
    if not roles:
        raise ValueError(_without(network, shapes, who, method, 'stages and no role "last"', "stage1"))
    return roles[-1]


def _maps(shapes: Mapping[str, tuple[int, ...]], roles: Sequence[str], who: str, method: str) -> list[StageMap]:
    """Return the features of these roles as maps.

    A network's maps are channels-last if each of them is square in its first two dimensions, but not all in the last.
    """
    spatial = [shapes[role] for role in roles if len(shapes[role]) == 3]
    last = all(a == b for a, b, _ in spatial) and any(b != c for _, b, c in spatial)
    return [_map(role, shapes[role], last, who, method) for role in roles]


def _map(role: str, shape: tuple[int, ...], channels_last: bool, who: str, method: str) -> StageMap:
    if len(shape) == 3:
        if channels_last:
            return StageMap(role, (shape[2], shape[0], shape[1]), "channels_last")
        return StageMap(role, (shape[0], shape[1], shape[2]))
    if len(shape) == 2:
        num_tokens, channels = shape
        side = math.isqrt(num_tokens)
        if num_tokens - side**2 <= _MAX_PREFIX_TOKENS:
            return StageMap(role, (channels, side, side), "tokens")
        raise ValueError(
            f"{method} needs maps, and {role!r} of the {who} is {num_tokens} tokens of width {channels}: only a square "
            f"of tokens after at most {_MAX_PREFIX_TOKENS} others can be read as a map; use square images, or a "
            "method on pooled features"
        )
    raise ValueError(
        f"{method} needs maps, and {role!r} of the {who} has shape {shape} in a batch: declare a module as this role "
        "that gives [B, C, H, W], [B, H, W, C] or tokens [B, N, C]"
    )


_MAX_PREFIX_TOKENS = 2  # a class token and a distillation token, as in DeiT


def _without(
    network: nn.Module, shapes: Mapping[str, tuple[int, ...]], who: str, method: str, what: str, role: str
) -> str:
    lacking = without(type(network).__name__, role, shapes, what=what)
    return f"{method} reads features of the {who}, and {lacking}"
