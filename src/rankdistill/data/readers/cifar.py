"""CIFAR-10 and CIFAR-100: 50,000 training and 10,000 test images, 32 x 32 RGB, 10 and 100 classes.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009). The "python version" of
https://www.cs.toronto.edu/~kriz/cifar.html, as its archive (which is read without unpacking it) or its folder.

The files are pickles, which can call any function of Python. So only the official files are read: the MD5 of each is
compared with torchvision's table before it is unpickled. torchvision's own readers do that too, but they want an
unpacked folder, and do not say which file is wrong.
"""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..dataset import DataError, DataSet, Request, Split
from .download import fetch
from .files import absent, check_regular, read_regular
from .images import resized

# Over all pixels of the training images. Another std for CIFAR-10, (0.2023, 0.1994, 0.2010), is the mean of the
# images' own.
MEAN_10, STD_10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
MEAN_100, STD_100 = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)

_SIDE = 32
_LARGEST = 2**28  # bytes; the largest official file has 169 million


def cifar10(request: Request) -> DataSet:
    """Return CIFAR-10 with its 10 classes, by default 32 x 32.

    See `cifar100` for the arguments.
    """
    return _load("cifar10", "CIFAR10", request, MEAN_10, STD_10)


def cifar100(request: Request) -> DataSet:
    """Return CIFAR-100 with its 100 fine classes, by default 32 x 32.

    Args:
        request: its `root` is the archive (.tar.gz), the folder that the archive holds, or the folder that holds either
            of them. An `image_size` other than 32 is made by Pillow's bilinear filter, as by torchvision's Resize. With
            `download`, an archive that is missing is fetched into the folder `root` (169 MB).

    Raises:
        DataError: a file is missing or is not the official one, or an argument is out of range.
    """
    return _load("cifar100", "CIFAR100", request, MEAN_100, STD_100)


def _load(name: str, kind: str, request: Request, mean: tuple[float, ...], std: tuple[float, ...]) -> DataSet:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise DataError(f"{name} is read with torchvision's table of files: pip install rankdistill[train]") from error
    known, root = getattr(datasets, kind), request.root  # the names and MD5s of all files
    if root is None:
        raise DataError(f"{name} needs a root: {known.filename}, the folder that it holds, or where to put it")
    sums = dict([*known.train_list, *known.test_list, (known.meta["filename"], known.meta["md5"])])
    folders = [folder for folder in (root / known.base_folder, root) if any((folder / n).is_file() for n in sums)]
    archive = root if root.is_file() and root.suffix != ".parquet" else root / known.filename
    remedy = f"get {known.url} again; images of your own are read by the data sets imagefolder and csv"
    if not folders and not archive.is_file():
        if not request.download:
            wrong = absent(root, f"{root} has neither {known.base_folder} nor {known.filename}")
            raise DataError(f"{wrong}: give {known.filename} from {known.url}, or the folder in it")
        archive = fetch(known.url, root, known.tgz_md5)
    place = folders[0] if folders else archive
    contents = (
        _in_folder(place, sums) if folders else _in_archive(place, f"{known.base_folder}/", known.tgz_md5, remedy)
    )
    if missing := [file for file in sums if file not in contents]:
        raise DataError(f"{place} lacks {' and '.join(missing)}: {remedy}")
    for file, expected in sums.items():
        _check(hashlib.md5(contents[file], usedforsecurity=False).hexdigest(), expected, f"{file} in {place}", remedy)
    entries = {file: pickle.loads(contents[file], encoding="latin1") for file in sums}
    train, test = (
        _split([entries[file] for file, _ in files], request.size(_SIDE))
        for files in (known.train_list, known.test_list)
    )
    names = tuple(entries[known.meta["filename"]][known.meta["key"]])
    return DataSet(name, train, test, names, mean, std).first_classes(request.num_classes)


def _in_folder(folder: Path, sums: Mapping[str, str]) -> dict[str, bytes]:
    return {file: read_regular(folder / file, _LARGEST) for file in sums if (folder / file).is_file()}


def _in_archive(path: Path, folder: str, md5: str, remedy: str) -> dict[str, bytes]:
    check_regular(path, _LARGEST)
    with path.open("rb") as archive:
        _check(hashlib.file_digest(archive, "md5").hexdigest(), md5, str(path), remedy)
    with tarfile.open(path) as members:  # in their order, since seeking back would unpack everything anew
        read = ((member.name, members.extractfile(member)) for member in members)
        return {name.removeprefix(folder): file.read() for name, file in read if file is not None}


def _check(found: str, expected: str, where: str, remedy: str) -> None:
    if found != expected:
        raise DataError(f"{where} is not the official file, or is damaged (MD5 {found}, expected {expected}): {remedy}")


def _split(entries: list[Mapping[str, Any]], size: int) -> Split:
    """Return the images and labels of some files, one after the other."""
    pixels = np.concatenate([entry["data"] for entry in entries]).reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    labels = np.concatenate([entry.get("fine_labels", entry.get("labels")) for entry in entries])
    images = resized(torch.from_numpy(pixels.copy()), size)
    return Split(images.permute(0, 3, 1, 2), torch.from_numpy(labels))
