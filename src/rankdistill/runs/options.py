"""Options of methods and update rules as dataclasses, made from their signatures, without an import of them."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Annotated, Any

from .catalogue import METHODS, UPDATES, Entry

_Weight = Annotated[float, "What the loss is multiplied by."]
_EachView = Annotated[bool, "Apply the loss to both views of an image, and add the two."]
_Standardized = Annotated[bool, "Standardise the logits of each image first, as LSKD does."]
_LabelFirst = Annotated[bool, "Give the label the largest of the teacher's logits first."]


def shared_options(name: str) -> tuple[str, ...]:
    """Return the options that a loss has beside those of its method: "weight", and those of the others that work."""
    method = METHODS[name]
    plain = not method.overrides("forward")
    each_view = ("each_view",) if method.attribute("views") == 1 and plain else ()
    standardized = ("standardized",) if method.attribute("reads_logits_once") else ()
    label_first = ("label_first",) if plain and _compares_logits(method) else ()
    return ("weight", *each_view, *standardized, *label_first)


def _compares_logits(method: Entry) -> bool:
    """Return whether a method reads logits of a teacher, and no features, which those made for a pair may do."""
    on_features = method.attribute("student_needs") or method.attribute("teacher_needs") or method.overrides("for_pair")
    return method.attribute("reads_logits_once") or (method.attribute("reads_teacher") and not on_features)


@functools.cache
def options_of(name: str) -> type[Any]:
    """Return a frozen dataclass of a method's weight and options, made from the method's signature.

    Beside the method's own options there are `weight`; for a method of one view `each_view`, to apply it to both views;
    for a method that reads logits once `standardized`, to apply it to standardised logits, as LSKD does; and for a
    method that compares logits `label_first`, to give it a teacher whose largest logit is the label's.

    Raises:
        ValueError: there is no such method; the nearest names are given.
    """
    method = look_up(METHODS, name, "method")
    known = {
        "weight": ("weight", _Weight, field(default=1.0)),
        "each_view": ("each_view", _EachView, field(default=False)),
        "standardized": ("standardized", _Standardized, field(default=False)),
        "label_first": ("label_first", _LabelFirst, field(default=False)),
    }
    shared: list[tuple[str, Any, Any]] = [known[option] for option in shared_options(name)]
    return _dataclass_of(method, shared, {"method": name}, functools.partial(_reduced, loss, "method"))


def loss(method: str, weight: float = 1.0, **options: Any) -> Any:
    """Return the weight and options of a method, for `Run.losses`."""
    return options_of(method)(weight=weight, **options)


@functools.cache
def update_options_of(name: str) -> type[Any]:
    """Return a frozen dataclass of an update rule's options, made from the rule's signature.

    Raises:
        ValueError: there is no such rule; the nearest names are given.
    """
    rule = look_up(UPDATES, name, "update rule")
    return _dataclass_of(rule, [], {"rule": name}, functools.partial(_reduced, update_rule, "rule"))


def update_rule(rule: str, **options: Any) -> Any:
    """Return the options of an update rule, for `Run.update`."""
    return update_options_of(rule)(**options)


def _dataclass_of(
    entry: Entry, shared: list[tuple[str, Any, Any]], namespace: dict[str, Any], reduced: Callable[[Any], Any]
) -> type[Any]:
    """Return a frozen dataclass with the keyword-only arguments of a class, after the shared fields."""
    fields = [*shared, *((o.name, o.hint, field(default=o.default)) for o in entry.options)]
    text = entry.text.split("\n\nExample:")[0]
    about = {"__doc__": text, "__reduce__": lambda options: reduced(options)}
    return dataclasses.make_dataclass(entry.kind, fields, frozen=True, namespace=namespace | about)


def _reduced(make: Callable[..., Any], key: str, options: Any) -> tuple[Any, ...]:
    """How `pickle` rebuilds options, whose class is made at run time."""
    return _rebuilt, (make, getattr(options, key), dataclasses.asdict(options))


def _rebuilt(make: Callable[..., Any], name: str, options: dict[str, Any]) -> Any:
    return make(name, **options)


def look_up(table: Mapping[str, Any], name: str, kind: str) -> Any:
    """Return `table[name]`.

    Raises:
        ValueError: there is no such name; the nearest ones are given, or all.
    """
    if name not in table:
        near = difflib.get_close_matches(name, table, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(table)}"
        raise ValueError(f"unknown {kind} {name!r}: {hint}")
    return table[name]
