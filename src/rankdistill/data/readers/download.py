"""Files from the network, checked."""

from __future__ import annotations

import os
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from ..dataset import DataError


def fetch(url: str, folder: Path, md5: str) -> Path:
    """Return a file in `folder` that torchvision has downloaded, and that has its name only when it is whole.

    Raises:
        DataError: torchvision is not installed, the download failed, or the file's MD5 is another.
    """
    try:
        from torchvision.datasets.utils import calculate_md5, download_url
    except ImportError as error:
        raise DataError("downloading needs torchvision: pip install rankdistill[train]") from error
    target = folder / url.rpartition("/")[2]
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        download_url(url, str(folder), filename=beside.name)
        if (found := calculate_md5(beside)) != md5:
            raise DataError(f"{url} was downloaded with MD5 {found}, expected {md5}: try again, or from elsewhere")
        beside.replace(target)
    except (RuntimeError, OSError, HTTPException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{url} could not be downloaded into {folder} ({reason}): try again, or put {target.name} there"
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink()
    return target
