"""Weights into networks, with one sentence where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def load_into(module: nn.Module, weights: Mapping[str, Tensor], *, name: str, source: str) -> None:
    """Load a state dict whose names and shapes are exactly the module's.

    Args:
        module: receives the weights; untouched where they do not fit.
        weights: name -> tensor.
        name: what the module is called in the error.
        source: where the weights come from, for the error.

    Raises:
        ValueError: a tensor is missing, unexpected or of another shape; the first is named.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in weights]
    unknown = [key for key in weights if key not in own]
    misshapen = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    if missing or unknown:
        key, verb = (missing[0], "lacks") if missing else (unknown[0], "has")
        raise ValueError(
            f"{source} is not a {name}: it {verb} {key!r} ({len(missing)} tensors missing, {len(unknown)} unknown): "
            "name the architecture that it was saved from"
        )
    if misshapen:
        key = misshapen[0]
        raise ValueError(
            f"{source} is not this {name}: its {key!r} has shape {tuple(weights[key].shape)}, not "
            f"{tuple(own[key].shape)}: check the architecture and the number of classes"
        )
    module.load_state_dict(dict(weights))
