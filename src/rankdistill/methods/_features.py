"""What methods on features share: features of one batch in at least float32, maps of one size, unit vectors."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Method
from ..network import batch_statistics
from ..numerics import at_least_float32


def paired_features(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both features in at least float32, the teacher's detached.

    Raises:
        ValueError: they are not features of the same number of samples, [B, ...] each.
    """
    if student.ndim < 2 or teacher.ndim < 2 or len(student) != len(teacher):
        raise ValueError(
            f"the student's feature has shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}: "
            "features of the same samples, [batch, ...], are needed"
        )
    return at_least_float32(student), at_least_float32(teacher.detach())


def pool_to_match(
    student: Float[Tensor, "batch _ _ _"], teacher: Float[Tensor, "batch _ _ _"]
) -> tuple[Float[Tensor, "batch _ height width"], Float[Tensor, "batch _ height width"]]:
    """Return two maps, [B, C, H, W] each, averaged down to the smaller height and the smaller width of the two."""
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    pooled = [x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (student, teacher)]
    return pooled[0], pooled[1]


def unit_length(vectors: Tensor, dim: int) -> Tensor:
    """Return vectors along `dim` over their Euclidean norms (at least 1e-12); a zero vector passes no gradient."""
    norm = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return torch.where(norm == 0.0, 0.0, vectors / norm.clamp_min(1e-12))


def bridged(method: Method, bridge: nn.Module, *features: Any) -> Any:
    """Return `bridge(*features)`. Its batch norms write their running statistics only while `method.updates_state`."""
    hold = method.training and not method.updates_state
    with batch_statistics(bridge) if hold else nullcontext():
        return bridge(*features)
