"""Places in a network by name: which roles a network has, and how a network is entered at one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor, nn

from .contract import Output
from .hooks import check_tap

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
    torchvision's classifiers in `_TORCHVISION`, and timm's networks through their `feature_info`.

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
    if type(module).__module__.startswith("torchvision.") and family in _TORCHVISION:
        found = dict(_TORCHVISION[family])
        if family == "EfficientNet":  # followed by a stem-like convolution; the small V2 has one stage less
            found["stage5"] = f"features.{len(cast('Any', module).features) - 2}"
        if family in _STAGES_IN_FEATURES:
            found |= _stages_in(cast("Any", module).features, _STAGES_IN_FEATURES[family])
        return found
    if hasattr(module, "feature_info"):
        return _timm_roles(module)
    return {}


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


def _stages_in(features: nn.Sequential, part: slice) -> dict[str, str]:
    """Return the stages in a part of a sequence of layers: a stage ends where the next layer strides."""
    layers = list(enumerate(features))[part]
    ends = [index - 1 for index, layer in layers[1:] if _strides(layer)] + [layers[-1][0]]
    return {f"stage{number}": f"features.{end}" for number, end in enumerate(ends, start=1)}


def _strides(layer: nn.Module) -> bool:
    """Return whether a layer, or one in it, is a convolution or a pooling that makes maps smaller."""
    strided = (m for m in layer.modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d))
    return any(m.stride not in (1, (1, 1)) for m in strided)


def _timm_roles(module: nn.Module) -> dict[str, str]:
    """Stages from timm's `feature_info`; a first entry that is not a stage of blocks is the stem."""
    entries = [entry["module"] for entry in cast("Any", module).feature_info if entry.get("module")]
    found: dict[str, str] = {}
    if entries and entries[0].split(".")[0] not in ("layer1", "stages", "stages_0", "blocks", "layers", "layers_0"):
        found["stem"] = entries.pop(0)
    found |= {f"stage{number}": entry for number, entry in enumerate(entries, start=1)}
    names = dict(module.named_modules())
    for name in ("global_pool", "head.global_pool"):
        if name in names:
            found["last"] = f"<{name}"
    classifier = cast("Any", module).get_classifier() if hasattr(module, "get_classifier") else None
    for name, submodule in names.items():
        if submodule is classifier:
            found["pooled"] = f"<{name}"
    return found


# torchvision's classifiers: class name -> role -> tap. Where a stage is not one module, its last block is tapped.
_TORCHVISION: dict[str, dict[str, str]] = {
    "ResNet": {
        "stem": "maxpool",
        **{f"stage{n}": f"layer{n}" for n in range(1, 5)},
        "last": "<avgpool",
        "pooled": "<fc",
    },
    "MobileNetV2": {
        "stem": "features.0",
        **{f"stage{n}": f"features.{i}" for n, i in enumerate((1, 3, 6, 13, 17), 1)},
        "last": "features",
        "pooled": "<classifier.1",
    },
    "EfficientNet": {
        "stem": "features.0",
        **{f"stage{n}": f"features.{i}" for n, i in enumerate((1, 2, 3, 5), 1)},
        "last": "<avgpool",
        "pooled": "<classifier.1",
    },
    "ShuffleNetV2": {
        "stem": "maxpool",
        **{f"stage{n}": f"stage{n + 1}" for n in range(1, 4)},
        "last": "conv5",
        "pooled": "<fc",
    },
    "ConvNeXt": {
        "stem": "features.0",
        **{f"stage{n}": f"features.{2 * n - 1}" for n in range(1, 5)},
        "last": "<avgpool",
        "pooled": "<classifier.2",
    },
    "RegNet": {
        "stem": "stem",
        **{f"stage{n}": f"trunk_output.block{n}" for n in range(1, 5)},
        "last": "<avgpool",
        "pooled": "<fc",
    },
    "SwinTransformer": {
        "stem": "features.0",
        **{f"stage{n}": f"features.{2 * n - 1}" for n in range(1, 5)},
        "last": "<avgpool",
        "pooled": "<head",
    },
    "VisionTransformer": {"stem": "encoder.dropout", "last": "encoder.ln", "pooled": "<heads.head"},
    "MaxVit": {
        "stem": "stem",
        **{f"stage{n}": f"blocks.{n - 1}" for n in range(1, 5)},
        "last": "<classifier.0",
        "pooled": "<classifier.5",
    },
    # Their last map is rectified in place by a function, so that it cannot be tapped.
    "DenseNet": {
        "stem": "features.pool0",
        **{f"stage{n}": f"features.denseblock{n}" for n in range(1, 5)},
        "pooled": "<classifier",
    },
    "GoogLeNet": {
        "stem": "maxpool1",
        **{f"stage{n}": m for n, m in enumerate(("conv3", "inception3b", "inception4e", "inception5b"), 1)},
        "last": "<avgpool",
        "pooled": "<fc",
    },
    "Inception3": {
        "stem": "maxpool1",
        **{f"stage{n}": m for n, m in enumerate(("Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"), 1)},
        "last": "<avgpool",
        "pooled": "<fc",
    },
    "MNASNet": {
        "stem": "layers.2",
        **{f"stage{n}": f"layers.{i}" for n, i in enumerate((7, 8, 9, 11, 13), 1)},
        "last": "layers",
        "pooled": "<classifier.1",
    },
    # Their stages lie in one sequence of layers (`_STAGES_IN_FEATURES`).
    "AlexNet": {"stem": "features.1", "last": "<avgpool", "pooled": "<classifier.6"},
    "VGG": {"last": "<avgpool", "pooled": "<classifier.6"},
    "SqueezeNet": {"stem": "features.1", "last": "<classifier"},
    "MobileNetV3": {"stem": "features.0", "last": "<avgpool", "pooled": "<classifier.3"},
}

_STAGES_IN_FEATURES = {
    "AlexNet": slice(2, -1),
    "VGG": slice(0, -1),
    "SqueezeNet": slice(2, None),
    "MobileNetV3": slice(1, -1),
}
"""torchvision's class name -> the part of `features` that is made of stages."""
