"""Fuzzing of readers: inputs that are nearly right, made by rule from a seed, and a watch on errors, time and memory.

A test gives `watch` a reader and inputs. Byte strings are made by `mutated`, JSON by `mutated_json`, and a format's own
structure by functions that a test writes with `odd_integer` and `ODD_STRINGS`.
"""

from __future__ import annotations

import faulthandler
import json
import random
import resource
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS = 20.0
MEGABYTES = 500.0

ODD_STRINGS = (
    *("", " ", "\0", "\n", "\t", ",", '"', "'", "-", "nan", "None", "null", "true", "[/x]", "{}", "%s", "~", "*"),
    *(".", "..", "/", "../../x", "/etc/passwd", "/dev/zero", "\\", "C:\\x", "x" * 300, "x" * 70_000, "9" * 5000),
    *("0", "-0", "01", "1.0", "1e400", "-1", "\u00e4", "a\u0308", "\u202e", "\ufeff", "\U0001f600", "\udcff"),
)


class Hang(BaseException):
    """A reader took longer than it may. No reader catches it."""


def watch(
    read: Callable[[T], object],
    inputs: Iterable[T],
    *,
    refusals: tuple[type[Exception], ...],
    seconds: float = SECONDS,
    megabytes: float = MEGABYTES,
) -> Counter[str]:
    """Give each input to a reader, and return how many it read ("read") and how many it refused ("refused").

    Args:
        read: the reader. Its warnings are ignored.
        inputs: what it is given, one after the other.
        refusals: the errors by which it may refuse an input, in one line.
        seconds: the most that one input may take.
        megabytes: the most by which this process's memory may grow while it reads one.

    Raises:
        AssertionError: a reader raised another error, an error of several lines or none, took too long or too much.
    """
    counts: Counter[str] = Counter()
    for number, given in enumerate(inputs):
        wrong = None
        before = _forget_peak()
        try:
            with warnings.catch_warnings(), _at_most(seconds):
                warnings.simplefilter("ignore")
                read(given)
            counts["read"] += 1
        except refusals as error:
            counts["refused"] += 1
            if not str(error).strip() or "\n" in str(error):
                wrong = f"was refused by {str(error)!r}, which is not one line"
        except Hang:
            wrong = f"took more than {seconds} seconds"
        except Exception:
            wrong = f"met a foreign error\n{traceback.format_exc()}"
        if wrong is None and (grown := _peak() - before) > megabytes:
            wrong = f"took {grown:.0f} MB of memory"
        assert wrong is None, f"input {number} ({_shortened(given)}) {wrong}"
    return counts


def mutated(draw: random.Random, content: bytes, others: Sequence[bytes] = (b"",)) -> bytes:
    """Return a byte string with one to four changes: bits, bytes, fields, blocks, its length, a piece of another one.

    Three of four changes are in the first or the last 256 bytes, where formats keep what matters.
    """
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        if not changed:
            break
        place = draw.randrange(len(changed))
        if draw.random() < 0.75:
            place = draw.choice((min(place, draw.randrange(256)), max(place, len(changed) - 1 - draw.randrange(256))))
        size = draw.choice((1, 2, 3, 4, 8, 16, 100, 1000))
        match draw.randrange(9):
            case 0:
                changed[place] ^= 1 << draw.randrange(8)
            case 1:
                changed[place] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
            case 2 | 3:
                width = draw.choice((1, 2, 4, 8))
                changed[place : place + width] = odd_integer(draw, width, len(content))
            case 4:
                del changed[place:]
            case 5:
                del changed[place : place + size]
            case 6:
                changed[place:place] = changed[place : place + size] * draw.choice((1, 1, 50))
            case 7:
                changed[place : place + size] = bytes([draw.choice((0, 0xFF))]) * len(changed[place : place + size])
            case 8:
                other = draw.choice(others)
                start = draw.randrange(len(other) + 1)
                changed[place : place + size] = other[start : start + size]
    return bytes(changed)


def odd_integer(draw: random.Random, width: int, length: int = 0) -> bytes:
    """Return an integer of so many bytes that is at an edge: of its type, of its sign, or of the length of a file."""
    top = 1 << 8 * width
    values = (0, 1, 2, top - 1, top - 2, top // 2, top // 2 - 1, top // 4, length, length - 1, length + 1, 10_000)
    return (draw.choice(values) % top).to_bytes(width, draw.choice(("little", "big")))


def mutated_json(draw: random.Random, value: Any) -> str:
    """Return JSON in which a value, key or bracket is odd: of another type, huge, missing, doubled or far too deep."""
    text = json.dumps(value)
    match draw.randrange(5):
        case 0:
            return mutated(draw, text.encode()).decode("utf-8", "replace")
        case 1:
            return draw.choice(("[" * 100_000, '{"a":' * 100_000, "[]" * 10, "NaN", "9" * 5000, text * 2, f"[{text}]"))
    places = list(_places(value))
    holder, key = draw.choice(places) if places else ([value], 0)
    marked = json.dumps(_replaced(value, holder, key))
    return marked.replace(json.dumps(_MARK), draw.choice(_ODD_JSON + tuple(json.dumps(text) for text in ODD_STRINGS)))


_MARK = "the odd value"
_ODD_JSON = (
    *("null", "true", "0", "-1", "1.5", "1e400", "-1e400", "NaN", "Infinity", "9" * 30, "9" * 5000, "[]", "{}"),
    *('[1, "a", null]', '{"a": {"b": 1}}', "[" * 50 + "]" * 50, '{"a": 1, "a": 2}', '"\\ud800"'),
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (list or dict, key) of every value in a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield value, key
        yield from _places(inner)


def _replaced(value: Any, holder: Any, key: Any) -> Any:
    """Return the value with the mark at one place."""
    if isinstance(value, dict):
        return {k: _MARK if value is holder and k == key else _replaced(v, holder, key) for k, v in value.items()}
    if isinstance(value, list):
        return [
            _MARK if value is holder and n == key else _replaced(inner, holder, key) for n, inner in enumerate(value)
        ]
    return value


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise Hang in what takes longer; end the process with a traceback if that cannot be interrupted."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(10 * seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _forget_peak() -> float:
    """Let this process's peak of memory be what it has now, where the system can, and return it in MB."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> float:
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _shortened(given: object) -> str:
    text = repr(given)
    return text if len(text) <= 400 else f"{text[:200]} ... {text[-200:]}, {len(text):,} characters"
