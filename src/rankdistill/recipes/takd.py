"""Improved Knowledge Distillation via Teacher Assistant (Mirzadeh et al., AAAI 2020). arXiv:1902.03393.

Not a loss but a chain of runs: the teacher teaches an assistant of a size in between, which teaches the next one, and
the last one teaches the student. Each run is vanilla distillation by the data set's `kd` recipe, in its own folder.

Differs from the authors' code: stages train by the data set's recipe, where the code searches for a temperature and a
weight by pair, on other pairs (`authors_losses` has its weighting); the assistant that teaches is the one of the last
epoch, not of the best one on the test images.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..runs.config import Run
from ..runs.options import loss
from . import RECIPES

ASSISTANTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("resnet56", "resnet20"): ("resnet32",),
    ("resnet110", "resnet32"): ("resnet56",),
    ("resnet32x4", "resnet8x4"): ("resnet14x4",),
    ("wrn_40_2", "wrn_16_2"): ("wrn_28_2",),
    ("wrn_40_2", "wrn_40_1"): ("wrn_28_2",),
    ("vgg13", "vgg8"): ("vgg11",),
    ("resnet32x4", "shufflenetv2"): ("resnet14x4",),
    ("vgg13", "mobilenetv2"): ("vgg11",),
    ("resnet50", "mobilenetv2"): ("resnet18",),
    ("wrn_40_2", "shufflenetv1"): ("wrn_28_2",),
    ("resnet32x4", "shufflenetv1"): ("resnet14x4",),
    ("tiny_resnet18", "tiny_mobilenetv2"): ("tiny_shufflenetv2",),
    ("tiny_resnet18", "tiny_shufflenetv2"): ("tiny_mobilenetv2",),
    ("resnet8x4", "resnet8"): ("resnet14",),
}
"""(teacher, student) -> the assistants between them. Ours: no paper names any for these pairs."""


def takd(
    dataset: str,
    teacher: str | None = None,
    student: str | None = None,
    assistants: Sequence[str] | None = None,
) -> list[Run]:
    """Return the runs of a chain on a data set, first to last; `fit_chain` trains them.

    Args:
        dataset: one that has a `kd` recipe.
        teacher: the first teacher; None for that of the `kd` recipe. The first run needs its weights.
        student: the last student; None likewise.
        assistants: those in between, largest first; an empty list is plain distillation, None is `ASSISTANTS`.

    Raises:
        ValueError: no assistants are known for the pair.
    """
    recipe = RECIPES[f"{dataset}.kd"]
    usual = recipe()
    first, last = teacher or str(usual.teacher), student or usual.student
    if assistants is None:
        if (first, last) not in ASSISTANTS:
            raise ValueError(f"no assistants are known between {first} and {last}: pass --assistants MODEL ...")
        assistants = ASSISTANTS[first, last]
    stages = pairwise([first, *assistants, last])
    return [dataclasses.replace(recipe(t, s), recipe=f"{dataset}.takd") for t, s in stages]


def fit_chain(runs: Sequence[Run], train: Callable[[Run], Path] | None = None) -> list[Path]:
    """Train runs one after the other, each taught by the student of the one before; return their students' files.

    A chain that was interrupted goes on where it was: runs that are done are recognised by their folders.

    Args:
        runs: as `takd` returns them, the first with `teacher_weights`.
        train: trains one run and returns its student's file; None for `train_once`.
    """
    students: list[Path] = []
    for run in runs:
        taught = dataclasses.replace(run, teacher_weights=students[-1]) if students else run
        students.append((train or train_once)(taught))
    return students


def train_once(run: Run) -> Path:
    """Train a run, unless that was done before; return its student's file."""
    from ..runs.build import build  # with torch, which the names of recipes do not need
    from ..training.loop import fit

    plan = build(run)
    if run.again or plan.finished() is None:
        fit(plan)
    return plan.weights


def authors_losses(num_classes: int, *, temperature: float = 5.0, weight: float = 0.04) -> dict[str, Any]:
    """Return the losses of a stage as the authors' code weights them, for `Run.losses`.

    Its divergence is a mean over samples and classes, so that the usual one gets the weight divided by the classes.

    Args:
        num_classes: of the data set.
        temperature: 1, 2, 5, 10, 15 or 20 were searched; 5 is a hint of the authors for CIFAR-100.
        weight: lambda, 0.05 to 1 were searched; 0.04 is their hint. Cross-entropy has 1 - lambda.
    """
    kd = loss("kd", weight / num_classes, temperature=temperature)
    return {"task": loss("ce", 1.0 - weight), "kd": kd}


def _chain_of(dataset: str) -> Callable[..., list[Run]]:
    def chain(
        teacher: str | None = None, student: str | None = None, assistants: Sequence[str] | None = None
    ) -> list[Run]:
        """Return vanilla distillation through teacher assistants: a chain of runs."""
        return takd(dataset, teacher, student, assistants)

    return chain


CHAINS: dict[str, Callable[..., list[Run]]] = {
    f"{dataset}.takd": _chain_of(dataset)
    for dataset in (name.removesuffix(".kd") for name in RECIPES if name.endswith(".kd"))
}
"""Name -> function of the names of the networks, for every data set that has a `kd` recipe."""
