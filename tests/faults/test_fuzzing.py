"""The watch notices what it is to notice, and inputs are the same every time."""

import json
import random
import time

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
        (lambda given: time.sleep(5), r"input 0 \(7\) took more than 1.0 seconds"),
        (lambda given: len(bytearray(b"x") * 2**25), r"input 0 \(7\) took \d\d MB of memory"),
    ],
)
def test_what_the_watch_is_for(read: object, message: str) -> None:
    def reads(given: int) -> object:
        try:
            return read(given)  # type: ignore[operator]
        except IndexError:
            raise LookupError("two\nlines") from None

    with pytest.raises(AssertionError, match=f"(?s){message}") as error:
        watch(reads, [7], refusals=(LookupError,), seconds=1.0, megabytes=20.0)
    assert str(error.value).startswith("input 0 (7)")
