"""What each command of the command line does."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.table import Table

from .build import build, evaluate_weights
from .console import Terminal
from .convert import convert_checkpoint
from .data import DATASETS
from .demo import run_demo, table_of
from .methods import METHODS
from .models import MODELS
from .models.checkpoints import Subtree, difference_from_published
from .recipes import RECIPES
from .run import Run, look_up
from .storage import write_atomically
from .train import fit

Accelerator = Literal["auto", "cpu", "cuda", "mps"]


def _train_teacher(arguments: Sequence[str]) -> None:
    teachers = {name.removesuffix(".teacher"): recipe for name, recipe in RECIPES.items() if name.endswith(".teacher")}
    _train("train-teacher", "DATASET", teachers, ("model",), arguments)


def _distill(arguments: Sequence[str]) -> None:
    students = {name: recipe for name, recipe in RECIPES.items() if not name.endswith(".teacher")}
    _train("distill", "RECIPE", students, ("teacher", "student"), arguments)


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
        from .report import demo_page  # plotly takes a second to import, and only this needs it

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
        "recipes": RECIPES,
    }

    def show() -> None:
        """Show data sets, models, methods and recipes."""
        console = Console()
        for kind, entries in kinds.items():
            table = Table(title=kind, title_justify="left", show_header=False)
            for name, entry in entries.items():
                table.add_row(name, (inspect.getdoc(entry) or "").split("\n")[0])
            console.print(table)

    tyro.cli(show, args=list(arguments), prog="rankdistill list")


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
) -> None:
    """Train by the recipe that the first argument names, for the networks named, with the options that follow."""
    with _refusing():
        run = _configured(command, kind, recipes, networks, arguments)
    console = Console()
    with Terminal(console, f"{run.recipe} {run.pair}") as terminal:
        with _refusing():
            plan = build(run, watchers=[terminal])
        result = fit(plan)
    last, best = result["last"], result["best"]
    console.print(
        f"top-1 {last['top1']:.2f} % after the last epoch (best: {best['top1']:.2f} % after epoch {best['epoch']}), "
        f"{result['seconds']:.0f} seconds of training\n{plan.weights}",
        soft_wrap=True,
        highlight=False,
    )


def _configured(
    command: str,
    kind: str,
    recipes: dict[str, Callable[..., Run]],
    networks: tuple[str, ...],
    arguments: Sequence[str],
) -> Run:
    flags = " ".join(f"[--{network} MODEL]" for network in networks)
    usage = f"usage: rankdistill {command} {kind} {flags} [options]"
    if not arguments or arguments[0].startswith("-"):
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        print(f"{usage}\n\n{kind} is one of {', '.join(recipes)}.\nMODEL is one of {', '.join(MODELS)}.")
        print(f"`rankdistill {command} {next(iter(recipes))} --help` shows the options.")
        raise SystemExit(0 if asked else 2)
    recipe = look_up(recipes, arguments[0], kind.lower().replace("dataset", "data set"))
    parser = argparse.ArgumentParser(prog=f"rankdistill {command}", add_help=False, allow_abbrev=False)
    for network in inspect.signature(recipe).parameters:
        parser.add_argument(f"--{network}", default=argparse.SUPPRESS)
    chosen, rest = parser.parse_known_args(arguments[1:])
    for name in vars(chosen).values():
        look_up(MODELS, name, "model")
    default = recipe(**vars(chosen))
    run: Run = tyro.cli(
        Run,
        default=default,
        args=rest,
        prog=f"rankdistill {command} {arguments[0]}",
        description=f"{usage}\n\n{inspect.getdoc(recipe)} The options below change it.",
    )
    return run


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what the checks of names, options, files and data refuse into one sentence and exit code 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
