"""Measures what a step of each method costs beside a plain step of KD: time, and peak memory.

The pair is resnet32x4 and resnet8x4, with a training set of 50,000 for methods that keep something of each sample, on
images that are already there. What is measured are the settings of the recipes, once where two train the same. Each
has a process of its own: the memory is the peak of the resident set after a few steps, less that of KD's process; then
its steps and those of KD take turns, and times are medians. Where only every nth step looks ahead, both kinds of steps
are measured and averaged as they occur. `make bench-methods` writes results/methods.json; about ten minutes on two
cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from steps import KD, PAIR, SAMPLES, Steps, hardware

from rankdistill.recipes.settings import SETTINGS
from rankdistill.runs.launch import resolve_precision
from rankdistill.training.updates import UPDATES

RESULTS = Path(__file__).parent / "results"
BASE = "kd"
MEGABYTE = 1e6


@dataclass(frozen=True)
class Case:
    """What is trained: losses as in `Run.losses`, a name in `UPDATES` (None: the one that they need), its options."""

    losses: dict[str, Any]
    update: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def steps(self, batch_size: int, precision: str) -> Steps:
        """Return the steps of a training."""
        rule = None if self.update is None else UPDATES[self.update](**dict(self.options))
        return Steps(self.losses, rule, batch_size=batch_size, precision=precision)


def cases() -> dict[str, Case]:
    """Return KD first, then each setting that trains something else."""
    found = {BASE: Case(KD)}
    for name, setting_of in SETTINGS.items():
        setting = setting_of(*PAIR)
        update = None if setting.update == "descend" else setting.update
        case = Case(dict(setting.losses), update, tuple(setting.update_options.items()))
        if case not in found.values():
            found[name] = case
    return found


def peak() -> float:
    """Return the largest resident set that this process has had, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(size if sys.platform == "darwin" else 1024 * size)


def seconds(steps: Steps, number: int) -> float:
    """Return how long the step of this number takes."""
    start = time.perf_counter()
    steps(number)
    return time.perf_counter() - start


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the peak memory of a case's steps in this process, and the seconds of its steps and of KD's."""
    precision = resolve_precision(options.precision)
    steps = cases()[name].steps(options.batch_size, precision)
    for number in range(3):
        steps(number)
    memory = peak()
    base = cases()[BASE].steps(options.batch_size, precision)
    base(0)
    every = steps.rule.every
    times: dict[str, list[float]] = {"step": [], "look_ahead": [], BASE: []}
    for turn in range(1, options.steps + 1):
        first = turn * every  # the step that looks ahead, if any does
        times["step"].append(seconds(steps, first + 1 if every > 1 else first))
        times[BASE].append(seconds(base, turn))
        if every > 1:
            times["look_ahead"].append(seconds(steps, first))
    medians = {kind: statistics.median(values) for kind, values in times.items() if values}
    if every > 1:
        medians["step"] += (medians["look_ahead"] - medians["step"]) / every
    return {"bytes": memory, "seconds": medians["step"], "kd_seconds": medians[BASE]}


def in_own_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return what `measure` finds in a new process.

    Raises:
        RuntimeError: that process failed; what it said is given.
    """
    values = {"--case": name, "--batch-size": options.batch_size, "--steps": options.steps}
    values["--precision"] = options.precision
    arguments = [str(part) for pair in values.items() for part in pair]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the process of {name} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def beside_kd(runs: list[dict[str, Any]], kd_bytes: float) -> dict[str, Any]:
    """Return the figures of a case, medians over its processes."""
    ratio = statistics.median(run["seconds"] / run["kd_seconds"] for run in runs)
    memory = statistics.median(run["bytes"] for run in runs)
    return {
        "seconds": statistics.median(run["seconds"] for run in runs),
        "kd_seconds": statistics.median(run["kd_seconds"] for run in runs),
        "extra_percent": 100 * (ratio - 1),
        "megabytes": memory / MEGABYTE,
        "extra_megabytes": (memory - kd_bytes) / MEGABYTE,
    }


def show(name: str, row: dict[str, Any]) -> None:
    """Print one line of the table."""
    times = f"{1e3 * row['seconds']:10.1f}{1e3 * row['kd_seconds']:10.1f}{row['extra_percent']:+10.1f}"
    print(f"  {name:20}{times}{row['megabytes']:10.0f}{row['extra_megabytes']:+10.0f}", flush=True)


def main() -> None:
    names = list(cases())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=15, help="of the method and of KD, in turns (default: 15)")
    parser.add_argument("--repeats", type=int, default=1, help="processes for each (default: 1)")
    parser.add_argument("--methods", nargs="+", choices=names, metavar="NAME", default=names, help="some, not all")
    parser.add_argument("--precision", choices=("auto", "32-true", "bf16-mixed"), default="auto")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--case", choices=names, help=argparse.SUPPRESS)  # measure it in this very process
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.case is not None:
        print(json.dumps(measure(options.case, options)))
        return
    print(f"  {'':20}{'ms':>10}{'KD ms':>10}{'extra %':>10}{'MB':>10}{'extra MB':>10}")
    found: dict[str, dict[str, Any]] = {}
    kd_bytes = 0.0
    for name in (BASE, *(name for name in options.methods if name != BASE)):
        runs = [in_own_process(name, options) for _ in range(options.repeats)]
        if name == BASE:
            kd_bytes = statistics.median(run["bytes"] for run in runs)
        found[name] = beside_kd(runs, kd_bytes)
        show(name, found[name])
    precision = resolve_precision(options.precision)
    record = {"hardware": hardware(), "precision": precision, "batch_size": options.batch_size, "pair": PAIR}
    options.output.mkdir(parents=True, exist_ok=True)
    record |= {"samples": SAMPLES, "methods": found}
    (options.output / "methods.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nwritten to {options.output}/methods.json")


if __name__ == "__main__":
    main()
