"""Signals that end the program where no run listens that has to save; what is imported meanwhile is imported whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGUSR1: 75}
"""Signal -> exit code, as in `training.signals`, which takes seconds to import."""


class Told(BaseException):
    """The program was told to stop.

    Attributes:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = signal.Signals(number)


@contextmanager
def stopping() -> Iterator[None]:
    """Within it a signal raises `Told`, unless it was ignored before, as `nohup` has it; in the main thread only."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Told(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, leave) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def whole() -> Iterator[None]:
    """Within it signals wait: an exception in the middle of an import of torch can be swallowed there."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
