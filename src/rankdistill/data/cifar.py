"""CIFAR-10 and CIFAR-100: 50,000 training and 10,000 test images, 32 x 32 RGB, 10 and 100 classes.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009). The "python version" of
https://www.cs.toronto.edu/~kriz/cifar.html, as its archive (which is read without unpacking it) or its folder.
"""

from __future__ import annotations

import hashlib
import tarfile
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .download import fetch
from .images import check_size, resized
from .records import SIDE, Record
from .sets import DataError, DataSet, Split

# Over all pixels of the training images. Another std for CIFAR-10, (0.2023, 0.1994, 0.2010), is the mean of the
# images' own.
MEAN_10, STD_10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
MEAN_100, STD_100 = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)

_SITE = "https://www.cs.toronto.edu/~kriz"


def cifar10(
    root: Path | None = None,
    *,
    image_size: int | None = None,
    num_classes: int | None = None,
    download: bool = False,
    cache: Path | None = None,
) -> DataSet:
    """Return CIFAR-10, by default 32 x 32. See `sets.Load`, and `cifar100` for what is checked."""
    del cache
    return _load(_CIFAR10, root, image_size, download).first_classes(num_classes)


def cifar100(
    root: Path | None = None,
    *,
    image_size: int | None = None,
    num_classes: int | None = None,
    download: bool = False,
    cache: Path | None = None,
) -> DataSet:
    """Return CIFAR-100 with its 100 fine classes, by default 32 x 32. See `sets.Load`.

    The form of every file is checked. MD5 tells the official files from others: a file that has an official one's
    length and another MD5 is damaged, which is an error; as many images as in an official file under another MD5 are
    another set, which is a warning; fewer or more images are read, so that small sets in the same format can be.

    Args:
        root: the archive (.tar.gz), the folder that it holds, or the folder that holds either of them.
        image_size: other sizes than 32 are made by Pillow's bilinear filter, as by torchvision's Resize.
        num_classes: keep only the first so many classes; None keeps all.
        download: if neither archive nor folder is in the folder `root`, fetch the archive into it (169 MB).
        cache: not needed, since nothing is decoded.

    Raises:
        DataError: a file is missing, truncated, damaged or of another form, or an argument is out of range.
    """
    del cache
    return _load(_CIFAR100, root, image_size, download).first_classes(num_classes)


@dataclass(frozen=True, slots=True)
class _Official:
    """An official file: its length in bytes, its MD5, and its number of images."""

    length: int
    md5: str
    images: int = 0


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the two sets have different.

    Attributes:
        name: its key in `DATASETS`.
        archive: its name.
        md5: of the archive.
        folder: what the archive holds.
        train, test: files with images.
        meta: the file with names.
        names: where the names are in `meta`, by label.
        labels: where the labels are in files with images.
        num_classes: of the set.
        mean, std: what images are normalised with.
        official: by name of the file.
    """

    name: str
    archive: str
    md5: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    names: str
    labels: str
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    official: Mapping[str, _Official]

    @property
    def url(self) -> str:
        return f"{_SITE}/{self.archive}"

    @property
    def remedy(self) -> str:
        return f"get {self.url} again, and give it or the folder that it holds"


_CIFAR10 = _Layout(
    name="cifar10",
    archive="cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test=("test_batch",),
    meta="batches.meta",
    names="label_names",
    labels="labels",
    num_classes=10,
    mean=MEAN_10,
    std=STD_10,
    official={
        "data_batch_1": _Official(31_035_704, "c99cafc152244af753f735de768cd75f", 10_000),
        "data_batch_2": _Official(31_035_320, "d4bba439e000b95fd0a9bffe97cbabec", 10_000),
        "data_batch_3": _Official(31_035_999, "54ebc095f3ab1f0389bbae665268c751", 10_000),
        "data_batch_4": _Official(31_035_696, "634d18415352ddfa80567beed471001a", 10_000),
        "data_batch_5": _Official(31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb", 10_000),
        "test_batch": _Official(31_035_526, "40351d587109b95175f43aff81a1287e", 10_000),
        "batches.meta": _Official(158, "5ff9c542aee3614f3951f8cda6e48888"),
    },
)

_CIFAR100 = _Layout(
    name="cifar100",
    archive="cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
    train=("train",),
    test=("test",),
    meta="meta",
    names="fine_label_names",
    labels="fine_labels",
    num_classes=100,
    mean=MEAN_100,
    std=STD_100,
    official={
        "train": _Official(155_249_918, "16019d7e3df5f24257cddd939b257f8d", 50_000),
        "test": _Official(31_049_908, "f0ef6b0ae62326f3e7ffdfab6717acfc", 10_000),
        "meta": _Official(1_473, "7973b15100ade9c7d40fb424638fde48"),
    },
)


def _load(layout: _Layout, root: Path | None, image_size: int | None, download: bool) -> DataSet:
    if root is None:
        raise DataError(f"{layout.name} needs a root: {layout.archive}, the folder that it holds, or where to put it")
    size = SIDE if image_size is None else image_size
    check_size(size)
    place = _find(layout, root)
    if place is None and download:
        place = fetch(layout.url, root, layout.md5)
    if place is None:
        wrong = f"{root} has neither {layout.folder} nor {layout.archive}" if root.exists() else f"there is no {root}"
        raise DataError(f"{wrong}: give {layout.archive} from {_SITE}, or the folder that it holds")
    contents = _in_folder(layout, place) if place.is_dir() else _in_archive(layout, place)
    if missing := [name for name in layout.official if name not in contents]:
        raise DataError(f"{place} lacks {' and '.join(missing)}: {layout.remedy}")
    names = _record(layout, layout.meta, contents, place).names(layout.names, layout.num_classes)
    train, test = (
        _split(layout, [_record(layout, name, contents, place) for name in files], size)
        for files in (layout.train, layout.test)
    )
    return DataSet(layout.name, train, test, names, layout.mean, layout.std)


def _find(layout: _Layout, root: Path) -> Path | None:
    """Return the archive, or the folder that has any of the files."""
    if root.is_file():
        return root
    for folder in (root / layout.folder, root):
        if any((folder / name).is_file() for name in layout.official):
            return folder
    return root / layout.archive if (root / layout.archive).is_file() else None


def _in_folder(layout: _Layout, folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in layout.official if (folder / name).is_file()}


def _in_archive(layout: _Layout, path: Path) -> dict[str, bytes]:
    """Return name -> content of the files. Members are only read, so none can be written to where it should not."""
    contents = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                if folder == layout.folder and name in layout.official and member.isreg():
                    file = archive.extractfile(member)
                    contents[name] = file.read() if file else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is truncated or no archive ({error}): {layout.remedy}") from error
    return contents


def _record(layout: _Layout, name: str, contents: Mapping[str, bytes], place: Path) -> Record:
    official, content, where = layout.official[name], contents[name], f"{name} in {place}"
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != official.md5 and len(content) == official.length:
        raise DataError(f"{where} is damaged (MD5 {found}, expected {official.md5}): {layout.remedy}")
    record = Record.read(content, where=where, remedy=layout.remedy)
    if found != official.md5 and name != layout.meta and len(record.images()) == official.images:
        warnings.warn(
            f"{where} is not the official file (MD5 {found}, expected {official.md5}): results on it cannot be "
            "compared with published ones",
            stacklevel=2,
        )
    return record


def _split(layout: _Layout, records: Sequence[Record], size: int) -> Split:
    images = [record.images() for record in records]
    labels = [record.labels(layout.labels, layout.num_classes) for record in records]
    for record, some, their in zip(records, images, labels, strict=True):
        if len(some) != len(their):
            raise DataError(f"{record.where} has {len(some)} images and {len(their)} labels: {layout.remedy}")
    pixels = resized(torch.cat(images), size)
    return Split(pixels.permute(0, 3, 1, 2), torch.cat(labels))
