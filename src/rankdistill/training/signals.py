"""Signals that ask a run to stop: it ends its step, saves, and exits with a code that says why."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .. import distributed

EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGUSR1: 75}
"""Signal -> exit code. 75 asks a scheduler to start the same command again (SLURM's --signal, EX_TEMPFAIL)."""


class Interrupted(Exception):
    """The run was told to stop, and has saved.

    Attributes:
        code: what the program should exit with.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stop:
    """Whether a signal has come. The first one is remembered, a second one ends the program at once."""

    def __init__(self) -> None:
        self.code = 0

    def asked(self) -> int:
        """Return the exit code of a signal that any of the processes got, or 0."""
        return distributed.any_of(self.code)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del frame
        code = EXIT_CODES[signal.Signals(number)]
        if self.code:
            os._exit(code)
        self.code = code


@contextmanager
def listening() -> Iterator[Stop]:
    """Within it, signals are heard by the `Stop` that it gives; in the main thread only, which alone may listen."""
    stop = Stop()
    before = {}
    try:
        for number in EXIT_CODES:
            if signal.getsignal(number) is signal.SIG_IGN:  # as `nohup` has it
                continue
            before[number] = signal.signal(number, stop._hear)
    except ValueError:  # not the main thread
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
