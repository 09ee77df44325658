"""Self-supervised Knowledge Distillation Using Singular Value Decomposition (Lee, Kim and Song, ECCV 2018).

arXiv:1807.06819.

    V: the first k right singular vectors of the teacher's map as [positions, channels], times its singular values
       (of unit length as a vector, so 1 where k = 1);
       of the student, for each of them the one of its first k + 3 with the largest |cosine|, with its sign and factor
    R_i[a, b] = exp(-(V_i[a] - V_{i-1}[b])^2 / 8), for each vector; V_i of stage i, a and b channels
    KDSVD(s, t) = sum of (R_i(s) - R_i(t))^2 over vectors, a, b and stages i > 1

Stages are those of AT. Recipes add cross-entropy; in RepDistiller and mdistiller k is 1 and the weight is 1.

Differs from the authors' code: RepDistiller compares channels with channels, as above, so it needs maps of equal width;
here, an extension, a trained 1x1 convolution without bias takes the student's map to the teacher's width where the two
differ. mdistiller's form, `form="columns"`, has [channels x height, width] in place of [positions, channels], which
ignores what an image's columns mean; it needs maps of equal size, and here the larger one is averaged down.
The gradient of the vectors is that of the authors' code where singular values are apart, but has no part from singular
values that coincide in working precision (maps of low rank, which theirs turns into NaN); theirs replaces values that
are not finite by 0, here a sample with NaN or infinity gives NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output, Pair
from ..numerics import check_choice, check_range, full_precision
from ._features import paired_features, pool_to_match
from ._stages import StagePair, stage_pairs

Form = Literal["channels", "columns"]
_MORE_VECTORS = 3  # of the student than of the teacher


def kdsvd_loss(
    student: Sequence[Float[Tensor, "batch _ _ _"]],
    teacher: Sequence[Float[Tensor, "batch _ _ _"]],
    *,
    num_vectors: int = 1,
    form: Form = "channels",
) -> Float[Tensor, " batch"]:
    """Return the squared difference of the relations between consecutive stages, summed, per sample.

    Args:
        student: maps [B, C_i, H, W] of at least two stages, shallow before deep. Half precision is computed in
            float32.
        teacher: as many maps; no gradient flows into them. With "channels", sizes may differ and widths may not;
            with "columns", widths may differ, and the larger map is averaged down to the smaller.
        num_vectors: k, at least 1 and at most the rank that the teacher's maps can have.
        form: "channels", RepDistiller's; "columns", mdistiller's.

    Zero where maps are equal. A sample with NaN or infinity gives NaN. Memory grows with B C_i C_{i-1} k.

    Raises:
        ValueError: numbers of stages, batches or widths do not fit, or an option is out of range.

    Example:
        >>> import torch
        >>> from rankdistill import kdsvd_loss
        >>> student, teacher = torch.randn(2, 3, 4, 16, 8, 8)  # three stages of each
        >>> kdsvd_loss(list(student), list(teacher)).shape
        torch.Size([4])
    """
    _check(num_vectors, form)
    if len(student) != len(teacher) or len(student) < 2:
        raise ValueError(
            f"KDSVD has {len(student)} maps of the student and {len(teacher)} of the teacher: it relates consecutive "
            "stages, and needs equally many, at least 2"
        )
    pairs = [paired_features(s, t) for s, t in zip(student, teacher, strict=True)]
    with full_precision(pairs[0][0]):
        loss = pairs[0][0].new_zeros(len(student[0]))
        before: tuple[Tensor, Tensor] | None = None
        for maps in pairs:
            matrices = _matrices(*maps, form)
            vectors = _aligned_vectors(*matrices, num_vectors)
            if before is not None:
                relations = [_relation(now, earlier) for now, earlier in zip(vectors, before, strict=True)]
                loss = loss + (relations[0] - relations[1]).square().sum((1, 2, 3))
            for matrix in matrices:
                loss = torch.where(matrix.isfinite().all(2).all(1), loss, torch.nan)
            before = vectors
        return loss


def _check(num_vectors: int, form: Form) -> None:
    check_range("num_vectors", num_vectors, 1)
    check_choice("form", form, get_args(Form))


def _matrices(student: Tensor, teacher: Tensor, form: Form) -> tuple[Tensor, Tensor]:
    """Return the maps as matrices of equally many columns, [B, R, C] and [B, R', C]."""
    if form == "columns":
        student, teacher = pool_to_match(student, teacher)
        return student.flatten(1, 2), teacher.flatten(1, 2)
    if student.shape[1] != teacher.shape[1]:
        raise ValueError(
            f"the student's map has {student.shape[1]} channels, the teacher's {teacher.shape[1]}: "
            "bring the student's to the teacher's width first, or use form \"columns\""
        )
    return student.flatten(2).mT, teacher.flatten(2).mT


def _aligned_vectors(student: Tensor, teacher: Tensor, num_vectors: int) -> tuple[Tensor, Tensor]:
    """Return the teacher's vectors times its singular values, and the student's nearest to them, [B, C, k] each."""
    rank = min(teacher.shape[1:])
    if num_vectors > rank:
        raise ValueError(
            f"num_vectors is {num_vectors}: a map of the teacher has only {rank} singular vectors; use no more"
        )
    values, target = _right_vectors(teacher, num_vectors)
    _, candidates = _right_vectors(student, num_vectors + _MORE_VECTORS)
    cosines = candidates.detach().mT @ target  # [B, k + 3, k]
    nearest = cosines.abs().argmax(1, keepdim=True)  # [B, 1, k]
    sign = cosines.gather(1, nearest).sign()
    chosen = candidates.gather(2, nearest.expand(-1, candidates.shape[1], -1))
    scale = F.normalize(values, dim=1)[:, None]
    return chosen * sign * scale, target * scale


def _right_vectors(matrix: Tensor, num_vectors: int) -> tuple[Tensor, Tensor]:
    """Return the largest singular values [B, n] and their right vectors [B, C, n], n at most the possible rank.

    Matrices that are not finite count as zero. Only the vectors have a gradient: with G = X^T X and eigenvalues l,
    dv_i = sum over j != i of v_j (v_j . dG v_i) / (l_i - l_j), without the terms whose l_i - l_j is rounding.
    """
    finite = matrix.isfinite().all(2, keepdim=True).all(1, keepdim=True)
    matrix = torch.where(finite, matrix, 0.0)
    with torch.no_grad():
        _, values, rows = torch.linalg.svd(matrix, full_matrices=False)  # [B, r], [B, r, C]
        vectors = rows.mT[:, :, :num_vectors]
        eigenvalues = values.square()
        noise = 10.0 * torch.finfo(matrix.dtype).eps * eigenvalues[:, :1, None]
        kept = eigenvalues[:, None, :num_vectors]  # [B, 1, n]
        among = _inverse(kept - eigenvalues[:, :, None], noise)  # [B, r, n]
        beyond = _inverse(kept, noise)  # of the null space, where there are more columns than rows
    moved = matrix.mT @ (matrix @ vectors)
    moved = moved - moved.detach()  # zero, with dG v_i as its derivative
    along = rows @ moved  # [B, r, n]
    vectors = vectors + rows.mT @ (along * among) + (moved - rows.mT @ along) * beyond
    return values[:, :num_vectors], vectors


def _inverse(gap: Tensor, noise: Tensor) -> Tensor:
    """Return 1 / gap, and 0 where the gap is noise."""
    significant = gap.abs() > noise
    return torch.where(significant, 1.0 / torch.where(significant, gap, 1.0), 0.0)


def _relation(now: Tensor, earlier: Tensor) -> Tensor:
    """Return R - 1, [B, C_i, C_{i-1}, k]: near 0, where float32 is finer than near 1."""
    return torch.expm1((now[:, :, None] - earlier[:, None]).square() / -8.0)


class KDSVD(Method):
    """The student learns how singular vectors of consecutive stages relate in its teacher, mean over the batch.

    If the form is "channels", its state is a trained 1x1 convolution at each stage where the widths differ. Otherwise
    it has no state.

    Args:
        stages: the pairs of maps that are compared, at least 2; `for_pair` pairs the networks' stages from the
            deepest.
        num_vectors: the number of singular vectors (k), at least 1 and at most the rank that the teacher's maps can
            have.
        form: how a map becomes a matrix: "channels", as in RepDistiller; "columns", as in mdistiller.

    Raises:
        ValueError: an option is out of range, or there are fewer than 2 stages.

    Example:
        >>> import torch
        >>> from rankdistill import KDSVD, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "kdsvd": (1.0, KDSVD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, stages: Sequence[StagePair], *, num_vectors: int = 1, form: Form = "channels") -> None:
        super().__init__()
        _check(num_vectors, form)
        if len(stages) < 2:
            raise ValueError(f"KDSVD has {len(stages)} stages: it relates consecutive stages, and needs at least 2")
        self.stages = tuple(stages)
        self.num_vectors = num_vectors
        self.form: Form = form
        self.student_needs = tuple(stage.student.role for stage in stages)
        self.teacher_needs = tuple(stage.teacher.role for stage in stages)
        self.embed = nn.ModuleList(
            nn.Identity()
            if form == "columns" or stage.student.shape[0] == stage.teacher.shape[0]
            else nn.Conv2d(stage.student.shape[0], stage.teacher.shape[0], 1, bias=False)
            for stage in stages
        )

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> KDSVD:
        """Return the method for the stages of these networks."""
        return cls(stage_pairs(pair, "KDSVD"), **options)

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"kdsvd": mean loss}."""
        student_maps = [embed(s.read(student)) for embed, (s, _) in zip(self.embed, self.stages, strict=True)]
        teacher_maps = [t.read(teacher) for _, t in self.stages]
        loss = kdsvd_loss(student_maps, teacher_maps, num_vectors=self.num_vectors, form=self.form)
        return {"kdsvd": loss.mean()}
