"""Archives of files, told from checkpoints by their first bytes: nothing in them is unpacked."""

from __future__ import annotations

import bz2
import lzma
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_TAR_BLOCK = 512
_PACKERS: dict[bytes, Callable[[], Any]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(31),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\0": lambda: lzma.LZMADecompressor(memlimit=2**27),
}
"""First bytes of compressed files, and what opens the first block of them."""


def archive_kind(path: Path) -> str | None:
    """Return what kind of archive of files it is, or None; torch's own files are zip archives too, and do not count."""
    with path.open("rb") as file:
        head = file.read(2**16)
    for magic, opener in _PACKERS.items():
        if head.startswith(magic):
            with suppress(zlib.error, OSError, EOFError, lzma.LZMAError):
                head = opener().decompress(head, _TAR_BLOCK)
            return "tar" if _is_tar(head) else "compressed"
    if _is_tar(head):  # first, since a zip file at the end of a tar archive makes it look like one
        return "tar"
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return None if any(name.endswith("data.pkl") for name in archive.namelist()) else "zip"
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        pass  # damaged: the reader says so
    return None


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"
