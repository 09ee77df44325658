"""The cells of the matrix, settings x pairs of networks, and the parts of one: networks, method, rule, batches."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rankdistill import METHODS, UPDATES, Batch, Losses, UpdateRule
from rankdistill.assembly import assemble
from rankdistill.models import MODELS
from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.settings import SETTINGS, Setting
from rankdistill.runs.build import terms
from rankdistill.runs.config import Optim
from rankdistill.training.state import State

CLASSES = 10
SAMPLES = 10
BATCH_SIZE = 4

# Pairs that take little time: of one family, and of two.
_ALIKE = (("wrn_40_2", "wrn_16_2"), ("resnet56", "resnet20"), ("wrn_40_2", "wrn_40_1"), ("vgg13", "vgg8"))
_ACROSS = (("wrn_40_2", "shufflenetv1"), ("vgg13", "mobilenetv2"))


@dataclass(frozen=True)
class Cell:
    """A setting on a pair of networks, all three by name."""

    setting: str
    teacher: str
    student: str

    def __str__(self) -> str:
        return f"{self.setting}-{self.teacher}-{self.student}"

    @property
    def asked(self) -> Setting:
        return SETTINGS[self.setting](self.teacher, self.student)

    @property
    def side(self) -> int:
        """Pixels of an image's side."""
        return 64 if self.student.startswith("tiny_") else 32


def whole_matrix() -> list[Cell]:
    """Return every setting on every pair."""
    return [Cell(name, *pair) for name in SETTINGS for pair in (*CIFAR100_PAIRS, *TINY_IMAGENET_PAIRS)]


def quick_matrix() -> list[Cell]:
    """Return each setting on two pairs of CIFAR-100, such that each pair has two settings or more."""
    costly = [pair for pair in CIFAR100_PAIRS if pair not in (*_ALIKE, *_ACROSS)]
    chosen = zip(SETTINGS, itertools.chain(costly, costly, itertools.cycle(_ALIKE)), itertools.cycle(_ACROSS))
    return [Cell(name, *pair) for name, *pairs in chosen for pair in pairs]


def whole_students() -> list[str]:
    """Return the name of every student."""
    return sorted({student for _, student in (*CIFAR100_PAIRS, *TINY_IMAGENET_PAIRS)})


def quick_students() -> list[str]:
    """Return a student of each family of the quick part."""
    return ["mobilenetv2", "resnet20", "shufflenetv1", "shufflenetv2", "vgg8", "wrn_16_2"]


@dataclass
class Parts:
    """What a run of a cell is made of.

    Attributes:
        plain: what Python shows of the student as it was before the method changed it.
    """

    state: State
    rule: UpdateRule
    plain: str


def teacher_of(cell: Cell) -> nn.Module | None:
    """Return the teacher, if the setting reads one: random weights, but statistics of the images.

    With statistics that were never measured, the features of a deep network grow without bound from block to block.
    """
    reads_teacher = any(METHODS[loss.method].reads_teacher for loss in cell.asked.losses.values())
    return copy.deepcopy(_teacher(cell.teacher, cell.side)) if reads_teacher else None


def assemble_cell(cell: Cell, teacher: nn.Module | None, *, seed: int) -> Parts:
    """Return the parts of a cell; the seed is that of the student's and of the method's initial values."""
    torch.manual_seed(seed)
    asked = cell.asked
    student = MODELS[cell.student](CLASSES)
    rule = UPDATES[asked.update](**asked.update_options)
    optim = dataclasses.replace(Optim(), **asked.optim)
    return parts_of(asked.losses, student, teacher, rule, optim, side=cell.side)


def parts_of(
    losses: Mapping[str, Any],
    student: nn.Module,
    teacher: nn.Module | None,
    rule: UpdateRule,
    optim: Optim,
    *,
    side: int,
) -> Parts:
    """Return the parts of a run, put together as `rankdistill.runs.build` does it.

    Weight decay is 0, so that the optimizer's memory of its first step is the gradient; images are few and weights
    random, so the learning rate is low.
    """
    plain = repr(student)
    labels = torch.arange(SAMPLES) % CLASSES
    example = torch.zeros(2, 3, side, side)
    method, trained, frozen = assemble(terms(losses), student, teacher, example, num_samples=SAMPLES, labels=labels)
    rule.check(method)
    optimizer = rule.make_optimizer(
        trained.module, method, lr=1e-4, momentum=optim.momentum, weight_decay=0.0, nesterov=optim.nesterov
    )
    state = State(trained, frozen, method, optimizer, rule.make_meta_optimizer(method))
    return Parts(state, rule, plain)


@functools.cache
def _teacher(name: str, side: int) -> nn.Module:
    torch.manual_seed(1)
    teacher = MODELS[name](CLASSES)
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        teacher(training_batch(0, side).images)
    return teacher


def training_batch(step: int, side: int, *, views: int = 1, held_out: bool = False) -> Batch:
    """Return the batch of a step, the same in every run."""
    generator = torch.Generator().manual_seed(step)

    def images() -> Tensor:
        return torch.randn(BATCH_SIZE, 3, side, side, generator=generator)

    indices = torch.randperm(SAMPLES, generator=generator)[:BATCH_SIZE]
    labels = indices % CLASSES
    return Batch(
        images(),
        labels,
        indices=indices,
        strong=images() if views == 2 else None,
        held_out=Batch(images(), labels.flip(0)) if held_out else None,
        step=step,
    )


def take_step(parts: Parts, step: int, side: int) -> Losses:
    """Take the step of a run and return its losses."""
    state, rule = parts.state, parts.rule
    state.student.module.train()
    state.method.train()
    torch.manual_seed(step)  # as `rankdistill.training.loop` does, for dropout and draws
    held_out = bool(rule.held_out_per_class) and step % rule.every == 0
    losses = rule(state, training_batch(step, side, views=state.method.views, held_out=held_out))
    state.step = step + 1
    return losses


def prepare(parts: Parts, side: int) -> None:
    """Let the method prepare, as before the first step of a run."""
    views = parts.state.method.views
    parts.state.method.prepare(
        parts.state.teacher, lambda: [training_batch(step, side, views=views) for step in (0, 1)]
    )
