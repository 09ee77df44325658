"""Flags of the command line, made from what is configured: nested dataclasses, or the arguments of a function.

Each field is a flag of its own, `--optim.clip-norm` for `Run.optim.clip_norm`, with the type of its annotation and the
text of its class's docstring. What is wrong with a command line is one sentence, a ValueError.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import re
import shutil
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        path: names of the fields that lead to it.
        hint: its type.
        default: its value where it is not given.
        text: a sentence for its reader.
        short: another name of it, without dashes; empty for none.
    """

    path: tuple[str, ...]
    hint: Any
    default: Any
    text: str
    short: str = ""

    @property
    def names(self) -> list[str]:
        """Return the flag as it is typed, the short name first."""
        return [f"--{name.replace('_', '-')}" for name in (self.short, ".".join(self.path)) if name]

    @property
    def switches(self) -> tuple[str, str] | None:
        """Return the flags that say yes and no, of a flag that takes no value."""
        if self.hint is not bool:
            return None
        *groups, last = (part.replace("_", "-") for part in self.path)
        return self.names[-1], "--" + ".".join([*groups, f"no-{last}"])

    def usage(self) -> str:
        """Return the flag with what follows it."""
        if self.switches is not None:
            return ", ".join(self.switches)
        return f"{', '.join(self.names)} {_metavar(self.hint)}"


def flags_of(configured: Any, *, hidden: Sequence[str] = (), shorts: Mapping[str, str] | None = None) -> list[Flag]:
    """Return the flags of a dataclass, of those within it, and of those in a mapping within it.

    Args:
        configured: an instance, whose values are the defaults.
        hidden: fields that have no flag.
        shorts: `optim.epochs` -> `epochs`, another name.
    """
    found = [flag for flag in _flags(configured, ()) if flag.path[0] not in hidden]
    shorts = shorts or {}
    return [dataclasses.replace(flag, short=shorts.get(".".join(flag.path), "")) for flag in found]


def parse(configured: T, flags: Sequence[Flag], arguments: Sequence[str], *, hint: str) -> T:
    """Return the dataclass with what the arguments change.

    Args:
        configured: with the defaults.
        flags: from `flags_of`.
        arguments: flags and values.
        hint: what to type to see all flags, for errors.

    Raises:
        ValueError: a flag is unknown, or a value has another type or is out of range.
    """
    changed: T = _replaced(configured, parse_flags(flags, arguments, hint=hint))
    return changed


def parse_flags(
    flags: Sequence[Flag], arguments: Sequence[str], *, hint: str, positional: Sequence[str] = ()
) -> dict[tuple[str, ...], Any]:
    """Return path -> value of what the arguments give; names of `positional` arguments are paths of one name.

    Raises:
        ValueError: see `parse`.
    """
    parser = _Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name in positional:
        parser.add_argument(name)
    for flag in flags:
        if flag.switches is not None:
            parser.add_argument(flag.switches[0], dest=".".join(flag.path), action="store_true")
            parser.add_argument(flag.switches[1], dest=".".join(flag.path), action="store_false")
            continue
        item = _item(flag.hint)
        optional = type(None) in _members(flag.hint)
        read = _reader(flag.hint if item is None else item | None if optional else item)
        parser.add_argument(*flag.names, dest=".".join(flag.path), type=read, nargs=None if item is None else "*")
    found, rest = parser.parse_known_args([_dashed(argument) for argument in arguments])
    if rest:
        _refuse_unknown(rest[0].split("=")[0], flags, hint)
    return {tuple(name.split(".")): _collected(value) for name, value in vars(found).items()}


def flags_of_call(function: Callable[..., Any]) -> tuple[list[Flag], list[str]]:
    """Return the flags of a function's keyword-only arguments, and the names of its other arguments."""
    texts = texts_of(inspect.getdoc(function) or "")
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    flags = [
        Flag((p.name,), hints[p.name], p.default, texts.get(p.name, "")) for p in parameters if p.kind is p.KEYWORD_ONLY
    ]
    return flags, [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]


def columns() -> int:
    """Return how wide help is printed: as the terminal, but at least 50 and at most 100 characters."""
    return min(max(shutil.get_terminal_size().columns, 50), 100)


def shown(flags: Sequence[Flag]) -> str:
    """Return what help shows of flags."""
    width = columns()
    indent = " " * 8
    blocks = []
    for flag in flags:
        default = " [needed]" if flag.default is inspect.Parameter.empty else f" [{_default(flag.default)}]"
        text = textwrap.fill(f"{flag.text}{default}".strip(), width, initial_indent=indent, subsequent_indent=indent)
        blocks.append(f"  {flag.usage()}\n{text}")
    return "\n".join(blocks)


def texts_of(docstring: str) -> dict[str, str]:
    """Return name -> sentence of what the sections "Args" and "Attributes" of a docstring say."""
    texts: dict[str, str] = {}
    for section in re.findall(r"^(?:Args|Attributes):\n((?:[ \t]+.*\n?|\n)*)", docstring, re.MULTILINE):
        for names, text in re.findall(
            r"^ {4}(\w+(?:, \w+)*): ((?:.*\n?)(?:^ {8}.*\n?|^\n(?= {8}))*)", section, re.MULTILINE
        ):
            sentence = " ".join(text.split()).rstrip(".")
            texts |= dict.fromkeys(names.split(", "), sentence[:1].upper() + sentence[1:] + ".")
    return texts


def _flags(configured: Any, path: tuple[str, ...]) -> Iterator[Flag]:
    if isinstance(configured, Mapping):
        for name, value in configured.items():
            yield from _flags(value, (*path, name))
        return
    hints = get_type_hints(type(configured), include_extras=True)
    texts: dict[str, str] = {}
    for kind in reversed(type(configured).__mro__):
        texts |= texts_of(inspect.cleandoc(kind.__doc__ or ""))
    names = {f"`{field.name}`": f"`{field.name.replace('_', '-')}`" for field in dataclasses.fields(configured)}
    for field in dataclasses.fields(configured):
        value = getattr(configured, field.name)
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            yield from _flags(value, (*path, field.name))
            continue
        hint, text = hints[field.name], texts.get(field.name, "")
        if get_origin(hint) is Annotated:
            hint, text = get_args(hint)[:2]
        yield Flag((*path, field.name), hint, value, re.sub(r"`\w+`", lambda m: names.get(m[0], m[0]), text))


def _replaced(configured: Any, changes: Mapping[tuple[str, ...], Any]) -> Any:
    """Return a dataclass or mapping with the values at these paths replaced."""
    if () in changes:
        return changes[()]
    if not changes:
        return configured
    inner: dict[str, dict[tuple[str, ...], Any]] = {}
    for (name, *rest), value in changes.items():
        inner.setdefault(name, {})[tuple(rest)] = value
    if isinstance(configured, Mapping):
        return {name: _replaced(value, inner.get(name, {})) for name, value in configured.items()}
    values = {name: _replaced(getattr(configured, name), below) for name, below in inner.items()}
    return dataclasses.replace(configured, **values)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise what is wrong as one sentence."""
        raise ValueError(
            message.removeprefix("argument ")
            .replace(": expected one argument", " needs a value after it")
            .replace("the following arguments are required: ", "an argument is missing: ")
        )


def _refuse_unknown(name: str, flags: Sequence[Flag], hint: str) -> NoReturn:
    if not name.startswith("-"):
        raise ValueError(f"{name!r} stands where a flag was expected: type `{hint}` to see them")
    known = [name for flag in flags for name in (*flag.names, *(flag.switches or ()))]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6) if name.strip("-") else []
    raise ValueError(f"unknown option {name}: " + (f"did you mean {near[0]}?" if near else f"`{hint}` shows all"))


def _dashed(argument: str) -> str:
    """Return a flag with dashes for the underscores of its name."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}"


def _collected(value: Any) -> Any:
    """Return several values as a tuple; None where one of them says so."""
    if not isinstance(value, list):
        return value
    return None if None in value else tuple(value)


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _item(hint: Any) -> Any | None:
    """Return the type of the items of a tuple, which may be one of several types; None for other types."""
    for member in _members(hint):
        if get_origin(member) is tuple:
            return get_args(member)[0]
    return None


def _choices(hint: Any) -> list[str]:
    return [str(value) for member in _members(hint) if get_origin(member) is Literal for value in get_args(member)]


def _metavar(hint: Any) -> str:
    if (item := _item(hint)) is not None:
        return f"[{_metavar(item)} ...]"
    names = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
    return "|".join([*_choices(hint), *(names[member] for member in _members(hint) if member in names)])


def _reader(hint: Any) -> Callable[[str], Any]:
    """Return the function from an argument to a value of a type."""
    members = _members(hint)

    def read(text: str) -> Any:
        if type(None) in members and text.lower() == "none":
            return None
        for member in members:
            if get_origin(member) is Literal and text in (written := {str(v): v for v in get_args(member)}):
                return written[text]
        for member in (int, float, Path, str):
            if member in members:
                try:
                    return member(text)
                except ValueError:
                    continue
        raise argparse.ArgumentTypeError(f"{text!r} was given where {_wanted(hint)} is needed")

    return read


def _wanted(hint: Any) -> str:
    names = {int: "a whole number", float: "a number"}
    return " or ".join([*_choices(hint), *(names[member] for member in _members(hint) if member in names)])


def _default(value: Any) -> str:
    words = {None: "none", True: "yes", False: "no"}
    if value is None or isinstance(value, bool):
        return words[value]
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
