"""Which sample is in which step on which process: functions of the seed, so that any step can be the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

from jaxtyping import Int64
from torch import Tensor

from ..contract import Batch
from .random import Stream, permutation


@runtime_checkable
class Batches(Protocol):
    """What a training loop reads: `Loader` and `TransformLoader`, or anybody's."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    @property
    def num_samples(self) -> int:
        """Return the number of samples in an epoch, of all processes together."""

    def epoch(self, number: int, *, first: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch, counted from 1, from batch `first` on."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The batches of every epoch, shared out among processes.

    The batch of a step is the same for any number of processes. Process `rank` gets a contiguous part of it; parts
    differ by at most one sample, the first ones being larger.

    Attributes:
        num_samples: in an epoch.
        batch_size: samples in a step of all processes together. The last batch of an epoch is smaller if need be; a
            single sample left over joins the batch before it, since batch norm and losses over pairs of samples cannot
            work on one.
        seed: of the order, in [0, 2^64).
        rank: of this process, counted from 0.
        world_size: how many processes there are.

    Raises:
        ValueError: a number is out of range, or some process would get no sample in the last batch of an epoch.
    """

    num_samples: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError("the split is empty: give at least one sample")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}: it must be at least 1")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank is {self.rank} of world_size {self.world_size}: ranks count from 0")
        start, end = self._whole(len(self) - 1)
        if (smallest := min(end - start, self.batch_size)) < self.world_size:
            raise ValueError(
                f"the smallest batch has {smallest} of {self.num_samples} samples for {self.world_size} processes: "
                f"give another batch_size than {self.batch_size}, so that each process gets one"
            )

    def __len__(self) -> int:
        """Return the number of steps in an epoch."""
        full, rest = divmod(self.num_samples, self.batch_size)
        return max(1, full + (rest > 1))

    def order(self, epoch: int) -> Int64[Tensor, " samples"]:
        """Return the positions of the samples in the order of an epoch, for all processes together."""
        return permutation(self.seed, epoch, self.num_samples)

    def part(self, step: int) -> slice:
        """Return what this process gets of the order in a step of an epoch, counted from 0."""
        start, end = self._whole(step)
        share, extra = divmod(end - start, self.world_size)
        first = start + self.rank * share + min(self.rank, extra)
        return slice(first, first + share + (self.rank < extra))

    def check(self, epoch: int, first: int) -> None:
        """Raise ValueError unless there is such an epoch and such a step in it."""
        if epoch < 1 or not 0 <= first < len(self):
            raise ValueError(
                f"epoch {epoch}, batch {first} does not exist: epochs count from 1, batches to {len(self) - 1}"
            )

    def _whole(self, step: int) -> tuple[int, int]:
        start = step * self.batch_size
        return start, start + self.batch_size if step < len(self) - 1 else self.num_samples


@dataclass(frozen=True, slots=True)
class HeldOutSchedule:
    """Which held-out samples go with which step: pass after pass over all of them, each in its own random order.

    A batch may hold the end of one pass and the beginning of the next.

    Attributes:
        num_samples: held out.
        batch_size: in a step of all processes together, at most `num_samples`.
        seed: of the orders.
        rank: of this process; its part of a batch is cut as by `Schedule`.
        world_size: how many processes there are.

    Raises:
        ValueError: a number is out of range.
    """

    num_samples: int
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not self.world_size <= self.batch_size <= self.num_samples:
            raise ValueError(
                f"held_out_batch_size is {self.batch_size}: give {self.world_size} (one per process) to "
                f"{self.num_samples} (all that are held out)"
            )

    def draw(self, step: int) -> list[tuple[int, Int64[Tensor, " samples"]]]:
        """Return (number of the pass, samples of it) for a step counted from 0: one or two pairs, none empty."""
        whole = Schedule(self.batch_size, self.batch_size, self.seed, self.rank, self.world_size).part(0)
        start, end = (step * self.batch_size + edge for edge in (whole.start, whole.stop))
        drawn = []
        while start < end:
            turn, place = divmod(start, self.num_samples)
            taken = min(end - start, self.num_samples - place)
            drawn.append((turn, _pass_order(self.seed, turn, self.num_samples)[place : place + taken]))
            start += taken
        return drawn


@lru_cache(maxsize=2)
def _pass_order(seed: int, turn: int, size: int) -> Int64[Tensor, " size"]:
    return permutation(seed, turn, size, stream=Stream.HELD_OUT_ORDER)
