"""Writes docs/methods.md: what every method, update rule and wrapper is, needs and keeps, read off the code.

Papers, formulas and differences come from docstrings, everything else from an example: each method, with its default
options, is built for one pair of networks and run on one batch. `make docs-tables` calls this script; a test holds the
committed page to what it returns.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import timm
import torch
import torchvision
from torch import Tensor, nn

from rankdistill import methods
from rankdistill.assembly import assemble
from rankdistill.contract import Batch, Method
from rankdistill.methods import KD, METHODS
from rankdistill.methods.combine import EachView
from rankdistill.models import MODELS
from rankdistill.recipes.settings import SETTINGS, UNPUBLISHED
from rankdistill.training.updates import UPDATES, UpdateRule

PAGE = Path(__file__).parent / "methods.md"
TEACHER, STUDENT = "resnet56", "resnet20"
CLASSES, SAMPLES, SIZE = 100, 50_000, 32
NOTHING = "-"
ENOUGH = 90
"""Characters after which no further sentence is taken into a table."""

INTRODUCTION = f"""\
# Methods

Made from the code by `make docs-tables`; do not edit. Roles and counts are those of {TEACHER} teaching {STUDENT} on
images of {SIZE}x{SIZE} pixels and {CLASSES} classes, {SAMPLES:,} for training, with each method's default options.
"Reads of the batch" names the fields of `Batch` that a method reads beside the images: a loop of your own must fill
them. "State" counts the numbers in the method's state dict. "Differs" begins what the method's section below says in
full.

A weight is the recipe's for this pair. Take these weights in place of 1: losses differ in size by factors of a million,
and `cc` and `ofd` diverge within a few steps of SGD where their weight is 1.
"""


RULES = """
## Update rules

How a step is made of a method's losses. `bilevel` is for methods with meta-parameters, and those need it; `dot` needs a
loss on labels and another one.
"""

OTHERS = """
## Networks of others

`assemble` takes any `nn.Module`. Every method was tried on two pairs of other libraries, and runs there, except for
these, which are refused with a reason before anything is trained.
"""


@dataclass(frozen=True)
class Text:
    """A docstring, taken apart.

    Attributes:
        citation: title, venue, year and arXiv id as Markdown; "-" where no paper is named.
        differs: how the code differs from the authors', as Markdown; empty where that is not said.
        body: all of it as Markdown, formulas in fences.
    """

    citation: str
    differs: str
    body: str

    @classmethod
    def of(cls, kind: type[Any]) -> Text:
        """Return the text that describes a class: its module's, or its own where many classes share the module."""
        shared = kind.__module__ in (EachView.__module__, UpdateRule.__module__)
        text = inspect.cleandoc((kind.__doc__ if shared else sys.modules[kind.__module__].__doc__) or "")
        return cls.parse(text.split("\n\nExample:")[0])

    @classmethod
    def parse(cls, text: str) -> Text:
        """Return the parts of a docstring whose common indentation is gone."""
        differs = re.search(r"^Differs from the (?:authors' )?code:\s*(.*?)(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
        return cls(_citation(text), differs.group(1) if differs else "", _markdown(text))

    @property
    def difference(self) -> str:
        """Return the first sentences of `differs`; of a list, those of its first item, and how many items follow."""
        if not self.differs:
            return NOTHING
        items = [item for item in re.split(r"^- ", self.differs, flags=re.MULTILINE) if item]
        first, *others = re.split(r"(?<=\w[.])\s+(?=[A-Z`])", " ".join(items[0].split()))
        while others and len(first) < ENOUGH:
            first = f"{first} {others.pop(0)}"
        return first if len(items) == 1 else f"{first} And {len(items) - 1} more."


def _citation(text: str) -> str:
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text)]
    for paragraph, following in zip(paragraphs, [*paragraphs[1:], ""], strict=True):
        if found := re.match(r"([A-Z][^().]+) \(([^()]*?)([^(),]*\d{4})\)(?=[.,:])", paragraph):
            title, _, venue = found.groups()
            arxiv = re.search(r"arXiv:(\d{4}\.\d{4,5})", paragraph) or re.match(r"arXiv:(\d{4}\.\d{4,5})", following)
            link = f", [arXiv:{arxiv[1]}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else ""
            return f"*{title}*, {venue.strip()}{link}"
    return NOTHING


def _markdown(text: str) -> str:
    """Return a docstring with its indented blocks in fences; items of lists stay as they are."""
    text = re.sub(r"(?<=\S)\n(?=Differs from the )", "\n\n", text)
    text = re.sub(r"^(Differs from the (?:authors' )?code:)\n(?=- )", r"\1\n\n", text, flags=re.MULTILINE)
    blocks = text.split("\n\n")
    return "\n\n".join(
        f"```text\n{textwrap.dedent(block)}\n```" if block.startswith("    ") else block for block in blocks
    )


class Watched(Batch):
    """A batch that notes which of its fields are read."""

    read: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        Watched.read.add(name)
        return super().__getattribute__(name)


class Example:
    """The pair of networks on which methods are tried, and a batch for them."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(2, 4, 3, SIZE, SIZE, generator=generator)
        self.student, self.teacher = (MODELS[name](CLASSES) for name in (STUDENT, TEACHER))
        samples = torch.arange(4)
        self.batches = {
            views: Watched(images[0], samples, indices=samples, strong=images[1] if views == 2 else None)
            for views in (1, 2)
        }

    def row(self, name: str) -> dict[str, str]:
        """Return what a method needs, keeps and does, by column."""
        whole, student, teacher = assemble(
            {name: (1.0, METHODS[name])},
            copy.deepcopy(self.student),
            self.teacher,
            torch.zeros(2, 3, SIZE, SIZE),
            num_samples=SAMPLES,
            labels=torch.arange(SAMPLES) % CLASSES,
        )
        method = cast("Method", whole.methods[name])
        state, change = _state(method), NOTHING
        if type(method).adapt is not Method.adapt or type(method).deploy is not Method.deploy:
            modules = self.student, student.module, method.deploy(student.module)
            plain, trained, deployed = (_num_parameters(module) for module in modules)
            change = f"{trained - plain:+,} parameters in training, {deployed - plain:+,} deployed"
        Watched.read.clear()
        with torch.no_grad():
            method(self.batches[method.views], student, teacher)
        return {
            "Reads of networks": _needs(method),
            "Reads of the batch": _reads(method, Watched.read),
            "State": state,
            "Teacher": method.teacher_mode if method.reads_teacher else "none",
            "Student": change,
            "Update rule": "bilevel" if method.meta_parameters() else "any",
        }


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _reads(method: Method, read: set[str]) -> str:
    """Return the fields that a method reads of a batch, beside the images of the first view."""
    found = [name for name in ("labels", "indices", "epoch", "step") if name in read]
    found += ["strong (a second view)"] if method.views == 2 else []
    found += ["held_out (by the update rule)"] if method.meta_parameters() else []
    return ", ".join(found) or NOTHING


def _needs(method: Method) -> str:
    found = []
    if method.student_needs == method.teacher_needs:
        found += [f"both: {', '.join(method.student_needs)}"] if method.student_needs else []
    else:
        needs = {"student": method.student_needs, "teacher": method.teacher_needs}
        found += [f"{who}: {', '.join(which)}" for who, which in needs.items() if which]
    return "; ".join(found) or ("logits" if method.reads_teacher else "the student's logits")


def _state(method: Method) -> str:
    """Return how many numbers the state dict holds, and the names of what is no tensor."""
    counts = {"parameters": 0, "meta-parameters": 0, "buffers": 0}
    others: list[str] = []
    parameters = dict(method.named_parameters())
    meta = {id(parameter) for parameter in method.meta_parameters()}
    for name, value in method.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            is_meta = id(parameters.get(name)) in meta
            counts["meta-parameters" if is_meta else "parameters" if name in parameters else "buffers"] += value.numel()
        else:
            others += value if isinstance(value, Mapping) else [name]
    found = [f"{number:,} {kind if number > 1 else kind[:-1]}" for kind, number in counts.items() if number]
    return ", ".join(found + others) or "none"


def _recipe(name: str) -> str:
    """Return a method's weight in its recipe, and where that is from."""
    of_pair = [setting(TEACHER, STUDENT) for setting in filter(None, (SETTINGS.get(name), *SETTINGS.values()))]
    for found in sorted(of_pair, key=lambda found: found.source == UNPUBLISHED):
        weights = [options.weight for options in found.losses.values() if options.method == name]
        if weights:
            return f"{weights[0]:g}; {found.source}{'' if found.published else ' (not published for this pair)'}"
    return NOTHING


def _wrappers() -> Iterator[type[Method]]:
    """Yield methods that are made of one other method."""
    for module in pkgutil.iter_modules(methods.__path__, f"{methods.__name__}."):
        importlib.import_module(module.name)
    for kind in sorted(Method.__subclasses__(), key=lambda kind: kind.__name__):
        ours = kind.__module__.startswith((f"{methods.__name__}.", Method.__module__))
        if ours and list(inspect.signature(kind).parameters) == ["method"]:
            yield kind


def _table(rows: list[dict[str, str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    head = list(rows[0])
    return "\n".join([line(head), "|" + "---|" * len(head), *(line(list(row.values())) for row in rows)])


def _sections(kinds: Mapping[str, type[Any]]) -> tuple[dict[str, str], list[str]]:
    """Return name -> linked name, and a section for each docstring."""
    names: dict[str, list[str]] = {}
    for name, kind in kinds.items():
        names.setdefault(Text.of(kind).body, []).append(name)
    links: dict[str, str] = {}
    for together in names.values():
        anchor = re.sub(r"[^\w -]", "", ", ".join(together).lower()).replace(" ", "-")
        links |= {name: f"[`{name}`](#{anchor})" for name in together}
    return links, [f"### {', '.join(together)}\n\n{body}" for body, together in names.items()]


def _of_methods(example: Example, links: Mapping[str, str]) -> Iterator[dict[str, str]]:
    for name, kind in METHODS.items():
        text = Text.of(kind)
        about = example.row(name)
        yield (
            {"Method": links[name], "Paper": text.citation}
            | about
            | {"Weight and its source": _recipe(name), "Differs": text.difference}
        )


def _of_rules(links: Mapping[str, str]) -> Iterator[dict[str, str]]:
    for name, kind in UPDATES.items():
        text, rule = Text.of(kind), kind()
        held_out = f"{rule.held_out_per_class} of each class, {rule.held_out_batch} every {rule.every} steps"
        yield {
            "Update rule": links[name],
            "Paper": text.citation,
            "Learns": "parameters and meta-parameters" if rule.learns_meta else "parameters",
            "Held-out images": held_out if rule.held_out_per_class else NOTHING,
            "Accumulates and clips": "yes" if rule.descends else "no",
            "Differs": text.difference,
        }


def _of_wrappers(
    wrappers: Mapping[str, Callable[[Method], Method]], links: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    for name, kind in wrappers.items():
        text, method = Text.of(cast("type[Method]", kind)), kind(KD())
        about = {"Views": str(method.views), "State": _state(method)}
        yield {"Wrapper": links[name], "Paper": text.citation} | about | {"Differs": text.difference}


def foreign_pairs() -> dict[str, Callable[[], tuple[nn.Module, nn.Module]]]:
    """Return name -> function that makes a student and a teacher of other libraries, for 10 classes."""
    return {
        "torchvision resnet18 -> resnet18": lambda: (
            torchvision.models.resnet18(num_classes=10),
            torchvision.models.resnet18(num_classes=10),
        ),
        "timm resnet18 -> mobilenetv3_small_050": lambda: (
            timm.create_model("mobilenetv3_small_050", num_classes=10),
            timm.create_model("resnet18", num_classes=10),
        ),
    }


def refusal(name: str, student: nn.Module, teacher: nn.Module) -> str:
    """Return why `assemble` refuses a method between copies of two networks; empty where it does not."""
    student, teacher = copy.deepcopy(student), copy.deepcopy(teacher)
    labels = torch.arange(50) % 10
    try:
        assemble(
            {name: (1.0, METHODS[name])}, student, teacher, torch.zeros(2, 3, 64, 64), num_samples=50, labels=labels
        )
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def _of_others(links: Mapping[str, str]) -> Iterator[dict[str, str]]:
    for pair, make in foreign_pairs().items():
        networks = make()
        for name in METHODS:
            if reason := refusal(name, *networks):
                yield {"Pair": pair, "Method": links[name], "What it says": reason}


def page() -> str:
    """Return docs/methods.md."""
    example = Example()
    wrappers = {kind.__name__: kind for kind in _wrappers()}
    links, sections = _sections({**METHODS, **UPDATES, **wrappers})
    parts = [
        INTRODUCTION,
        _table(list(_of_methods(example, links))),
        RULES,
        _table(list(_of_rules(links))),
        "\n## Wrappers\n\nMethods made of another method; the figures are those of one around `kd`.\n",
        _table(list(_of_wrappers(wrappers, links))),
        OTHERS,
        _table(list(_of_others(links))),
        "\n## Formulas\n",
        "\n\n".join(sections),
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Write the page."""
    torch.manual_seed(0)
    PAGE.write_text(page())
    print(f"written to {PAGE}")


if __name__ == "__main__":
    main()
