"""What is read from sources is what the imported code says: names, sentences, options and attributes."""

from __future__ import annotations

import subprocess
import sys
import typing
from pathlib import Path

import pytest

from rankdistill import METHODS, MODELS, UPDATES, Method, UpdateRule
from rankdistill.cli import commands
from rankdistill.data import DATASETS
from rankdistill.recipes import RECIPES
from rankdistill.runs import catalogue
from rankdistill.runs.catalogue import Entry, Option, Table
from rankdistill.runs.convert import convert_checkpoint
from rankdistill.runs.evaluate import evaluate_weights

ENTRIES = [
    (table, name)
    for table in (catalogue.METHODS, catalogue.UPDATES, catalogue.MODELS, catalogue.DATASETS)
    for name in table
]
ATTRIBUTES: dict[type, list[str]] = {
    kind: [name for name in typing.get_type_hints(kind) if hasattr(kind, name) and not hasattr(kind.__base__, name)]
    for kind in (Method, UpdateRule)
}


@pytest.mark.parametrize(("table", "name"), ENTRIES, ids=[f"{table.name}-{name}" for table, name in ENTRIES])
def test_sources_say_what_the_code_says(table: Table, name: str) -> None:
    written, imported = table.from_source(name), table[name]
    assert type(written) is not type(imported)
    assert (written.kind, written.text) == (imported.kind, imported.text)
    base = {"METHODS": Method, "UPDATES": UpdateRule}.get(table.name)
    if base is None:
        assert written.options == []
        return
    assert written.options == imported.options
    assert len(ATTRIBUTES[base]) >= 4
    for attribute in ATTRIBUTES[base]:
        assert written.attribute(attribute) == imported.attribute(attribute)
    for attribute in (*ATTRIBUTES[base], "forward", "for_pair", "losses", "adapt", "__call__"):
        assert written.overrides(attribute) == imported.overrides(attribute)


def test_tables_have_the_same_names_in_the_same_order() -> None:
    code = (
        "from rankdistill.runs import catalogue as c\n"
        "print([list(table) for table in (c.METHODS, c.UPDATES, c.MODELS, c.DATASETS)])\n"
        "import sys; assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{[list(table) for table in (METHODS, UPDATES, MODELS, DATASETS)]}\n"


def test_runs_are_the_same_whether_the_methods_are_imported() -> None:
    """A recipe's run, with every option of its losses and update rule, does not depend on what was imported before."""
    code = (
        "import sys\nfrom rankdistill.recipes import RECIPES\n"
        "print({name: str(recipe()) for name, recipe in RECIPES.items()})\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{ ({name: str(recipe()) for name, recipe in RECIPES.items()}) }\n"


def test_what_others_put_into_a_table_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(METHODS["kd"]):  # type: ignore[misc,name-defined]
        """A method of one's own."""

        views = 2

        def __init__(self, *, strength: float = 3.0) -> None:
            super().__init__(temperature=strength)

    monkeypatch.setitem(METHODS, "own", Own)
    found = catalogue.METHODS["own"]
    assert (found.kind, found.text, found.attribute("views")) == ("Own", "A method of one's own.", 2)
    assert found.options == [Option("strength", float, 3.0)]
    assert found.overrides("losses")
    assert not found.overrides("forward")


FILES = {
    "things/__init__.py": "from .one import One, choose\nfrom . import two\n"
    'THINGS: dict[str, object] = {"one": One, "two": two.Two, "call": choose(two.Two)}\n',
    "things/one.py": "from typing import Literal\nfrom .two import Two, SIDE\nimport numpy\nKind = Literal['a', 'b']\n"
    "def choose(x): ...\n"
    "class One(Two):\n"
    '    """Another.\n\n    More."""\n'
    "    sizes = names = (SIDE, -1)\n"
    "    def __init__(self, x, *, kind: Kind | None = None, side: int = SIDE, needed: str, odd: int = numpy.e): ...\n",
    "things/two.py": "import heavy\nSIDE = 2 * 3\nclass Two(heavy.Base):\n    sizes: int = 4\n    bare: int\n",
}


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(catalogue, "_ROOT", tmp_path)
    return Table("things", "THINGS")


def test_a_source_is_followed_through_its_imports(things: Table) -> None:
    assert list(things) == ["one", "two", "call"]
    one: Entry = things["one"]
    assert (one.kind, one.text) == ("One", "Another.\n\nMore.")
    assert one.attribute("sizes") == one.attribute("names") == (6, -1)
    assert (one.overrides("sizes"), one.overrides("bare")) == (True, False)
    assert [things[name].attribute("sizes") for name in ("two", "call")] == [4, 4]
    assert (things["two"].text, things["two"].options) == ("", [])
    with pytest.raises(AttributeError, match="Two has no attribute 'bare' with a value"):
        things["two"].attribute("bare")
    with pytest.raises(KeyError):
        things["three"]


def test_what_cannot_be_known_without_an_import_is_said(things: Table) -> None:
    with pytest.raises(
        NameError, match=r"one\.py, line \d+: name 'numpy' is not defined; types and defaults of options are read"
    ):
        _ = things["one"].options


def test_words_of_commands_are_those_of_what_they_call() -> None:
    for command, function, name in (
        (commands.evaluate, evaluate_weights, "classes"),
        (commands.convert, convert_checkpoint, "subtree"),
    ):
        assert typing.get_type_hints(command)[name] == typing.get_type_hints(function)[name]
