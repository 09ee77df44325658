"""The files of a data set by name, in a folder or in a zip that is never unpacked.

Only regular files are opened, and what a file claims to hold is bounded before memory is taken for it.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..dataset import DataError

MAX_BYTES = 3 * 2**26
"""The most that a file may have to be read as an image: as many bytes as 67 million uncompressed pixels."""

_TEXT_BYTES = 2**24
_AT_ONCE = 2**25  # bytes of a zip; its table of contents is read at once, and this has room for 500,000 files

# What zipfile lets through, by the byte that is wrong: an unknown version, encryption, a name, an offset.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
    *(NotImplementedError, OverflowError, RuntimeError, ValueError),
)


@dataclass(frozen=True, slots=True, eq=False)
class Files:
    """Files by their path below a folder, which may be in a zip.

    Attributes:
        where: the folder or the zip, as errors call it.
        marks: name -> what changes when the file's content does: size and time of the last change in nanoseconds, or
            size and CRC-32 in a zip.
        remedy: what errors say is to be done about a broken file.
        fetch: returns the content of a file of at most so many bytes. Threads may call it at once.
    """

    where: str
    marks: Mapping[str, str]
    remedy: str
    fetch: Callable[[str, int], bytes]

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """Return the content of a file of at most `limit` bytes.

        Raises:
            DataError: it is missing, larger, or cannot be read.
        """
        if name not in self.marks:
            raise DataError(f"{self.where} has no {name}: {self.remedy}")
        try:
            return self.fetch(name, limit)
        except _ZIP_ERRORS as error:
            raise DataError(f"{name} in {self.where} is truncated or damaged ({error}): {self.remedy}") from error
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{name} in {self.where} cannot be read ({reason}): {self.remedy}") from error

    def text(self, name: str) -> str:
        """Return the content of a text file in UTF-8; bytes that are not become U+FFFD."""
        return self.read(name, _TEXT_BYTES).decode("utf-8", errors="replace")


def in_folder(folder: Path, *, remedy: str) -> Files:
    """Return all files below a folder but hidden ones, links followed.

    Raises:
        DataError: a folder cannot be read, a link leads nowhere or back to where it lies, or something is no file.
    """
    try:
        found = dict(_walk(str(folder)))
    except OSError as error:
        raise DataError(f"{error.filename or folder} cannot be read ({error.strerror or error}): {remedy}") from error
    if wrong := sorted(name for name, mark in found.items() if mark is None):
        what = _described(folder / wrong[0])
        raise DataError(f"{wrong[0]} in {folder} is {what} ({len(wrong)} such): {remedy}")
    marks = {name: mark for name, mark in found.items() if mark is not None}
    return Files(str(folder), marks, remedy, lambda name, limit: read_regular(folder / name, limit))


def read_regular(path: Path, limit: int) -> bytes:
    """Return the content of a file of at most `limit` bytes.

    Raises:
        OSError: the file cannot be read, is no regular file, or is larger.
    """
    check_regular(path, limit)
    with path.open("rb") as file:
        return file.read(limit)


def check_regular(path: Path, limit: int) -> None:
    """Raise OSError unless this is a file of at most `limit` bytes.

    A device may have no end, and a pipe may have no writer: they must not be opened.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"it is {_described(path)}", str(path))
    if status.st_size > limit:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, and at most {limit:,} are read", str(path))


def absent(root: Path, otherwise: str) -> str:
    """Return what is wrong with a place that does not have a data set: it is not there, or it holds other files."""
    if not root.exists():
        return f"there is no {root}"
    below = (root.glob(f"{folders}*.parquet") for folders in ("", "*/", "*/*/"))
    if root.suffix == ".parquet" or any(next(found, None) for found in below):
        return f"{root} holds parquet files, as the Hugging Face hub gives them, which are not read"
    return otherwise


def mark_of(status: os.stat_result) -> str:
    """Return the mark of a file in a folder."""
    return f"{status.st_size} {status.st_mtime_ns}"


@contextmanager
def in_zip(path: Path, folder: str, *, remedy: str) -> Iterator[Files]:
    """Yield the files below a folder of a zip.

    Raises:
        DataError: the zip is broken, or has members that point outside or have the same name.
    """
    with ExitStack() as opened:
        try:
            file = opened.enter_context(_Bounded(io.FileIO(path)))
            with _no_collection():
                archive = opened.enter_context(zipfile.ZipFile(file))
        except (*_ZIP_ERRORS, OSError) as error:
            raise DataError(f"{path} is truncated or no zip ({error}): {remedy}") from error
        marks: dict[str, str] = {}
        for member in archive.infolist():
            name = member.filename
            if name.startswith("/") or "\\" in name or "/../" in f"/{name}/":
                raise DataError(f"{path} has a member {name!r}, which points outside: {remedy}")
            if name.startswith(f"{folder}/") and not member.is_dir():
                below = name.removeprefix(f"{folder}/")
                if below in marks:
                    raise DataError(f"{path} has two members {name!r}: {remedy}")
                marks[below] = f"{member.file_size} {member.CRC:08x}"

        def fetch(name: str, limit: int) -> bytes:
            member = archive.getinfo(f"{folder}/{name}")
            if member.file_size > limit:
                raise OSError(errno.EFBIG, f"it has {member.file_size:,} bytes, and at most {limit:,} are read")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile(f"it is compressed by method {member.compress_type}, not by deflate")
            with archive.open(member) as opened_member:
                # Of a length that is given: zipfile would unpack without bound what claims to be shorter than it is.
                content = opened_member.read(member.file_size)
            if len(content) != member.file_size:
                raise zipfile.BadZipFile(f"it has {len(content):,} of its {member.file_size:,} bytes")
            return content

        yield Files(str(path), marks, remedy, fetch)


class _Bounded(io.BufferedReader):
    """A zip that never gives more than `_AT_ONCE` bytes at once, whatever length it claims for its contents."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is not None and 0 <= size <= _AT_ONCE else _AT_ONCE)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hold garbage collection off, which takes a third of the time while zipfile makes 100,000 objects."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _walk(top: str) -> Iterator[tuple[str, str | None]]:
    """Yield (name, mark) of all files below a folder; the mark is None of what is neither a file nor a folder."""
    folders: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(top, "", frozenset())]
    while folders:
        folder, below, around = folders.pop()
        status = os.stat(folder)
        if (itself := (status.st_dev, status.st_ino)) in around:  # following it would have no end
            raise OSError(errno.ELOOP, "it is a link to a folder that it lies in", folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append((entry.path, f"{below}{entry.name}/", around | {itself}))
                else:
                    yield below + entry.name, mark_of(entry.stat()) if entry.is_file() else None


def _described(path: Path) -> str:
    """Return what something is that is no regular file."""
    if path.is_symlink() and not path.exists():
        return f"a link to {os.readlink(path)}, which is not there"
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return f"{kinds.get(stat.S_IFMT(path.stat().st_mode), 'something else')}, not a file"
