"""Batch norms of a frozen network, merged into the layers before them: the same network in fewer passes over memory.

W' = W gamma / sqrt(var + eps),  b' = (b - mean) gamma / sqrt(var + eps) + beta
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..contract import Output
from ..network import Network

_MERGEABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Pair:
    """A layer and the batch norm that reads its output, with what undoes their merger."""

    layer: nn.Conv2d
    norm: _BatchNorm
    place: str
    weight: nn.Parameter
    bias: nn.Parameter | None


@torch.no_grad()
def fold_batch_norms(network: Network, images: Tensor) -> int:
    """Merge batch norms into the layers before them, in place, and return how many.

    A batch norm is merged if it is the only reader of a layer's output, and no tap reads that output. Logits and
    features before and after are compared on the images; if they differ by more than rounding, nothing is merged.

    Args:
        network: frozen, in mode "eval"; another one is left as it is.
        images: [B, C, H, W], any that the network can read; they decide nothing but whether the merger is right.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, Network
        >>> from rankdistill.folding import fold_batch_norms
        >>> fold_batch_norms(Network(MODELS["resnet8"](10), frozen=True), torch.randn(2, 3, 32, 32))
        9
    """
    if not network.frozen or network.mode != "eval":
        return 0
    pairs = _pairs(network, images)
    before = network._through(images)
    for pair in pairs:
        _merge(network.module, pair)
    if pairs and not _same(before, network._through(images)):
        for pair in pairs:
            pair.layer.weight, pair.layer.bias = pair.weight, pair.bias
            network.module.set_submodule(pair.place, pair.norm)
        return 0
    return len(pairs)


def _pairs(network: Network, images: Tensor) -> list[_Pair]:
    """Return layers and the batch norms that read nothing but their whole output, as one pass shows them."""
    module = network.module
    names = {child: name for name, child in module.named_modules()}
    counts = Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
    calls: Counter[nn.Module] = Counter()
    made: dict[int, tuple[nn.Module, Tensor, int]] = {}
    read: list[tuple[nn.Module, nn.Module]] = []

    def after(layer: nn.Module, _: Any, output: Tensor) -> None:
        calls[layer] += 1
        made[id(output)] = layer, output, output._version  # kept, so that its id stays its own

    def ahead(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[norm] += 1
        layer, output, version = made.get(id(inputs[0]), (None, None, None))
        if layer is not None and output is inputs[0] and output._version == version:
            read.append((layer, norm))

    hooks = [child.register_forward_hook(after) for child in names if type(child) in _MERGEABLE]
    hooks += [child.register_forward_pre_hook(ahead) for child in names if isinstance(child, _BatchNorm)]
    try:
        network._through(images)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for one, norm in read:
        layer, batch_norm = cast("nn.Conv2d", one), cast("_BatchNorm", norm)
        once = calls[one] == calls[norm] == 1 and all(counts[id(p)] == 1 for p in one.parameters())
        plain = batch_norm.running_mean is not None and batch_norm.affine
        tapped = bool(one._forward_hooks or norm._forward_pre_hooks)  # the output of the layer itself is read
        if once and plain and not tapped:
            weight, bias = cast("nn.Parameter", layer.weight), cast("nn.Parameter | None", layer.bias)
            found.append(_Pair(layer, batch_norm, names[norm], weight, bias))
    return found


def _merge(module: nn.Module, pair: _Pair) -> None:
    norm, weight = pair.norm, pair.layer.weight
    mean, variance = (cast("Tensor", value).double() for value in (norm.running_mean, norm.running_var))
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    shape = [-1, *[1] * (weight.ndim - 1)]
    bias = 0.0 if pair.bias is None else pair.bias.double()
    merged = (weight.double() * scale.view(shape)).to(weight.dtype)
    offset = ((bias - mean) * scale + norm.bias.double()).to(weight.dtype)
    pair.layer.weight = nn.Parameter(merged, requires_grad=False)
    pair.layer.bias = nn.Parameter(offset, requires_grad=False)
    identity = nn.Identity().eval()
    identity._forward_hooks, identity._forward_pre_hooks = norm._forward_hooks, norm._forward_pre_hooks
    module.set_submodule(pair.place, identity)


def _same(one: Output, other: Output) -> bool:
    pairs = [(one.logits, other.logits), *((one.features[role], other.features[role]) for role in one.features)]
    return all(bool((a - b).abs().max() <= _TOLERANCE * a.abs().max()) for a, b in pairs)
