"""What each command of the command line does. What needs torch is imported when a command is carried out."""

from __future__ import annotations

import inspect
import json
import re
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..recipes import RECIPES
from ..recipes.takd import CHAINS
from ..runs.catalogue import DATASETS, METHODS, MODELS, UPDATES
from .flags import Flag, columns, flags_of_call, parse_flags, shown, texts_of
from .refusing import refusing
from .train import distill, train_teacher

Accelerator = Literal["auto", "cpu", "cuda", "mps"]
Classes = Literal["same", "by-name"]
Subtree = Literal["student", "teacher", "ema"]


def evaluate(
    weights: Path,
    *,
    model: str | None = None,
    data: str | None = None,
    root: Path | None = None,
    classes: Classes = "same",
    accelerator: Accelerator = "auto",
) -> None:
    """Measure the accuracy of saved weights on the test images; prints JSON.

    Args:
        weights: a safetensors file, or a checkpoint of others. Those that this program wrote say themselves what they
            are.
        model: the architecture, where the file does not say it.
        data: the data set, where the file does not say it.
        root: the data set's folder or archive.
        classes: "same" if the file is for the data's classes in their order; "by-name" takes these out of its own.
        accelerator: where to run.
    """
    from ..runs.evaluate import evaluate_weights

    result = evaluate_weights(weights, model=model, data_name=data, root=root, classes=classes, accelerator=accelerator)
    _show_accuracy(result)


def convert(
    checkpoint: Path,
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
    from ..runs.convert import convert_checkpoint

    result = convert_checkpoint(
        checkpoint, model=model, out=out, data_name=data, root=root, subtree=subtree, accelerator=accelerator
    )
    _show_accuracy(result)


def _show_accuracy(result: Mapping[str, str | int | float]) -> None:
    """Print a result as JSON, and to stderr what there is to say if it is not the published one."""
    print(json.dumps(result))
    if "published" in result:
        from ..weights.foreign import difference_from_published

        sentence = difference_from_published(str(result["data"]), str(result["model"]), float(result["top1"]))
        if sentence:
            print(f"rankdistill: {sentence}", file=sys.stderr)


def demo(*, seeds: int = 5, out: Path = Path("runs/demo")) -> None:
    """Train a teacher on real digits, then a much smaller student three ways with few labels.

    Args:
        seeds: students of each kind.
        out: the folder of the results; each call makes a new one inside.
    """
    from ..weights.durable import write_atomically
    from .console import console
    from .demo.demo import run_demo, table_of
    from .demo.page import demo_page

    folder = out / time.strftime("%Y-%m-%dT%H-%M-%S")
    result = run_demo(folder, seeds, console)
    page = folder / "index.html"
    write_atomically(page, demo_page(result).encode())
    console.print(table_of(result), width=max(console.width, 110), crop=False, soft_wrap=True)
    console.print(f"{result.seconds:.0f} seconds; the page is {page}")


def show_list(arguments: Sequence[str]) -> None:
    """Show data sets, models, methods, update rules and recipes: all, or those that have a word in name or sentence."""
    tables = {"data sets": DATASETS, "models": MODELS, "methods": METHODS, "update rules": UPDATES}
    kinds = {kind: {name: entry.text for name, entry in table.items()} for kind, table in tables.items()}
    kinds["recipes"] = {name: inspect.getdoc(recipe) or "" for name, recipe in {**RECIPES, **CHAINS}.items()}
    if any(argument.startswith("-") for argument in arguments) or len(arguments) > 1:
        asked = bool({"-h", "--help", "--help-all"}.intersection(arguments))
        print(f"usage: rankdistill list [WORD]\n\n{inspect.getdoc(show_list)}\nWORD may be a kind, too: models, say.")
        raise SystemExit(0 if asked else 2)
    word = arguments[0].lower() if arguments else ""
    found = False
    for kind, texts in kinds.items():
        lines = {name: _sentence(name, text) for name, text in texts.items()}
        if word and word not in kind:
            pattern = re.compile(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", re.IGNORECASE)
            lines = {name: text for name, text in lines.items() if word in name.lower() or pattern.search(text)}
        elif kind == "recipes":
            lines = _in_short(lines)
        found |= bool(lines)
        if lines:
            print(f"{kind}:\n{_listed(lines)}\n")
    if not found:
        raise SystemExit(f"nothing has {arguments[0]!r} in its name or its sentence: `rankdistill list` shows all")


def _listed(lines: Mapping[str, str]) -> str:
    width = max(map(len, lines)) + 4
    wrapped = (
        textwrap.fill(
            text, max(columns(), width + 30), initial_indent=f"  {name:{width - 2}}", subsequent_indent=" " * width
        )
        for name, text in lines.items()
    )
    return "\n".join(wrapped)


def _in_short(recipes: Mapping[str, str]) -> dict[str, str]:
    """Return the recipes of a data set that has many as one line, so that all fit a screen."""
    methods: dict[str, list[str]] = {}
    for name in recipes:
        data, _, method = name.partition(".")
        methods.setdefault(data, []).append(method)
    short: dict[str, str] = {}
    for data, names in methods.items():
        if len(names) > 10:
            short[f"{data}.METHOD"] = f"METHOD is one of {', '.join(names)}. `rankdistill list {data}.` tells of each."
        else:
            short |= {f"{data}.{name}": recipes[f"{data}.{name}"] for name in names}
    return short


def _sentence(name: str, docstring: str) -> str:
    """Return the first line of a docstring as a sentence for users: what an entry is, not what its function returns."""
    line = docstring.split("\n")[0].removeprefix("Return ").removeprefix(f"{name}: ")
    return line[:1].upper() + line[1:]


def _called(name: str, function: Callable[..., None]) -> Callable[[Sequence[str]], None]:
    """Return the command that calls a function with what its flags say."""

    def command(arguments: Sequence[str]) -> None:
        flags, positional = flags_of_call(function)
        if {"-h", "--help", "--help-all"}.intersection(arguments):
            print(_help(name, function, flags, positional))
            return
        with refusing():
            required = [flag for flag in flags if flag.default is inspect.Parameter.empty]
            hint = f"rankdistill {name} --help"
            found = parse_flags(flags, arguments, hint=hint, positional=positional)
            given = {name: value for (name,), value in found.items()}
            for flag in required:
                if flag.path[0] not in given:
                    raise ValueError(f"{flag.names[-1]} is missing: `{hint}` tells what it is")
            function(*[Path(given.pop(name)) for name in positional], **given)

    return command


def _help(name: str, function: Callable[..., None], flags: Sequence[Flag], positional: Sequence[str]) -> str:
    about = inspect.getdoc(function) or ""
    texts = texts_of(about)
    before = [Flag((argument,), Path, inspect.Parameter.empty, texts[argument]) for argument in positional]
    usage = " ".join(["usage: rankdistill", name, *(argument.upper() for argument in positional), "[options]"])
    summary = about.split("\n")[0]
    told = "".join(f"{flag.path[0].upper()}: {flag.text}\n" for flag in before)
    return f"{usage}\n\n{summary}\n{told}\noptions:\n{shown(flags)}"


COMMANDS: dict[str, Callable[[Sequence[str]], Any]] = {
    "train-teacher": train_teacher,
    "distill": distill,
    "evaluate": _called("evaluate", evaluate),
    "convert-checkpoint": _called("convert-checkpoint", convert),
    "demo": _called("demo", demo),
    "list": show_list,
}
