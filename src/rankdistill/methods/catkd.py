"""Class Attention Transfer Based Knowledge Distillation (Guo, Yan, Li and Lin, CVPR 2023). arXiv:2304.12777.

Without a bias, and before the average pool, a linear classifier W gives each class a map of the image, whose average
is that class's logit. Student and teacher are compared on these maps, averaged to r x r and, if asked for, each divided
by its norm:

    A(x)_k = sum_c W_kc last(x)_c,   CAT-KD = (1 / K r^2) sum_k |n(pool_r A(s)_k) - n(pool_r A(t)_k)|^2

Recipes add cross-entropy; the weight of CAT-KD is 0.5 to 600, by pair.

Differs from the authors' code:
- The student keeps pooling before it classifies, and its maps are computed beside; its logits are the maps' averages to
  rounding. Trained, it is the plain network with a bias of zero.
- A map of zeros passes no gradient through its norm.
- Of their experiments with the maps alone, binarised teacher maps are an option; transfer of some classes is left out.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast, get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output, Pair, Runs, check_classes
from ..numerics import at_least_float32, check_choice, check_range, full_precision
from ..taps import roles
from ._features import unit_length
from ._surgery import averaged_classifier, check_averaged_classifier, classifier_of, plain_classifier, replaced

HeadInit = Literal["kaiming", "default"]


def class_activation_maps(
    features: Float[Tensor, "batch channels height width"], weight: Float[Tensor, "classes channels"]
) -> Float[Tensor, "batch classes height width"]:
    """Return each class's map: the classifier, without a bias, at every position.

    Args:
        features: the map whose average feeds the classifier, [B, C, H, W]. Half precision is computed in float32.
        weight: of the classifier, [K, C].

    The average over positions is the logits, [B, K].

    Example:
        >>> import torch
        >>> from rankdistill import class_activation_maps
        >>> class_activation_maps(torch.randn(4, 16, 8, 8), torch.randn(10, 16)).shape
        torch.Size([4, 10, 8, 8])
    """
    with full_precision(features):
        features = at_least_float32(features)
        return F.conv2d(features, weight.to(features)[:, :, None, None])


def cam_transfer_loss(
    student: Float[Tensor, "batch classes height width"],
    teacher: Float[Tensor, "batch classes teacher_height teacher_width"],
    *,
    resolution: int = 2,
    normalize: bool = True,
    binarize: bool = False,
) -> Float[Tensor, " batch"]:
    """Return the mean squared difference of class activation maps, per sample: mean over classes and r x r positions.

    Args:
        student: maps, [B, K, H, W]. Half precision is computed in float32.
        teacher: maps, [B, K, H', W']; no gradient flows into them.
        resolution: r; both are averaged to r x r.
        normalize: divide each averaged map by its norm (at least 1e-12), so that only its shape counts.
        binarize: first make the teacher's maps 1 where they exceed the mean of their absolute value, 0 elsewhere.

    Zero where the maps are equal; with `normalize`, where each is a positive multiple of the other.

    Raises:
        ValueError: samples or classes differ, or the resolution is not positive.

    Example:
        >>> import torch
        >>> from rankdistill import cam_transfer_loss
        >>> student, teacher = torch.randn(2, 4, 10, 8, 8)  # class activation maps [batch, classes, height, width]
        >>> cam_transfer_loss(student, teacher).shape
        torch.Size([4])
    """
    if student.shape[:2] != teacher.shape[:2]:
        raise ValueError(
            f"the student's maps have shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}: "
            "maps of the same samples and classes are needed"
        )
    check_range("resolution", resolution, 1)
    with full_precision(student):
        student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
        if binarize:
            teacher = (teacher > teacher.abs().mean(dim=(2, 3), keepdim=True)).to(teacher)
        maps = [F.adaptive_avg_pool2d(x, resolution).flatten(2) for x in (student, teacher)]  # [B, K, r r]
        if normalize:
            maps = [unit_length(x, -1) for x in maps]
        return (maps[0] - maps[1]).square().mean(dim=(1, 2))


class ShownClassifier(nn.Linear):
    """A linear classifier without a bias, whose weight can be tapped as the output of `shown`, [K, C].

    Args:
        layer: the classifier that it replaces, linear or a 1x1 convolution: gives shape, device and dtype.
        init: "kaiming", normal with deviation sqrt(2 / K); "default", torch's, uniform within 1 / sqrt(C).
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, *, init: HeadInit) -> None:
        classes, channels = layer.weight.shape[:2]
        super().__init__(channels, classes, bias=False, device=layer.weight.device, dtype=layer.weight.dtype)
        self.shown = nn.Identity()
        self.convolution = isinstance(layer, nn.Conv2d)
        self.had_bias = layer.bias is not None
        if init == "kaiming":
            nn.init.normal_(self.weight, std=math.sqrt(2.0 / classes))

    def forward(self, pooled: Tensor) -> Tensor:
        """Return the logits of pooled features, [B, C] or [B, C, 1, 1], with the same number of dimensions."""
        weight: Tensor = self.shown(self.weight)
        return F.conv2d(pooled, weight[:, :, None, None]) if self.convolution else F.linear(pooled, weight)

    def plain(self) -> nn.Linear | nn.Conv2d:
        """Return the layer that it replaced, with this weight and a bias of zero where that had one."""
        weight = self.weight.detach()
        bias = weight.new_zeros(len(weight)) if self.had_bias else None
        return plain_classifier(weight, bias, convolution=self.convolution)


class CATKD(Method):
    """The student learns the teacher's class activation maps, mean over the batch.

    Before training, the student's classifier is replaced by one without a bias; the deployed student has the plain
    network's structure, with a bias of zero.

    Its state is a copy of the teacher's classifier, [K, C].

    Args:
        teacher_classifier: weight of the teacher's classifier, [K, C].
        resolution: both networks' maps are averaged to so many pixels (r) of a side.
        normalize: compare only the shapes of the maps, as the authors do for pairs of different families.
        binarize: binarise the teacher's maps.
        head_init: how the new classifier starts: "kaiming", as the authors have it in ResNets, WRNs and MobileNetV2;
            "default", torch's, as in VGGs and ShuffleNets.

    Example:
        >>> import torch
        >>> from rankdistill import CATKD, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "catkd": (50.0, CATKD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    student_needs = ("last", "classifier")
    teacher_needs = ("last",)

    def __init__(
        self,
        teacher_classifier: Tensor,
        *,
        resolution: int = 2,
        normalize: bool = True,
        binarize: bool = False,
        head_init: HeadInit = "kaiming",
    ) -> None:
        super().__init__()
        check_range("resolution", resolution, 1)
        check_choice("head_init", head_init, get_args(HeadInit))
        self.register_buffer("teacher_classifier", teacher_classifier.detach().clone())
        self.resolution = resolution
        self.normalize = normalize
        self.binarize = binarize
        self.head_init: HeadInit = head_init

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> CATKD:
        """Return the method for this pair.

        Raises:
            ValueError: a network's classifier does not read the average of `last`, or the classes differ.
        """
        check_classes(pair, "CAT-KD")
        weight, _ = averaged_classifier(pair.teacher, pair.teacher_shapes, whose="teacher", method="CAT-KD")
        averaged_classifier(pair.student, pair.student_shapes, whose="student", method="CAT-KD")
        return cls(weight, **options)

    def adapt(self, student: nn.Module) -> nn.Module:
        """Return a copy of the student with a new classifier, which has no bias and can be tapped."""
        name, layer = classifier_of(student)
        adapted = replaced(student, name, ShownClassifier(layer, init=self.head_init))
        cast("Any", adapted).roles = roles(student) | {"classifier": f"{name}.shown"}
        return adapted

    def prepare(self, teacher: Runs | None, batches: Callable[[], Iterable[Batch]]) -> list[str]:
        """Check that the teacher's maps average to its logits."""
        if teacher is not None:
            check_averaged_classifier(teacher, batches, self.get_buffer("teacher_classifier"), "CAT-KD")
        return []

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"catkd": mean loss}."""
        maps = class_activation_maps(student.features["last"], student.features["classifier"])
        target = class_activation_maps(teacher.features["last"], self.get_buffer("teacher_classifier"))
        options = {"normalize": self.normalize, "binarize": self.binarize}
        return {"catkd": cam_transfer_loss(maps, target, resolution=self.resolution, **options).mean()}

    def deploy(self, student: nn.Module) -> nn.Module:
        """Return a copy of the student with the plain network's structure."""
        deployed = copy.deepcopy(student)
        for name, layer in student.named_modules():
            if isinstance(layer, ShownClassifier):
                deployed.set_submodule(name, layer.plain())
        cast("Any", deployed).roles = {role: tap for role, tap in roles(student).items() if role != "classifier"}
        return deployed
