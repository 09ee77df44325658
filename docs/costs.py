"""Writes docs/costs.md from what `make bench-losses` and `make bench-methods` measured, as far as it is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
PAGE = Path(__file__).parent / "costs.md"
INTRODUCTION = """\
# What methods cost

Made by `make docs-tables` from `benchmarks/results`; do not edit. Data is not in the times: images are there before a
step begins, and networks are not compiled.
"""


def conditions(record: dict[str, Any]) -> str:
    """Return on what a record was measured."""
    hardware = record["hardware"]
    return (
        f"{' teaches '.join(record['pair'])}, batches of {record['batch_size']}, {record['precision']}, "
        f"{hardware['cpu']}, threads {hardware['threads']}, load {hardware['load_average']}, torch {hardware['torch']}."
    )


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table, its numbers aligned to the right."""
    lines = [head, ("---", *("---:" for _ in head[1:])), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def of_losses(record: dict[str, Any]) -> str:
    """Return the section on losses on logits."""
    steps = {views: f"{1e3 * seconds:.0f} ms" for views, seconds in record["step_seconds"].items()}
    losses = sorted(record["losses"].items(), key=lambda item: item[1]["seconds"])
    rows = [
        (
            f"`{name}`",
            str(row["views"]),
            f"{1e3 * row['seconds']:.2f}",
            f"{row['percent']:.2f}",
            f"{row['percent_of_own_step']:.2f}",
            f"{row['target']:g}{'' if row['met'] else ', missed'}",
        )
        for name, row in losses
    ]
    head = ("loss", "views", "ms", "% of a step", "% of a step of its views", "target, %")
    return "\n\n".join(
        [
            "## Losses on logits",
            f"Forward and backward of the loss alone, beside a step of KD, which took {steps['1']}, or {steps['2']} "
            f"with two views. The target is for a step of one view. {conditions(record)}",
            table(head, rows),
        ]
    )


def of_methods(record: dict[str, Any]) -> str:
    """Return the section on whole steps."""
    methods = sorted(record["methods"].items(), key=lambda item: item[1]["extra_percent"])
    rows = [
        (
            f"`{name}`",
            f"{1e3 * row['seconds']:.0f}",
            f"{row['extra_percent']:+.0f}",
            f"{row['megabytes']:.0f}",
            f"{row['extra_megabytes']:+.0f}",
        )
        for name, row in methods
    ]
    head = ("method or recipe", "ms a step", "% beside KD", "peak MB", "MB beside KD")
    return "\n\n".join(
        [
            "## Whole steps",
            "A step of each method beside one of KD that took turns with it in the same process, and the peak memory "
            f"of its process less that of KD's; {record['samples']:,} training samples. {conditions(record)}",
            table(head, rows),
        ]
    )


def main() -> None:
    """Write the page, or say what has not been measured."""
    parts = [INTRODUCTION.strip()]
    for name, section in (("losses", of_losses), ("methods", of_methods)):
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts.append(section(json.loads(path.read_text())))
        else:
            print(f"{path} is not there: run `make bench-{name}`")
    if len(parts) > 1:
        PAGE.write_text("\n\n".join(parts) + "\n")
        print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
