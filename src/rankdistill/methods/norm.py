"""NORM: Better Knowledge Distillation with N-to-One Representation Matching (Liu, Li, Li and Yao, ICLR 2023).

arXiv:2305.13803. After its last stage the student gets a residual pair of 1x1 convolutions, the first to N times the
teacher's channels, and each of the N groups of channels is held to the teacher's map t:

    e = BN(W1 x),   x' = x + BN(W2 e),   NORM = beta(epoch) sum over n of mean (e_n - t)^2

There is no activation, so that the pair is a linear map when training is over: it goes into the classifier, and the
deployed student is the plain network. Recipes add cross-entropy of normalised logits (`normalized.py`) and, as
"NORM+KD", which is what tables quote, distillation between them.

Differs from the authors' code:
- ShuffleNets: their code adds the images to e, and stops with an error. Here, as in their other students, x' = x + o.
- The merge, which the paper describes and the code lacks. In WRNs batch norm and ReLU follow, so that the pair becomes
  one 1x1 convolution from C to C channels, which stays.
- Where the student's map is larger than the teacher's, or no multiple fits, the larger is averaged to the smaller size.

The file is long because the method changes the student, and merges the change when the student is deployed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output, Pair, given
from ..numerics import at_least_float32, check_choice, check_range, full_precision
from ..taps import Segment, Staged, resume
from ._surgery import (
    Composite,
    borders_of,
    classifier_of,
    last_stage,
    map_shape,
    plain_classifier,
    replaced,
    require_staged,
    require_unchanged,
    then,
)

Schedule = Literal["cifar", "imagenet"]
ConvInit = Literal["kaiming", "default"]

# Schedule -> (last epoch, factor) of each phase but the last, in which the factor is 0.1. The authors count from 0.
_PHASES: dict[Schedule, tuple[tuple[int, float], ...]] = {
    "cifar": ((10, 0.1), (20, 0.5), (180, 1.0), (210, 0.5)),
    "imagenet": ((5, 0.1), (15, 0.5), (60, 0.9), (80, 0.5)),
}


def n_to_one_loss(
    student: Float[Tensor, "batch copies_channels height width"],
    teacher: Float[Tensor, "batch channels teacher_height teacher_width"],
) -> Float[Tensor, " batch"]:
    """Return the mean squared difference of each group of channels from the teacher's map, summed over groups.

    Per sample; the mean is over C channels and H x W positions.

    Args:
        student: expanded map, [B, N C, H, W]. Half precision is computed in float32.
        teacher: [B, C, H', W']; no gradient flows into it. If larger, it is max-pooled by the whole number of times
            that H goes into H'. If sizes differ still, the larger is averaged to the smaller.

    Zero where every group equals the teacher's map.

    Raises:
        ValueError: samples differ, or the student's channels are no multiple of the teacher's.

    Example:
        >>> import torch
        >>> from rankdistill import n_to_one_loss
        >>> student, teacher = torch.randn(4, 8 * 16, 8, 8), torch.randn(4, 16, 8, 8)
        >>> n_to_one_loss(student, teacher).shape
        torch.Size([4])
    """
    groups, rest = divmod(student.shape[1], teacher.shape[1])
    if len(student) != len(teacher) or rest or not groups:
        raise ValueError(
            f"the student's expanded map has shape {tuple(student.shape)}, the teacher's map {tuple(teacher.shape)}: "
            "the same samples, and N times as many channels, are needed"
        )
    with full_precision(student):
        student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
        times = teacher.shape[2] // student.shape[2]
        if times > 1:
            teacher = F.max_pool2d(teacher, times)
        size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
        student, teacher = (x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (student, teacher))
        difference = student.reshape(len(student), groups, *teacher.shape[1:]) - teacher[:, None]  # [B, N, C, H, W]
        return difference.square().mean(dim=(2, 3, 4)).sum(dim=1)


def feature_factor(epoch: int, schedule: Schedule = "cifar") -> float:
    """Return beta in an epoch, counted from 1: it rises to 1 (on ImageNet to 0.9) and falls to 0.1 at the end.

    Raises:
        ValueError: there is no such schedule.
    """
    check_choice("schedule", schedule, _PHASES)
    return next((factor for end, factor in _PHASES[schedule] if epoch <= end), 0.1)


class FeatureTransform(nn.Module):
    """x + contract(expand(x)), both a 1x1 convolution without a bias and a batch norm.

    Args:
        channels: of x, C.
        width: of the expansion, N times the teacher's channels.
        init: of the convolutions: "kaiming", normal with deviation sqrt(2 / outputs); "default", torch's.
    """

    def __init__(self, channels: int, width: int, *, init: ConvInit = "kaiming") -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
        self.contract = nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels))
        if init == "kaiming":
            for layer in (self.expand[0], self.contract[0]):
                nn.init.kaiming_normal_(cast("Tensor", layer.weight), mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, H, W] to the same shape."""
        contracted: Tensor = self.contract(self.expand(x))
        return x + contracted

    @torch.no_grad()
    def merged(self) -> tuple[Tensor, Tensor]:
        """Return matrix [C, C] and offset [C] of the affine map that this is in eval mode."""
        first, shift = _affine(self.expand)
        second, offset = _affine(self.contract)
        matrix = second @ first
        matrix.diagonal().add_(1.0)
        return matrix, second @ shift + offset


class Expanded(Composite):
    """A student with a transform of the map after its last stage: while it trains, and, a WRN, when it is deployed.

    Args:
        network: a `Staged` student.
        transform: maps [B, C, H, W] to the same shape.
        border: "last", whose feature is then the transformed one; or the last stage, whose feature it reads.
    """

    deployed_as = "norm"
    transform: nn.Module

    def __init__(self, network: nn.Module, transform: nn.Module, border: str) -> None:
        super().__init__(network, borders_of(network), transform=transform)
        self.border = border
        if isinstance(transform, FeatureTransform):
            self.roles["expanded"] = "transform.expand"

    def segments(self) -> Sequence[Segment]:
        """Return those of the network, with the transform in the one that leads to "last", or from the stage."""
        segments = list(cast("Staged", self.network).segments())
        place = [border for border, _ in segments].index(self.border)
        if self.border == "last":
            start, run = segments[place - 1]
            segments[place - 1] = start, then(run, self.transform)
        else:
            start, run = segments[place]
            segments[place] = start, then(self.transform, run)
        return segments

    @classmethod
    def rebuild(cls, plain: nn.Module, weights: Mapping[str, Tensor]) -> Expanded:
        """Return what `NORM.deploy` makes where it cannot merge all: a plain network with one 1x1 convolution."""
        channels = len(weights["transform.bias"])
        stage = last_stage(cast("Staged", plain).roles, "student")
        return cls(plain, nn.Conv2d(channels, channels, 1), stage)


class NORM(Method):
    """Many copies of the teacher's map are matched by the student's expanded map, mean over the batch.

    The student that is trained has the transform, whose parameters are in its state dict; the method has none.
    Its batch norms need more than one value per channel.

    Args:
        student_channels: the channels of the map after the student's last stage.
        teacher_channels: the channels of the teacher's map.
        teacher_stage: the role of the teacher's map.
        border: where the student is changed: "last", or, in WRNs, the last stage, before batch norm and ReLU.
        copies: how often the student's expanded map holds the teacher's (N); 8 in the authors' scripts.
        schedule: how the factor beta changes over the epochs: as on "cifar" (240 epochs), or as on "imagenet" (100).
        conv_init: how the transform starts: "kaiming", as the authors have it in all students but ShuffleNets;
            "default", torch's, as in these.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, NORM, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "norm": (1.0, NORM)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    student_needs = ("expanded",)

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        teacher_stage: str,
        border: str,
        *,
        copies: int = 8,
        schedule: Schedule = "cifar",
        conv_init: ConvInit = "kaiming",
    ) -> None:
        super().__init__()
        check_range("copies", copies, 1)
        check_choice("conv_init", conv_init, get_args(ConvInit))
        feature_factor(1, schedule)
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.teacher_needs = (teacher_stage,)
        self.border = border
        self.copies = copies
        self.schedule: Schedule = schedule
        self.conv_init: ConvInit = conv_init

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> NORM:
        """Return the method for this pair.

        Raises:
            ValueError: a network has no stages that are maps, or the student no `last`.
            TypeError: the student cannot be changed after a stage.
        """
        given(pair.teacher, "NORM")
        require_staged(pair.student, "NORM", "puts layers between the student's stages")
        last = map_shape(pair.student_shapes, "last", "student")
        stage, teacher_stage = last_stage(pair.student_shapes, "student"), last_stage(pair.teacher_shapes, "teacher")
        leads_on = pair.student_shapes[stage] != last or _passes_through(pair.student, stage, last)
        teacher_channels = map_shape(pair.teacher_shapes, teacher_stage, "teacher")[0]
        return cls(last[0], teacher_channels, teacher_stage, "last" if leads_on else stage, **options)

    def adapt(self, student: nn.Module) -> nn.Module:
        """Return a copy of the student with the transform."""
        require_staged(student, "NORM", "puts layers between the student's stages")
        require_unchanged(student, "NORM")
        width = self.copies * self.teacher_channels
        transform = FeatureTransform(self.student_channels, width, init=self.conv_init)
        return Expanded(copy.deepcopy(student), transform, self.border).to(next(student.parameters()))

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"norm": mean loss times the epoch's factor}."""
        loss = n_to_one_loss(student.features["expanded"], teacher.features[self.teacher_needs[0]])
        return {"norm": feature_factor(batch.epoch, self.schedule) * loss.mean()}

    @torch.no_grad()
    def deploy(self, student: nn.Module) -> nn.Module:
        """Return a copy of the student with the transform merged: the plain network, or, a WRN, one with a convolution.

        In eval mode its logits are the student's. What is trained on are the normalised ones (`normalized_logits`).
        """
        if not isinstance(student, Expanded) or not isinstance(student.transform, FeatureTransform):
            return student
        matrix, offset = student.transform.merged()
        network = student.network
        if self.border != "last":
            convolution = plain_classifier(matrix, offset, convolution=True).to(next(network.parameters()))
            return Expanded(copy.deepcopy(network), convolution, self.border)
        name, layer = classifier_of(network)
        weight = layer.weight.flatten(1).double()
        bias = weight @ offset + (0.0 if layer.bias is None else layer.bias)
        merged = plain_classifier(weight @ matrix, bias, convolution=isinstance(layer, nn.Conv2d))
        return replaced(network, name, merged.to(layer.weight))


def _affine(layers: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Return matrix and offset, in float64, of a 1x1 convolution without a bias and a batch norm in eval mode."""
    convolution, norm = cast("nn.Conv2d", layers[0]), cast("nn.BatchNorm2d", layers[1])
    scale = norm.weight.double() / (cast("Tensor", norm.running_var).double() + norm.eps).sqrt()
    offset = norm.bias.double() - scale * cast("Tensor", norm.running_mean).double()
    return scale[:, None] * convolution.weight.double().flatten(1), offset


def _passes_through(network: nn.Module, stage: str, shape: tuple[int, int, int]) -> bool:
    """Return whether what leads from a stage to `last` changes nothing, tried on negative values."""
    feature = next(network.parameters()).new_full((1, *shape), -1.0)
    with torch.no_grad():
        return torch.equal(resume(copy.deepcopy(network).eval(), stage, feature).features["last"], feature)
