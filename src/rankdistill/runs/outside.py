"""What a run uses that is not of this package, by its source: a result belongs to the code that made it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import sysconfig
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

_PACKAGE = __name__.split(".")[0]
_LIBRARIES = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def digest_of_outside(used: Iterable[object]) -> dict[str, str]:
    """Return what identifies the code of what is not of this package: name of a module -> SHA-256 of its file.

    Modules that such a module imports count as well, unless they are installed. A module without a file, such as that
    of an interactive session, gets another value each time: nothing can be known of it to be the same.

    Args:
        used: functions, classes and `functools.partial`s of these.
    """
    found: dict[str, str] = {}
    waiting = [module for one in used for module in _modules_of(one)]
    while waiting:
        module = waiting.pop()
        if module.__name__ in found or module.__name__.split(".")[0] == _PACKAGE:
            continue
        path = _file(module)
        found[module.__name__] = uuid.uuid4().hex if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
        if path is not None and not _installed(path):
            waiting += [used for used in _used_by(module) if (of := _file(used)) is not None and not _installed(of)]
    return dict(sorted(found.items()))


def _modules_of(one: object) -> Iterator[ModuleType]:
    while isinstance(one, functools.partial):
        yield from (module for value in (*one.args, *one.keywords.values()) for module in _modules_of(value))
        one = one.func
    one = inspect.unwrap(one) if callable(one) else one
    named = one if hasattr(one, "__qualname__") else type(one)
    module = sys.modules.get(getattr(named, "__module__", None) or "")
    if module is not None and module.__name__ != "builtins":
        yield module


def _used_by(module: ModuleType) -> Iterator[ModuleType]:
    for value in list(vars(module).values()):
        if isinstance(value, ModuleType):
            yield value
        elif hasattr(value, "__qualname__"):
            yield from _modules_of(value)


def _file(module: ModuleType) -> Path | None:
    path = getattr(module, "__file__", None)
    return Path(path).resolve() if path and Path(path).is_file() else None


def _installed(path: Path) -> bool:
    return any(path.is_relative_to(library) for library in _LIBRARIES)
