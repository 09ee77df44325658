"""The demonstration: on real digits, a teacher, and a much smaller student trained three ways with few labels."""

from __future__ import annotations

import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...models import MODELS
from ...recipes import digits
from ...runs.build import build
from ...runs.config import Run
from ...training.loop import fit
from ...training.plan import Plan, Record, Watcher
from ..console import Terminal

STUDENTS: dict[str, Callable[[], Run]] = {"plain": digits.plain, "KD": digits.kd, "RA": digits.ra}

COLUMNS = ("", "network", "top-1 %", "gain over plain", "rank agreement", "parameters", "MACs", "seconds")


@dataclass(frozen=True)
class Trained:
    """One student after its training.

    Attributes:
        run: its configuration.
        record: what `fit` returned.
        curve: top-1 accuracy in percent by epoch.
        logits: [N, K], of the test images.
    """

    run: Run
    record: Record
    curve: dict[int, float]
    logits: Tensor

    @property
    def top1(self) -> float:
        """Return the accuracy of the last epoch, in percent."""
        return float(self.record["last"]["top1"])


@dataclass(frozen=True)
class Demo:
    """What the demonstration gave.

    Attributes:
        teacher: the teacher.
        students: way of training -> one student per seed.
        sizes: network name -> (parameters, multiply-adds of one image).
        images: [N, C, H, W], the test images as the networks see them.
        seconds: of the whole job.
    """

    teacher: Trained
    students: dict[str, list[Trained]]
    sizes: dict[str, tuple[int, int]]
    images: Tensor
    seconds: float


def run_demo(folder: Path, seeds: int, console: Console) -> Demo:
    """Train the teacher, and every student with every seed; all files go under `folder`.

    A seed chooses a student's initial weights, the order and augmentation of its images, and which images are labelled;
    the three ways of training share all of it, so their differences are paired. Students train side by side, one to a
    core, and those that need no teacher while it trains.

    Raises:
        ValueError: fewer than 2 seeds, which have no spread.
    """
    if seeds < 2:
        raise ValueError(f"seeds is {seeds}: a spread needs at least 2")
    started = time.perf_counter()
    with ProcessPoolExecutor(_num_cores(), mp_context=get_context("spawn")) as pool:

        def start(names: list[str], teacher_weights: Path | None) -> dict[str, list[Future[Trained]]]:
            return {
                name: [
                    pool.submit(_trained_alone, _student(name, seed, teacher_weights, folder)) for seed in range(seeds)
                ]
                for name in names
            }

        started_students = start([name for name in STUDENTS if STUDENTS[name]().teacher is None], None)
        teacher_run = dataclasses.replace(digits.teacher(), runs=folder)
        with Terminal(console, teacher_run.recipe) as terminal:
            teacher, plan = _trained(teacher_run, [terminal])
        started_students |= start([name for name in STUDENTS if name not in started_students], plan.weights)
        students: dict[str, list[Trained]] = {name: [] for name in STUDENTS}
        for name, seed in itertools.product(STUDENTS, range(seeds)):
            student = started_students[name][seed].result()
            students[name].append(student)
            console.print(f"{name} seed {seed}  top-1 {student.top1:.2f}", highlight=False)
    test = list(plan.test())
    image_shape = tuple(test[0].images.shape[1:])
    networks = {teacher_run.student, *(student[0].run.student for student in students.values())}
    sizes = {name: size_of(MODELS[name](teacher.logits.shape[1]), image_shape) for name in networks}
    images = torch.cat([batch.images for batch in test]).cpu()
    return Demo(teacher, students, sizes, images, time.perf_counter() - started)


def paired(students: list[Trained], plain: list[Trained]) -> tuple[float, float]:
    """Return mean and standard deviation of the accuracy gained over the plain student of the same seed, in points."""
    gains = [student.top1 - other.top1 for student, other in zip(students, plain, strict=True)]
    return statistics.mean(gains), statistics.stdev(gains)


def rank_agreement(student: Tensor, teacher: Tensor) -> float:
    """Return the mean over samples of Spearman's correlation of both networks' logits [N, K]; 1 is the same ranking."""
    ranks = [logits.argsort(dim=1).argsort(dim=1).double() for logits in (student, teacher)]
    centred = [rank - rank.mean(dim=1, keepdim=True) for rank in ranks]
    return float(torch.cosine_similarity(centred[0], centred[1], dim=1).mean())


def size_of(module: nn.Module, image_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the number of parameters and of multiply-adds (convolutions and classifier) of one image."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        module(torch.zeros(1, *image_shape))
    return sum(parameter.numel() for parameter in module.parameters()), counter.get_total_flops() // 2


def table_of(demo: Demo) -> Table:
    """Return the demonstration's table."""
    seeds = len(demo.students["plain"])
    labels = demo.students["plain"][0].run.data.num_labels
    table = Table(title=f"Handwritten digits, students with {labels} labels, {seeds} seeds: mean ± standard deviation")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:2] else "right", overflow="fold")
    for row in rows_of(demo):
        table.add_row(*row)
    return table


def rows_of(demo: Demo) -> list[tuple[str, ...]]:
    """Return the rows of the table: teacher first, then the students."""

    def row(name: str, trained: list[Trained], accuracy: str, gain: str) -> tuple[str, ...]:
        network = trained[0].run.student
        parameters, macs = demo.sizes[network]
        seconds = statistics.mean(one.record["seconds"] for one in trained)
        agreement = statistics.mean(rank_agreement(one.logits, demo.teacher.logits) for one in trained)
        return (
            name,
            network,
            accuracy,
            gain,
            f"{agreement:.3f}",
            f"{parameters:,}",
            f"{macs / 1e6:.2f} M",
            f"{seconds:.1f}",
        )

    rows = [row("teacher", [demo.teacher], f"{demo.teacher.top1:.2f}", "")]
    for name, students in demo.students.items():
        scores = [student.top1 for student in students]
        gain = "" if name == "plain" else "{:+.2f} ± {:.2f}".format(*paired(students, demo.students["plain"]))
        rows.append(row(name, students, f"{statistics.mean(scores):.2f} ± {statistics.stdev(scores):.2f}", gain))
    return rows


def _student(name: str, seed: int, teacher_weights: Path | None, folder: Path) -> Run:
    run = STUDENTS[name]()
    data = dataclasses.replace(run.data, subset_seed=seed)
    changes: dict[str, Any] = {"seed": seed, "stream_seed": seed, "data": data, "teacher_weights": teacher_weights}
    return dataclasses.replace(run, runs=folder, evaluate_every=3, **changes)


def _trained_alone(run: Run) -> Trained:
    return _trained(run, [])[0]


def _trained(run: Run, watchers: Sequence[Watcher]) -> tuple[Trained, Plan]:
    plan = build(dataclasses.replace(run, checkpoint_every=run.optim.epochs), watchers)
    record = fit(plan)
    module = plan.state.method.deploy(plan.state.student.module).eval()
    with torch.no_grad(), plan.state.autocast():
        logits = torch.cat([module(batch.images).float().cpu() for batch in plan.test()])
    curve = {entry["epoch"]: entry["top1"] for entry in plan.records if "top1" in entry}
    return Trained(run, record, curve, logits), plan


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
