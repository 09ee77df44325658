import inspect
import os
import resource
import socket
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rankdistill.data import DataError
from rankdistill.data.readers.files import MAX_BYTES, in_folder, in_zip, read_regular

MEGABYTE = 2**20


@contextmanager
def little_memory(megabytes: int) -> Iterator[None]:
    """Within it, this process may take only so much more of its address space."""
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * MEGABYTE, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:  # a short name, which a socket needs
        yield Path(path)


def test_names_and_marks(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("1", "a/2", "a/b/3"):
        (tmp_path / name).write_bytes(name.encode())
    files = in_folder(tmp_path, remedy="do something")
    assert sorted(files.marks) == ["1", "a/2", "a/b/3"]
    assert [files.read(name) for name in files.marks] == [name.encode() for name in files.marks]
    before = dict(files.marks)
    os.utime(tmp_path / "1", ns=(1, 1))
    assert {name for name, mark in in_folder(tmp_path, remedy="").marks.items() if mark != before[name]} == {"1"}
    with pytest.raises(DataError, match="has no 4: do something"):
        files.read("4")


def test_folders_in_each_other_are_no_recursion(tmp_path: Path) -> None:
    (tmp_path / "/".join("d" * 200)).mkdir(parents=True)
    (tmp_path / "/".join("d" * 200) / "file").write_bytes(b"")
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        found = list(in_folder(tmp_path, remedy="").marks)
    finally:
        sys.setrecursionlimit(before)
    assert found == ["d/" * 200 + "file"]


def test_what_is_no_file_is_refused_and_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "socket"))
    server.close()
    for path, what in ((folder / "pipe", "a pipe"), (folder / "socket", "a socket"), (Path("/dev/zero"), "a device")):
        with pytest.raises(OSError, match=f"it is {what}, not a file"):
            read_regular(path, MAX_BYTES)
    with pytest.raises(OSError, match="it is a folder, not a file"):
        read_regular(folder, MAX_BYTES)
    with pytest.raises(DataError, match=r"pipe in .* is a pipe, not a file \(2 such\): take it out"):
        in_folder(folder, remedy="take it out")


def test_a_pipe_that_came_after_the_list_of_files_is_not_waited_for(folder: Path) -> None:
    (folder / "x").write_bytes(b"")
    files = in_folder(folder, remedy="try again")
    (folder / "x").unlink()
    with pytest.raises(DataError, match=r"x in .* cannot be read \(No such file or directory\): try again"):
        files.read("x")
    os.mkfifo(folder / "x")
    with pytest.raises(DataError, match=r"x in .* cannot be read \(it is a pipe, not a file\): try again"):
        files.read("x")


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(3 * 2**30)  # a hole: it takes no room
    files = in_folder(tmp_path, remedy="make it smaller")
    with (
        little_memory(64),
        pytest.raises(DataError, match=r"x in .* cannot be read \(it has 3,221,225,472 bytes, and at"),
    ):
        files.read("x")
    with little_memory(64), pytest.raises(DataError, match=r"at most 16,777,216 are read\): make it smaller"):
        files.text("x")


def zip_of(path: Path, name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)
    return path


def test_zips(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", "in/a/1", b"one")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("out/2", b"two")
    with in_zip(path, "in", remedy="") as files:
        assert dict(files.marks) == {"a/1": f"3 {zlib.crc32(b'one'):08x}"}
        assert files.read("a/1") == b"one"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_named(tmp_path: Path, method: int) -> None:
    path = zip_of(tmp_path / "x.zip", "in/a", b"one", method)
    with (
        in_zip(path, "in", remedy="") as files,
        pytest.raises(DataError, match=rf"compressed by method {method}, not by"),
    ):
        files.read("a")


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", "in/a", b"one")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("in/a", b"two")
    with pytest.raises(DataError, match=r"x.zip has two members 'in/a'"), in_zip(path, "in", remedy=""):
        pass


def test_a_member_of_gigabytes_of_zeros_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("in/a", "w", force_zip64=True) as file,
    ):
        for _ in range(205):
            file.write(bytes(MEGABYTE))
    large = pytest.raises(DataError, match=r"a in .* cannot be read \(it has 214,958,080 bytes")
    with in_zip(path, "in", remedy="") as files, little_memory(64), large:
        files.read("a")
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    struct.pack_into("<L", content, place + 24, 1000)  # the length that the table of contents claims
    path.write_bytes(content)
    damaged = pytest.raises(DataError, match=r"a in .* is truncated or damaged")
    with in_zip(path, "in", remedy="") as files, little_memory(64), damaged:
        files.read("a")


def test_a_table_of_contents_of_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with path.open("wb") as file:
        file.truncate(2**30)
        file.seek(0, 2)
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, 2**30, 0, 0))
    with (
        little_memory(128),
        pytest.raises(DataError, match=r"x.zip is truncated or no zip"),
        in_zip(path, "", remedy=""),
    ):
        pass


def test_a_version_that_nobody_knows(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", "in/a", b"one")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 99
    path.write_bytes(content)
    unknown = pytest.raises(DataError, match=r"x.zip is truncated or no zip \(zip file version 9.9\)")
    with unknown, in_zip(path, "in", remedy=""):
        pass
