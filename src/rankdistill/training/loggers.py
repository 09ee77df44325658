"""Loggers by name, and the profiler: watchers that write what a run does to other programs' formats."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from .plan import Plan, Record, Watcher


def flattened(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record, nested names joined by slashes: ("loss/task", 2.3)."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)


class _Quiet:
    """What most loggers do not listen to."""

    def note(self, sentence: str) -> None:
        """Hear nothing."""

    def step(self, images: int) -> None:
        """Hear nothing."""


class TensorBoard(_Quiet):
    """Writes event files under the run's folder, `tensorboard/`; needs the package tensorboard."""

    def start(self, plan: Plan) -> None:
        """Open the writer; what was written after the checkpoint that the run goes on from is hidden."""
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer: Any = SummaryWriter(str(plan.folder / "tensorboard"), purge_step=plan.state.epoch + 1)

    def epoch(self, record: Record) -> None:
        """Write the record's numbers at its epoch."""
        for name, value in flattened(record):
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()


class WandB(_Quiet):
    """Logs to Weights & Biases; offline with WANDB_MODE=offline, as always with that package, which it needs."""

    def start(self, plan: Plan) -> None:
        """Begin a run, or go on with it: its id is that of the run's folder."""
        import wandb

        settings: Any = wandb
        self._last = plan.epochs
        self._run = settings.init(
            project="rankdistill",
            id=plan.folder.name,
            name=_name(plan),
            dir=plan.folder,
            resume="allow",
            config=_config(plan),
        )

    def epoch(self, record: Record) -> None:
        """Log the record's numbers at its epoch."""
        self._run.log(dict(flattened(record)), step=record["epoch"])
        if record["epoch"] == self._last:
            self._run.finish()


class MLflow(_Quiet):
    """Logs to MLflow, by its tracking URI; needs the package mlflow-skinny or mlflow."""

    def start(self, plan: Plan) -> None:
        """Begin a run named by the run's folder, with its configuration as parameters."""
        import mlflow

        self._mlflow: Any = mlflow
        self._last = plan.epochs
        mlflow.set_experiment("rankdistill")
        mlflow.start_run(run_name=_name(plan))
        mlflow.log_params({name: str(value)[:500] for name, value in _config(plan).items()})

    def epoch(self, record: Record) -> None:
        """Log the record's numbers at its epoch."""
        self._mlflow.log_metrics(dict(flattened(record)), step=record["epoch"])
        if record["epoch"] == self._last:
            self._mlflow.end_run()


class Profile(_Quiet):
    """Writes `trace.json`, torch's profile of five steps after the first five, for a browser's trace viewer."""

    def start(self, plan: Plan) -> None:
        """Begin to count steps."""
        self._folder, self._epochs, self._steps = plan.folder, plan.epochs, 0
        self._profiler: torch.profiler.profile | None = None

    def step(self, images: int) -> None:
        """Start the profile after five steps, write it after ten."""
        self._steps += 1
        if self._steps == 5:
            self._profiler = torch.profiler.profile()
            self._profiler.start()
        elif self._steps == 10:
            self._finish()

    def epoch(self, record: Record) -> None:
        """Write what there is of it, if the run ends earlier."""
        if record["epoch"] == self._epochs:
            self._finish()

    def _finish(self) -> None:
        if self._profiler is None:
            return
        self._profiler.stop()
        beside = self._folder / ".trace.json"
        self._profiler.export_chrome_trace(str(beside))
        self._profiler = None
        beside.replace(self._folder / "trace.json")


def check_packages(names: Iterable[str]) -> None:
    """Raise ValueError if the package of a logger is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"loggers has {name}, whose package is not installed: pip install 'rankdistill[log]', or leave it out"
            )


LOGGERS: dict[str, Callable[[], Watcher]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
"""Name -> watcher."""


def _name(plan: Plan) -> str:
    return "/".join(plan.folder.parts[-3:])


def _config(plan: Plan) -> dict[str, Any]:
    path: Path = plan.folder / "run.json"
    config: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return config
