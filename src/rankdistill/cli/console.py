"""How a run looks in a terminal: an opening block, a live bar where there is one, plain lines in a file or a pipe."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..runs.catalogue import METHODS
from ..runs.options import shared_options

if TYPE_CHECKING:
    from torch import nn

    from ..training.plan import Plan, Record

_TIMED_STEPS = 10
"""After so many steps the time of the whole run is estimated."""


def is_first_process() -> bool:
    """Return whether this is the only process of a run or the first: the one that prints."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `main`, which ends quietly."""
        raise BrokenPipeError


# Literal: no markup and no emoji in what it prints, since paths and names may look like these.
console = _Console(markup=False, emoji=False, highlight=False, soft_wrap=True, quiet=not is_first_process())
"""Prints as things are called, and nothing where another process prints already."""


class Terminal:
    """Shows a run's progress. A context manager: the bar ends with it.

    Args:
        console: where to write.
        title: what the bar is called.
    """

    def __init__(self, console: Console, title: str) -> None:
        self.console = console
        self.title = title
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=None, status="")
        self._epochs = self._first = self._total = 0
        self._started = 0.0
        self._steps = self._images = 0
        self._status = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, plan: Plan) -> None:
        """Say what is trained and where; begin, or go on from a checkpoint."""
        self._epochs, self._first = plan.epochs, plan.state.epoch
        self._total = plan.epochs * len(plan.loader) - plan.state.step
        self._started = time.perf_counter()
        self._bar.update(self._task, total=plan.epochs * len(plan.loader), completed=plan.state.step)
        self.console.print(self.title)
        for label, text in opening(plan):
            self.console.print(f"  {label:<9} {text}")
        if plan.state.step:
            self.console.print(f"{self.title}: going on after step {plan.state.step}")

    def note(self, sentence: str) -> None:
        """Show a method's advice."""
        self.console.print(f"{self.title}: {sentence}")

    def step(self, images: int) -> None:
        """Count a step; after a few of them say how long the run will take."""
        self._images += images
        self._steps += 1
        seconds = time.perf_counter() - self._started
        if self._steps == _TIMED_STEPS and not self.console.is_terminal:
            self.console.print(f"{self.title}: about {_duration(seconds / self._steps * self._total)} of training")
        self._bar.update(self._task, advance=1, status=f"{self._status}{self._images / seconds:,.0f} images/s")

    def epoch(self, record: Record) -> None:
        """Show an epoch's losses and accuracy, its throughput and the time left."""
        terms = "  ".join(f"{name} {value:.4f}" for name, value in record["loss"].items())
        accuracy = f"  top-1 {record['top1']:.2f}" if "top1" in record else ""
        if accuracy and "teacher_top1" in record:
            accuracy += f" (teacher {record['teacher_top1']:.2f})"
        self._status = f"{terms}{accuracy}  "
        if not self.console.is_terminal:
            done = record["epoch"] - self._first
            left = (time.perf_counter() - self._started) / done * (self._epochs - record["epoch"])
            self.console.print(
                f"{self.title} epoch {record['epoch']}/{self._epochs}  {terms}{accuracy}  "
                f"{record['images_per_second']:,.0f} images/s  {left:.0f} s left"
            )


def opening(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield what is said of a run before it starts: label, text."""
    about = plan.about
    networks = {"student": plan.state.student, "teacher": plan.state.teacher}
    for role, network in networks.items():
        if network is not None:
            folded = about.get("teacher_folded") if role == "teacher" else 0
            merged = f", {folded} batch norms merged into the layers before them" if folded else ""
            yield role, " ".join([f"{about[role]}," if about.get(role) else "", _size(network.module) + merged]).strip()
    classes = len(plan.header.get("class_names", ()))
    of = f" of {classes} classes" if classes else ""
    yield (
        "images",
        f"{plan.loader.num_samples:,}{of}; {_some(plan.epochs, 'epoch')} of {_some(len(plan.loader), 'step')}",
    )
    for name, options in about.get("losses", {}).items():
        yield "loss", f"{name}: {_loss(options)}"
    if environment := about.get("environment"):
        threads = f", threads: {environment['threads']}" if environment["device"] == "cpu" else ""
        processes = f", processes: {environment['processes']}" if environment["processes"] > 1 else ""
        yield "device", f"{environment['device']}, precision {about['precision']}{threads}{processes}"
    yield "folder", str(plan.folder)


def _some(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(module: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,} parameters"


def _loss(options: dict[str, Any]) -> str:
    """Return a loss's method and weight, and its options that are not the method's defaults."""
    usual = {option.name: option.default for option in METHODS[options["method"]].options}
    usual |= dict.fromkeys(shared_options(options["method"]), False) | {"method": options["method"]}
    others = {k: v for k, v in options.items() if k != "weight" and v != usual.get(k)}
    return ", ".join([options["method"], f"weight {options['weight']:g}", *(f"{k} {v}" for k, v in others.items())])


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 2):.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
