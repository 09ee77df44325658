"""Tiny-ImageNet-200: 100,000 training and 10,000 validation images, 64 x 64 RGB, 200 classes of ImageNet.

Stanford's course CS231n (Le and Yang, Tiny ImageNet Visual Recognition Challenge, 2015). Read from the official zip
without unpacking it, or from the folder that it holds. The official test images have no labels, so the validation
images are the test part, as in papers. Labels follow the sorted WordNet ids, as in published checkpoints, and not
the order of wnids.txt. About 1.7 % of the images are grey JPEGs; they become RGB.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .sets import DataError, DataSet, Split, check_num_classes

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"

# mdistiller's constants, which the field uses. The std is the mean of the images' own; over all pixels it is
# (0.2764, 0.2689, 0.2816).
MEAN = (0.4802, 0.4481, 0.3975)
STD = (0.2302, 0.2265, 0.2262)

_FOLDER = "tiny-imagenet-200"
_ANNOTATIONS = "val/val_annotations.txt"
_SIDE = 64


def load(
    root: Path | None = None,
    *,
    image_size: int | None = None,
    num_classes: int | None = None,
    download: bool = False,
) -> DataSet:
    """Return Tiny-ImageNet, by default 64 x 64. See `sets.Load`.

    The classes are those of wnids.txt, and each needs its folder of training images; how many images it has does not
    matter. Class names come from words.txt, or are the WordNet ids where that is missing.

    Args:
        root: the zip, the folder tiny-imagenet-200 (which has wnids.txt), or the folder that holds it.
        image_size: other sizes than 64 are made by Pillow's bilinear filter, which averages over the area when it
            reduces. It is what torchvision's Resize(32) does by default, so what papers that train at 32 x 32 used.
        num_classes: read only the first so many classes; the others' images are not decoded.
        download: not offered.

    Raises:
        DataError: the files are missing, damaged or of another layout, or an argument is out of range.
    """
    if download:
        raise DataError(f"tiny_imagenet is not downloaded here: fetch {URL} and give the zip as root")
    if root is None:
        raise DataError(f"tiny_imagenet needs a root: the zip from {URL}, or the folder that it holds")
    size = _SIDE if image_size is None else image_size
    if size < 1:
        raise DataError(f"image_size is {size}: give 1 or more pixels")
    with _opened(root) as source:
        wnids = sorted(_text(source, "wnids.txt").split())
        if len(wnids) < 2:
            raise DataError(f"wnids.txt in {source.where} lists {len(wnids)} class: at least 2 are needed")
        parts = _train_files(source, wnids), _test_files(source, wnids)
        if num_classes is not None:
            check_num_classes("tiny_imagenet", num_classes, len(wnids))
            wnids = wnids[:num_classes]
        kept = ([(name, label) for name, label in part if label < len(wnids)] for part in parts)
        train, test = (_decoded(source, part, size) for part in kept)
        return DataSet("tiny_imagenet", train, test, _class_names(source, wnids), MEAN, STD)


@dataclass(frozen=True, slots=True)
class _Source:
    """The files of the data set by their path below its folder, which may be in a zip.

    Attributes:
        where: what errors call it.
        names: of all files.
        read: returns the content of a file.
    """

    where: str
    names: frozenset[str]
    read: Callable[[str], bytes]


@contextmanager
def _opened(root: Path) -> Iterator[_Source]:
    if root.is_dir():
        folder = root / _FOLDER if (root / _FOLDER).is_dir() else root
        if not (folder / "wnids.txt").is_file():  # before a walk that may be long
            raise DataError(f"{folder} has no wnids.txt: give the zip from {URL}, or the folder that it holds")
        found = (Path(parent, file) for parent, _, files in os.walk(folder) for file in files)
        names = frozenset(path.relative_to(folder).as_posix() for path in found)
        yield _Source(str(folder), names, lambda name: (folder / name).read_bytes())
    elif root.is_file():
        try:
            archive = zipfile.ZipFile(root)
        except zipfile.BadZipFile as error:
            raise DataError(f"{root} is truncated or no zip ({error}): fetch {URL} again") from error
        with archive:
            names = frozenset(archive.namelist())
            _check_inside(root, names)
            top = f"{_FOLDER}/"
            inside = frozenset(name.removeprefix(top) for name in names if name.startswith(top))
            yield _Source(str(root), inside, lambda name: archive.read(top + name))
    else:
        raise DataError(f"there is no {root}: give the zip from {URL}, or the folder that it holds")


def _check_inside(root: Path, names: Iterable[str]) -> None:
    for name in names:
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise DataError(f"{root} has a member {name!r}, which points outside: fetch {URL} again")


def _read(source: _Source, name: str) -> bytes:
    if name not in source.names:
        raise DataError(
            f"{source.where} has no {name}: fetch {URL} again, and give the zip or the folder that it holds"
        )
    try:
        return source.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{name} in {source.where} is truncated or damaged ({error}): fetch {URL} again") from error


def _text(source: _Source, name: str) -> str:
    return _read(source, name).decode("utf-8", errors="replace")


def _train_files(source: _Source, wnids: Sequence[str]) -> list[tuple[str, int]]:
    """Return (name, label) of the training images, by label and then by name, as torchvision's ImageFolder."""
    files: dict[str, list[str]] = {wnid: [] for wnid in wnids}
    for name in source.names:
        match name.split("/"):
            case ["train", wnid, "images", file] if _is_image(file):
                files.setdefault(wnid, []).append(name)
    wrong = [f"images of {wnid}" for wnid in sorted(files.keys() - set(wnids))]
    wrong += [f"no images of {wnid}" for wnid in wnids if not files[wnid]]
    if wrong:
        raise DataError(
            f"{source.where} lists {len(wnids)} classes in wnids.txt, but train has {wrong[0]} "
            f"({len(wrong)} such classes): fetch {URL} again"
        )
    return [(name, label) for label, wnid in enumerate(wnids) for name in sorted(files[wnid])]


def _test_files(source: _Source, wnids: Sequence[str]) -> list[tuple[str, int]]:
    """Return (name, label) of the validation images in the order of val_annotations.txt."""
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    files: dict[str, int] = {}
    for number, line in enumerate(_text(source, _ANNOTATIONS).splitlines(), start=1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in label_of:
            raise DataError(
                f"line {number} of {_ANNOTATIONS} in {source.where} has the class {wnid!r}, which wnids.txt lacks"
            )
        files[f"val/images/{file}"] = label_of[wnid]
    present = {name for name in source.names if name.startswith("val/images/") and _is_image(name)}
    if files.keys() != present:
        first = min(files.keys() ^ present)
        raise DataError(f"only one of {_ANNOTATIONS} and val/images in {source.where} has {first}: fetch {URL} again")
    return list(files.items())


def _class_names(source: _Source, wnids: Sequence[str]) -> tuple[str, ...]:
    if "words.txt" not in source.names:
        return tuple(wnids)
    words = dict(line.split("\t", 1) for line in _text(source, "words.txt").splitlines() if "\t" in line)
    return tuple(words.get(wnid, wnid) for wnid in wnids)


def _decoded(source: _Source, files: Sequence[tuple[str, int]], size: int) -> Split:
    """Return the images of (name, label), in this order."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("tiny_imagenet needs Pillow: pip install rankdistill[train]") from error
    pixels = np.empty((len(files), size, size, 3), dtype=np.uint8)
    # In one thread: for images as small as these Pillow hardly leaves Python, and more threads were no faster.
    for position, (name, _) in enumerate(files):
        content = _read(source, name)
        try:
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as encoded:
                image = encoded.convert("RGB")
        except OSError as error:
            raise DataError(f"{name} in {source.where} is no whole JPEG: fetch {URL} again") from error
        if image.size != (_SIDE, _SIDE):
            found = f"{image.width} x {image.height}"
            raise DataError(f"{name} in {source.where} has {found} pixels, not {_SIDE} x {_SIDE}: fetch {URL} again")
        if size != _SIDE:
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        pixels[position] = np.asarray(image)
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    return Split(torch.from_numpy(pixels).permute(0, 3, 1, 2), labels)


def _is_image(name: str) -> bool:
    return name.lower().endswith(".jpeg")
