"""What a weights file may say of itself: a list of fields, each of one type and within bounds.

A file may come from anybody. So nothing but these fields is believed, and none of them is a place: where files are read
and written, and whether something is fetched, is never said by a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_MAX_TEXT = 1000
_MAX_CLASSES = 1_000_000
_MAX_SIDE = 4096
_MAX_CHANNELS = 64
_MAX_CHARACTERS = 2**23

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_TEXT


def _name(value: Any) -> bool:
    """Names stand in sentences."""
    return _text(value) and value.isprintable()


def _whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _several(check: Check, low: int, high: int) -> Check:
    return lambda value: isinstance(value, list) and low <= len(value) <= high and all(map(check, value))


def _number(low: float, high: float) -> Check:
    return lambda value: type(value) in (int, float) and low <= value <= high  # NaN is not, integers may be huge


_FIELDS: dict[str, tuple[Check, str]] = {
    "rankdistill": (_text, "a version"),
    "recipe": (_text, "a name"),
    "converted_from": (_text, "a name"),
    "model": (_name, "a name"),
    "deployed": (_name, "a name"),
    "class_names": (_several(_text, 2, _MAX_CLASSES), "2 to 1,000,000 names"),
    "image_shape": (_several(_whole(1, _MAX_SIDE), 3, 3), "channels, height and width"),
    "mean": (_several(_number(-1e6, 1e6), 1, _MAX_CHANNELS), "a number for each channel"),
    "std": (_several(_number(1e-6, 1e6), 1, _MAX_CHANNELS), "a positive number for each channel"),
    "top1": (_number(0.0, 100.0), "a percentage"),
}
_OF_DATA: dict[str, tuple[Check, str]] = {
    "name": (_name, "a name"),
    "image_size": (_optional(_whole(1, _MAX_SIDE)), f"1 to {_MAX_SIDE} pixels"),
    "num_classes": (_optional(_whole(2, _MAX_CLASSES)), "2 to 1,000,000"),
    "random_resized_crop": (_optional(_whole(1, _MAX_SIDE)), f"1 to {_MAX_SIDE} pixels"),
    "padding": (_whole(0, 1024), "0 to 1024 pixels"),
}


def read_header(text: str, path: Path) -> dict[str, Any]:
    """Return what a file says of itself; fields that are not known are left out.

    Args:
        text: JSON, as `save_weights` writes it.
        path: the file, for the error.

    Raises:
        ValueError: the text is no JSON object, or a field has another type or is out of its bounds.
    """
    try:
        content = json.loads(text) if len(text) <= _MAX_CHARACTERS else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, Mapping):
        raise ValueError(f"the header of {path} is not what this program writes: fetch the file again")
    found = _known(content, _FIELDS, "", path)
    data = content.get("data")
    if data is not None:
        if not isinstance(data, Mapping):
            raise _refusal("data", data, "an object", path)
        found["data"] = _known(data, _OF_DATA, "data.", path)
    return found


def _known(
    content: Mapping[str, Any], fields: Mapping[str, tuple[Check, str]], before: str, path: Path
) -> dict[str, Any]:
    found = {}
    for name, (check, wanted) in fields.items():
        if name in content:
            if not check(content[name]):
                raise _refusal(before + name, content[name], wanted, path)
            found[name] = content[name]
    return found


def _refusal(name: str, value: object, wanted: str, path: Path) -> ValueError:
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:60]}..."
    return ValueError(f"the header of {path} says {name} is {shown}: {wanted} belongs there; fetch the file again")
