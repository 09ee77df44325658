"""The configuration of a run. Recipes return it, the command line types it, `build` builds it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..geometry import Geometry, SecondView
from .options import update_rule


@dataclass(frozen=True)
class Data(Geometry):
    """The images of a run, and how the pixels of a training view move.

    It has the attributes of `Geometry` as well.

    Attributes:
        name: the data set, a name of `rankdistill list`.
        root: the folder or archive of the data set; None where it comes with a package.
        download: fetch the files that are missing into `root`.
        cache: the folder that keeps decoded images for the next run; "off" keeps none, and "auto" is the user's,
            $XDG_CACHE_HOME/rankdistill or ~/.cache/rankdistill.
        image_size: the height and width of the images in pixels; None for the data set's own.
        num_classes: use only the first so many classes; None for all.
        num_labels: train on so many images only, equally many of each class; None for all.
        held_out: keep so many training images out of training, and evaluate on them instead of the test images.
        subset_seed: the seed that decides which images `num_labels` and `held_out` choose.
        second_view: how the second view of an image is made, for losses that read two: "mlkd" (two random operations
            and a cut-out after its own crop and flip) or "weak" (another crop and flip).
        mixup: mix each batch with itself in another order, by a share from Beta(mixup, mixup); 0 for not.
        cutmix: paste a box of one image into another, of an area from Beta(cutmix, cutmix); 0 for not.
    """

    # Of `Geometry`, with the values that suit most data sets.
    padding: int = 4
    flip: bool = True
    name: str = "digits"
    root: Path | None = None
    download: bool = False
    cache: Literal["auto", "off"] | Path = "auto"
    image_size: int | None = None
    num_classes: int | None = None
    num_labels: int | None = None
    held_out: int = 0
    subset_seed: int = 0
    second_view: SecondView = "mlkd"
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            _require(0.0 <= value < math.inf, f"data.{name}", value, "at least 0")
        if self.mixup and self.cutmix:
            raise ValueError(f"data.mixup is {self.mixup} and data.cutmix {self.cutmix}: choose one of them")


@dataclass(frozen=True)
class Optim:
    """Stochastic gradient descent and its schedule.

    Attributes:
        epochs: the number of passes over the training images.
        batch_size: the number of images in a step.
        lr: the learning rate of the first epoch.
        schedule: how the learning rate falls: "multistep" (times `gamma` after each milestone) or "cosine" (to 0 at the
            end of the run).
        milestones: the epochs after which the rate drops: with 150, epoch 151 is the first reduced one. On the command
            line those of a recipe move with `epochs`.
        gamma: the factor of each drop.
        warmup_epochs: the number of epochs over which the learning rate first rises, in equal steps, to what the
            schedule says: by 1 / (warmup_epochs + 1) in each epoch.
        momentum: the momentum of SGD.
        weight_decay: the weight decay of all parameters, batch norms and biases too, as in the field's code.
        nesterov: use Nesterov's momentum.
        accumulate: run each batch in so many parts, to save memory; batch norm and losses over pairs of samples see
            one part at a time. A smaller last batch is run in fewer parts, so that each has two samples.
        clip_norm: scale gradients to at most this norm; None leaves them.
        ema: evaluate and save an exponential moving average of the student's weights, with this decay; None for none.
    """

    epochs: int = 240
    batch_size: int = 64
    lr: float = 0.05
    schedule: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[int, ...] = (150, 180, 210)
    gamma: float = 0.1
    warmup_epochs: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False
    accumulate: int = 1
    clip_norm: float | None = None
    ema: float | None = None

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "optim.epochs", self.epochs, "at least 1")
        _require(self.batch_size >= 2, "optim.batch_size", self.batch_size, "at least 2, for batch norm")
        _require(0.0 < self.lr < math.inf, "optim.lr", self.lr, "positive")
        _require(0.0 <= self.momentum < 1.0, "optim.momentum", self.momentum, "at least 0 and less than 1")
        _require(0.0 <= self.weight_decay < math.inf, "optim.weight_decay", self.weight_decay, "at least 0")
        _require(0.0 < self.gamma <= 1.0, "optim.gamma", self.gamma, "more than 0 and at most 1")
        warms = 0 <= self.warmup_epochs < self.epochs
        _require(warms, "optim.warmup_epochs", self.warmup_epochs, f"0 to {self.epochs - 1}, less than the epochs")
        parts = 1 <= self.accumulate <= self.batch_size // 2
        _require(
            parts, "optim.accumulate", self.accumulate, f"1 to {self.batch_size // 2}, so that a part has 2 samples"
        )
        clip = self.clip_norm
        _require(clip is None or 0.0 < clip < math.inf, "optim.clip_norm", clip, "positive")
        _require(self.ema is None or 0.0 < self.ema < 1.0, "optim.ema", self.ema, "more than 0 and less than 1")
        ordered = list(self.milestones) == sorted(set(self.milestones)) and all(m >= 1 for m in self.milestones)
        _require(ordered, "optim.milestones", self.milestones, "ascending epochs from 1")
        if self.schedule == "cosine" and self.milestones:
            raise ValueError(
                f"optim.milestones is {self.milestones}, which has no effect under a cosine schedule: "
                "pass --optim.milestones with nothing after it"
            )

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 1."""
        peak = self.lr * min(1.0, epoch / (self.warmup_epochs + 1))
        if self.schedule == "cosine":
            return peak * 0.5 * (1.0 + math.cos(math.pi * (epoch - 1) / self.epochs))
        return peak * self.gamma ** sum(epoch > milestone for milestone in self.milestones)


@dataclass(frozen=True)
class Run:
    """Everything that determines a run. A recipe returns one.

    Attributes:
        recipe: the recipe that it comes from; names the folder.
        student: the network that is trained, a name of `rankdistill list`.
        teacher: the network that it learns from, or None.
        teacher_weights: the teacher's weights, in a safetensors file that `train-teacher` wrote, or in a checkpoint of
            others.
        teacher_classes: "same" if the teacher's file is for the data's classes in their order; "by-name" takes these
            classes out of those that the file names.
        losses: name -> weight and options. "task" is the loss on the labels.
        data: the images.
        optim: the optimizer.
        update: how a step is made: options of an update rule, from `update_rule`; `--update RULE` chooses the rule.
        seed: the seed of the student's initial weights and of the draws of methods.
        stream_seed: the seed of the order of the images and of their augmentation.
        precision: "auto" is bf16-mixed where the hardware is fast at it, else 32-true.
        accelerator: where to train: "auto", "cpu", "cuda" or "mps".
        devices: the number of processes on this machine, one for each device. Under torchrun or SLURM, as many as
            these start.
        num_nodes: the number of machines; torchrun or SLURM starts them.
        sync_bn: batch norms normalise over the samples of all processes instead of each process's own.
        compile: run the networks through torch.compile: "off", "on", or "auto", where the run is long enough to pay.
        threads: the number of CPU threads; None for torch's choice. Small networks are fastest with 1 where other
            programs run.
        evaluate_every: the number of epochs between evaluations; the last epoch is always evaluated.
        evaluate_teacher: measure the teacher before training, to stand beside the student.
        checkpoint_every: the number of epochs between checkpoints; the last epoch is always saved.
        checkpoint_steps: save after every so many steps as well; None for not.
        teacher_cache: a folder where the teacher's logits for this stream of batches are kept, for later runs too.
        teacher_cache_dtype: "float16" halves its size and rounds the logits; "float32" keeps every bit.
        teacher_cache_gigabytes: the most that one teacher and stream may take there.
        loggers: where metrics go besides metrics.jsonl: any of "tensorboard", "wandb" and "mlflow".
        profile: write trace.json, a profile of a few steps.
        runs: the folder of all runs.
        again: train anew, and replace what the folder has of this run.
    """

    recipe: str
    student: str
    teacher: str | None
    losses: dict[str, Any]
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    update: Any = field(default_factory=lambda: update_rule("descend"))
    teacher_weights: Path | None = None
    teacher_classes: Literal["same", "by-name"] = "same"
    seed: int = 0
    stream_seed: int = 0
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    sync_bn: bool = False
    compile: Literal["off", "on", "auto"] = "off"
    threads: int | None = None
    evaluate_every: int = 1
    evaluate_teacher: bool = True
    checkpoint_every: int = 1
    checkpoint_steps: int | None = None
    teacher_cache: Path | None = None
    teacher_cache_dtype: Literal["float16", "float32"] = "float16"
    teacher_cache_gigabytes: float = 20.0
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    profile: bool = False
    runs: Path = Path("runs")
    again: bool = False

    def __post_init__(self) -> None:
        for name in ("seed", "stream_seed"):
            _require(0 <= getattr(self, name) < 2**63, name, getattr(self, name), "at least 0 and less than 2^63")
        _require(self.threads is None or 1 <= self.threads <= 1024, "threads", self.threads, "1 to 1024")
        _require(self.evaluate_every >= 1, "evaluate_every", self.evaluate_every, "at least 1")
        _require(self.checkpoint_every >= 1, "checkpoint_every", self.checkpoint_every, "at least 1")
        steps = self.checkpoint_steps
        _require(steps is None or steps >= 1, "checkpoint_steps", steps, "at least 1")
        _require(self.devices >= 1, "devices", self.devices, "at least 1")
        _require(self.num_nodes >= 1, "num_nodes", self.num_nodes, "at least 1")
        limit = self.teacher_cache_gigabytes
        _require(0.0 < limit < math.inf, "teacher_cache_gigabytes", limit, "positive and finite")
        if self.sync_bn and self.devices * self.num_nodes == 1:
            raise ValueError("sync_bn is True, which has no effect on one process: leave it out, or raise devices")
        if self.teacher_cache is not None and self.teacher is None:
            raise ValueError(f"teacher_cache is {self.teacher_cache}, but the recipe {self.recipe} has no teacher")
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


_WITHOUT_EFFECT = (
    *(
        "runs",
        "teacher_weights",
        "teacher_classes",
        "accelerator",
        "checkpoint_every",
        "checkpoint_steps",
        "evaluate_teacher",
    ),
    *("teacher_cache", "teacher_cache_dtype", "teacher_cache_gigabytes", "loggers", "profile", "again"),
)
"""Fields of a run that do not change what it ends with."""


def describe(run: Run) -> dict[str, Any]:
    """Return what of a run's configuration determines its outcome, as plain values."""
    config = dataclasses.asdict(run)
    for name, options in run.losses.items():
        config["losses"][name]["method"] = options.method
    config["update"]["rule"] = run.update.rule
    cached = run.teacher_cache is not None and run.teacher_cache_dtype == "float16"
    for name in _WITHOUT_EFFECT:
        del config[name]
    config["teacher_logits"] = "float16" if cached else "exact"
    for place in ("root", "download", "cache"):
        del config["data"][place]
    return config


def in_so_many_epochs(run: Run, usual: Optim) -> Run:
    """Return a run whose milestones fit its epochs: those of a recipe are moved with the length of the run.

    Args:
        run: with the epochs and milestones that are wanted.
        usual: the recipe's own.

    Raises:
        ValueError: milestones other than the recipe's are beyond the run's epochs.
    """
    epochs, milestones = run.optim.epochs, run.optim.milestones
    if milestones != usual.milestones:
        if any(milestone >= epochs for milestone in milestones):
            raise ValueError(
                f"optim.milestones is {milestones}, which goes beyond the {epochs} epochs of the run: give milestones "
                "below it, or none"
            )
        return run
    if epochs == usual.epochs:
        return run
    moved = {round(milestone * epochs / usual.epochs) for milestone in milestones}
    scaled = tuple(sorted(milestone for milestone in moved if 1 <= milestone < epochs))
    return dataclasses.replace(run, optim=dataclasses.replace(run.optim, milestones=scaled))


def _require(holds: bool, name: str, value: object, needed: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}: it must be {needed}")
