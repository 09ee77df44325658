"""Hooks that read the features of a network while a pass runs, and nothing at any other time.

A tap is the name of a submodule, whose output is read; `<name` reads its first input instead, and `name@last` the
last of several calls in one pass (a shared ReLU).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@dataclass
class Pass:
    """The features of the pass that is under way.

    Attributes:
        features: role -> feature; None while no pass is under way.
        versions: role -> how often the feature's memory had been written when it was read; None where nobody asks.
        graph: whether the pass records a graph.
    """

    features: dict[str, Tensor] | None = None
    versions: dict[str, int] | None = None
    graph: bool = False


@dataclass
class Reader:
    """Reads one feature of a pass.

    A copy of the tapped module, and a saved one, has readers too. They belong to no pass, and so read nothing.

    Attributes:
        role: the name of the feature.
        tap: where it is.
        current: the pass that it reads for.
    """

    role: str
    tap: str
    current: Pass = field(default_factory=Pass)

    def __call__(self, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        """Read the output of a module, as a forward hook."""
        del module, inputs
        self.read(output)

    def read(self, value: object) -> None:
        """Keep the value as the feature of this pass.

        Raises:
            TypeError: the value is not a tensor.
            RuntimeError: the feature was read before in this pass, or it has no gradient in a pass that has.
        """
        features = self.current.features
        if features is None:
            return
        if not isinstance(value, Tensor):
            raise TypeError(f"the tap {self.tap!r} of role {self.role!r} gives {described(value)}, not a tensor")
        if self.role in features and not self.tap.endswith("@last"):
            raise RuntimeError(
                f"the tap {self.tap!r} of role {self.role!r} ran twice in one pass (a shared module): "
                f"write {self.tap + '@last'!r} for the last call"
            )
        if self.current.graph and not torch.is_grad_enabled():
            raise RuntimeError(
                f"the tap {self.tap!r} of role {self.role!r} ran without recording a graph, so that a loss on it would "
                "train nothing: pass use_reentrant=False to torch.utils.checkpoint, or tap a layer outside of no_grad()"
            )
        features[self.role] = value
        if self.current.versions is not None:
            self.current.versions[self.role] = value._version

    def __deepcopy__(self, memo: dict[int, Any]) -> Reader:
        return type(self)(self.role, self.tap)

    def __reduce__(self) -> tuple[type[Reader], tuple[str, str]]:
        return type(self), (self.role, self.tap)


class InputReader(Reader):
    """Reads the first input of a module, as a forward pre-hook."""

    def __call__(self, module: nn.Module, inputs: tuple[object, ...], named: object) -> None:
        """Read the first input of a module."""
        del module
        values = named.values() if isinstance(named, Mapping) else ()
        self.read(next(iter((*inputs, *values)), None))


def attach(module: nn.Module, role: str, tap: str, current: Pass) -> RemovableHandle:
    """Return the handle of a new hook in the module, which reads a role for the passes of `current`.

    Raises:
        TypeError: the role or the tap is no string.
        ValueError: the tap names no submodule; the nearest names are given.
    """
    check_tap(type(module).__name__, role, tap)
    names = dict(module.named_modules())
    name = tap.removeprefix("<").removesuffix("@last")
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
        hint = f"the nearest are {', '.join(near)}" if near else f"it has {', '.join(filter(None, names))}"
        raise ValueError(f"{role!r} taps {name!r}, which {type(module).__name__} does not have: {hint}")
    handle: RemovableHandle
    if tap.startswith("<"):
        handle = names[name].register_forward_pre_hook(InputReader(role, tap, current), with_kwargs=True)
    else:
        handle = names[name].register_forward_hook(Reader(role, tap, current))
    return handle


def check_tap(network: str, role: object, tap: object) -> None:
    """Raise TypeError unless role and tap of the network of this name are strings."""
    if not isinstance(role, str) or not isinstance(tap, str):
        raise TypeError(
            f"the role {role!r} of {network} has the tap {tap!r}: give both as strings, "
            'such as {"last": "name.of.a.submodule"}'
        )


def described(value: object) -> str:
    """Return what a value is, in a few words for an error."""
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with keys {', '.join(map(repr, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
