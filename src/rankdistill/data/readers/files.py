"""The files of a data set by name, in a folder or in a zip that is never unpacked."""

from __future__ import annotations

import gc
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..dataset import DataError


@dataclass(frozen=True, slots=True)
class Files:
    """Files by their path below a folder, which may be in a zip.

    Attributes:
        where: the folder or the zip, as errors call it.
        marks: name -> what changes when the file's content does: size and time of the last change in nanoseconds, or
            size and CRC-32 in a zip.
        remedy: what errors say is to be done about a broken file.
        fetch: returns the content of a file. Threads may call it at once.
    """

    where: str
    marks: Mapping[str, str]
    remedy: str
    fetch: Callable[[str], bytes]

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            DataError: it is missing or cannot be read.
        """
        if name not in self.marks:
            raise DataError(f"{self.where} has no {name}: {self.remedy}")
        try:
            return self.fetch(name)
        # RuntimeError is zipfile's for encryption and compression that it does not know.
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise DataError(f"{name} in {self.where} is truncated or damaged ({error}): {self.remedy}") from error

    def text(self, name: str) -> str:
        """Return the content of a text file in UTF-8; bytes that are not become U+FFFD."""
        return self.read(name).decode("utf-8", errors="replace")


def in_folder(folder: Path, *, remedy: str) -> Files:
    """Return all files below a folder but hidden ones, links followed.

    Raises:
        DataError: a folder cannot be read.
    """
    try:
        marks = dict(_walk(str(folder), ""))
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error}): {remedy}") from error
    return Files(str(folder), marks, remedy, lambda name: (folder / name).read_bytes())


def mark_of(status: os.stat_result) -> str:
    """Return the mark of a file in a folder."""
    return f"{status.st_size} {status.st_mtime_ns}"


@contextmanager
def in_zip(path: Path, folder: str, *, remedy: str) -> Iterator[Files]:
    """Yield the files below a folder of a zip.

    Raises:
        DataError: the zip is broken, or has members that point outside.
    """
    try:
        with _no_collection():
            archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is truncated or no zip ({error}): {remedy}") from error
    with archive:
        marks = {}
        for member in archive.infolist():
            name = member.filename
            if name.startswith("/") or "\\" in name or "/../" in f"/{name}/":
                raise DataError(f"{path} has a member {name!r}, which points outside: {remedy}")
            if name.startswith(f"{folder}/") and not member.is_dir():
                marks[name.removeprefix(f"{folder}/")] = f"{member.file_size} {member.CRC:08x}"
        yield Files(str(path), marks, remedy, lambda name: archive.read(f"{folder}/{name}"))


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


def _walk(folder: str, below: str) -> Iterator[tuple[str, str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{below}{entry.name}/")
            elif entry.is_file():
                yield below + entry.name, mark_of(entry.stat())
