"""Chooses the settings of the digits recipes on held-out training images; the test images play no part.

In each trial a teacher is trained without the held-out images, then a student with every setting; the accuracy on the
held-out images is written, one line per setting and trial. `make select-digits`; about 45 minutes on two busy cores.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rankdistill.recipes import digits
from rankdistill.runs.build import build
from rankdistill.runs.config import Run
from rankdistill.runs.options import loss
from rankdistill.training.loop import fit

HELD_OUT = 300
FIRST_SEED = 1000  # far from the demonstration's, which are 0 to 4
COLUMNS = ["kind", "lr", "losses", "seed", "held_out_top1"]
RATES = (0.05, 0.1)


def settings() -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Yield (kind, learning rate, losses) of every setting that is tried."""
    for rate in (*RATES, 0.2):
        yield "plain", rate, {"task": loss("ce")}
    for rate in RATES:
        for temperature in (1.0, 2.0, 4.0, 8.0):
            yield "kd", rate, {"task": loss("ce", 0.1), "kd": loss("kd", 0.9, temperature=temperature)}
        yield "kd", rate, {"task": loss("ce", 1.0), "kd": loss("kd", 1.0, temperature=4.0)}
        # Epsilon 20 is beyond every range of logits here: centred mean squared error.
        for epsilon in (0.3, 1.0, 3.0, 20.0):
            for weight in (0.1, 0.3, 1.0):
                yield "ra", rate, {"task": loss("ce"), "ra": loss("ra", weight, epsilon=epsilon, units="logit")}
        for epsilon in (1.0, 3.0):
            for weight in (1.0, 3.0, 10.0):
                yield "ra", rate, {"task": loss("ce"), "ra": loss("ra", weight, epsilon=epsilon, distance="spearman")}


def trial(seed: int) -> list[tuple[str, float, str, int, float]]:
    """Return a line per setting: what was trained, and its top-1 on this trial's held-out images in percent."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        common: dict[str, Any] = {"runs": Path(folder), "seed": seed, "stream_seed": seed}
        common |= {"evaluate_every": 10_000, "checkpoint_every": 10_000}
        teacher = digits.teacher()
        teacher_data = dataclasses.replace(teacher.data, held_out=HELD_OUT, subset_seed=seed)
        top1, weights = trained(dataclasses.replace(teacher, data=teacher_data, **common))
        rows.append(("teacher", teacher.optim.lr, spelt(teacher.losses), seed, top1))
        data = dataclasses.replace(digits.plain().data, held_out=HELD_OUT, subset_seed=seed)
        for kind, rate, losses in settings():
            recipe = digits.plain() if kind == "plain" else digits.kd()
            run = dataclasses.replace(
                recipe,
                losses=losses,
                data=data,
                optim=dataclasses.replace(recipe.optim, lr=rate),
                teacher_weights=weights if recipe.teacher else None,
                **common,
            )
            rows.append((kind, rate, spelt(losses), seed, trained(run)[0]))
    return rows


def trained(run: Run) -> tuple[float, Path]:
    """Train; return top-1 on the held-out images in percent, and the weights' file."""
    plan = build(run)
    return fit(plan)["last"]["top1"], plan.weights


def spelt(losses: dict[str, Any]) -> str:
    """Return losses as one string: the weight and the options that are not their defaults."""
    terms = []
    for name, options in losses.items():
        fields = [f for f in dataclasses.fields(options) if getattr(options, f.name) != f.default or f.name == "weight"]
        terms.append(f"{name}(" + " ".join(f"{f.name}={getattr(options, f.name)}" for f in fields) + ")")
    return " + ".join(terms)


def main() -> None:
    """Try every setting in every trial, write the CSV, and print the settings by their mean accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/select_digits.csv"))
    options = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + options.trials)
    scores: dict[tuple[str, float, str], list[float]] = {}
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
            for rows in pool.map(trial, seeds):
                for kind, rate, losses, seed, top1 in rows:
                    writer.writerow([kind, rate, losses, seed, f"{top1:.2f}"])
                    scores.setdefault((kind, rate, losses), []).append(top1)
                file.flush()
    for (kind, rate, losses), values in sorted(scores.items(), key=lambda item: -statistics.mean(item[1])):
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{statistics.mean(values):6.2f} ± {spread:4.2f}  {kind:7}  lr {rate}  {losses}")


if __name__ == "__main__":
    main()
