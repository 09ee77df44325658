"""Writes docs/mini.md from results/mini.csv: what the equal-recipe benchmark gave, and what of it was not run."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mini_plan import FACTORS, Entry, Group, Plan, read_plan
from scipy.stats import t as student_t

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "mini.md"
IMAGES = 5000
"""Images of each accuracy, held-out and test alike."""
BASELINE = "KD"
NOT_RUN = "not run"
Row = Mapping[str, str]

INTRODUCTION = """\
# The equal-recipe benchmark

Made by `make docs-tables` from `benchmarks/results/mini.csv`, which `make bench-mini` writes; do not edit.

**What it is.** A small benchmark, so that every method can be trained under one recipe and its weight searched with the
same effort. It is not the paper's benchmark, and its accuracies are not comparable with published ones.

- Images: 100 classes of Tiny-ImageNet (the first 100 in sorted order) at {size}x{size} pixels. Students are trained on
  {labels:,} of the 45,000 training images that the teacher was trained on; group 4 uses all 45,000.
- Networks: {teacher} teaches {student}. The teacher has 42.5 % on the {held_out:,} *held-out images*, which are
  training images of Tiny-ImageNet that neither the teacher nor the students were trained on.
- Recipe, for all methods alike: {epochs} epochs, batches of {batch}, SGD with a {schedule} schedule from {rate},
  gradients clipped at norm {clip}, random crop (padding {padding}) and flip. Methods that need a second view get their
  own (MLKD, LSKD of MLKD, CRLD). The paper trains RA on two views; RA and centred MSE see one here. Warm-ups that were
  published for 240 epochs are shortened with the schedule. DOT has an optimizer of its own, which does not clip. CALD
  keeps 10 training images of each class for its meta-parameters.
- Weights: the *published* weight is the recipe's for {teacher} and {student} (for RA: lambda 5, epsilon 1). The
  *chosen* weight is the best of six. The six are the same for each method: the published weight times 1/9, 1/3, 1, 3
  and 9, and then one between the best and its better neighbour, or one step further where the best was at an end. The
  choice is made on the held-out images, by the accuracy after the last epoch of one run with seed {choice_seed}. No
  run with seed {choice_seed} is in a table of test images. The weight of DKD is its beta.
- *Test images* are the {images:,} validation images of Tiny-ImageNet, on which nothing was chosen. Accuracies are
  those of the last epoch. Between seeds vary the initial weights, the draws of methods, and order and augmentation of
  the images. The teacher and the choice of training images do not vary. ± is the standard deviation over seeds, n
  their number. The standard error of one accuracy of 40 % from {images:,} images is 0.7. It is common to methods
  measured on the same images.
"""


def introduction(plan: Plan) -> str:
    """Return what the benchmark is, with the numbers of the plan."""
    options = plan.options
    return INTRODUCTION.format(
        size=options["data.image-size"],
        labels=options["data.num-labels"],
        held_out=options["data.held-out"],
        padding=options["data.padding"],
        epochs=options["optim.epochs"],
        batch=options["optim.batch-size"],
        schedule=options["optim.schedule"],
        rate=options["optim.lr"],
        clip=options["optim.clip-norm"],
        teacher=plan.teacher,
        student=plan.student,
        choice_seed=plan.choice_seed,
        images=IMAGES,
    ).strip()


def matching(rows: Sequence[Row], **wanted: str | tuple[str, ...]) -> list[Row]:
    """Return the rows that have these values, or one of these."""
    sets = {name: value if isinstance(value, tuple) else (value,) for name, value in wanted.items()}
    return [row for row in rows if all(row[name] in values for name, values in sets.items())]


def by_seed(rows: Sequence[Row]) -> dict[int, float]:
    """Return seed -> accuracy after the last epoch, of the rows that have one."""
    return {int(row["seed"]): float(row["top1_last"]) for row in rows if row["top1_last"]}


def spread(found: Mapping[int, float]) -> str:
    """Return "mean ± standard deviation (n)"; without a spread where there is one seed."""
    values = list(found.values())
    if not values:
        return NOT_RUN
    deviation = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2f}{deviation} (n = {len(values)})"


def difference(found: Mapping[int, float], baseline: Mapping[int, float]) -> str:
    """Return the mean difference over the seeds that both have, with its 95 % interval (Student's t)."""
    pairs = [found[seed] - baseline[seed] for seed in found if seed in baseline]
    if not pairs:
        return "-"
    if len(pairs) == 1:
        return f"{pairs[0]:+.2f} (n = 1)"
    half = float(student_t.ppf(0.975, len(pairs) - 1)) * stdev(pairs) / math.sqrt(len(pairs))
    return f"{mean(pairs):+.2f} [{mean(pairs) - half:+.2f}, {mean(pairs) + half:+.2f}] (n = {len(pairs)})"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table, its numbers aligned to the right."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---", *("---:" for _ in head[1:])), *lines))


def baseline_of(plan: Plan, group: Group) -> str:
    """Return the group whose KD the lines of a group are compared with: itself, or one that is trained alike."""
    alike = [other for other in plan.groups if _conditions(other) == _conditions(group)]
    return next((g.name for g in (group, *alike) if any(entry.name == BASELINE for entry in g.entries)), "")


def _conditions(group: Group) -> tuple[object, ...]:
    return dict(group.options), group.teacher, group.student


def of_tests(plan: Plan, group: Group, rows: Sequence[Row]) -> str:
    """Return the table of the test images: with chosen weights where the group has them."""
    own = matching(rows, group=group.name, split="test")
    chosen = group.search or bool(group.chosen_in)
    baseline = matching(rows, group=baseline_of(plan, group), method=BASELINE, split="test")

    def of(name: str, setting: str) -> dict[int, float]:
        return by_seed(matching(baseline if name == BASELINE else own, method=name, setting=(setting, "both")))

    def gain(name: str, setting: str) -> str:
        return difference(of(name, setting), of(BASELINE, setting)) if name != BASELINE else "-"

    lines = []
    for entry in group.entries:
        if entry.impossible:
            line = [entry.name, f"{NOT_RUN}: {entry.impossible}"]
        else:
            line = [entry.name, spread(of(entry.name, "published"))]
        if chosen:
            line.append(gain(entry.name, "published"))
            if entry.weight and not entry.once:
                weights = {row["weight"] for row in matching(own, method=entry.name, setting=("chosen", "both"))}
                line += [
                    spread(of(entry.name, "chosen")),
                    ", ".join(sorted(weights)) or "-",
                    gain(entry.name, "chosen"),
                ]
            else:
                line += ["-", "-", "-"]
        lines.append(line)
    head = ["method", "top-1 %, published weight"]
    if chosen:
        head += [
            f"minus {BASELINE}, paired, 95 %",
            "top-1 %, chosen weight",
            "chosen",
            f"minus {BASELINE}, both chosen",
        ]
    return table(head, lines)


def of_search(group: Group, rows: Sequence[Row]) -> str:
    """Return the table of the search on held-out images."""
    own = matching(rows, group=group.name, setting="trial")
    order = sorted(FACTORS)
    lines = []
    for entry in group.entries:
        if entry.once or entry.impossible:
            continue
        found = {row["weight"]: row for row in matching(own, method=entry.name)}
        cells = [_trial(found.pop(_weight(entry, factor), None)) for factor in order]
        if not entry.weight:
            cells = ["-" if factor != 1.0 else cell for factor, cell in zip(order, cells, strict=True)]
        last = next(iter(found.items()), None)
        cells.append("-" if not entry.weight else NOT_RUN if last is None else f"{_trial(last[1])} (weight {last[0]})")
        lines.append([entry.name, "-" if entry.published is None else f"{entry.published:g}", *cells])
    head = ["method", "published weight", *(f"times {_factor(factor)}" for factor in order), "sixth"]
    return table(head, lines)


def _factor(factor: float) -> str:
    return f"{factor:g}" if factor >= 1 else f"1/{1 / factor:g}"


def _weight(entry: Entry, factor: float) -> str:
    return "" if entry.published is None else str(float(f"{entry.published * factor:.4g}"))


def _trial(row: Row | None) -> str:
    if row is None:
        return NOT_RUN
    return f"{float(row['top1_last']):.2f}" if row["top1_last"] else "failed"


def of_group(plan: Plan, group: Group, rows: Sequence[Row]) -> Iterator[str]:
    """Yield the parts of a group's section."""
    own = matching(rows, group=group.name)
    yield f"## {group.name}. {group.title}"
    if not own:
        yield f"Not run. It has {len(group.entries)} lines: {'; '.join(entry.name for entry in group.entries)}."
        return
    tested = {(row["method"], row["setting"], row["seed"]) for row in matching(own, split="test")}
    seeds = f"{len(group.seeds)} seeds ({', '.join(map(str, group.seeds))})"
    once = " Methods that were not searched have the first seed only." if any(e.once for e in group.entries) else ""
    yield f"Planned are {seeds} of each line.{once} Measured on the {IMAGES:,} test images: {len(tested)} runs."
    yield of_tests(plan, group, rows) if tested else "No run of the table of test images is done yet."
    if group.search:
        trials = matching(own, setting="trial")
        yield (
            f"The search: accuracy in percent on the {IMAGES:,} held-out images, one run each with seed "
            f"{plan.choice_seed}; {len(trials)} runs. This table is for choosing, and is not a result: two runs of one "
            "method can differ by more than two methods do."
        )
        yield of_search(group, rows)


def page(plan: Plan, rows: Sequence[Row]) -> str:
    """Return the page."""
    parts = [introduction(plan)]
    runs = {row["options"] + row["recipe"]: row for row in rows}
    done = [row for row in runs.values() if not row["failed"]]
    hours = sum(float(row["seconds"]) for row in done) / 3600
    places = sorted({f"{row['machine']}, {row['threads']} thread a run, {row['precision']}" for row in done})
    commits = sorted({row["commit"] for row in done})
    what = f"**How much was run.** {len(done)} runs, {hours:.1f} hours of training"
    parts.append(f"{what} ({'; '.join(places)}; commit {', '.join(commits)})." if done else f"{what}.")
    parts[-1] += " What is not done says *not run*, and the same command goes on with it."
    failed = [row for row in rows if row["failed"]]
    if failed:
        parts.append("Runs that failed, each with its sentence:")
        parts.append("\n".join(map(_failure, failed)))
    for group in plan.groups:
        parts += of_group(plan, group, rows)
    return "\n\n".join(parts) + "\n"


def _failure(row: Row) -> str:
    return f"- {row['method']}, weight {row['weight'] or 'published'}, seed {row['seed']}: {row['failed']}"


def main() -> None:
    results = HERE / "results" / "mini.csv"
    rows: list[dict[str, Any]] = []
    if results.exists():
        with results.open(newline="") as file:
            rows = list(csv.DictReader(file))
    PAGE.write_text(page(read_plan(HERE / "mini.toml"), rows))
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
