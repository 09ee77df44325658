"""How a run looks in a terminal: a live bar where there is one, plain lines in a file or a pipe."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..training.plan import Plan, Record


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
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=None, status="")
        self._epochs = 0
        self._first = 0
        self._started = 0.0
        self._images = 0
        self._status = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, plan: Plan) -> None:
        """Begin, or go on from a checkpoint."""
        self._epochs, self._first = plan.epochs, plan.state.epoch
        self._started = time.perf_counter()
        self._bar.update(self._task, total=plan.epochs * len(plan.loader), completed=plan.state.step)
        if plan.state.step:
            self.console.print(f"{self.title}: going on after step {plan.state.step}", highlight=False)

    def note(self, sentence: str) -> None:
        """Show a method's advice."""
        self.console.print(f"{self.title}: {sentence}", soft_wrap=True, highlight=False)

    def step(self, images: int) -> None:
        """Count a step."""
        self._images += images
        rate = self._images / (time.perf_counter() - self._started)
        self._bar.update(self._task, advance=1, status=f"{self._status}{rate:,.0f} images/s")

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
            line = (
                f"{self.title} epoch {record['epoch']}/{self._epochs}  {terms}{accuracy}  "
                f"{record['images_per_second']:,.0f} images/s  {left:.0f} s left"
            )
            self.console.print(line, soft_wrap=True, highlight=False)
