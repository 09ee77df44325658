"""FitNets: Hints for Thin Deep Nets (Romero, Ballas, Kahou, Chassang, Gatta and Bengio, ICLR 2015). arXiv:1412.6550.

    L = mean over elements of (r(student's map) - teacher's map)^2,   r a trained convolution, batch norm and ReLU

in the middle of the networks. Recipes add cross-entropy; in RepDistiller and mdistiller the weight of L is 100.

Differs from the authors' code: the paper trains the layers below the hint first and the whole student afterwards. Here,
as in RepDistiller and mdistiller, whose numbers are compared everywhere, L and cross-entropy are trained together, and
the ReLU stays where a teacher's map is signed (wide ResNets). Unlike there, the width decides as well as the height,
and sizes that they have no regressor for are refused with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output, Pair
from ..numerics import full_precision
from ._features import bridged, paired_features
from ._stages import StagePair, stage_pairs


def fitnets_loss(
    student: Float[Tensor, "batch _ _ _"], teacher: Float[Tensor, "batch _ _ _"]
) -> Float[Tensor, " batch"]:
    """Return the mean squared difference of two maps, per sample.

    Args:
        student: what the regressor makes of the student's map, [B, C, H, W]. Half precision is computed in float32.
        teacher: [B, C, H, W]; no gradient flows into it.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> from rankdistill import fitnets_loss
        >>> student, teacher = torch.randn(2, 4, 16, 8, 8)  # maps [batch, channels, height, width] of each
        >>> fitnets_loss(student, teacher).shape
        torch.Size([4])
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"the regressed map has shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}: "
            "the regressor was made for other sizes; make it with Regressor(student_shape, teacher_shape)"
        )
    student, teacher = paired_features(student, teacher)
    with full_precision(student):
        return (student - teacher).square().flatten(1).mean(1)


class Regressor(nn.Module):
    """A convolution from the student's map to the teacher's, batch norm, ReLU. PyTorch's initial weights.

    The convolution, with a bias, is 3x3 with stride 2 where the student's sides are twice the teacher's; transposed,
    4x4 with stride 2, where they are half; and otherwise, without padding, as large as what must be taken away: 1x1
    where the sizes are equal.

    Args:
        student_shape: (C, H, W) of the student's map.
        teacher_shape: (C, H, W) of the teacher's map.

    Raises:
        ValueError: the student's map is smaller than the teacher's, and not half of it.
    """

    def __init__(self, student_shape: tuple[int, int, int], teacher_shape: tuple[int, int, int]) -> None:
        super().__init__()
        (student, *sides), (teacher, *targets) = student_shape, teacher_shape
        self.conv: nn.Module
        if sides == [2 * target for target in targets]:
            self.conv = nn.Conv2d(student, teacher, 3, stride=2, padding=1)
        elif [2 * side for side in sides] == targets:
            self.conv = nn.ConvTranspose2d(student, teacher, 4, stride=2, padding=1)
        elif all(side >= target for side, target in zip(sides, targets, strict=True)):
            height, width = (1 + side - target for side, target in zip(sides, targets, strict=True))
            self.conv = nn.Conv2d(student, teacher, (height, width))
        else:
            raise ValueError(
                f"FitNets has no regressor from {sides[0]}x{sides[1]} to {targets[0]}x{targets[1]}: the student's map "
                "must be at least as large as the teacher's, or half of it; choose another hint_stage"
            )
        self.bn = nn.BatchNorm2d(teacher)
        self.relu = nn.ReLU()

    def forward(self, student: Tensor) -> Tensor:
        """Map [B, C, H, W] of the student to [B, C, H, W] of the teacher."""
        regressed: Tensor = self.relu(self.bn(self.conv(student)))
        return regressed


class FitNets(Method):
    """The student's map at one stage, after a regressor, approaches the teacher's: mean squared error.

    Its state is the regressor, which is trained, and its batch norm's statistics.

    Args:
        stages: the pairs of maps to choose from, shallow before deep; `for_pair` pairs them from the deepest.
        hint_stage: the pair of stages that is compared, counted from 1; 2 in RepDistiller and mdistiller.

    Raises:
        ValueError: there is no such pair, or no regressor between its sizes.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, CrossEntropy, FitNets, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "fitnets": (100.0, FitNets)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    def __init__(self, stages: Sequence[StagePair], *, hint_stage: int = 2) -> None:
        super().__init__()
        if not 1 <= hint_stage <= len(stages):
            raise ValueError(
                f"hint_stage is {hint_stage}: the networks have {len(stages)} stages in common; count from 1"
            )
        self.stage = stages[hint_stage - 1]
        self.student_needs, self.teacher_needs = (self.stage.student.role,), (self.stage.teacher.role,)
        self.regressor = Regressor(self.stage.student.shape, self.stage.teacher.shape)

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> FitNets:
        """Return the method for the stages of these networks."""
        return cls(stage_pairs(pair, "FitNets"), **options)

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"fitnets": mean loss}."""
        regressed = bridged(self, self.regressor, self.stage.student.read(student))
        return {"fitnets": fitnets_loss(regressed, self.stage.teacher.read(teacher)).mean()}
