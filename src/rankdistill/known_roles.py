"""The roles of the networks of torchvision and timm."""

from __future__ import annotations

from typing import Any, cast

from torch import nn


def known_roles(module: nn.Module) -> dict[str, str]:
    """Return role -> tap of a network of torchvision or timm; empty for any other."""
    family = type(module).__name__
    if type(module).__module__.startswith("torchvision.") and family in TORCHVISION:
        found = dict(TORCHVISION[family])
        if family == "EfficientNet":  # followed by a stem-like convolution; the small V2 has one stage less
            found["stage5"] = f"features.{len(cast('Any', module).features) - 2}"
        if family in _STAGES_IN_FEATURES:
            found |= _stages_in(cast("Any", module).features, _STAGES_IN_FEATURES[family])
        return found
    if hasattr(module, "feature_info"):
        return _timm_roles(module)
    return {}


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
TORCHVISION: dict[str, dict[str, str]] = {
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
