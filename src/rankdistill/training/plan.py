"""A run that is ready to go: what is trained, on what, for how long, and what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from .. import distributed
from ..contract import Batch
from ..data.schedule import Batches
from ..weights.durable import digest_path, write_atomically
from ..weights.storage import load_state, save_state
from .state import State
from .step import Update, descend

Record = dict[str, Any]
"""One line of metrics.jsonl."""


TIMES = ("seconds", "images_per_second", "time")
"""Fields of a record that differ from one machine or start to the next."""


class Watcher(Protocol):
    """Who is told how a run goes."""

    def start(self, plan: Plan) -> None:
        """Hear that training starts, or goes on after `plan.state.step` steps."""

    def note(self, sentence: str) -> None:
        """Hear what a method says of the run before its first step."""

    def step(self, images: int) -> None:
        """Hear that a step on so many images was taken."""

    def epoch(self, record: Record) -> None:
        """Hear what the epoch gave."""


@dataclass
class Plan:
    """A run, ready to go.

    Attributes:
        state: networks, method and optimizer, as built from the seed.
        loader: training batches.
        test: returns the batches that the student is evaluated on (with several processes, this one's part of them).
        epochs: how many.
        learning_rate: epoch, counted from 1 -> learning rate.
        folder: where checkpoints, metrics and the student go.
        identity: what a checkpoint must have been made with; saved in it.
        header: what the saved student's header says of it.
        seed: with the step, what the draws of methods and of dropout depend on.
        update: the update rule.
        evaluate_every, checkpoint_every: in epochs; the last epoch is always evaluated and saved.
        checkpoint_steps: save after every so many steps as well; None for at epochs only.
        evaluate_teacher: measure the teacher, too, before training.
        watchers: are told how it goes.
        records: one per epoch so far.
    """

    state: State
    loader: Batches
    test: Callable[[], Iterable[Batch]]
    epochs: int
    learning_rate: Callable[[int], float]
    folder: Path
    identity: dict[str, str]
    header: dict[str, Any]
    seed: int = 0
    update: Update = descend
    evaluate_every: int = 1
    checkpoint_every: int = 1
    checkpoint_steps: int | None = None
    evaluate_teacher: bool = True
    watchers: Sequence[Watcher] = ()
    records: list[Record] = field(default_factory=list)

    @property
    def metrics(self) -> Path:
        """Return the file with one JSON object per epoch."""
        return self.folder / "metrics.jsonl"

    @property
    def weights(self) -> Path:
        """Return the file that the deployed student is saved in."""
        return self.folder / "student.safetensors"

    def resumed(self) -> Self:
        """Load the newest checkpoint of the folder that is whole, if any, and forget metrics written after it.

        Raises:
            ValueError: the checkpoint was made with another identity.
        """
        for path in reversed(_checkpoints(self.folder)):
            try:
                saved = load_state(path)
            except ValueError:
                continue  # damaged: the one before it is whole
            if saved["identity"] != self.identity:
                raise ValueError(
                    f"{path} was made with {saved['identity']}, this run has {self.identity}: use another folder"
                )
            self.state.load_state_dict(saved)
            break
        if self.metrics.is_file():
            lines = [json.loads(line) for line in self.metrics.read_text().splitlines() if line.endswith("}")]
            self.records = [record for record in lines if record["epoch"] <= self.state.epoch]
        distributed.barrier()
        if distributed.rank() == 0:
            write_atomically(self.metrics, "".join(json.dumps(record) + "\n" for record in self.records).encode())
        return self

    def save(self) -> None:
        """Write a checkpoint and keep the last two."""
        distributed.broadcast_buffers(self.state.student.module)
        saved = self.state.state_dict() | {"identity": self.identity}
        if distributed.rank() == 0:
            save_state(self.folder / f"checkpoint-{self.state.step:09d}.pt", saved)
            for old in _checkpoints(self.folder)[:-2]:
                old.unlink()
                digest_path(old).unlink(missing_ok=True)
        distributed.barrier()


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.pt"))
