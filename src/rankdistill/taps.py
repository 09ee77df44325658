"""Places in a network by name: which roles a network has, and how a network is entered at one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from .contract import Output
from .hooks import check_tap
from .known_roles import known_roles

Segment = tuple[str, Callable[[Tensor], Tensor]]


@runtime_checkable
class Staged(Protocol):
    """A network that can be entered at a role; those of `rankdistill.models` are.

    NORM, SimKD and FCFD need such networks. Roles that are borders of segments must name the same features as taps.

    Attributes:
        roles: role -> tap.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from rankdistill import FCFD, MODELS, Staged, assemble
        >>> class Small(nn.Module):
        ...     roles = {"stem": "stem", "stage1": "stage1", "stage2": "stage2", "last": "<pool", "pooled": "<classify"}
        ...
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        ...         self.stage1 = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        ...         self.stage2 = nn.Sequential(nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU())
        ...         self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        ...         self.classify = nn.Linear(64, 10)
        ...
        ...     def segments(self):
        ...         parts = self.stem, self.stage1, self.stage2, nn.Identity(), self.pool, self.classify
        ...         return list(zip(["images", *self.roles], parts))  # each part starts from the role before it
        ...
        ...     def forward(self, images):
        ...         for _, run in self.segments():
        ...             images = run(images)
        ...         return images
        >>> isinstance(Small(), Staged)
        True
        >>> networks = Small(), MODELS["resnet14"](10)
        >>> ready = assemble({"fcfd": (1.0, FCFD)}, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    roles: dict[str, str]

    def segments(self) -> Sequence[Segment]:
        """Return the network as (role that the segment starts from, what it runs), from "images" to the logits."""
        ...


def resume(module: nn.Module, role: str, feature: Tensor) -> Output:
    """Return logits and later features of a network that is entered at a role.

    Gradients flow through a frozen network's tail into `feature`; its modes and statistics are the caller's business.

    Args:
        module: a `Staged` network (all of `rankdistill.models`).
        role: where `feature` belongs: "stem", "stageN", "preN", "prelast", "last" or "pooled".
        feature: [B, ...], what the network would have had there.

    Raises:
        TypeError: the network cannot be entered. ValueError: it has no such border.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, resume
        >>> network = MODELS["resnet8"](10)
        >>> output = resume(network, "stage2", torch.randn(4, 32, 16, 16))  # runs the third stage and the classifier
    """
    if not isinstance(module, Staged):
        raise TypeError(f"{type(module).__name__} cannot be entered at {role!r}: it has no segments() (see Staged)")
    segments = module.segments()
    borders = [border for border, _ in segments]
    if role not in borders or role == "images":
        known = ", ".join(borders[1:])
        raise ValueError(f"{type(module).__name__} cannot be entered at {role!r}: its borders are {known}")
    features: dict[str, Tensor] = {}
    tail = segments[borders.index(role) :]
    for (_, run), (reached, _) in zip(tail, [*tail[1:], ("logits", None)], strict=True):
        feature = run(feature)
        features[reached] = feature
    return Output(features.pop("logits"), features)


def roles(module: nn.Module) -> dict[str, str]:
    """Return the known roles of a network as role -> tap; empty if none are known.

    Known are networks that declare theirs as `roles` (those of `rankdistill.models`, and what methods make of others),
    torchvision's classifiers, and timm's networks through their `feature_info` (`known_roles.py`).

    What a network declares takes the place of what is known of it: `module.roles = roles(module) | {"pre1": "<relu"}`
    adds a role and keeps the others.

    Raises:
        TypeError: the network's attribute `roles` is no mapping of strings to strings.

    Example:
        >>> from rankdistill import MODELS, roles
        >>> roles(MODELS["resnet8"](10))["pooled"]
        'avgpool'
    """
    for wrapper in _WRAPPERS:
        wrapped = module._modules.get(wrapper)
        if wrapped is not None and len(module._modules) == 1:
            return {role: _inside(wrapper, tap) for role, tap in roles(wrapped).items()}
    family = type(module).__name__
    declared = getattr(module, "roles", None)
    if declared is not None:
        if not isinstance(declared, Mapping):
            raise TypeError(
                f"the roles of {family} are a {type(declared).__name__}: give a mapping, "
                'module.roles = {"last": "name.of.a.submodule"}'
            )
        for role, tap in declared.items():
            check_tap(family, role, tap)
        return dict(declared)
    return known_roles(module)


def select_roles(module: nn.Module, needs: Iterable[str]) -> dict[str, str]:
    """Return the taps of the roles in `needs`.

    Raises:
        ValueError: the network has no such role; the known ones are given.

    Example:
        >>> from rankdistill import MODELS, select_roles
        >>> select_roles(MODELS["resnet8"](10), ["stage1", "pooled"])
        {'stage1': 'layer1', 'pooled': 'avgpool'}
    """
    known = roles(module)
    missing = [role for role in needs if role not in known]
    if missing:
        raise ValueError(without(type(module).__name__, missing[0], known))
    return {role: known[role] for role in needs}


def without(network: str, role: str, known: Iterable[str], *, what: str = "") -> str:
    """Return a message on a network that lacks a role: what it has, and how its user declares one.

    Args:
        network: its name, or "the student".
        role: what to declare.
        known: the roles that it has; "logits", which every network gives, is none.
        what: what is needed, where that is not the role alone.
    """
    have = [name for name in known if name != "logits"]
    others = "roles(module) | " if have else ""
    return (
        f"{network} has no {what or f'role {role!r}'} (its roles: {', '.join(have) or 'none'}): "
        f'declare it, module.roles = {others}{{"{role}": "name.of.a.submodule"}}'
    )


_WRAPPERS = ("_orig_mod", "module")
"""What torch.compile and DistributedDataParallel call the network that they wrap."""


def _inside(name: str, tap: str) -> str:
    """Return the tap of a network that is the submodule `name` of another."""
    return f"<{name}.{tap[1:]}" if tap.startswith("<") else f"{name}.{tap}"
