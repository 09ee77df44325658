"""One run at a time in a folder: a lock that dies with its process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .. import distributed
from ..weights.durable import WriteError


class Refused(ValueError):
    """A run cannot start in its folder. The message says why, and what to do."""


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, `.lock` in it; process 0 holds it for all. Files that killed runs left are removed.

    The lock is flock's: the system lets go of it when the process ends, however it ends. On Linux it holds between
    machines over NFS as well, where the server has its lock service.

    Raises:
        Refused: another process holds it. WriteError: the folder cannot be written.
    """
    lock = FileLock(folder / ".lock", blocking=False)
    distributed.on_first(lambda: _acquire(lock, folder))
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise Refused(f"a run is under way in {folder}: wait for its end, or stop it") from error
    except OSError as error:
        raise WriteError(
            f"{folder} cannot be written ({error.strerror or error}): choose another folder by --runs"
        ) from error
    for left in folder.glob(".*.tmp"):
        left.unlink(missing_ok=True)
