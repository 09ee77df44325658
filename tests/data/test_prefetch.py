import threading
from collections.abc import Iterator

import pytest

from rankdistill.data.prefetch import prefetched


def counted(stop: int, made: list[int], error: Exception | None = None) -> Iterator[int]:
    for number in range(stop):
        made.append(number)
        yield number
    if error is not None:
        raise error


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_items_keep_their_order(depth: int) -> None:
    assert list(prefetched(counted(7, []), depth)) == list(range(7))
    assert list(prefetched(counted(0, []), depth)) == []
    assert not workers()


def test_the_thread_is_ahead_but_no_more_than_its_depth() -> None:
    made: list[int] = []
    third = threading.Event()

    def items() -> Iterator[int]:
        for number in counted(10, made):
            if number == 3:
                third.set()  # the first is taken, two are ready: this is the one in hand
            yield number

    found = prefetched(items(), 2)
    assert next(found) == 0
    assert third.wait(timeout=10)
    assert made == [0, 1, 2, 3]
    found.close()  # type: ignore[attr-defined]
    assert not workers()


def test_errors_come_in_their_turn() -> None:
    found = prefetched(counted(2, [], KeyError("broken")), 5)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(KeyError, match="broken"):
        next(found)
    assert not workers()
