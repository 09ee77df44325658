"""The loop: one step, one epoch, evaluation, a whole run with its checkpoints.

Order of samples, augmentation and the draws of methods are functions of seeds, epoch, step and sample index, so a
run that was killed and is started again ends with the same bits as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from .core import Batch, Losses, Method
from .data.schedule import Batches
from .network import Network
from .storage import digest_path, load_state, save_state, save_weights, write_atomically, write_json

Record = dict[str, Any]
"""One line of metrics.jsonl."""


Autocast = Callable[[], AbstractContextManager[Any]]
"""Returns the context in which networks and methods run forward."""


@dataclass
class State:
    """What changes while a run trains, and what a step needs. A checkpoint never holds the teacher."""

    student: Network
    teacher: Network | None
    method: Method
    optimizer: torch.optim.Optimizer
    autocast: Autocast = nullcontext
    epoch: int = 0
    step: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "student": self.student.module.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.student.module.load_state_dict(saved["student"])
        self.method.load_state_dict(saved["method"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.epoch, self.step = saved["epoch"], saved["step"]


Update = Callable[[State, Batch], Losses]
"""One optimizer step on a batch; returns the losses."""


def descend(state: State, batch: Batch) -> Losses:
    """Take one step down the gradient of the summed losses."""
    with state.autocast():
        losses: Losses = state.method(batch, state.student, state.teacher)
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.stack(list(losses.values())).sum()
    torch.autograd.backward(total)
    state.optimizer.step()
    return losses


class Watcher(Protocol):
    """Who is told how a run goes."""

    def start(self, plan: Plan) -> None:
        """Hear that training starts, or goes on after `plan.state.epoch` epochs."""

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
        test: returns the batches that the student is evaluated on.
        epochs: how many.
        learning_rate: epoch, counted from 1 -> learning rate.
        folder: where checkpoints, metrics and the student go.
        identity: what a checkpoint must have been made with; saved in it.
        header: what the saved student's header says of it.
        seed: with the step, what the draws of methods and of dropout depend on.
        update: the update rule.
        evaluate_every, checkpoint_every: in epochs; the last epoch is always evaluated and saved.
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
        write_atomically(self.metrics, "".join(json.dumps(record) + "\n" for record in self.records).encode())
        return self

    def save(self) -> None:
        """Write a checkpoint and keep the last two."""
        name = f"checkpoint-{self.state.epoch:05d}.pt"
        save_state(self.folder / name, self.state.state_dict() | {"identity": self.identity})
        for path in _checkpoints(self.folder)[:-2]:
            path.unlink()
            digest_path(path).unlink(missing_ok=True)


def fit(plan: Plan) -> Record:
    """Train to the end, from the newest checkpoint if there is one; save the deployed student; return the result.

    The result has the last epoch's metrics ("last", the headline), the best epoch's ("best") and the seconds that
    training took, over all starts.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    state = plan.resumed().state
    for watcher in plan.watchers:
        watcher.start(plan)
    if state.step == 0:
        with state.autocast():
            advice = state.method.prepare(state.teacher, lambda: _first_images(plan.loader))
        for watcher in plan.watchers:
            for sentence in advice:
                watcher.note(sentence)
    for epoch in range(state.epoch + 1, plan.epochs + 1):
        record = _one_epoch(plan, epoch)
        plan.records.append(record)
        with plan.metrics.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if epoch % plan.checkpoint_every == 0 or epoch == plan.epochs:
            plan.save()
        for watcher in plan.watchers:
            watcher.epoch(record)
    evaluated = [record for record in plan.records if "top1" in record]
    best = max(evaluated, key=lambda record: record["top1"])
    result = {
        "last": evaluated[-1],
        "best": best,
        "seconds": sum(record["seconds"] for record in plan.records),
    }
    student = plan.state.method.deploy(plan.state.student.module)
    save_weights(plan.weights, student.state_dict(), plan.header | {"top1": result["last"]["top1"]})
    write_json(plan.folder / "result.json", result)
    return result


def train_epoch(plan: Plan, epoch: int) -> dict[str, float]:
    """Train for one epoch; return the mean over samples of each loss, keyed as the method names them."""
    state = plan.state
    state.student.module.train()
    state.method.train()
    totals: dict[str, Tensor] = {}
    count = 0
    for batch in plan.loader.epoch(epoch):
        torch.manual_seed(_step_seed(plan.seed, batch.step))
        for name, value in plan.update(state, batch).items():
            totals[name] = totals.get(name, 0) + value.detach() * len(batch)
        count += len(batch)
        state.step = batch.step + 1
        for watcher in plan.watchers:
            watcher.step(len(batch))
    state.epoch = epoch
    means = {name: (total / count).item() for name, total in totals.items()}  # the epoch's only device sync
    bad = [name for name, mean in means.items() if not math.isfinite(mean)]
    if bad:
        raise FloatingPointError(
            f"the loss {', '.join(bad)} is not finite in epoch {epoch}: lower the learning rate or the loss's weight; "
            f"the last whole epoch is in {plan.folder}"
        )
    return means


@torch.no_grad()
def evaluate(module: nn.Module, batches: Iterable[Batch], autocast: Autocast = nullcontext) -> dict[str, float]:
    """Return top-1 and top-5 accuracy in percent of a network in eval mode, each sample counted once.

    With fewer than 6 classes there is no top-5. The module is left in eval mode.
    """
    module.eval()
    hits: list[Tensor] = []
    count = 0
    depth = 1
    for batch in batches:
        if batch.labels is None:
            raise ValueError("evaluation needs labels, and this batch has none")
        with autocast():
            logits = module(batch.images)
        depth = 5 if logits.shape[1] > 5 else 1
        found = logits.float().topk(depth, dim=1).indices == batch.labels[:, None]
        hits.append(torch.stack([found[:, 0].sum(), found.any(dim=1).sum()]))
        count += len(batch)
    first, five = (torch.stack(hits).sum(dim=0) * 100.0 / count).tolist()
    return {"top1": first} | ({"top5": five} if depth == 5 else {})


def _one_epoch(plan: Plan, epoch: int) -> Record:
    rate = plan.learning_rate(epoch)
    for group in plan.state.optimizer.param_groups:
        group["lr"] = rate
    started = time.perf_counter()
    losses = train_epoch(plan, epoch)
    seconds = time.perf_counter() - started
    record: Record = {"epoch": epoch, "step": plan.state.step, "lr": rate, "loss": losses}
    if plan.state.method.observes and plan.state.teacher is not None:
        record["observed"] = _observed(plan, plan.state.teacher, epoch)
    if epoch % plan.evaluate_every == 0 or epoch == plan.epochs:
        deployed = plan.state.method.deploy(plan.state.student.module)
        record |= evaluate(deployed, plan.test(), plan.state.autocast)
    return record | {"seconds": seconds, "images_per_second": plan.loader.num_samples / seconds}


@torch.no_grad()
def _observed(plan: Plan, teacher: Network, epoch: int) -> dict[str, float]:
    """What the method sees in the epoch's first batch, now, with the student in eval mode."""
    state = plan.state
    state.student.module.eval()
    batch = next(iter(plan.loader.epoch(epoch)))
    with state.autocast():
        return state.method.observe(batch, state.student.run(batch), teacher.run(batch))


def _first_images(loader: Batches, num: int = 1024) -> Iterator[Batch]:
    """The first batches of the first epoch, up to the batch that reaches `num` images."""
    for batch in loader.epoch(1):
        yield batch
        num -= len(batch)
        if num <= 0:
            return


def _step_seed(seed: int, step: int) -> int:
    return (seed * 0x9E3779B97F4A7C15 + step) % 2**63


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.pt"))
