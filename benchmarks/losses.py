"""Measures what losses on logits cost, forward and backward, as a share of a training step.

The step is one of KD, resnet32x4 teaching resnet8x4, on images that are already there. Every loss is given the same
float32 logits of standard deviation 4, as many as a batch has. Steps and losses take turns in one process, so that all
see the same weather; figures are medians. The target is 3 % of a step of one view, also for losses that read two views
and whose own steps are longer. `make bench-losses` writes results/losses.json; about a minute on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from steps import CLASSES, KD, PAIR, SAMPLES, SIZE, Steps, hardware, random_batch
from torch import Tensor

from rankdistill import assemble
from rankdistill.contract import Method, Output
from rankdistill.methods import METHODS
from rankdistill.models import MODELS
from rankdistill.runs.build import terms
from rankdistill.runs.launch import resolve_precision
from rankdistill.runs.options import loss

RESULTS = Path(__file__).parent / "results"
TARGET = 3.0
"""Percent of a step of one view."""

VARIANTS = {"ra, epsilon 0.05": loss("ra", epsilon=0.05)}
"""Beside each method with its defaults."""


def logit_methods() -> dict[str, Method]:
    """Return the methods that read nothing but logits and leave the networks and their passes as they are."""
    teacher, student = (MODELS[name](CLASSES) for name in PAIR)
    example, labels = torch.zeros(2, 3, SIZE, SIZE), torch.arange(SAMPLES) % CLASSES
    found: dict[str, Method] = {}
    for name, config in ({name: loss(name) for name in METHODS} | VARIANTS).items():
        kind = METHODS[config.method]
        if kind.forward is not Method.forward or kind.adapt is not Method.adapt:
            continue
        made, _, _ = assemble(terms({"loss": config}), student, teacher, example, num_samples=SAMPLES, labels=labels)
        if not made.student_needs and not made.teacher_needs:
            found[name] = cast("Method", made.methods["loss"])
    return found


def call_of(method: Method, batch_size: int) -> Callable[[], object]:
    """Return a call of a method's losses on random logits, and of their gradients."""

    def logits() -> Tensor:
        return 4.0 * torch.randn(batch_size, CLASSES)

    batch = random_batch(batch_size, two_views=method.views == 2)
    views = [logits().requires_grad_() for _ in range(method.views)]
    inputs = [*views, *method.parameters()]
    student, teacher = Output(views[0]), Output(logits())
    if method.views == 2:
        student, teacher = Output(views[0], strong=Output(views[1])), Output(teacher.logits, strong=Output(logits()))

    def call() -> object:
        losses = method.losses(batch, student, teacher)
        return torch.autograd.grad(torch.stack(list(losses.values())).sum(), inputs, allow_unused=True)

    return call


def measure(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Return the median seconds of steps of one and two views, and of each loss."""
    methods = logit_methods()
    steps = {str(views): Steps(KD, batch_size=options.batch_size, precision=precision, views=views) for views in (1, 2)}
    calls = {name: call_of(method, options.batch_size) for name, method in methods.items()}
    taken: dict[str, list[float]] = {views: [] for views in steps}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(options.rounds + 1):
        for views, step in steps.items():
            start = time.perf_counter()
            step(number)
            taken[views].append(time.perf_counter() - start)
        for _ in range(options.calls):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    seconds = {views: statistics.median(values[1:]) for views, values in taken.items()}  # the first round warms up
    losses = {}
    for name, values in times.items():
        found = statistics.median(values[options.calls :])
        share = 100 * found / seconds["1"]
        losses[name] = {
            "seconds": found,
            "views": methods[name].views,
            "percent": share,
            "percent_of_own_step": 100 * found / seconds[str(methods[name].views)],
            "target": TARGET,
            "met": share <= TARGET,
        }
    return {"step_seconds": seconds, "losses": losses}


def show(found: dict[str, Any]) -> None:
    """Print a table."""
    for views, seconds in found["step_seconds"].items():
        print(f"a KD step, views {views}: {1e3 * seconds:.1f} ms")
    print(f"\n  {'loss':20}{'views':>6}{'ms':>9}{'% of step':>11}{'% of own':>10}{'target':>8}")
    for name, row in sorted(found["losses"].items(), key=lambda item: item[1]["seconds"]):
        shares = f"{row['percent']:11.2f}{row['percent_of_own_step']:10.2f}{row['target']:8g}"
        verdict = "" if row["met"] else "  missed"
        print(f"  {name:20}{row['views']:6}{1e3 * row['seconds']:9.3f}{shares}{verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30, help="steps of each kind (default: 30)")
    parser.add_argument("--calls", type=int, default=20, help="of each loss after each step (default: 20)")
    parser.add_argument("--precision", choices=("auto", "32-true", "bf16-mixed"), default="auto")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    torch.manual_seed(0)
    precision = resolve_precision(options.precision)
    found = measure(options, precision)
    show(found)
    options.output.mkdir(parents=True, exist_ok=True)
    record = {"hardware": hardware(), "precision": precision, "batch_size": options.batch_size, "pair": PAIR} | found
    (options.output / "losses.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nwritten to {options.output}/losses.json")


if __name__ == "__main__":
    main()
