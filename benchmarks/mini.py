"""Trains a student by every method under one recipe, choices made on held-out images: the equal-recipe benchmark.

mini.toml says what is trained: 100 classes of Tiny-ImageNet at 32x32, resnet56 -> resnet20, 10,000 training images, 15
epochs, clipped gradients for every method. Each run is a `rankdistill distill` of its own and goes on where it stopped;
so does this program. results/mini.csv is made of the runs that are done, after each of them. A run that has rows there
but no folder was made on another machine, and is not made again:
`make bench-mini DATA=tiny-imagenet-100.zip TEACHER=resnet56.safetensors`, then `make docs-tables` for the page.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mini_plan import Job, Plan, planned, read_plan

HERE = Path(__file__).parent
COLUMNS = (
    *("group", "method", "recipe", "teacher", "student", "setting", "weight", "seed", "split", "top1_last"),
    *("top1_best", "seconds", "precision", "machine", "threads", "commit", "options", "failed", "run"),
)
MEASURED = ("split", "top1_last", "top1_best", "seconds", "precision", "machine", "threads", "commit")
Row = dict[str, Any]
STOPPED = (130, 143, 75, -signal.SIGTERM, -signal.SIGINT)
"""Exit codes of a run that was told to stop: it goes on the next time."""


@dataclass(frozen=True)
class Paths:
    """Where things are: the images, the teacher's weights, the folder of runs; and the rows of runs made elsewhere.

    Attributes:
        kept: `Job.key` -> split -> row of the table.
    """

    data: Path
    teacher: Path
    runs: Path
    kept: Mapping[str, Mapping[str, Row]] = field(default_factory=dict)

    def folder(self, job: Job) -> Path:
        """Return the folder of one run."""
        return self.runs / job.key

    def trained(self, job: Job) -> Path | None:
        """Return the folder that `rankdistill distill` made, once the run is done."""
        return next(iter(self.folder(job).glob("*/*/*/result.json")), Path()).parent if self.done(job) else None

    def done(self, job: Job) -> bool:
        """Return whether the run has its result here."""
        return any(self.folder(job).glob("*/*/*/result.json"))

    def complete(self, job: Job) -> bool:
        """Return whether the table has all rows of the run, made elsewhere."""
        return ("test" if job.tested else "held-out") in self.kept.get(job.key, {})


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place and move it there, so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)


def next_command(job: Job, paths: Paths) -> list[str] | None:
    """Return what is still to do for a run, as arguments of `rankdistill`: train, then measure; None if all is done."""
    trained = paths.trained(job)
    if trained is None and paths.complete(job):
        return None
    if trained is None:
        arguments = [*job.arguments, "--data.root", str(paths.data), "--data.cache", str(paths.runs / "images")]
        arguments += ["--runs", str(paths.folder(job))]
        if job.entry.recipe != "plain":
            arguments += ["--teacher-weights", str(paths.teacher)]
            if job.entry.cached:
                arguments += ["--teacher-cache", str(paths.runs / "teacher-cache")]
        return arguments
    if job.tested and not (paths.folder(job) / "test.json").exists():
        return ["evaluate", str(trained / "student.safetensors"), "--root", str(paths.data)]
    return None


def accuracies(plan: Plan, paths: Paths, names: Sequence[str] = ()) -> dict[str, float]:
    """Return what each planned run that is done reached on held-out images; a failed one has minus infinity."""
    found: dict[str, float] = {}
    while True:  # with each pass choices are known that add runs
        before = len(found)
        for job in planned(plan, found):
            if (trained := paths.trained(job)) is not None:
                found[job.key] = json.loads((trained / "result.json").read_text())["last"]["top1"]
            elif (paths.folder(job) / "failed.json").exists():
                found[job.key] = -math.inf
            elif (row := paths.kept.get(job.key, {}).get("held-out")) is not None:
                found[job.key] = float(row["top1_last"])
        if len(found) == before:
            return found


def read_kept(table: Path) -> dict[str, dict[str, Row]]:
    """Return the rows that a table has of runs that ended: `Job.key` -> split -> row."""
    kept: dict[str, dict[str, Row]] = {}
    if table.exists():
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                if row["split"]:
                    kept.setdefault(row["run"], {})[row["split"]] = dict(row)
    return kept


def rows(plan: Plan, paths: Paths) -> Iterator[Row]:
    """Yield the rows of the table: each run that is done has one of held-out images, and if it was tested one of test.

    A run that failed has one row, with its sentence. A run that was made elsewhere has the rows that were kept of it.
    """
    for job in planned(plan, accuracies(plan, paths)):
        folder, trained = paths.folder(job), paths.trained(job)
        row: Row = dict.fromkeys(COLUMNS, "") | {"run": job.key}
        row |= {"group": job.group, "method": job.entry.name, "recipe": job.recipe, "setting": job.setting}
        row |= {"teacher": job.pair[0] if job.entry.recipe != "plain" else "", "student": job.pair[1]}
        row |= {"weight": "" if job.weight is None else job.weight, "seed": job.seed}
        row |= {"options": " ".join(job.arguments[6:])}
        if (about := folder / "about.json").exists():
            row |= json.loads(about.read_text())
        if trained is not None:
            result = json.loads((trained / "result.json").read_text())
            row |= {"split": "held-out", "seconds": round(result["seconds"], 1)}
            row |= {f"top1_{which}": round(result[which]["top1"], 2) for which in ("last", "best")}
            yield row
            if job.tested and (test := folder / "test.json").exists():
                # The last epoch's student is the one that is kept.
                yield row | {"split": "test", "top1_last": json.loads(test.read_text())["top1"], "top1_best": ""}
        elif (failed := folder / "failed.json").exists():
            yield row | {"failed": json.loads(failed.read_text())["sentence"]}
        else:
            for split, kept in paths.kept.get(job.key, {}).items():
                if split == "held-out" or job.tested:
                    yield row | {name: kept[name] for name in MEASURED}


def write_table(plan: Plan, paths: Paths, out: Path) -> None:
    """Write the CSV file of all runs that are done."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(plan, paths))
    write_whole(out, text.getvalue())


class Runner:
    """Keeps so many runs going, each a process with its own threads, until no run is left or time is up."""

    def __init__(self, plan: Plan, paths: Paths, out: Path, names: Sequence[str], about: dict[str, Any]) -> None:
        self.plan, self.paths, self.out, self.names, self.about = plan, paths, out, names, about
        self.active: dict[str, tuple[Job, subprocess.Popen[bytes], float]] = {}
        self.tries: dict[str, int] = {}

    def run(self, jobs: int, seconds: float) -> None:
        """Run until all is done; after so many seconds tell what runs to stop, which saves it."""
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                while len(self.active) < jobs and (job := self._next()) is not None:
                    self._start(job)
                if not self.active:
                    return
                time.sleep(1.0)
                self._collect()
        finally:
            for _, process, _ in self.active.values():
                process.terminate()
            while self.active:
                time.sleep(0.1)
                self._collect()
            write_table(self.plan, self.paths, self.out)

    def _next(self) -> Job | None:
        for job in planned(self.plan, accuracies(self.plan, self.paths), self.names):
            if job.key not in self.active and self.tries.get(job.key, 0) < 2 and next_command(job, self.paths):
                return job
        return None

    def _start(self, job: Job) -> None:
        folder = self.paths.folder(job)
        folder.mkdir(parents=True, exist_ok=True)
        command = next_command(job, self.paths) or []
        if command[0] == "distill":
            write_whole(folder / "about.json", json.dumps(self.about))
        threads = str(self.about["threads"])
        with (folder / "log.txt").open("ab") as log, (folder / "stdout.txt").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "rankdistill", *command],
                stdout=output if command[0] == "evaluate" else log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads},
            )
        self.active[job.key] = job, process, time.monotonic()

    def _collect(self) -> None:
        """Take note of the processes that ended."""
        for key, (job, process, began) in list(self.active.items()):
            if (code := process.poll()) is None:
                continue
            del self.active[key]
            folder = self.paths.folder(job)
            if code == 0:
                (folder / "failed.json").unlink(missing_ok=True)
                if self.paths.done(job) and (text := (folder / "stdout.txt").read_text().strip()):
                    write_whole(folder / "test.json", text)
                self._tell(job, f"{time.monotonic() - began:.0f} seconds")
            elif code in STOPPED:
                self._tell(job, "stopped and saved")
            else:
                self.tries[key] = self.tries.get(key, 0) + 1
                lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines() or ["no output"]
                write_whole(folder / "failed.json", json.dumps({"code": code, "sentence": lines[-1]}))
                self._tell(job, f"failed with exit code {code}: {lines[-1]}")
            write_table(self.plan, self.paths, self.out)

    def _tell(self, job: Job, what: str) -> None:
        weight = "" if job.weight is None else f" weight {job.weight:g}"
        trained = self.paths.trained(job)
        top1 = f" {json.loads((trained / 'result.json').read_text())['last']['top1']:.2f} %" if trained else ""
        test = self.paths.folder(job) / "test.json"
        tested = f", test {json.loads(test.read_text())['top1']:.2f} %" if test.exists() else ""
        clock = time.strftime("%H:%M:%S")
        print(f"{clock} group {job.group} {job.entry.name}{weight} seed {job.seed}:{top1}{tested} {what}", flush=True)


def about(precision: str, threads: int) -> dict[str, Any]:
    """Return what the figures depend on, beside the options."""
    info, cpu = Path("/proc/cpuinfo"), "unknown"
    if info.exists():
        cpu = next((line.split(": ")[1] for line in info.read_text().splitlines() if "model name" in line), cpu)
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True)
    return {
        "precision": precision,
        "machine": f"{cpu}, {os.cpu_count()} cores",
        "threads": threads,
        "commit": found.stdout.strip() or "unknown",
    }


def check_teacher(paths: Paths) -> None:
    """Raise ValueError if the folder of runs was made with another teacher."""
    digest = hashlib.sha256(paths.teacher.read_bytes()).hexdigest()
    known = paths.runs / "teacher.sha256"
    if known.exists() and known.read_text().strip() != digest:
        raise ValueError(f"{paths.runs} was made with another teacher than {paths.teacher}: give another --runs")
    paths.runs.mkdir(parents=True, exist_ok=True)
    write_whole(known, f"{digest}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="tiny-imagenet-100.zip, or its folder")
    parser.add_argument("teacher", type=Path, help="weights of a resnet56 that has not seen the held-out images")
    parser.add_argument("--runs", type=Path, default=Path("runs/mini"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "mini.csv")
    parser.add_argument("--plan", type=Path, default=HERE / "mini.toml", help="what to train (default: mini.toml)")
    parser.add_argument("--groups", nargs="+", default=[], help="of the plan (default: all, in their order)")
    parser.add_argument("--limit-minutes", type=float, default=math.inf, help="then stop and save (default: never)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="of each run (default: 1)")
    parser.add_argument("--precision", default="32-true", help="of each run; the same one on every machine")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that runs are told to stop
    plan = read_plan(options.plan)
    plan = replace(plan, options={**plan.options, "precision": options.precision, "threads": options.threads})
    paths = Paths(options.data, options.teacher, options.runs, read_kept(options.out))
    check_teacher(paths)
    runner = Runner(plan, paths, options.out, options.groups, about(options.precision, options.threads))
    runner.run(options.jobs, 60.0 * options.limit_minutes)


if __name__ == "__main__":
    main()
