"""What there is by name: methods, update rules, networks and data sets, without an import of them.

Help, lists, the configuration of a run and what is wrong with it need names, sentences and options. To import the code
that they belong to takes seconds, most of them torch's, so they are read from its source text. Where the code is
imported already, it is asked itself: what others have put into its tables is there as well.

    entry        from a source: `class KD(Method)` below `"kd": KD` of a table in an `__init__.py`
    text         its docstring
    options      the keyword-only arguments of its `__init__`, with their types and defaults
    attributes   what stands in its class, or in the class that it is derived from
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_type_hints

_PACKAGE = __name__.split(".")[0]
_ROOT = Path(__file__).parents[1]
_STANDARD = ("typing", "pathlib", "collections.abc")
"""Modules from which a type or a default may come, beside those of this package."""


@dataclass(frozen=True)
class Option:
    """A keyword-only argument of a class.

    Attributes:
        name, hint, default: of the argument.
    """

    name: str
    hint: Any
    default: Any


class Entry(Protocol):
    """What is known of a method, an update rule, a network or a data set."""

    @property
    def kind(self) -> str:
        """Return the name of the class or function."""

    @property
    def text(self) -> str:
        """Return the docstring."""

    @property
    def options(self) -> list[Option]:
        """Return the keyword-only arguments of the class."""

    def attribute(self, name: str) -> Any:
        """Return the value of a class attribute."""

    def overrides(self, name: str) -> bool:
        """Return whether the class has a method or an attribute of its own, in place of that of `Method`, say."""


class Table(Mapping[str, Entry]):
    """Name -> what is known of it.

    Args:
        package: the module that has the table, relative to `rankdistill`.
        name: of the table there: a dictionary that is written out, of names and classes or functions.

    Example:
        >>> from rankdistill.runs.catalogue import METHODS
        >>> [option.name for option in METHODS["kd"].options]
        ['temperature']
    """

    def __init__(self, package: str, name: str) -> None:
        self.package, self.name = package, name

    def _imported(self) -> Mapping[str, Any] | None:
        """Return the table itself, where it is imported."""
        return getattr(sys.modules.get(f"{_PACKAGE}.{self.package}"), self.name, None)

    def __iter__(self) -> Iterator[str]:
        imported = self._imported()
        return iter(_written(self.package, self.name) if imported is None else imported)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> Entry:
        imported = self._imported()
        return self.from_source(name) if imported is None else _Imported(imported[name])

    def from_source(self, name: str) -> Entry:
        """Return what the source says of a name."""
        return _Written(*_written(self.package, self.name)[name])


METHODS = Table("methods", "METHODS")
UPDATES = Table("training.updates", "UPDATES")
MODELS = Table("models", "MODELS")
DATASETS = Table("data.readers", "DATASETS")


@dataclass(frozen=True)
class _Imported:
    """What a class or a function itself says."""

    value: Any

    @property
    def kind(self) -> str:
        return str(self.value.__name__)

    @property
    def text(self) -> str:
        return inspect.getdoc(self.value) or ""

    @property
    def options(self) -> list[Option]:
        hints = get_type_hints(self.value.__init__)
        parameters = inspect.signature(self.value).parameters.values()
        return [Option(p.name, hints[p.name], p.default) for p in parameters if p.kind is p.KEYWORD_ONLY]

    def attribute(self, name: str) -> Any:
        return getattr(self.value, name)

    def overrides(self, name: str) -> bool:
        ours = [kind for kind in self.value.__mro__ if kind.__module__.split(".")[0] == _PACKAGE]
        derived = self.value.__mro__[: self.value.__mro__.index(ours[-1])]
        return any(name in vars(kind) for kind in derived)


class _Source(Mapping[str, Any]):
    """A source file: name -> value of what is assigned in it or imported, worked out when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nodes: dict[str, ast.stmt] = {}
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            self.nodes |= dict.fromkeys(_names_of(node), node)

    def __getitem__(self, name: str) -> Any:
        node = self.nodes[name]  # a KeyError sends Python to its builtins
        if isinstance(node, ast.ImportFrom):
            if node.level:
                return self._imported(node)[name]
            if node.module in _STANDARD:
                return getattr(importlib.import_module(node.module), name)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            return self.value(node.value)
        raise NameError(f"name {name!r} has no value that is written out")

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression in this file."""
        try:
            return eval(compile(ast.Expression(node), str(self.path), "eval"), {}, self)
        except NameError as error:
            raise NameError(
                f"{self.path}, line {node.lineno}: {error}; types and defaults of options are read without an import, "
                "so write them with builtins, `typing`, and constants of this package"
            ) from error

    def definition(self, node: ast.expr) -> tuple[_Source, ast.ClassDef | ast.FunctionDef]:
        """Return the class or function that an expression names, or the first argument of a call, and its file."""
        if isinstance(node, ast.Call):
            return self.definition(node.args[0])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = self.nodes[node.value.id]
            assert isinstance(module, ast.ImportFrom)
            return self._imported(module, node.value.id).definition(ast.Name(node.attr))
        assert isinstance(node, ast.Name)
        found = self.nodes[node.id]
        if isinstance(found, ast.ImportFrom):
            return self._imported(found).definition(node)
        assert isinstance(found, ast.ClassDef | ast.FunctionDef)
        return self, found

    def _imported(self, node: ast.ImportFrom, submodule: str | None = None) -> _Source:
        parts = [*(node.module or "").split("."), submodule or ""]
        place = self.path.parents[node.level - 1].joinpath(*filter(None, parts))
        return _source(place / "__init__.py" if place.is_dir() else place.with_suffix(".py"))


_source = functools.cache(_Source)


def _names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


@functools.cache
def _written(package: str, table: str) -> dict[str, tuple[_Source, ast.expr]]:
    """Return name -> what stands beside it in a table that is written out, and the file of the table."""
    source = _source(_ROOT.joinpath(*package.split("."), "__init__.py"))
    node = source.nodes[table]
    assert isinstance(node, ast.AnnAssign)
    assert isinstance(node.value, ast.Dict)
    keys = (ast.literal_eval(key) for key in node.value.keys if key is not None)
    return {key: (source, value) for key, value in zip(keys, node.value.values, strict=True)}


class _Written:
    """What the source of a class or of a function says."""

    def __init__(self, source: _Source, node: ast.expr) -> None:
        self.definitions = [source.definition(node)]
        while isinstance(kind := self.definitions[-1][1], ast.ClassDef):
            inside, bases = self.definitions[-1][0], [b for b in kind.bases if isinstance(b, ast.Name)]
            if not bases or bases[0].id not in inside.nodes:
                break
            self.definitions.append(inside.definition(bases[0]))

    @property
    def kind(self) -> str:
        return self.definitions[0][1].name

    @property
    def text(self) -> str:
        return ast.get_docstring(self.definitions[0][1]) or ""

    @property
    def options(self) -> list[Option]:
        source, node = self._found("__init__")
        if not isinstance(node, ast.FunctionDef):
            return []
        arguments = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        return [
            Option(
                argument.arg,
                None if argument.annotation is None else source.value(argument.annotation),
                inspect.Parameter.empty if default is None else source.value(default),
            )
            for argument, default in arguments
        ]

    def attribute(self, name: str) -> Any:
        source, node = self._found(name)
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            raise AttributeError(f"{self.kind} has no attribute {name!r} with a value")
        return source.value(node.value)

    def overrides(self, name: str) -> bool:
        return any(name in _names_of(node) for _, kind in self.definitions[:-1] for node in kind.body)

    def _found(self, name: str) -> tuple[_Source, ast.stmt | None]:
        """Return the statement that gives a class a name, or the class that it is derived from."""
        for source, kind in self.definitions:
            for node in reversed(kind.body):
                if name in _names_of(node):
                    return source, node
        return self.definitions[0][0], None
