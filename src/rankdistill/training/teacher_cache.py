"""A teacher's logits, computed once for a stream of batches and replayed by every later run over the same stream.

Order and augmentation are functions of (seed, epoch, index), so what the teacher says about an epoch is a fact that can
be kept: one folder for each teacher and stream, named by a digest of all that matters, and in it, for each epoch and
process, an array of logits and a manifest with its SHA-256. Files are written whole, manifest last. An entry that is
torn, damaged or not what the teacher says about one batch of it is computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import BaseFileLock, FileLock, Timeout
from torch import Tensor, nn

from .. import distributed
from ..contract import Batch, Method, Output
from ..data.schedule import Batches
from ..methods.combine import EachView, Sum
from ..network import Network
from ..weights.durable import WriteError
from .kept_rows import read_rows, write_rows

CacheDtype = Literal["float16", "float32"]


@dataclass(frozen=True)
class CacheOptions:
    """How logits are kept.

    Attributes:
        dtype: "float16" halves the size and rounds the teacher's logits; "float32" keeps every bit.
        gigabytes: the most that one teacher's cache may take; epochs beyond it are computed and not kept.
    """

    dtype: CacheDtype = "float16"
    gigabytes: float = 20.0


def check_cacheable(method: Method, name: str = "the method") -> None:
    """Raise ValueError, which says why, unless the method reads nothing of the teacher but its logits."""
    if isinstance(method, Sum):
        for term, inner in method.methods.items():
            if isinstance(inner, Method):
                check_cacheable(inner, f"the loss {term!r}")
        return
    if isinstance(method, EachView):
        check_cacheable(method.method, name)
        return
    if not method.reads_teacher:
        return
    why = ""
    if method.teacher_needs:
        why = f"reads the teacher's features {', '.join(method.teacher_needs)}"
    elif type(method).forward is not Method.forward:
        why = "runs the teacher itself"
    elif method.teacher_mode != "eval":
        why = "runs the teacher on batch statistics"
    if why:
        raise ValueError(f"a teacher cache holds logits only, but {name} {why}: leave out --teacher-cache")


def digest_of_stream(stream: Batches, facts: Mapping[str, Any]) -> str:
    """Return a digest of the facts and of the pixels and labels of the first batches of three epochs."""
    total = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for epoch in (1, 2, 5):
        batch = next(iter(stream.epoch(epoch)))
        for tensor in (batch.images, batch.strong, batch.labels, batch.indices):
            if tensor is not None:
                total.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


@dataclass
class _Entry:
    """The logits of one epoch: rows [samples, views, classes] and where each sample's row is, [samples in all]."""

    rows: Tensor
    place: Tensor


@dataclass
class CachedTeacher:
    """Stands in for a teacher `Network` whose logits alone are read; `run` has the same meaning.

    Attributes:
        teacher: computes what is not there.
        stream: the run's batches; one of each replayed epoch is computed again and compared before the epoch is used.
        folder: of this teacher and stream.
        num_samples: size of the training set.
        options: dtype and limit.
        autocast: as training runs the teacher.
        tell: is told, in a sentence, what was damaged or does not fit.
        around: entered around each run, for timing.
    """

    teacher: Network
    stream: Batches
    folder: Path
    num_samples: int
    options: CacheOptions
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    tell: Callable[[str], None] = print
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    computed: int = 0
    _epoch: int = 0
    _entry: _Entry | None = None
    _seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _whole: bool = False
    _last: tuple[Batch, Output] | None = None
    _lock: BaseFileLock | None = None

    @property
    def module(self) -> nn.Module:
        """Return the teacher's module."""
        return self.teacher.module

    @property
    def uncached(self) -> Network:
        """Return the teacher that computes."""
        return self.teacher

    def start_epoch(self, epoch: int, *, first: int = 0) -> None:
        """Open the epoch's logits if they are there and right; else begin to collect them, if it is not under way."""
        self._release()
        self._epoch, self._seen = epoch, []
        self._entry = self._load(epoch)
        self._whole = first == 0 and self._entry is None and self._claimed(epoch) and self._fits(epoch)

    def end_epoch(self) -> None:
        """Write what the epoch collected, if it is the whole epoch."""
        if self._whole and self._seen:
            try:
                self._store()
            except WriteError as error:
                self.tell(f"the teacher's logits of epoch {self._epoch} are not kept: {error}")
        self._release()

    def _claimed(self, epoch: int) -> bool:
        """Return whether this run alone may keep the epoch: another one that is under way may be filling it."""
        lock = FileLock(self._paths(epoch)[0].with_suffix(".lock"), blocking=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            self.tell(
                f"another run is filling epoch {epoch} of the teacher cache {self.folder}: this one keeps nothing"
            )
            return False
        except OSError as error:
            self.tell(f"the teacher cache {self.folder} cannot be written ({error.strerror or error}): nothing is kept")
            return False
        self._lock = lock
        return True

    def _release(self) -> None:
        """Forget what was collected, and let others fill the epoch."""
        if self._lock is not None:
            self._lock.release()
        self._entry, self._seen, self._whole, self._last, self._lock = None, [], False, None, None

    def run(self, batch: Batch) -> Output:
        """Return the teacher's logits for each view of the batch."""
        if self._last is not None and self._last[0] is batch:  # another term of the same step
            return self._last[1]
        with self.around():
            self._last = batch, self._answer(batch)
            return self._last[1]

    def _answer(self, batch: Batch) -> Output:
        if self._entry is not None and batch.epoch == self._epoch and batch.indices is not None:
            return self._replay(self._entry, batch.indices)
        output = self._compute(batch)
        if self._whole and batch.epoch == self._epoch and batch.indices is not None:
            self._seen.append((batch.indices, _stacked(output, self.options.dtype)))
        return _rounded(output, self.options.dtype)

    @contextmanager
    def shared_pass(self) -> Iterator[None]:
        """Within it, `run` on one and the same batch runs the teacher once."""
        with self.teacher.shared_pass():
            yield

    def _compute(self, batch: Batch) -> Output:
        self.computed += len(batch)
        return self.teacher.run(batch)

    def _replay(self, entry: _Entry, indices: Tensor) -> Output:
        rows = entry.rows.index_select(0, entry.place.index_select(0, indices)).float()
        strong = Output(rows[:, 1]) if rows.shape[1] > 1 else None
        return Output(rows[:, 0], strong=strong)

    def _load(self, epoch: int) -> _Entry | None:
        manifest, rows, indices = self._paths(epoch)
        try:
            if not manifest.is_file():
                return None
            entry = self._placed(*read_rows(manifest, rows, indices, self.num_samples, self.options.dtype))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            self.tell(f"the teacher cache of epoch {epoch} in {self.folder} is not used ({reason}): it is made again")
            return None
        if not self._right(entry, epoch):
            self.tell(f"the teacher cache of epoch {epoch} in {self.folder} is not what the teacher says: made again")
            return None
        return entry

    def _placed(self, rows: Tensor, indices: Tensor) -> _Entry:
        device = next(self.module.parameters()).device
        place = torch.zeros(self.num_samples, dtype=torch.int64)
        place[indices] = torch.arange(len(indices))
        return _Entry(rows.to(device), place.to(device))

    @torch.no_grad()
    def _right(self, entry: _Entry, epoch: int) -> bool:
        """Compute one batch of the epoch again, another one each epoch, and compare."""
        chosen = int.from_bytes(hashlib.sha256(f"{self.folder.name}{epoch}".encode()).digest()[:8]) % len(self.stream)
        batch = next(iter(self.stream.epoch(epoch, first=chosen)))
        if batch.indices is None:
            return False
        with self.autocast():
            now = self._compute(batch)
        kept = self._replay(entry, batch.indices)
        now = _rounded(now, self.options.dtype)
        if kept.logits.shape != now.logits.shape:
            return False
        views = [(now.logits, kept.logits)]
        if now.strong is not None and kept.strong is not None:
            views.append((now.strong.logits, kept.strong.logits))
        elif now.strong is not None:
            return False
        # Other machines round otherwise, by a little.
        return all(torch.allclose(a.float(), b, rtol=2e-2, atol=2e-2 * float(a.abs().max())) for a, b in views)

    def _store(self) -> None:
        manifest, rows, indices = self._paths(self._epoch)
        arrays = {
            rows: torch.cat([part for _, part in self._seen]).cpu().numpy(),
            indices: torch.cat([part for part, _ in self._seen]).cpu().numpy(),
        }
        if not np.isfinite(arrays[rows]).all():
            self.tell(f"the teacher's logits of epoch {self._epoch} are not finite in {self.options.dtype}: not kept")
            return
        write_rows(manifest, arrays)

    def _fits(self, epoch: int) -> bool:
        used = sum(path.stat().st_size for path in self.folder.glob("*.npy")) if self.folder.is_dir() else 0
        kept = list(self.folder.glob("*-rows.npy")) if self.folder.is_dir() else []
        one = kept[0].stat().st_size if kept else 0
        if used + one <= self.options.gigabytes * 1e9:
            return True
        self.tell(
            f"the teacher cache {self.folder} takes {used / 1e9:.1f} GB, and epoch {epoch} does not fit in "
            f"{self.options.gigabytes:g} GB: it is not kept; raise --teacher-cache-gigabytes to keep it"
        )
        return False

    def _paths(self, epoch: int) -> tuple[Path, Path, Path]:
        stem = f"epoch-{epoch:05d}-{distributed.rank()}of{distributed.world_size()}"
        return tuple(self.folder / f"{stem}{end}" for end in (".json", "-rows.npy", "-indices.npy"))  # type: ignore[return-value]


def estimated_gigabytes(num_samples: int, num_classes: int, *, views: int, epochs: int, dtype: CacheDtype) -> float:
    """Return how much the whole cache of a run takes, in units of 10^9 bytes."""
    return num_samples * (num_classes * views * np.dtype(dtype).itemsize + 8) * epochs / 1e9


def _stacked(output: Output, dtype: CacheDtype) -> Tensor:
    views = [output.logits] if output.strong is None else [output.logits, output.strong.logits]
    return torch.stack(views, dim=1).to(getattr(torch, dtype))


def _rounded(output: Output, dtype: CacheDtype) -> Output:
    """Return what a replay would give, so that the run that fills a cache and those that read it are the same."""
    kept: torch.dtype = getattr(torch, dtype)
    strong = Output(output.strong.logits.to(kept).float()) if output.strong is not None else None
    return Output(output.logits.to(kept).float(), strong=strong)
