"""Networks as methods see them: any `nn.Module`, its features read by forward hooks behind role names.

Roles are the names that methods use for taps: `stem`, `stage1..stageN`, `pre1..preN` (before the stage's last
activation), `last` (the map whose average feeds the classifier) and `pooled` (what the last linear layer reads).
`hooks.py` says how a tap is written.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.random import fork_rng
from torch.utils.hooks import RemovableHandle

from .contract import Batch, Output, Runs, TeacherMode
from .hooks import Pass, attach, described


class Teacher(Runs, Protocol):
    """What a training loop is given of a frozen teacher: a `Network`, or one whose logits are kept."""

    @property
    def uncached(self) -> Network:
        """Return the network that computes: the teacher without anything kept."""

    def start_epoch(self, epoch: int, *, first: int = 0) -> None:
        """Hear that an epoch starts, or goes on at its step `first`."""

    def end_epoch(self) -> None:
        """Hear that every step of the epoch was taken."""


class Network:
    """A module, the features that are read from it, and how it is run. Adds nothing to the module's state dict.

    Args:
        module: any module that maps images [B, C, H, W] to logits [B, K].
        taps: role -> tap (see the module's docstring); `roles(module)` has those that are known.
        frozen: for a teacher. Its parameters stop requiring gradients, `run` records no graph, and `run` raises
            RuntimeError if the module is found in train mode or with trainable parameters.
        mode: "eval", or "batch_stats": a frozen network normalises with the batch's statistics, never writing its own.
        logits: where the logits are if the module returns a tuple (an index) or a mapping (a key).

    Attributes:
        around: returns a context that each run is entered in; for timing.

    Raises:
        ValueError: a tap names no submodule; the nearest names are given.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, Batch, Network
        >>> module = MODELS["resnet8"](10)
        >>> teacher = Network(module, {"pooled": "<fc"}, frozen=True)
        >>> pooled = teacher.run(Batch(torch.randn(4, 3, 32, 32), None)).features["pooled"]
    """

    def __init__(
        self,
        module: nn.Module,
        taps: Mapping[str, str] | None = None,
        *,
        frozen: bool = False,
        mode: TeacherMode = "eval",
        logits: int | str | None = None,
    ) -> None:
        self.module = module
        self.taps = dict(taps or {})
        self.frozen = frozen
        self.mode = mode
        self.around: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._logits = logits
        self._call: Callable[[Tensor], Any] = module
        self._pass = Pass()
        self._shared: list[tuple[Batch, Output]] | None = None
        self._hooks = [attach(module, role, tap, self._pass) for role, tap in self.taps.items()]
        weakref.finalize(self, _remove, self._hooks)
        if frozen:
            module.requires_grad_(False).eval()

    def run(self, batch: Batch) -> Output:
        """Return the outputs for each view of the batch: one pass per view, so batch statistics are per view.

        Raises:
            RuntimeError: a tap did not run or ran twice in one pass, or a frozen network was thawed.
            TypeError: the module returned something else than logits, and `logits` does not say where they are.
        """
        for seen, output in self._shared or ():
            if seen is batch:
                return output
        if self.frozen:
            self._check_frozen()
        with self.around(), torch.no_grad() if self.frozen else nullcontext(), self._statistics():
            output = self._through(batch.images)
            if batch.strong is not None:
                output = Output(output.logits, output.features, strong=self._through(batch.strong))
        if self._shared is not None:
            self._shared.append((batch, output))
        return output

    @contextmanager
    def shared_pass(self) -> Iterator[None]:
        """Within it, `run` on one and the same batch runs the module once."""
        outer = self._shared
        self._shared = [] if outer is None else outer
        try:
            yield
        finally:
            self._shared = outer

    @contextmanager
    def substituted(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """Within it, `run` uses these in place of the module's parameters, and writes to a copy of its buffers.

        For looking ahead: gradients flow into what is given, and the module stays as it is.

        Args:
            parameters: name -> value, for some or all of the module's parameters.

        Raises:
            ValueError: the module has no parameter of such a name.
        """
        known = dict(self.module.named_parameters())
        unknown = [name for name in parameters if name not in known]
        if unknown:
            raise ValueError(f"{type(self.module).__name__} has no parameter {unknown[0]!r}: give names of its own")
        copies = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        call, shared = self._call, self._shared
        self._call = lambda images: functional_call(self.module, {**known, **copies, **parameters}, (images,))
        self._shared = None
        try:
            yield
        finally:
            self._call, self._shared = call, shared

    def probe(self, images: Tensor) -> dict[str, tuple[int, ...]]:
        """Return role -> feature shape without the batch dimension, and "logits", from one dry run in eval mode.

        Modes, buffers and gradients of the module and the random state are left as they were. Dropout stays on in
        a network that trains, since an in-place one overwrites features only then.

        Raises:
            RuntimeError: a feature is overwritten in place by a later layer, or any error of `run`.
        """
        training = {module: module.training for module in self.module.modules()}
        self.module.eval()
        for module in training:
            if isinstance(module, _DropoutNd) and not self.frozen:
                module.train()
        self._pass.versions = {}
        device = images.device
        try:
            with torch.no_grad(), fork_rng([device] if device.type != "cpu" else [], device_type=device.type):
                output = self._through(images)
            for role, version in self._pass.versions.items():
                if output.features[role]._version != version:
                    raise RuntimeError(
                        f"the feature {role!r} (tap {self.taps[role]!r}) is overwritten in place by a later layer: "
                        "tap that layer's output, or build the network with inplace=False"
                    )
        finally:
            self._pass.versions = None
            for module, mode in training.items():
                module.training = mode
        shapes = {role: tuple(feature.shape[1:]) for role, feature in output.features.items()}
        return shapes | {"logits": tuple(output.logits.shape[1:])}

    @property
    def uncached(self) -> Network:
        """Return the network itself: it keeps nothing."""
        return self

    def start_epoch(self, epoch: int, *, first: int = 0) -> None:
        """Do nothing: a network runs alike in every epoch."""

    def end_epoch(self) -> None:
        """Do nothing: a network keeps nothing of an epoch."""

    def compile(self, **options: Any) -> None:
        """Let `run` call `torch.compile(module, **options)`; the module itself stays as it is."""
        self._call = cast("Callable[[Tensor], Any]", torch.compile(self.module, **options))

    def close(self) -> None:
        """Remove the hooks from the module."""
        _remove(self._hooks)

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        """Return a network around a copy of the module, with hooks of its own."""
        module = copy.deepcopy(self.module, memo)
        network = Network(module, self.taps, frozen=self.frozen, mode=self.mode, logits=self._logits)
        network.around = self.around
        return network

    def __reduce__(self) -> tuple[Callable[..., Network], tuple[Any, ...]]:
        return _rebuilt, (self.module, self.taps, self.frozen, self.mode, self._logits)

    def _through(self, images: Tensor) -> Output:
        captured: dict[str, Tensor] = {}
        self._pass.features, self._pass.graph = captured, torch.is_grad_enabled()
        try:
            logits = self._select(self._call(images))
        finally:
            self._pass.features = None
        if len(captured) != len(self.taps):
            role = next(role for role in self.taps if role not in captured)
            raise RuntimeError(
                f"the tap {self.taps[role]!r} of role {role!r} did not run in this pass: "
                "the network does not call that module; tap one that it calls"
            )
        return Output(logits, captured)

    def _select(self, result: Any) -> Tensor:
        if self._logits is not None and not isinstance(result, Tensor):
            try:
                result = result[self._logits]
            except (KeyError, IndexError, TypeError) as error:
                raise TypeError(
                    f"logits={self._logits!r} is not in the network's output, {described(result)}: "
                    "say where the logits are, assemble(..., logits=index or key)"
                ) from error
        if not isinstance(result, Tensor):
            raise TypeError(
                f"the network returned {described(result)}, not a tensor of logits: "
                "say where the logits are, assemble(..., logits=index or key)"
            )
        if result.ndim != 2:
            raise ValueError(f"the network's logits have shape {tuple(result.shape)}: [batch, classes] is needed")
        return result

    def _check_frozen(self) -> None:
        if any(module.training for module in self.module.modules()):
            raise RuntimeError("the frozen network is in train mode: something called train() on it; call eval()")
        if any(parameter.requires_grad for parameter in self.module.parameters()):
            raise RuntimeError("the frozen network has parameters that require gradients: do not thaw a teacher")

    def _statistics(self) -> Any:
        return batch_statistics(self.module) if self.frozen and self.mode == "batch_stats" else nullcontext()


def _rebuilt(
    module: nn.Module, taps: Mapping[str, str], frozen: bool, mode: TeacherMode, logits: int | str | None
) -> Network:
    """Return a network that was saved, around its module, with hooks of its own."""
    return Network(module, taps, frozen=frozen, mode=mode, logits=logits)


def _remove(hooks: Iterable[RemovableHandle]) -> None:
    for hook in hooks:
        hook.remove()


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Within it, batch norms use the batch's statistics and write nothing; all else keeps its mode.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, batch_statistics
        >>> network = MODELS["resnet8"](10).eval()
        >>> with batch_statistics(network):
        ...     logits = network(torch.randn(4, 3, 32, 32))
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, (training, tracking) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracking
