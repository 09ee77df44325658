"""Methods made of methods: a weighted sum, and a method applied to two views."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import cast

from torch import nn

from ..contract import Batch, Losses, Method, Output, Runs, check_runs, state_held


class Sum(Method):
    """The weighted sum of methods, over one pass of each network.

    Args:
        terms: name=(weight, method). Weights are finite and at least 0. A loss "x" of the method called "crd"
            becomes "crd/x"; a method's only loss that has the method's own name keeps it ("task", not "task/task").

    Raises:
        ValueError: there are no terms, a weight is out of range, a name cannot be that of a submodule, or two methods
            need one teacher in two modes.

    Example:
        >>> from rankdistill import KD, CrossEntropy, Sum
        >>> method = Sum(task=(0.1, CrossEntropy()), kd=(0.9, KD(temperature=4.0)))
    """

    def __init__(self, /, **terms: tuple[float, Method]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("Sum has no terms: give it at least one, as name=(weight, method)")
        for name, (weight, _) in terms.items():
            if not 0.0 <= weight < float("inf"):
                raise ValueError(f"the weight of {name!r} is {weight}: it must be finite and not negative")
            if not name or "." in name or hasattr(nn.ModuleDict(), name):
                raise ValueError(
                    f"a term is called {name!r}, and no submodule can have that name: take one without dots that is no "
                    'attribute of nn.Module, such as "kd"'
                )
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

    def losses(self, batch: Batch, student: Output, teacher: Output | None) -> Losses:
        """Return every term's losses on outputs that are already there."""
        given = cast("Output", teacher)  # None only where no term reads it
        return self._collect({name: term.losses(batch, student, given) for name, term in self._terms()})

    def forward(self, batch: Batch, student: Runs, teacher: Runs | None) -> Losses:
        """Run every term; those that run the networks plainly share one pass of each."""
        check_runs(batch, student, teacher)
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

    Example:
        >>> from rankdistill import KD, EachView
        >>> method = EachView(KD(temperature=4.0))  # reads Batch.strong, the second view
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

    def losses(self, batch: Batch, student: Output, teacher: Output | None) -> Losses:
        """Return the losses of the weak view plus those of the strong view, under the same names."""
        if batch.strong is None or student.strong is None:
            raise ValueError("EachView needs Batch.strong, the second view, which is None: use a two-view augmentation")
        strong_teacher = teacher.strong if teacher is not None else None
        weak = self.method.losses(batch, student, cast("Output", teacher))
        with state_held(self.method):
            second = dataclasses.replace(batch, images=batch.strong, strong=None)
            strong = self.method.losses(second, student.strong, cast("Output", strong_teacher))
        return {name: value + strong[name] for name, value in weak.items()}

    def prepare(self, teacher: Runs | None, batches: Callable[[], Iterable[Batch]]) -> list[str]:
        """Let the inner method prepare."""
        return self.method.prepare(teacher, batches)

    def observe(self, batch: Batch, student: Output, teacher: Output) -> dict[str, float]:
        """Return what the inner method observes on the weak view."""
        return self.method.observe(batch, student, teacher)

    def adapt(self, student: nn.Module) -> nn.Module:
        """Return what the inner method makes of the student."""
        return self.method.adapt(student)

    def deploy(self, student: nn.Module) -> nn.Module:
        """Return the student as the inner method deploys it."""
        return self.method.deploy(student)


def _union(needs: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(role for roles in needs for role in roles))
