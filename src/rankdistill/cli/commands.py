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
from .stopping import whole
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
        model: the network, a name of `rankdistill list models`; needed where the file does not say it.
        data: the data set, a name of `rankdistill list`; needed where the file does not say it.
        root: the folder or archive of the data set; none where it comes with a package.
        classes: "same" if the file is for the data's classes in their order; "by-name" takes these out of its own.
        accelerator: where to run: "auto", "cpu", "cuda" or "mps".
    """
    with whole():
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
        model: the network that the file holds, a name of `rankdistill list models`.
        out: the new file; none writes it beside the old one, with the ending .safetensors.
        data: measure the accuracy on the test images of this data set; none measures nothing.
        root: the folder or archive of the data set; none where it comes with a package.
        subtree: which network is taken, where the file holds a student and a teacher, or an average of weights.
        accelerator: where to run: "auto", "cpu", "cuda" or "mps".
    """
    with whole():
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
        seeds: how many students of each kind are trained, at least 2.
        out: the folder of the results; each call makes a new one inside.
    """
    with whole():
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
    """Show the names of all data sets, models, methods, update rules and recipes.

    With the name of a kind it shows a sentence on each of that kind, and with another word on each that has the word in
    its name or its sentence.
    """
    tables = {"data sets": DATASETS, "models": MODELS, "methods": METHODS, "update rules": UPDATES}
    kinds = {kind: {name: entry.text for name, entry in table.items()} for kind, table in tables.items()}
    kinds["recipes"] = {name: inspect.getdoc(recipe) or "" for name, recipe in {**RECIPES, **CHAINS}.items()}
    if {"-h", "--help", "--help-all"}.intersection(arguments):
        print(f"usage: rankdistill list [WORD]\n\n{inspect.getdoc(show_list)}")
        return
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        raise SystemExit(f"list takes one word, and {' '.join(arguments)!r} was given: leave out the rest")
    if not arguments:
        print(_names(kinds))
        return
    found = _matching(kinds, arguments[0].lower())
    if not found:
        raise SystemExit(f"nothing has {arguments[0]!r} in its name or its sentence: `rankdistill list` shows all")
    print("\n\n".join(f"{kind}:\n{_listed(lines)}" for kind, lines in found.items()))


def _names(kinds: Mapping[str, Mapping[str, str]]) -> str:
    """Return all names, those of recipes by data set: about a screen."""
    groups = {kind: list(texts) for kind, texts in kinds.items() if kind != "recipes"}
    for recipe in kinds["recipes"]:
        data, _, method = recipe.partition(".")
        groups.setdefault(f"recipes {data}.NAME", []).append(method)
    paragraphs = (
        textwrap.fill(f"{name}: {', '.join(names)}", columns(), subsequent_indent="    ", break_on_hyphens=False)
        for name, names in groups.items()
    )
    told = f"`rankdistill list WORD` tells of each with a word, and of each of a kind: {', '.join(kinds)}."
    return "\n".join([*paragraphs, textwrap.fill(told, columns())])


def _matching(kinds: Mapping[str, Mapping[str, str]], word: str) -> dict[str, dict[str, str]]:
    """Return kind -> name -> sentence: of all of the kind that a word names, or of each that has the word."""
    pattern = re.compile(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", re.IGNORECASE)
    named = {kind: texts for kind, texts in kinds.items() if word in (kind, kind.removesuffix("s"), kind.split()[0])}
    found: dict[str, dict[str, str]] = {}
    for kind, texts in (named or kinds).items():
        lines = {name: _sentence(name, text) for name, text in texts.items()}
        found[kind] = {n: s for n, s in lines.items() if named or word in n.lower() or pattern.search(s)}
    return {kind: lines for kind, lines in found.items() if lines}


def _listed(lines: Mapping[str, str]) -> str:
    width = max(map(len, lines)) + 4
    wrapped = (
        textwrap.fill(
            text, max(columns(), width + 30), initial_indent=f"  {name:{width - 2}}", subsequent_indent=" " * width
        )
        for name, text in lines.items()
    )
    return "\n".join(wrapped)


def _sentence(name: str, docstring: str) -> str:
    """Return the first line of a docstring as a sentence for users, without what only callers of the function need."""
    line = docstring.split("\n")[0].removeprefix("Return ").removeprefix(f"{name}, ")
    line = re.sub(r"[,;]? (mean over the batch|in nats)\b.*", ".", line)
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
