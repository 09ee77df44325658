"""Flags: every option of every recipe has one with a text, and what is typed is what the run has."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from rankdistill.cli.flags import flags_of, parse, shown, texts_of
from rankdistill.cli.train import _HIDDEN, SHORTS, _everyday
from rankdistill.recipes import RECIPES
from rankdistill.runs.options import update_rule
from rankdistill.training.updates import UPDATES


@dataclass(frozen=True)
class Inner:
    """What is inside.

    Attributes:
        share: the share that
            is kept, from 0 to 1.
        names, others: how things
            are called.
    """

    share: float | None = None
    names: tuple[str, ...] | None = None
    others: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    """What is outside.

    Attributes:
        inner: what is inside.
        several: name -> what is inside.
        some_count: how many, whatever `some_count` and `some_other` are.
        kind: which one.
        size: a number, or found by itself.
        place: where.
        on: whether.
    """

    inner: Inner = field(default_factory=Inner)
    several: dict[str, Any] = field(default_factory=lambda: {"a_b": Inner(), "c": Inner()})
    some_count: int = 3
    kind: Literal["one", "two"] = "one"
    size: float | Literal["auto"] = 1.0
    place: Literal["off"] | Path = "off"
    on: bool = False


FLAGS = flags_of(Outer(), shorts={"some_count": "count"})


def typed(*arguments: str) -> Outer:
    return parse(Outer(), FLAGS, arguments, hint="help")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], Outer()),
        (["--some-count", "-4"], Outer(some_count=-4)),
        (["--count", "4", "--some-count=5"], Outer(some_count=5)),
        (["--some_count", "4"], Outer(some_count=4)),
        (["--several.a_b.share=1"], Outer(several={"a_b": Inner(share=1.0), "c": Inner()})),
        (["--kind=two", "--place=x_y"], Outer(kind="two", place=Path("x_y"))),
        (["--on"], Outer(on=True)),
        (["--on", "--no-on"], Outer(on=False)),
        (["--kind", "two", "--size", "auto"], Outer(kind="two", size="auto")),
        (["--size", "1e-3", "--place", "x y"], Outer(size=1e-3, place=Path("x y"))),
        (["--inner.share", "0.5"], Outer(inner=Inner(share=0.5))),
        (["--inner.share", "0.5", "--inner.share", "None"], Outer()),
        (["--inner.names"], Outer(inner=Inner(names=()))),
        (["--inner.names", "x", "y", "--inner.others", "7"], Outer(inner=Inner(names=("x", "y"), others=(7,)))),
        (["--inner.names", "x", "--inner.names", "none"], Outer()),
        (["--several.a-b.share", "1"], Outer(several={"a_b": Inner(share=1.0), "c": Inner()})),
    ],
)
def test_what_is_typed_is_what_there_is(arguments: list[str], expected: Outer) -> None:
    assert typed(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--some-cuont", "4"], r"^unknown option --some-cuont: did you mean --some-count\?$"),
        (["--elephant"], "^unknown option --elephant: `help` shows all$"),
        (["--some-count", "4.5"], r"^--count/--some-count: '4.5' was given where a whole number is needed$"),
        (["--some-count"], "^--count/--some-count needs a value after it$"),
        (["--kind", "three"], r"^--kind: 'three' was given where one or two is needed$"),
        (["--size", "big"], r"^--size: 'big' was given where auto or a number is needed$"),
        (["--inner.others", "1", "x"], r"^--inner.others: 'x' was given where a whole number is needed$"),
        (["--on", "yes"], "^'yes' stands where a flag was expected: type `help` to see them$"),
        (["stray"], "^'stray' stands where a flag was expected"),
        (["--some", "4"], "^unknown option --some"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        typed(*arguments)


def test_texts_are_sentences_of_docstrings_with_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = shown(FLAGS)
    assert "  --inner.share X\n        The share that is kept, from 0 to 1. [none]" in text
    assert "  --inner.names [TEXT ...]\n        How things are called. [none]" in text
    assert "  --several.a-b.others [N ...]\n        How things are called. [1 2]" in text
    assert "  --on, --no-on\n        Whether. [no]" in text
    assert "  --place off|PATH\n" in text
    assert "  --count, --some-count N\n        How many, whatever `some-count` and `some_other` are. [3]" in text
    assert texts_of("No sections.\n\nReturns:\n    x: nothing.\n") == {}


@pytest.mark.parametrize("columns", ["1", "0", "50", "1000"])
def test_help_has_a_width_that_can_be_read(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert 40 < max(map(len, shown(FLAGS).splitlines())) <= 100


@pytest.mark.parametrize("name", RECIPES)
def test_every_option_of_a_recipe_has_a_flag_with_a_text_that_reads_its_default(name: str) -> None:
    run = RECIPES[name]()
    for rule in UPDATES:
        changed = dataclasses.replace(run, update=update_rule(rule))
        flags = flags_of(changed, hidden=_HIDDEN, shorts=SHORTS)
        assert [flag.path for flag in flags if len(flag.text) < 10 or not flag.text.endswith(".")] == []
        assert len({name for flag in flags for name in flag.names}) == sum(len(flag.names) for flag in flags)
        arguments: list[str] = []
        for flag in flags:
            if flag.switches is not None:
                arguments.append(flag.switches[not flag.default])
            else:
                values = flag.default if isinstance(flag.default, tuple) else [flag.default]
                arguments += [flag.names[-1], *map(str, values)]
        assert parse(changed, flags, arguments, hint="help") == changed


def test_everyday_help_is_short_and_knows_the_short_names() -> None:
    run = RECIPES["cifar100.ra"]()
    flags = _everyday(flags_of(run, hidden=_HIDDEN, shorts=SHORTS))
    names = {name for flag in flags for name in flag.names}
    assert {"--epochs", "--lr", "--batch-size", "--data", "--root", "--seed", "--losses.ra.weight"} <= names
    assert len(flags) <= 18
