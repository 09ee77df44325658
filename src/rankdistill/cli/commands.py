"""What each command of the command line does."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from ..data import DATASETS
from ..distributed import OtherProcessFailed
from ..methods import METHODS
from ..models import MODELS
from ..recipes import RECIPES
from ..recipes.protocols import PROTOCOLS
from ..recipes.takd import CHAINS, fit_chain
from ..runs.build import build
from ..runs.config import Run
from ..runs.convert import convert_checkpoint
from ..runs.evaluate import evaluate_weights
from ..runs.options import look_up, update_rule
from ..training.lock import Refused
from ..training.loop import fit
from ..training.plan import Plan, Record
from ..training.signals import Interrupted
from ..training.updates import UPDATES
from ..weights.durable import WriteError, write_atomically
from ..weights.foreign import Subtree, difference_from_published
from .console import Terminal
from .demo.demo import run_demo, table_of

Accelerator = Literal["auto", "cpu", "cuda", "mps"]


def _train_teacher(arguments: Sequence[str]) -> None:
    teachers = {name.removesuffix(".teacher"): recipe for name, recipe in RECIPES.items() if name.endswith(".teacher")}
    _train("train-teacher", "DATASET", teachers, ("model",), arguments)


def _distill(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] in CHAINS:
        return _train_chain(arguments)
    students: dict[str, Callable[..., Run]] = {
        name: recipe for name, recipe in RECIPES.items() if not name.endswith(".teacher")
    }
    _train("distill", "RECIPE", students, ("teacher", "student"), arguments, others=tuple(CHAINS))


def _evaluate(arguments: Sequence[str]) -> None:
    def evaluate(
        weights: tyro.conf.Positional[Path],
        *,
        model: str | None = None,
        data: str | None = None,
        root: Path | None = None,
        accelerator: Accelerator = "auto",
    ) -> None:
        """Measure the accuracy of saved weights on the test images; prints JSON.

        Args:
            weights: a safetensors file, or a checkpoint of others. Those that this program wrote say themselves what
                they are.
            model: the architecture, where the file does not say it.
            data: the data set, where the file does not say it.
            root: the data set's folder or archive.
            accelerator: where to run.
        """
        with _refusing():
            result = evaluate_weights(weights, model=model, data_name=data, root=root, accelerator=accelerator)
        _show_accuracy(result)

    tyro.cli(evaluate, args=list(arguments), prog="rankdistill evaluate")


def _convert_checkpoint(arguments: Sequence[str]) -> None:
    def convert(
        checkpoint: tyro.conf.Positional[Path],
        *,
        model: str,
        out: Path | None = None,
        data: str | None = None,
        root: Path | None = None,
        subtree: Subtree = "student",
        accelerator: Accelerator = "auto",
    ) -> None:
        """Write a checkpoint of others (mdistiller, RepDistiller, CTKD, ReviewKD ...) as safetensors; prints JSON.

        Args:
            checkpoint: the file, as torch.save wrote it. No code in it is run.
            model: its architecture.
            out: the new file; by default beside the old one, with the ending .safetensors.
            data: measure the accuracy on the test images of this data set.
            root: the data set's folder or archive.
            subtree: which network, where the file holds a student and a teacher.
            accelerator: where to run.
        """
        with _refusing():
            result = convert_checkpoint(
                checkpoint,
                model=model,
                out=out,
                data_name=data,
                root=root,
                subtree=subtree,
                accelerator=accelerator,
            )
        _show_accuracy(result)

    tyro.cli(convert, args=list(arguments), prog="rankdistill convert-checkpoint")


def _show_accuracy(result: Mapping[str, str | int | float]) -> None:
    """Print a result as JSON, and to stderr what there is to say if it is not the published one."""
    print(json.dumps(result))
    if "published" in result:
        sentence = difference_from_published(str(result["data"]), str(result["model"]), float(result["top1"]))
        if sentence:
            print(f"rankdistill: {sentence}", file=sys.stderr)


def _demo(arguments: Sequence[str]) -> None:
    def demo(*, seeds: int = 5, out: Path = Path("runs/demo")) -> None:
        """Train a teacher on real digits, then a much smaller student three ways with few labels.

        Args:
            seeds: students of each kind.
            out: folder of the results; each call makes a new one inside.
        """
        from .demo.page import demo_page  # plotly takes a second to import, and only this needs it

        console = Console()
        folder = out / time.strftime("%Y-%m-%dT%H-%M-%S")
        with _refusing():
            result = run_demo(folder, seeds, console)
        page = folder / "index.html"
        write_atomically(page, demo_page(result).encode())
        console.print(table_of(result), width=max(console.width, 110), crop=False, soft_wrap=True)
        console.print(f"{result.seconds:.0f} seconds; the page is {page}", soft_wrap=True, highlight=False)

    tyro.cli(demo, args=list(arguments), prog="rankdistill demo")


def _list(arguments: Sequence[str]) -> None:
    kinds: dict[str, Mapping[str, object]] = {
        "data sets": DATASETS,
        "models": MODELS,
        "methods": METHODS,
        "update rules": UPDATES,
        "recipes": {**RECIPES, **CHAINS},
    }

    def show() -> None:
        """Show data sets, models, methods, update rules and recipes."""
        console = Console()
        for kind, entries in kinds.items():
            table = Table(title=kind, title_justify="left", show_header=False)
            for name, entry in entries.items():
                table.add_row(name, _sentence(name, entry))
            console.print(table)

    tyro.cli(show, args=list(arguments), prog="rankdistill list")


def _sentence(name: str, entry: object) -> str:
    """Return the first line of a docstring as a sentence for users: what an entry is, not what its function returns."""
    line = (inspect.getdoc(entry) or "").split("\n")[0].removeprefix("Return ").removeprefix(f"{name}: ")
    return line[:1].upper() + line[1:]


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "train-teacher": _train_teacher,
    "distill": _distill,
    "evaluate": _evaluate,
    "convert-checkpoint": _convert_checkpoint,
    "demo": _demo,
    "list": _list,
}


def _train(
    command: str,
    kind: str,
    recipes: dict[str, Callable[..., Run]],
    networks: tuple[str, ...],
    arguments: Sequence[str],
    others: tuple[str, ...] = (),
) -> None:
    """Train by the recipe that the first argument names, for the networks named, with the options that follow."""
    with _refusing():
        run = _configured(command, kind, recipes, networks, arguments, others)
    _fitted(run, Console())


def _train_chain(arguments: Sequence[str]) -> None:
    """Train a chain of runs, each student the teacher of the next; those that are done are not trained again."""
    usage = f"usage: rankdistill distill {arguments[0]} [--teacher MODEL] [--student MODEL] [--assistants MODEL ...]"
    chain = CHAINS[arguments[0]]
    console = Console()
    with _refusing():
        chosen, rest = _chosen("distill", chain, arguments[1:])
        description = f"{usage} [options]\n\n{inspect.getdoc(chain)} The options below change each of them."
        runs = [_typed(run, f"rankdistill distill {arguments[0]}", description, rest) for run in chain(**chosen)]
        for run in runs[1:]:
            look_up(MODELS, str(run.teacher), "model")
    for number, run in enumerate(runs, start=1):
        console.print(f"run {number} of {len(runs)}: {run.teacher} teaches {run.student}", highlight=False)
    fit_chain(runs, lambda run: _fitted(run, console))


def _fitted(run: Run, console: Console) -> Path:
    """Train a run, unless that was done before, and tell its result; return the student's file."""
    with Terminal(console, f"{run.recipe} {run.pair}") as terminal:
        with _refusing():
            plan = build(run, watchers=[terminal])
        before = None if run.again else plan.finished()
        result = before or _trained(plan, console)
    last, best = result["last"], result["best"]
    when = f"{datetime.fromisoformat(result['finished']):%Y-%m-%d %H:%M}"
    console.print(
        (f"done before, on {when}, and not trained now: " if before else "")
        + f"top-1 {last['top1']:.2f} % after the last epoch (best: {best['top1']:.2f} % after epoch {best['epoch']}), "
        f"{result['seconds']:.0f} seconds of training"
        + ("; pass --again to train anew" if before else "")
        + f"\n{plan.weights}",
        soft_wrap=True,
        highlight=False,
    )
    return plan.weights


def _trained(plan: Plan, console: Console) -> Record:
    try:
        return fit(plan)
    except Refused as error:
        raise SystemExit(str(error)) from error
    except Interrupted as stop:
        console.print(f"rankdistill: {stop}", soft_wrap=True, highlight=False)
        raise SystemExit(stop.code) from stop
    except (WriteError, OtherProcessFailed) as error:
        if not isinstance(error, OtherProcessFailed):
            print(f"rankdistill: {error}; the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(1) from error


def _configured(
    command: str,
    kind: str,
    recipes: dict[str, Callable[..., Run]],
    networks: tuple[str, ...],
    arguments: Sequence[str],
    others: tuple[str, ...],
) -> Run:
    flags = " ".join(f"[--{network} MODEL]" for network in networks)
    usage = f"usage: rankdistill {command} {kind} {flags} [--protocol PROTOCOL] [--update RULE] [options]"
    if not arguments or arguments[0].startswith("-"):
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        print(f"{usage}\n\n{kind} is one of {', '.join([*recipes, *others])}.")
        print(f"MODEL is one of {', '.join(MODELS)}.\nRULE is one of {', '.join(UPDATES)}.")
        print(f"PROTOCOL is one of {', '.join(PROTOCOLS)}; cifar100's and tiny_imagenet's recipes have one each.")
        print(f"`rankdistill {command} {next(iter(recipes))} --help` shows the options.")
        raise SystemExit(0 if asked else 2)
    recipe = look_up({**recipes, **dict.fromkeys(others)}, arguments[0], kind.lower().replace("dataset", "data set"))
    chosen, rest = _chosen(command, recipe, arguments[1:])
    description = f"{usage}\n\n{inspect.getdoc(recipe)} The options below change it."
    return _typed(recipe(**chosen), f"rankdistill {command} {arguments[0]}", description, rest)


def _chosen(command: str, recipe: Callable[..., object], arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the networks and the protocol that the arguments choose for a recipe, and the other arguments."""
    parser = argparse.ArgumentParser(prog=f"rankdistill {command}", add_help=False, allow_abbrev=False)
    for network in inspect.signature(recipe).parameters:
        several = {"nargs": "*"} if network == "assistants" else {}
        parser.add_argument(f"--{network}", default=argparse.SUPPRESS, **several)  # type: ignore[arg-type]
    chosen, rest = parser.parse_known_args(arguments)
    for option, value in vars(chosen).items():
        table: Mapping[str, object] = PROTOCOLS if option == "protocol" else MODELS
        for name in [value] if isinstance(value, str) else value:
            look_up(table, name, "protocol" if option == "protocol" else "model")
    return vars(chosen), rest


def _typed(default: Run, prog: str, description: str, arguments: Sequence[str]) -> Run:
    """Return the run with the options that the arguments change; `--update RULE` comes before the rule's options."""
    parser = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    parser.add_argument("--update", metavar="RULE")
    chosen, rest = parser.parse_known_args(arguments)
    if chosen.update is not None:
        default = dataclasses.replace(default, update=update_rule(chosen.update))
    run: Run = tyro.cli(Run, default=default, args=rest, prog=prog, description=description)
    return run


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what the checks of names, options, files and data refuse into one sentence and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
