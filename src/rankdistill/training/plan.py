"""A run that is ready to go: what is trained, on what, for how long, and what is kept of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from .. import distributed
from ..contract import Batch
from ..data.schedule import Batches
from ..weights.durable import digest_path, read_with_digest, write_atomically, write_json
from ..weights.storage import load_state, save_state
from .lock import Refused
from .state import State
from .step import Update, descend

Record = dict[str, Any]
"""One line of metrics.jsonl."""

_OWN = re.compile(r"checkpoint-\d{9,}\.pt")

TIMES = ("seconds", "images_per_second", "time", "finished")
"""Fields of a record or a result that differ from one machine or start to the next."""


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
        about: what run.json holds: the configuration and where it runs.
        again: train anew, whatever the folder has of this run.
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
    about: dict[str, Any] = field(default_factory=dict)
    again: bool = False
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

    @property
    def result(self) -> Path:
        """Return the file with what the run ended with."""
        return self.folder / "result.json"

    def finished(self) -> Record | None:
        """Return the result of a run that is done, whose result and student are whole and wear their digests."""
        try:
            read_with_digest(self.weights, required=True)
            result: Record = json.loads(read_with_digest(self.result, required=True))
        except (OSError, ValueError):
            return None
        return result

    def resumed(self) -> Self:
        """Load the newest checkpoint of the folder that is whole, if there are any, and write metrics.jsonl from it.

        A checkpoint holds the records of all epochs before it: metrics.jsonl is written for readers, never read.

        Raises:
            Refused: the checkpoint was made with another identity, or checkpoints are there and none is whole.
        """
        wrong = ""
        for path in reversed(_checkpoints(self.folder)):
            try:
                saved = load_state(path)
                made_with, records = saved["identity"], saved["records"]
            except (OSError, ValueError, KeyError) as error:
                wrong = wrong or (str(error) if not isinstance(error, KeyError) else f"{path} is none of a run")
                continue
            if made_with != self.identity:
                raise Refused(f"{path} was made with {made_with}, this run has {self.identity}: use another folder")
            self.state.load_state_dict(saved)
            self.records = records
            if wrong:
                self.note(f"the newest checkpoint cannot be used ({wrong}): going on from the one before")
            wrong = ""
            break
        if wrong:
            raise Refused(f"no checkpoint of this run can be used ({wrong}): pass --again to train anew")
        return self

    def start(self) -> None:
        """Write run.json and the metrics up to here, and tell the watchers that training starts or goes on."""
        distributed.on_first(lambda: write_json(self.folder / "run.json", self.about))
        distributed.on_first(self.write_metrics)
        for watcher in self.watchers:
            watcher.start(self)

    def note(self, sentence: str) -> None:
        """Tell the watchers something about the run."""
        for watcher in self.watchers:
            watcher.note(sentence)

    def write_metrics(self) -> None:
        """Write metrics.jsonl, whole."""
        write_atomically(self.metrics, "".join(json.dumps(record) + "\n" for record in self.records).encode())

    def save(self) -> None:
        """Write a checkpoint and keep the last two.

        Raises:
            WriteError: it cannot be written; the checkpoints before it are there still.
        """
        distributed.broadcast_buffers(self.state.student.module)
        saved = self.state.state_dict() | {"identity": self.identity, "records": self.records}
        distributed.on_first(lambda: self._write_checkpoint(saved))

    def _write_checkpoint(self, saved: dict[str, Any]) -> None:
        save_state(self.folder / f"checkpoint-{self.state.step:09d}.pt", saved)
        for old in _checkpoints(self.folder)[:-2]:
            _remove(old)

    def clear(self) -> None:
        """Remove what the folder has of an earlier run."""
        for path in (*_checkpoints(self.folder), self.metrics, self.result, self.weights):
            _remove(path)


def _checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, the oldest first; files of other names are not its own."""
    return sorted(path for path in folder.glob("checkpoint-*.pt") if _OWN.fullmatch(path.name))


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    digest_path(path).unlink(missing_ok=True)
