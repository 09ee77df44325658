"""The commands that train: from a recipe's name and flags to a run, and from a run to its result."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from ..distributed import OtherProcessFailed
from ..models import MODELS
from ..recipes import RECIPES
from ..recipes.protocols import PROTOCOLS
from ..recipes.takd import CHAINS, fit_chain
from ..runs.build import build
from ..runs.config import Run, in_so_many_epochs
from ..runs.options import look_up, update_rule
from ..training.lock import Refused
from ..training.loop import fit
from ..training.plan import Plan, Record
from ..training.signals import Interrupted
from ..training.updates import UPDATES
from ..weights.durable import WriteError
from .console import Terminal, console
from .flags import Flag, columns, flags_of, parse, shown

SHORTS = {
    "optim.epochs": "epochs",
    "optim.lr": "lr",
    "optim.batch_size": "batch-size",
    "data.name": "data",
    "data.root": "root",
}
"""Flag -> its short name."""

_EVERYDAY = (
    *("teacher_weights", "data.name", "data.root", "data.image_size", "data.num_labels"),
    *("optim.epochs", "optim.lr", "optim.batch_size", "seed", "precision", "accelerator"),
    *("teacher_cache", "runs", "again"),
)
"""What `--help` shows, beside the weights of the losses."""

_HIDDEN = ("recipe", "student", "teacher")
"""Fields of a run that are chosen before its recipe is called."""


def train_teacher(arguments: Sequence[str]) -> None:
    """Train a teacher on a data set."""
    teachers = {name.removesuffix(".teacher"): recipe for name, recipe in RECIPES.items() if name.endswith(".teacher")}
    _train("train-teacher", "DATASET", teachers, arguments)


def distill(arguments: Sequence[str]) -> None:
    """Train a student by a recipe, or a chain of them."""
    if arguments and arguments[0] in CHAINS:
        return _train_chain(arguments)
    students = {name: recipe for name, recipe in RECIPES.items() if not name.endswith(".teacher")}
    _train("distill", "RECIPE", students, arguments, others=tuple(CHAINS))


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what the checks of names, options, files and data refuse into one sentence and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error


def _train(
    command: str,
    kind: str,
    recipes: Mapping[str, Callable[..., Run]],
    arguments: Sequence[str],
    others: Sequence[str] = (),
) -> None:
    """Train by the recipe that the first argument names, with the options that follow."""
    if not arguments or arguments[0].startswith("-"):
        _introduce(command, kind, [*recipes, *others])
        raise SystemExit(0 if arguments and arguments[0] in ("-h", "--help", "--help-all") else 2)
    with refusing():
        known = {**recipes, **dict.fromkeys(others)}
        recipe = look_up(known, arguments[0], kind.lower().replace("dataset", "data set"))
        (run,) = _configured(f"{command} {arguments[0]}", recipe, lambda **chosen: [recipe(**chosen)], arguments[1:])
    _fitted(run)


def _train_chain(arguments: Sequence[str]) -> None:
    """Train a chain of runs, each student the teacher of the next; those that are done are not trained again."""
    chain = CHAINS[arguments[0]]
    with refusing():
        runs = _configured(f"distill {arguments[0]}", chain, chain, arguments[1:])
        for run in runs[1:]:
            look_up(MODELS, str(run.teacher), "model")

    def told(run: Run) -> Path:
        console.print(f"{run.teacher} teaches {run.student}, one of {len(runs)} runs")
        return _fitted(run)

    fit_chain(runs, told)


def _fitted(run: Run) -> Path:
    """Train a run, unless that was done before, and tell its result; return the student's file."""
    with Terminal(console, f"{run.recipe} {run.pair}") as terminal:
        with refusing():
            plan = build(run, watchers=[terminal])
        before = None if run.again else plan.finished()
        result = before or _trained(plan)
    last, best = result["last"], result["best"]
    when = f"{datetime.fromisoformat(result['finished']):%Y-%m-%d %H:%M}"
    console.print(
        (f"done before, on {when}, and not trained now: " if before else "")
        + f"top-1 {last['top1']:.2f} % after the last epoch (best: {best['top1']:.2f} % after epoch {best['epoch']}), "
        f"{result['seconds']:.0f} seconds of training" + ("; pass --again to train anew" if before else "")
    )
    console.print(str(plan.weights))
    return plan.weights


def _trained(plan: Plan) -> Record:
    try:
        return fit(plan)
    except Refused as error:
        raise SystemExit(str(error)) from error
    except Interrupted as stop:
        console.print(f"rankdistill: {stop}")
        raise SystemExit(stop.code) from stop
    except WriteError as error:
        print(f"rankdistill: {error}; the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(1) from error
    except OtherProcessFailed as error:
        raise SystemExit(1) from error


def _configured(
    command: str, recipe: Callable[..., object], runs_of: Callable[..., list[Run]], arguments: Sequence[str]
) -> list[Run]:
    """Return the runs of a recipe or a chain with the options that the arguments change; or show help, and leave."""
    chosen, rest = _chosen(recipe, arguments)
    update = chosen.pop("update", None)
    runs = runs_of(**chosen)
    if update is not None:
        runs = [dataclasses.replace(run, update=update_rule(update)) for run in runs]
    flags = flags_of(runs[0], hidden=_HIDDEN, shorts=SHORTS)
    asked = {"-h", "--help", "--help-all"}.intersection(rest)
    if asked:
        everything = "--help-all" in asked
        print(_help(command, recipe, runs[0], flags if everything else _everyday(flags), everything=everything), end="")
        raise SystemExit(0)
    found = []
    for run in runs:
        changed = parse(run, flags, rest, hint=f"rankdistill {command} --help-all")
        fitting = in_so_many_epochs(changed, run.optim)
        if fitting != changed:
            moved = " ".join(map(str, fitting.optim.milestones)) or "none"
            console.print(f"milestones of the learning rate for {fitting.optim.epochs} epochs: {moved}")
        found.append(fitting)
    return found


def _chosen(recipe: Callable[..., object], arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the networks, protocol and update rule that the arguments choose, and the other arguments.

    Raises:
        ValueError: there is no network, protocol or update rule of a name.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    names = [*inspect.signature(recipe).parameters, "update"]
    for name in names:
        parser.add_argument(f"--{name}", nargs="*" if name == "assistants" else "?")
    found, rest = parser.parse_known_args(list(arguments))
    tables: dict[str, tuple[Mapping[str, object], str]] = {
        "protocol": (PROTOCOLS, "protocol"),
        "update": (UPDATES, "update rule"),
    }
    for option, value in vars(found).items():
        if value is None:
            raise ValueError(f"--{option} needs a value after it")
        table, kind = tables.get(option, (MODELS, "model"))
        for name in [value] if isinstance(value, str) else value:
            look_up(table, name, kind)
    return vars(found), rest


def _everyday(flags: Sequence[Flag]) -> list[Flag]:
    of_losses = [flag for flag in flags if flag.path[0] == "losses" and flag.path[-1] == "weight"]
    named = {".".join(flag.path): flag for flag in flags}
    return [*(named[name] for name in _EVERYDAY if name in named), *of_losses]


def _help(command: str, recipe: Callable[..., object], run: Run, flags: Sequence[Flag], *, everything: bool) -> str:
    choices = {name: p.default for name, p in inspect.signature(recipe).parameters.items()}
    first = [
        Flag((name,), str, default if default is not None else "the recipe's", _CHOICES[name])
        for name, default in choices.items()
    ]
    first.append(Flag(("update",), str, run.update.rule, _CHOICES["update"]))
    about = (inspect.getdoc(recipe) or "").removeprefix("Return ")
    rest = "" if everything else f"\n`rankdistill {command} --help-all` shows every option.\n"
    return (
        f"usage: rankdistill {command} [options]\n\n{about[:1].upper()}{about[1:]}\n\n"
        f"options, with their values in this recipe:\n{shown([*first, *flags])}\n{rest}"
    )


_CHOICES = {
    "teacher": "The network that teaches, a name of `rankdistill list models`.",
    "student": "The network that is trained, a name of `rankdistill list models`.",
    "model": "The network that is trained, a name of `rankdistill list models`.",
    "assistants": "The networks between teacher and student, the largest first.",
    "protocol": "Optimizer, epochs and augmentation of a publication: " + ", ".join(PROTOCOLS) + ".",
    "update": "How a step is made: " + ", ".join(UPDATES) + ".",
}


def _introduce(command: str, kind: str, names: Sequence[str]) -> None:
    """Say what the first argument may be, one paragraph for each data set."""
    methods: dict[str, list[str]] = {}
    for name in names:
        data, _, method = name.partition(".")
        methods.setdefault(data, []).append(method)
    print(f"usage: rankdistill {command} {kind} [options]\n\n{kind} is one of")
    for data, found in methods.items():
        text = f"{data}.METHOD, where METHOD is one of {', '.join(found)}" if found != [""] else data
        print(textwrap.fill(text, columns(), initial_indent="  ", subsequent_indent="      "))
    print(f"\n`rankdistill {command} {names[0]} --help` shows the options.")
