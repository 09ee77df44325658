"""Where the time of an epoch goes, without making an accelerator wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Adds up the seconds of named phases.

    On CUDA, events are recorded in the stream and read at the end of the epoch; elsewhere the host's clock is read.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._on_cuda = torch.device(device).type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time what runs within it, under the name of the phase."""
        if self._on_cuda:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            start.record()
            try:
                yield
            finally:
                end.record()
                self._events.append((phase, start, end))
            return
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - began

    def take(self) -> dict[str, float]:
        """Return phase -> seconds since the last call, and begin again. Waits for the device."""
        if self._events:
            torch.cuda.synchronize()
        for phase, start, end in self._events:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + start.elapsed_time(end) / 1000.0
        found, self._seconds, self._events = self._seconds, {}, []
        return found
