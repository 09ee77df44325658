"""The watch notices what it is to notice, and inputs are the same every time."""

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing import mutated, mutated_json, watch


def test_inputs_are_a_function_of_the_seed_and_differ() -> None:
    made = [[mutated(random.Random(seed), bytes(range(256)) * 4, (b"other",)) for seed in range(50)] for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made[0])) > 45
    value = {"a": [1, {"b": "c"}], "d": None}
    texts = [[mutated_json(random.Random(seed), value) for seed in range(50)] for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 40
    whole = sum(1 for text in texts[0] if text.startswith("{") and "the odd value" not in text)
    assert whole > 20
    assert json.loads(next(text for text in texts[0] if '"a": [' in text)) != value


def test_reading_and_refusing_are_counted() -> None:
    assert watch(int, ["1", "x", "2"], refusals=(ValueError,)) == {"read": 2, "refused": 1}


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda given: 1 / 0, r"input 0 \(7\) met a foreign error\n.*ZeroDivisionError"),
        (lambda given: int(""), r"input 0 \(7\) met a foreign error\n.*ValueError"),
        (lambda given: next(iter([])), r"met a foreign error\n.*StopIteration"),
        (lambda given: [][7], r"is not one line"),
    ],
)
def test_what_the_watch_is_for(read: Callable[[int], object], message: str) -> None:
    def reads(given: int) -> object:
        try:
            return read(given)
        except IndexError:
            raise LookupError("two\nlines") from None

    with pytest.raises(AssertionError, match=f"(?s){message}") as error:
        watch(reads, [7], refusals=(LookupError,), seconds=60.0)
    assert str(error.value).startswith("input 0 (7)")


def test_memory_is_watched() -> None:
    """In a new process: one that has run other tests may have as much memory free, and then it does not grow."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fuzzing import watch
watch(lambda given: len(bytearray(b"x") * 2**given), [10, 27], refusals=(), seconds=60.0, megabytes=20.0)
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert re.search(r"^AssertionError: input 1 \(27\) took 1\d\d MB of memory$", done.stderr, re.MULTILINE), (
        done.stderr
    )


def test_a_reader_that_does_not_end_is_stopped() -> None:
    def waits(given: int) -> None:
        try:
            time.sleep(60)
        except Exception:
            pytest.fail("a reader may not catch this")

    with pytest.raises(AssertionError, match=r"^input 0 \(7\) took more than 0.2 seconds"):
        watch(waits, [7], refusals=(ValueError,), seconds=0.2)
