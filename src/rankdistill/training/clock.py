"""Where the time of an epoch goes, without making an accelerator wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Clock:
    """Adds up the seconds of named phases. A phase within another one stops the outer's time while it lasts.

    On CUDA, events are recorded in the stream and read at the end of the epoch; elsewhere the host's clock is read.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._on_cuda = torch.device(device).type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._open: list[str] = []
        self._since: Any = None

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time what runs within it, under the name of the phase."""
        self._switch()
        self._open.append(phase)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def take(self) -> dict[str, float]:
        """Return phase -> seconds since the last call, and begin again. Waits for the device."""
        if self._events:
            torch.cuda.synchronize()
        for phase, start, end in self._events:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + start.elapsed_time(end) / 1000.0
        found, self._seconds, self._events = self._seconds, {}, []
        return found

    def _switch(self) -> None:
        """Give the time since the last switch to the phase that was under way."""
        now = self._now()
        if self._open and self._on_cuda:
            self._events.append((self._open[-1], self._since, now))
        elif self._open:
            self._seconds[self._open[-1]] = self._seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now

    def _now(self) -> Any:
        if not self._on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event
