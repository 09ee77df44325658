"""The commands that train: from a recipe's name and flags to a run. Nothing here imports torch."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..recipes import RECIPES
from ..recipes.protocols import PROTOCOLS
from ..recipes.takd import CHAINS
from ..runs.catalogue import DATASETS, MODELS, UPDATES
from ..runs.config import Run, in_so_many_epochs
from ..runs.options import look_up, update_rule
from .flags import Flag, columns, flags_of, parse, shown
from .refusing import refusing
from .stopping import whole

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
        if command == "distill" and arguments[0] in RECIPES.keys() - recipes.keys():
            data = arguments[0].removesuffix(".teacher")
            raise ValueError(f"{arguments[0]} trains a teacher: type `rankdistill train-teacher {data}`")
        known = {**recipes, **dict.fromkeys(others)}
        recipe = look_up(known, arguments[0], kind.lower().replace("dataset", "data set"))
        runs = _configured(f"{command} {arguments[0]}", recipe, lambda **chosen: [recipe(**chosen)], arguments[1:])
    _fit(runs)


def _train_chain(arguments: Sequence[str]) -> None:
    """Train a chain of runs."""
    chain = CHAINS[arguments[0]]
    with refusing():
        runs = _configured(f"distill {arguments[0]}", chain, chain, arguments[1:])
        for run in runs[1:]:
            look_up(MODELS, str(run.teacher), "model")
    _fit(runs)


def _fit(runs: Sequence[Run]) -> None:
    with whole():  # with torch, which takes seconds to import: only runs need it
        from .fit import fit_all

    fit_all(runs)


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
        look_up(DATASETS, changed.data.name, "data set")
        fitting = in_so_many_epochs(changed, run.optim)
        if fitting != changed:
            from .console import console

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
