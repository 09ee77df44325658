"""Runs small enough for tests, of contract methods, and what they end with."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from contract_methods import CONTRACT_METHODS

from rankdistill import Batch, CrossEntropy
from rankdistill.assembly import assemble
from rankdistill.data.dataset import Split
from rankdistill.data.loader import Loader
from rankdistill.data.views import Geometry
from rankdistill.models.resnet import ResNet
from rankdistill.training.plan import TIMES, Plan, Record
from rankdistill.training.state import State

CLASSES = 5
SAMPLES = 22


def small_split() -> Split:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (SAMPLES, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(SAMPLES) % CLASSES)


class BothViewsLoader(Loader):
    """Adds a second view: the first one mirrored."""

    def epoch(self, number: int, *, first: int = 0) -> Iterator[Batch]:
        for batch in super().epoch(number, first=first):
            yield dataclasses.replace(batch, strong=batch.images.flip(3))


def small_plan(folder: Path, name: str | None = None, *, epochs: int = 4, lr: float = 0.05) -> Plan:
    """A plan of a contract method beside cross-entropy, or of cross-entropy alone.

    No network is narrower than 16: oneDNN corrupts memory in strided 1x1 channels-last convolutions of less than a
    vector of channels (uxlfoundation/oneDNN issue 6035).
    """
    torch.manual_seed(7)
    student = ResNet(8, (16, 16, 16, 16), CLASSES)
    teacher = ResNet(8, (16, 16, 24, 32), CLASSES)
    terms = {"task": (1.0, CrossEntropy())} | ({} if name is None else {"kd": (0.5, CONTRACT_METHODS[name])})
    method, trained, frozen = assemble(terms, student, teacher, torch.zeros(2, 3, 16, 16), num_samples=SAMPLES)
    parameters = [*trained.module.parameters(), *method.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=5e-4)
    constants = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    return Plan(
        state=State(trained, frozen, method, optimizer),
        loader=BothViewsLoader(
            small_split(), batch_size=8, seed=3, geometry=Geometry(padding=2, flip=True), **constants
        ),
        test=lambda: Loader(small_split(), batch_size=11, seed=0, **constants).epoch(1),
        epochs=epochs,
        learning_rate=lambda epoch: lr * (0.1 if epoch > 2 else 1.0),
        folder=folder,
        identity={"config": "c"},
        header={"model": "small"},
    )


def outcome(plan: Plan) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[Record]]:
    timeless = [
        {key: value for key, value in json.loads(line).items() if key not in TIMES}
        for line in plan.metrics.read_text().splitlines()
    ]
    return plan.state.student.module.state_dict(), plan.state.method.state_dict(), timeless


class Killed(Exception):
    pass


class KillsAtStep:
    """Leaves training in the middle of an epoch, as a crash does: nothing is saved on the way out."""

    def __init__(self, step: int) -> None:
        self.left = step

    def start(self, plan: Plan) -> None:
        pass

    def note(self, sentence: str) -> None:
        pass

    def step(self, images: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def epoch(self, record: Record) -> None:
        pass


def assert_same(left: Plan, right: Plan) -> None:
    for a, b in zip(outcome(left)[:2], outcome(right)[:2], strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert outcome(left)[2] == outcome(right)[2]
    first, second = (plan.state.optimizer.state_dict() for plan in (left, right))
    for key, values in first["state"].items():
        assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(second["state"][key][k])) for k, v in values.items())
    assert left.weights.read_bytes() == right.weights.read_bytes()
