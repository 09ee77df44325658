"""The configuration of a run. Recipes return it, the command line types it, `build` builds it."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

import tyro

from .methods import METHODS


@dataclass(frozen=True)
class Data:
    """The images.

    Attributes:
        name: a data set of `rankdistill list`.
        root: its folder or archive; None where it is bundled.
        download: fetch what is missing into `root`.
        image_size: pixels of a side; None for the set's own.
        num_classes: only the first so many classes; None for all.
        num_labels: train on so many images only, equally many of each class; None for all.
        held_out: keep so many training images out of training, and evaluate on them instead of the test images.
        subset_seed: which images `num_labels` and `held_out` choose.
        padding: pixels of zeros around an image before it is cropped at random; 0 for no crop.
        flip: mirror each image with probability one half.
    """

    name: str = "digits"
    root: Path | None = None
    download: bool = False
    image_size: int | None = None
    num_classes: int | None = None
    num_labels: int | None = None
    held_out: int = 0
    subset_seed: int = 0
    padding: int = 4
    flip: bool = True


@dataclass(frozen=True)
class Optim:
    """Stochastic gradient descent and its schedule.

    Attributes:
        epochs: passes over the training images.
        batch_size: images in a step.
        lr: learning rate of the first epoch.
        schedule: "multistep" (times `gamma` after each milestone) or "cosine" (to 0 at the end of the run).
        milestones: epochs after which the rate drops: with 150, epoch 151 is the first reduced one.
        gamma: factor of each drop.
        momentum: of SGD.
        weight_decay: of all parameters, batch norms and biases too, as in the field's code.
        nesterov: Nesterov's momentum.
    """

    epochs: int = 240
    batch_size: int = 64
    lr: float = 0.05
    schedule: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[int, ...] = (150, 180, 210)
    gamma: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "optim.epochs", self.epochs, "at least 1")
        _require(self.batch_size >= 2, "optim.batch_size", self.batch_size, "at least 2, for batch norm")
        _require(0.0 < self.lr < math.inf, "optim.lr", self.lr, "positive")
        _require(0.0 <= self.momentum < 1.0, "optim.momentum", self.momentum, "at least 0 and less than 1")
        _require(0.0 <= self.weight_decay < math.inf, "optim.weight_decay", self.weight_decay, "at least 0")
        _require(0.0 < self.gamma <= 1.0, "optim.gamma", self.gamma, "more than 0 and at most 1")
        ordered = list(self.milestones) == sorted(set(self.milestones)) and all(m >= 1 for m in self.milestones)
        _require(ordered, "optim.milestones", self.milestones, "ascending epochs from 1")
        if self.schedule == "cosine" and self.milestones:
            raise ValueError(
                f"optim.milestones is {self.milestones}, which has no effect under a cosine schedule: "
                "pass --optim.milestones with nothing after it"
            )

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 1."""
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1.0 + math.cos(math.pi * (epoch - 1) / self.epochs))
        return self.lr * self.gamma ** sum(epoch > milestone for milestone in self.milestones)


@dataclass(frozen=True)
class Run:
    """Everything that determines a run. A recipe returns one.

    Attributes:
        recipe: the recipe that it comes from; names the folder.
        student: the network that is trained, a name of `rankdistill list`.
        teacher: the network that it learns from, or None.
        teacher_weights: a safetensors file that `train-teacher` wrote, or a checkpoint of others.
        losses: name -> weight and options. "task" is the loss on the labels.
        data: the images.
        optim: the optimizer.
        seed: of the student's initial weights and of the draws of methods.
        stream_seed: of the order of the images and of their augmentation.
        precision: "auto" is bf16-mixed where the hardware is fast at it, else 32-true.
        accelerator: where to train: "auto", "cpu", "cuda" or "mps".
        threads: CPU threads; None for torch's choice. Small networks are fastest with 1 where other programs run.
        evaluate_every: epochs between evaluations; the last epoch is always evaluated.
        checkpoint_every: epochs between checkpoints; the last epoch is always saved.
        runs: the folder of all runs.
    """

    # The command line takes these three before it builds the recipe, and so does not offer them again.
    recipe: tyro.conf.Suppress[str]
    student: tyro.conf.Suppress[str]
    teacher: tyro.conf.Suppress[str | None]
    losses: dict[str, Any]
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    teacher_weights: Path | None = None
    seed: int = 0
    stream_seed: int = 0
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int | None = None
    evaluate_every: int = 1
    checkpoint_every: int = 1
    runs: Path = Path("runs")

    def __post_init__(self) -> None:
        _require(self.threads is None or self.threads >= 1, "threads", self.threads, "at least 1")
        _require(self.evaluate_every >= 1, "evaluate_every", self.evaluate_every, "at least 1")
        _require(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "at least 1")
        for name, options in self.losses.items():
            _require(
                0.0 <= options.weight < math.inf,
                f"losses.{name}.weight",
                options.weight,
                "finite and not negative",
            )

    @property
    def pair(self) -> str:
        """Return "teacher-student", or the student's name alone."""
        return f"{self.teacher}-{self.student}" if self.teacher else self.student


SHARED_OPTIONS = ("weight", "each_view")
"""Options that every loss of a run has, beside those of its method."""


@functools.cache
def options_of(name: str) -> type[Any]:
    """Return a frozen dataclass of a method's weight and options, made from the method's signature.

    Beside the method's own options there are `weight`, and `each_view`, to apply a one-view method to both views.

    Raises:
        ValueError: there is no such method; the nearest names are given.
    """
    method = look_up(METHODS, name, "method")
    hints = get_type_hints(method.__init__)
    keywords = [p for p in inspect.signature(method).parameters.values() if p.kind is p.KEYWORD_ONLY]
    fields: list[tuple[str, Any, Any]] = [
        ("weight", float, field(default=1.0)),
        ("each_view", bool, field(default=False)),
    ]
    fields += [(p.name, hints[p.name], field(default=p.default)) for p in keywords]
    namespace = {"method": name, "__doc__": inspect.getdoc(method), "__reduce__": _reduced}
    return dataclasses.make_dataclass(method.__name__, fields, frozen=True, namespace=namespace)


def loss(method: str, weight: float = 1.0, **options: Any) -> Any:
    """Return the weight and options of a method, for `Run.losses`."""
    return options_of(method)(weight=weight, **options)


def _reduced(options: Any) -> tuple[Any, ...]:
    """How `pickle` rebuilds options, whose class is made at run time."""
    return _rebuilt, (options.method, dataclasses.asdict(options))


def _rebuilt(method: str, options: dict[str, Any]) -> Any:
    return options_of(method)(**options)


def look_up(table: Mapping[str, Any], name: str, kind: str) -> Any:
    """Return `table[name]`.

    Raises:
        ValueError: there is no such name; the nearest ones are given, or all.
    """
    if name not in table:
        near = difflib.get_close_matches(name, table, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(table)}"
        raise ValueError(f"unknown {kind} {name!r}: {hint}")
    return table[name]


def describe(run: Run) -> dict[str, Any]:
    """Return what of a run's configuration determines its outcome, as plain values."""
    config = dataclasses.asdict(run)
    for name, options in run.losses.items():
        config["losses"][name]["method"] = options.method
    for place in ("runs", "teacher_weights", "accelerator", "checkpoint_every"):
        del config[place]
    for place in ("root", "download"):
        del config["data"][place]
    return config


def _require(holds: bool, name: str, value: object, needed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}: it must be {needed}")
