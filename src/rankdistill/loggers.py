"""Loggers by name, and the profiler: watchers that write what a run does to other programs' formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from .storage import write_atomically
from .train import Plan, Record, Watcher


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


class MLflow(_Quiet):
    """Logs to MLflow, by its tracking URI; needs the package mlflow-skinny or mlflow."""

    def start(self, plan: Plan) -> None:
        """Begin a run named by the run's folder, with its configuration as parameters."""
        import mlflow

        self._mlflow: Any = mlflow
        mlflow.set_experiment("rankdistill")
        mlflow.start_run(run_name=_name(plan))
        mlflow.log_params({name: str(value)[:500] for name, value in _config(plan).items()})

    def epoch(self, record: Record) -> None:
        """Log the record's numbers at its epoch."""
        self._mlflow.log_metrics(dict(flattened(record)), step=record["epoch"])


class Profile(_Quiet):
    """Writes `trace.json`, torch's profile of five steps after the first five, for a browser's trace viewer."""

    def start(self, plan: Plan) -> None:
        """Begin to count steps."""
        self._folder = plan.folder
        self._profiler = torch.profiler.profile(
            schedule=torch.profiler.schedule(wait=3, warmup=2, active=5, repeat=1), on_trace_ready=self._write
        )
        self._profiler.start()

    def step(self, images: int) -> None:
        """Count a step."""
        self._profiler.step()

    def epoch(self, record: Record) -> None:
        """Stop at the end of the first epoch, however short."""
        if self._profiler is not None:
            self._profiler.stop()

    def _write(self, profiler: torch.profiler.profile) -> None:
        beside = self._folder / ".trace.json"
        profiler.export_chrome_trace(str(beside))
        write_atomically(self._folder / "trace.json", beside.read_bytes())
        beside.unlink()


LOGGERS: dict[str, Callable[[], Watcher]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
"""Name -> watcher."""


def _name(plan: Plan) -> str:
    return "/".join(plan.folder.parts[-3:])


def _config(plan: Plan) -> dict[str, Any]:
    path: Path = plan.folder / "run.json"
    config: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return config
