"""What methods that change, cut or reuse a network know of it: its classifier, its last stage, its segments."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contract import Batch, Runs, given
from ..numerics import full_precision
from ..taps import Segment, Staged, resume, without
from ._stages import stage_roles

Shapes = Mapping[str, tuple[int, ...]]


class Deployed(Protocol):
    """A deployed student that is not the plain network.

    Attributes:
        deployed_as: the method's name, which the header of the saved weights keeps.
    """

    deployed_as: str

    @classmethod
    def rebuild(cls, plain: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
        """Return the deployed student made of a plain network, ready to load `weights`."""
        ...


class Composite(nn.Module):
    """A `Staged` network around another one, `network`; its forward runs its segments.

    Each border is a point that can be tapped, so that roles and segments agree; other roles of the network stay.

    Args:
        network: a `Staged` network.
        borders: the roles that segments start from, without "images".
        parts: name -> module that this one adds. They come before `network`, whose classifier so stays the last layer.
    """

    def __init__(self, network: nn.Module, borders: Sequence[str], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.network = network
        self.points = nn.ModuleDict({border: nn.Identity() for border in borders})
        self.roles = {role: _inside(tap) for role, tap in cast("Staged", network).roles.items()}
        self.roles |= {border: f"points.{border}" for border in borders}

    def segments(self) -> Sequence[Segment]:
        """Return the network as (role that the segment starts from, what it runs)."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it is made of")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, [B, K]."""
        x = images
        for border, run in self.segments():
            x = run(x if border == "images" else self.points[border](x))
        return x


def borders_of(network: nn.Module) -> list[str]:
    """Return the roles that a `Staged` network can be entered at, in order."""
    return [border for border, _ in cast("Staged", network).segments() if border != "images"]


def then(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the function that applies `first`, then `second`."""
    return lambda x: second(first(x))


def require_staged(module: nn.Module, method: str, does: str) -> Staged:
    """Return the module.

    Raises:
        TypeError: it cannot be entered and left at roles.
    """
    if not isinstance(module, Staged):
        raise TypeError(
            f"{method} {does}, and {type(module).__name__} has no segments() to do it with: "
            "use a network of rankdistill.models, or give yours what `rankdistill.Staged` shows"
        )
    return module


def require_unchanged(student: nn.Module, method: str) -> None:
    """Raise ValueError if NORM or SimKD has changed the student already, so that this method would undo its change."""
    if isinstance(student, Composite):
        raise ValueError(
            f"{method} changes the student, and another method has done so already: leave one of the two out"
        )


def last_stage(roles: Iterable[str], whose: str) -> str:
    """Return the role stageN with the largest N.

    Raises:
        ValueError: there is none.
    """
    found = stage_roles(roles)
    if not found:
        raise ValueError(without(f"the {whose}", "stage1", roles, what="stages"))
    return found[-1]


def map_shape(shapes: Shapes, role: str, whose: str) -> tuple[int, int, int]:
    """Return the shape (C, H, W) of a feature.

    Raises:
        ValueError: there is no such feature, or it is no map.
    """
    if role not in shapes:
        raise ValueError(without(f"the {whose}", role, shapes))
    shape = shapes[role]
    if len(shape) != 3:
        raise ValueError(f"the {whose}'s {role!r} has shape {shape} in a batch: a map [C, H, W] is needed")
    return shape[0], shape[1], shape[2]


def classifier_of(module: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """Return name and layer of a network's classifier: the layer that was registered last.

    Raises:
        ValueError: that is neither linear nor a 1x1 convolution.
    """
    layers = [(name, m) for name, m in module.named_modules() if next(m.parameters(recurse=False), None) is not None]
    name, layer = layers[-1] if layers else ("", module)
    if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)):
        return name, layer
    raise ValueError(
        f"the last layer of {type(module).__name__} is {name!r}, a {type(layer).__name__}: "
        "a classifier that is linear, or a 1x1 convolution, is needed there"
    )


def averaged_classifier(
    module: nn.Module | None, shapes: Shapes, *, whose: str, method: str
) -> tuple[Tensor, Tensor | None]:
    """Return copies of the weight [K, C] and the bias [K] of a classifier that reads the average of `last`.

    Raises:
        ValueError: there is no network, no map `last`, or the classifier's shape is not (K, C).
    """
    module = given(module, method)
    channels = map_shape(shapes, "last", whose)[0]
    name, layer = classifier_of(module)
    weight = layer.weight.detach().flatten(1).clone()
    if weight.shape != (shapes["logits"][0], channels):
        raise ValueError(
            f"the {whose}'s classifier {name!r} has shape {tuple(weight.shape)}, its map `last` {channels} channels, "
            f"its logits {shapes['logits'][0]} classes: {method} needs one that reads the average of `last`"
        )
    return weight, None if layer.bias is None else layer.bias.detach().clone()


def check_averaged_classifier(
    network: Runs, batches: Callable[[], Iterable[Batch]], weight: Tensor, method: str
) -> None:
    """Check on a batch that a network's logits are its classifier on the average of `last`, but for a constant.

    Raises:
        ValueError: they are not, so that reusing the classifier would be wrong.
    """
    batch = next(iter(batches()))
    with full_precision(batch.images):
        output = network.run(batch)
    logits, averaged = output.logits, output.features["last"].mean(dim=(2, 3))
    rest = logits - F.linear(averaged, weight.to(averaged))
    spread = (logits - logits.mean(dim=0)).abs().max()
    error = float((rest - rest.mean(dim=0)).abs().max() / torch.maximum(spread, 1e-3 * logits.abs().max()))
    if error > 0.05:
        raise ValueError(
            f"the teacher's logits differ by {error:.0%} from its classifier on the average of `last`: {method} needs "
            "a teacher that has only pooling and a linear layer there; choose another, or another tap"
        )


def replaced(module: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Return a copy of a network with another layer in the place of that name."""
    copied = copy.deepcopy(module)
    copied.set_submodule(name, layer)
    return copied


def plain_classifier(weight: Tensor, bias: Tensor | None, *, convolution: bool) -> nn.Linear | nn.Conv2d:
    """Return a classifier with copies of this weight [K, C] and bias [K]."""
    classes, channels = weight.shape
    layer: nn.Linear | nn.Conv2d
    if convolution:
        layer = nn.Conv2d(channels, classes, 1, bias=bias is not None)
    else:
        layer = nn.Linear(channels, classes, bias=bias is not None)
    layer = layer.to(weight)
    with torch.no_grad():
        layer.weight.copy_(weight.view_as(layer.weight))
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(bias)
    return layer


def tail_modules(network: nn.Module, border: str, feature: Tensor) -> set[str]:
    """Return the names of the modules that run after a border, found by a run on a feature [B, ...] of its shape."""
    ran: set[str] = set()
    names = {module: name for name, module in network.named_modules()}
    tail = copy.deepcopy(network).eval()
    copied = dict(zip(tail.modules(), names.values(), strict=True))
    hooks = [module.register_forward_pre_hook(lambda called, _: ran.add(copied[called])) for module in copied]
    with torch.no_grad():
        resume(tail, border, feature)
    for hook in hooks:
        hook.remove()
    return ran


def without_tail(network: nn.Module, border: str, feature: Tensor) -> nn.Module:
    """Return a copy of a `Staged` network whose layers after a border are gone, and so are the roles there.

    Args:
        network: is left as it is.
        border: where the rest ends.
        feature: [B, ...], of the shape that the network has there; its values do not matter.
    """
    ran = tail_modules(network, border, feature)
    cut = copy.deepcopy(network)
    for name in sorted(ran, reverse=True):  # what is inside a module before the module
        layer = cut.get_submodule(name)
        if next(layer.parameters(recurse=False), None) is not None:
            cut.set_submodule(name, nn.Identity())
    roles = cast("Staged", cut).roles
    kept = {role: tap for role, tap in roles.items() if tap.removeprefix("<").removesuffix("@last") not in ran}
    cast("Staged", cut).roles = kept
    return cut


def _inside(tap: str) -> str:
    return f"<network.{tap[1:]}" if tap.startswith("<") else f"network.{tap}"
