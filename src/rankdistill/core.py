"""The contract of a distillation method: what it is given, what it returns, how methods add up.

A method is an `nn.Module` that turns outputs into named, weighted losses. It holds no network, and its state dict
is exactly the state that its paper adds. Nothing here knows about data, training or particular networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Losses = dict[str, Tensor]
"""Named scalars, already weighted; the objective is their sum. The name `task` is for losses on labels."""

TeacherMode = Literal["eval", "batch_stats"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that changes from step to step.

    Attributes:
        images: [B, C, H, W], normalised; the weak view where there are two.
        labels: [B] int64, or [B, K] float (mixed labels), or None (unlabelled).
        indices: [B] int64, position of each sample in the training set.
        strong: [B, C, H, W], the second view of the same samples.
        held_out: a batch kept out of training, for bilevel updates.
        epoch: counted from 1.
        step: optimizer steps done before this one. With the seed it determines every random draw of a method.
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
        """Return the batch in `num` parts, or fewer if it has fewer samples, as equal as may be; `held_out` in each."""
        if num == 1:
            return [self]
        tensors = ("images", "labels", "indices", "strong")
        parts = {
            name: value.tensor_split(min(num, len(self)))
            for name in tensors
            if (value := getattr(self, name)) is not None
        }
        return [
            dataclasses.replace(self, **{name: part[i] for name, part in parts.items()})
            for i in range(min(num, len(self)))
        ]


@dataclass(frozen=True, slots=True)
class Output:
    """What one network says about one batch.

    Attributes:
        logits: [B, K].
        features: role -> feature, for the roles that were tapped.
        strong: the same for the second view, where there is one.
    """

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    strong: Output | None = None


@runtime_checkable
class Runs(Protocol):
    """What a method is given of a network: `Network`, or a teacher whose logits are kept (`CachedTeacher`)."""

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
        num_classes: width of the student's logits.
        num_samples: size of the training set.
        labels: [num_samples] int64, the class of each training sample; None where it is not known.
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
        meta: names of its parameters that the update rule "bilevel" learns from held-out images, and nothing else.

    What a method remembers between steps is a buffer, and is written only while `self.updates_state` is true:
    `EachView` clears it for the second view.
    """

    student_needs: tuple[str, ...] = ()
    teacher_needs: tuple[str, ...] = ()
    views: int = 1
    reads_teacher: bool = True
    teacher_mode: TeacherMode = "eval"
    observes: bool = False
    meta: tuple[str, ...] = ()

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
        if not self.reads_teacher:
            return self.losses(batch, student.run(batch), cast("Output", None))
        if teacher is None:
            raise ValueError(f"{type(self).__name__} reads a teacher, but this run has none: give it one")
        return self.losses(batch, student.run(batch), teacher.run(batch))

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


class CrossEntropy(Method):
    """Cross-entropy of the student's softmax with the labels, in nats, mean over the batch.

    Labels are classes [B] int64 or distributions [B, K]. No state. The loss is computed in float32.
    """

    reads_teacher = False

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing is {label_smoothing}: it must be at least 0 and less than 1")
        self.label_smoothing = label_smoothing

    def losses(self, batch: Batch, student: Output, teacher: Output | None = None) -> Losses:
        """Return {"task": cross-entropy}."""
        del teacher
        if batch.labels is None:
            raise ValueError("cross-entropy needs Batch.labels, which is None: leave it out for unlabelled data")
        with full_precision(student.logits):
            logits = at_least_float32(student.logits)
            return {"task": F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)}


class Sum(Method):
    """The weighted sum of methods, over one pass of each network.

    Args:
        terms: name=(weight, method). Weights are finite and at least 0. A loss "x" of the method called "crd"
            becomes "crd/x"; a method's only loss that has the method's own name keeps it ("task", not "task/task").
    """

    def __init__(self, **terms: tuple[float, Method]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("Sum has no terms: give it at least one, as name=(weight, method)")
        for name, (weight, _) in terms.items():
            if not 0.0 <= weight < float("inf"):
                raise ValueError(f"the weight of {name!r} is {weight}: it must be finite and not negative")
        methods = {name: method for name, (_, method) in terms.items()}
        self.weights = {name: float(weight) for name, (weight, _) in terms.items()}
        self.methods = nn.ModuleDict(methods)
        self.student_needs = _union(method.student_needs for method in methods.values())
        self.teacher_needs = _union(method.teacher_needs for method in methods.values())
        self.views = max(method.views for method in methods.values())
        self.reads_teacher = any(method.reads_teacher for method in methods.values())
        self.observes = any(method.observes for method in methods.values())
        modes = {name: method.teacher_mode for name, method in methods.items() if method.reads_teacher}
        if len(set(modes.values())) > 1:
            raise ValueError(f"one teacher pass cannot be in two modes: {modes}; train these methods in separate runs")
        self.teacher_mode = next(iter(modes.values()), "eval")

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return every term's losses on outputs that are already there."""
        return self._collect({name: term.losses(batch, student, teacher) for name, term in self._terms()})

    def forward(self, batch: Batch, student: Runs, teacher: Runs | None) -> Losses:
        """Run every term; those that run the networks plainly share one pass of each."""
        if teacher is None and self.reads_teacher:
            readers = [name for name, term in self._terms() if term.reads_teacher]
            raise ValueError(f"a teacher is read by {', '.join(readers)}, but this run has none: give it one")
        with ExitStack() as stack:
            for network in (student, teacher):
                if network is not None:
                    stack.enter_context(network.shared_pass())
            return self._collect({name: term(batch, student, teacher) for name, term in self._terms()})

    def prepare(self, teacher: Runs | None, batches: Callable[[], Iterable[Batch]]) -> list[str]:
        """Let each term prepare."""
        return [sentence for _, term in self._terms() for sentence in term.prepare(teacher, batches)]

    def observe(self, batch: Batch, student: Output, teacher: Output) -> dict[str, float]:
        """Return every term's observations, named as its losses are."""
        return {
            f"{name}/{key}": value
            for name, term in self._terms()
            if term.observes
            for key, value in term.observe(batch, student, teacher).items()
        }

    def adapt(self, student: nn.Module) -> nn.Module:
        """Let each term change the student, in order."""
        for _, term in self._terms():
            student = term.adapt(student)
        return student

    def deploy(self, student: nn.Module) -> nn.Module:
        """Undo `adapt` in reverse order."""
        for _, term in reversed(list(self._terms())):
            student = term.deploy(student)
        return student

    def _terms(self) -> Iterator[tuple[str, Method]]:
        for name, module in self.methods.items():
            yield name, cast("Method", module)

    def _collect(self, found: Mapping[str, Losses]) -> Losses:
        return {
            name if key == name else f"{name}/{key}": self.weights[name] * value
            for name, losses in found.items()
            for key, value in losses.items()
        }


class EachView(Method):
    """A one-view method applied to the weak and the strong view; the losses of the two views are summed.

    What the method remembers is updated by the weak view only.
    """

    views = 2

    def __init__(self, method: Method) -> None:
        super().__init__()
        inner = [module for module in method.modules() if isinstance(module, Method)]
        for module in inner:
            name = type(module).__name__
            if module.views != 1:
                raise ValueError(f"{name} reads {module.views} views by itself: use it without EachView")
            if not isinstance(module, Sum) and type(module).forward is not Method.forward:
                raise ValueError(f"{name} runs the networks itself, on one view: it cannot be used with EachView")
        self.method = method
        self.student_needs = method.student_needs
        self.teacher_needs = method.teacher_needs
        self.reads_teacher = method.reads_teacher
        self.teacher_mode = method.teacher_mode
        self.observes = method.observes

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return the losses of the weak view plus those of the strong view, under the same names."""
        if batch.strong is None or student.strong is None:
            raise ValueError("EachView needs Batch.strong, the second view, which is None: use a two-view augmentation")
        strong_teacher = teacher.strong if self.reads_teacher else None
        weak = self.method.losses(batch, student, teacher)
        with state_held(self.method):
            second = dataclasses.replace(batch, images=batch.strong, strong=None)
            strong = self.method.losses(second, student.strong, cast("Output", strong_teacher))
        return {name: value + strong[name] for name, value in weak.items()}

    def prepare(self, teacher: Runs | None, batches: Callable[[], Iterable[Batch]]) -> list[str]:
        """As the method does."""
        return self.method.prepare(teacher, batches)

    def observe(self, batch: Batch, student: Output, teacher: Output) -> dict[str, float]:
        """As the method does, on the weak view."""
        return self.method.observe(batch, student, teacher)

    def adapt(self, student: nn.Module) -> nn.Module:
        """As the method does."""
        return self.method.adapt(student)

    def deploy(self, student: nn.Module) -> nn.Module:
        """As the method does."""
        return self.method.deploy(student)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 if it is in half precision, unchanged in float32 and float64."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def full_precision(tensor: Tensor) -> torch.autocast:
    """Return a context in which autocast is off on the tensor's device; every loss function computes inside one."""
    return torch.autocast(tensor.device.type, enabled=False)


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless the temperature is positive and finite."""
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}: it must be positive and finite")


def paired_logits(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both logits in at least float32, the teacher's detached.

    Raises:
        ValueError: they are not two [B, K] of one shape.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"the student's logits have shape {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}: "
            "logits of the same samples and classes, [batch, classes], are needed"
        )
    return at_least_float32(student), at_least_float32(teacher.detach())


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


def _union(needs: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(role for roles in needs for role in roles))
