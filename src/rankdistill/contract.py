"""The contract of a distillation method: what it is given, what it returns, how methods add up.

A method is an `nn.Module` that turns outputs into named, weighted losses. It holds no network, and its state dict
is exactly the state that its paper adds. Nothing here knows about data, training or particular networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

Losses = dict[str, Tensor]
"""Named scalars, already weighted; the objective is their sum. The name `task` is for losses on labels."""


TeacherMode = Literal["eval", "batch_stats"]

Given = TypeVar("Given")


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that changes from step to step.

    Attributes:
        images: [B, C, H, W], normalised; the weak view where there are two.
        labels: [B] int64, or [B, K] float (mixed labels), or None (unlabelled).
        indices: [B] int64, position of each sample in the training set.
        strong: [B, C, H, W], the second view of the same samples.
        held_out: a batch kept out of training, for bilevel updates.
        epoch: the epoch of training, counted from 1.
        step: optimizer steps done before this one. With the seed it determines every random draw of a method.

    Example:
        >>> import torch
        >>> from rankdistill import Batch
        >>> batch = Batch(torch.randn(4, 3, 32, 32), torch.tensor([3, 1, 4, 1]))
        >>> len(batch)
        4
    """

    images: Tensor
    labels: Tensor | None
    indices: Tensor | None = None
    strong: Tensor | None = None
    held_out: Batch | None = None
    epoch: int = 1
    step: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the batch with every tensor on `device`."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in values.items()
            if isinstance(value, Tensor | Batch)
        }
        return dataclasses.replace(self, **moved)

    def chunks(self, num: int) -> list[Self]:
        """Return the batch in `num` parts as equal as may be; `held_out` is in each of them.

        A part has at least two samples, so a batch of fewer than 2 * `num` has fewer parts: batch norm and losses over
        pairs of samples cannot work on one. A batch of a single sample is one part.
        """
        num = max(1, min(num, len(self) // 2))
        if num == 1:
            return [self]
        tensors = ("images", "labels", "indices", "strong")
        parts = {name: value.tensor_split(num) for name in tensors if (value := getattr(self, name)) is not None}
        return [dataclasses.replace(self, **{name: part[i] for name, part in parts.items()}) for i in range(num)]


@dataclass(frozen=True, slots=True)
class Output:
    """What one network says about one batch.

    Attributes:
        logits: [B, K].
        features: role -> feature, for the roles that were tapped.
        strong: the output for the second view, where there is one.

    Example:
        >>> import torch
        >>> from rankdistill import Output
        >>> output = Output(torch.randn(4, 10), {"pooled": torch.randn(4, 64)})
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    strong: Output | None = None


@runtime_checkable
class Runs(Protocol):
    """What a method is given of a network: `Network`, or a teacher whose logits are kept (`CachedTeacher`).

    Example:
        >>> from rankdistill import MODELS, Network, Runs
        >>> isinstance(Network(MODELS["resnet8"](10)), Runs)
        True
    """

    @property
    def module(self) -> nn.Module:
        """Return the bare network."""

    def run(self, batch: Batch) -> Output:
        """Return the outputs for each view of the batch."""

    def shared_pass(self) -> AbstractContextManager[None]:
        """Within it, `run` on one and the same batch runs the network once."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What a run knows about student and teacher before training; `Method.for_pair` reads it.

    Attributes:
        student, teacher: the bare modules, to read from (a classifier's weight, say). A method stores neither.
        student_shapes, teacher_shapes: role -> shape of that feature without the batch dimension.
        num_classes: the number of the student's classes.
        num_samples: the size of the training set.
        labels: [num_samples] int64, the class of each training sample; None where it is not known.

    Example:
        >>> from rankdistill import CRD, MODELS, Pair
        >>> shapes = {"pooled": (64,), "logits": (10,)}
        >>> pair = Pair(MODELS["resnet8"](10), MODELS["resnet14"](10), shapes, shapes, num_classes=10, num_samples=50)
        >>> method = CRD.for_pair(pair)
    """

    student: nn.Module
    teacher: nn.Module | None
    student_shapes: Mapping[str, tuple[int, ...]]
    teacher_shapes: Mapping[str, tuple[int, ...]]
    num_classes: int
    num_samples: int
    labels: Tensor | None = None


class Method(nn.Module):
    """A distillation method. Nearly every one overrides only `losses`.

    Class attributes, which an instance may set for itself where they depend on the pair:
        student_needs, teacher_needs: roles that `losses` reads from `Output.features`.
        views: 2 if it reads `Output.strong` as well.
        reads_teacher: False if it works without a teacher.
        teacher_mode: "eval", or "batch_stats" (batch statistics; running statistics are never written).
        observes: True if `observe` has something to log.
        reads_logits_once: True if it is a function of the two networks' logits, each read in one place, so that
            `Standardized` can standardise them first.
        meta: names of its parameters that the update rule "bilevel" learns from held-out images, and nothing else.
        any_classes: True if it reads nothing but logits of the teacher, and works with a teacher of other classes.

    What a method remembers between steps is a buffer, and is written only while `self.updates_state` is true:
    `EachView` clears it for the second view.

    Example:
        >>> from rankdistill import Batch, Losses, Method, Output
        >>> class LogitError(Method):
        ...     def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        ...         return {"error": (student.logits - teacher.logits).square().mean()}
    """

    student_needs: tuple[str, ...] = ()
    teacher_needs: tuple[str, ...] = ()
    views: int = 1
    reads_teacher: bool = True
    teacher_mode: TeacherMode = "eval"
    observes: bool = False
    reads_logits_once: bool = False
    meta: tuple[str, ...] = ()
    any_classes: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.updates_state = True

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> Self:
        """Return the method for this pair. Override to fill in shapes that the run knows."""
        del pair
        return cls(**options)

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return the weighted losses of one view. `teacher` is None only if `reads_teacher` is false."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither losses nor forward")

    def forward(self, batch: Batch, student: Runs, teacher: Runs | None) -> Losses:
        """Run the networks and return the losses. Override to run them in another way."""
        check_runs(batch, student, teacher)
        if not self.reads_teacher:
            return self.losses(batch, student.run(batch), cast("Output", None))
        return self.losses(batch, student.run(batch), given(teacher, type(self).__name__).run(batch))

    def prepare(self, teacher: Runs | None, batches: Callable[[], Iterable[Batch]]) -> list[str]:
        """Look at the teacher and some training batches; return what the user should know, a sentence each.

        Called once, before the first step, and not when a run goes on: what it finds out is kept in buffers.
        """
        return []

    def observe(self, batch: Batch, student: Output, teacher: Output) -> dict[str, float]:
        """Return what is worth logging after an epoch, from one training batch. Read only if `observes` is true."""
        return {}

    def meta_parameters(self) -> list[nn.Parameter]:
        """Return the parameters named in `meta`, its own and those of the methods in it."""
        inner = (module for module in self.modules() if isinstance(module, Method))
        return [module.get_parameter(name) for module in inner for name in module.meta]

    def adapt(self, student: nn.Module) -> nn.Module:
        """Return the student that is trained. Called once, before training."""
        return student

    def deploy(self, student: nn.Module) -> nn.Module:
        """Return what is evaluated, saved and exported. Called after every epoch: the student must stay as it is."""
        return student


def given(teacher: Given | None, method: str) -> Given:
    """Return the teacher.

    Raises:
        ValueError: there is none, and the method of that name reads one.
    """
    if teacher is None:
        raise ValueError(f"{method} reads a teacher, but this run has none: give it one")
    return teacher


def check_runs(batch: object, student: object, teacher: object) -> None:
    """Raise TypeError unless these are what a method is called with: a batch and what runs networks on it."""
    if not isinstance(batch, Batch):
        raise TypeError(f"the batch is a {type(batch).__name__}: give Batch(images, labels)")
    for who, network in (("student", student), ("teacher", teacher)):
        if not hasattr(network, "run") and not (network is None and who == "teacher"):
            kind = type(network).__name__
            raise TypeError(f"the {who} is a {kind}: give the Network that `assemble` returned, or Network(module)")


def check_classes(pair: Pair, method: str) -> None:
    """Raise ValueError if the networks of a pair have different numbers of classes, which the method cannot compare."""
    (classes,) = pair.teacher_shapes.get("logits", (pair.num_classes,))
    if classes != pair.num_classes:
        raise ValueError(
            f"the student has {pair.num_classes} classes and the teacher {classes}: {method} needs equally many; "
            "use a teacher of the same classes, or a method on features"
        )


@contextmanager
def state_held(method: Method) -> Iterator[None]:
    """Within it, a method and those in it remember nothing: `updates_state` is false."""
    inner = [module for module in method.modules() if isinstance(module, Method)]
    before = [module.updates_state for module in inner]
    for module in inner:
        module.updates_state = False
    try:
        yield
    finally:
        for module, value in zip(inner, before, strict=True):
            module.updates_state = value
