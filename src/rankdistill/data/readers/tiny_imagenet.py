"""Tiny-ImageNet-200: 100,000 training and 10,000 validation images, 64 x 64 RGB, 200 classes of ImageNet.

Stanford's course CS231n (Le and Yang, Tiny ImageNet Visual Recognition Challenge, 2015). Read from the official zip
without unpacking it, or from the folder that it holds. The official test images have no labels, so the validation
images are the test part, as in papers. Labels follow the sorted WordNet ids, as in published checkpoints, and not
the order of wnids.txt. About 1.7 % of the images are grey JPEGs; they become RGB.

This file is longer than those of other data sets, since people keep this one in four layouts.

The file is long because the set comes as a folder or a zip, and its validation images in two layouts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..dataset import DataError, DataSet, Request
from .decoded import read_parts
from .download import fetch
from .files import Files, absent, in_folder, in_zip
from .images import Decode, UndecodableError, is_image, open_rgb, square
from .lists import tell_absent

if TYPE_CHECKING:
    from PIL.Image import Image

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"

# mdistiller's constants, which the field uses. The std is the mean of the images' own; over all pixels it is
# (0.2764, 0.2689, 0.2816).
MEAN = (0.4802, 0.4481, 0.3975)
STD = (0.2302, 0.2265, 0.2262)

_FOLDER = "tiny-imagenet-200"
_ZIP = f"{_FOLDER}.zip"
_ANNOTATIONS = "val/val_annotations.txt"
_SIDE = 64
_REMEDY = f"fetch {URL} again, and give the zip or the folder that it holds"


def load(request: Request) -> DataSet:
    """Return Tiny-ImageNet, by default 64 x 64.

    The classes are those of wnids.txt, and each needs its folder of training images; how many images it has does not
    matter. Class names come from words.txt, or are the WordNet ids where that is missing.

    Args:
        request: its `root` is the zip, the folder tiny-imagenet-200 (which has wnids.txt), or the folder that holds
            either of them. An `image_size` other than 64 is made by Pillow's bilinear filter, which averages over the
            area when it reduces: what torchvision's Resize(32) does by default, so what papers that train at 32 x 32
            used. With `num_classes`, images of other classes are not decoded. With `download`, a zip that is missing is
            fetched into the folder `root` (248 MB).

    Raises:
        DataError: the files are missing, damaged or of another layout, or an argument is out of range.
    """
    root = request.root
    if root is None:
        raise DataError(f"tiny_imagenet needs a root: the zip from {URL}, or the folder that it holds")
    size = request.size(_SIDE)
    place = _find(root)
    if place is None and request.download:
        place = fetch(URL, root, MD5)
    if place is None:
        wrong = absent(root, f"{root} has no wnids.txt")
        raise DataError(f"{wrong}: give the zip from {URL}, or the folder that it holds")
    with _opened(place) as files:
        wnids = sorted(files.text("wnids.txt").split())
        if len(wnids) < 2 or len(set(wnids)) < len(wnids):
            raise DataError(f"wnids.txt in {files.where} lists {len(set(wnids))} of {len(wnids)} classes: {_REMEDY}")
        parts = {"train": (files, _train_files(files, wnids)), "test": (files, _test_files(files, wnids))}
        names = request.classes("tiny_imagenet", wnids)
        tell_absent(f"val in {files.where}", names, (label for _, label in parts["test"][1]))
        train, test = read_parts(
            "tiny_imagenet", parts, _decode_to(size), size=size, num_classes=len(names), cache=request.cache
        )
        return DataSet("tiny_imagenet", train, test, _class_names(files, names), MEAN, STD)


def _find(root: Path) -> Path | None:
    """Return the zip or the folder that has wnids.txt, before a walk through it that may be long."""
    if root.is_file():
        return root if root.suffix != ".parquet" else None
    for folder in (root / _FOLDER, root):
        if (folder / "wnids.txt").is_file():
            return folder
    return root / _ZIP if (root / _ZIP).is_file() else None


@contextmanager
def _opened(place: Path) -> Iterator[Files]:
    if place.is_dir():
        yield in_folder(place, remedy=_REMEDY)
    else:
        with in_zip(place, _FOLDER, remedy=_REMEDY) as files:
            yield files


def _train_files(files: Files, wnids: Sequence[str]) -> list[tuple[str, int]]:
    """Return (name, label) of the training images, by label and then by name, as torchvision's ImageFolder."""
    by_class = _by_folder(files, "train", wnids)
    wrong = [f"images of {wnid}" for wnid in sorted(by_class.keys() - set(wnids))]
    wrong += [f"no images of {wnid}" for wnid in wnids if not by_class[wnid]]
    if wrong:
        raise DataError(
            f"{files.where} lists {len(wnids)} classes in wnids.txt, but train has {wrong[0]} "
            f"({len(wrong)} such classes): {_REMEDY}"
        )
    return _labelled(by_class, wnids)


def _by_folder(files: Files, part: str, wnids: Sequence[str]) -> dict[str, list[str]]:
    """Return the images in part/<wnid>/images/ and part/<wnid>/ by WordNet id."""
    by_class: dict[str, list[str]] = {wnid: [] for wnid in wnids}
    for name in files.marks:
        match name.split("/"):
            case [folder, wnid, "images", file] | [folder, wnid, file] if folder == part and is_image(file):
                by_class.setdefault(wnid, []).append(name)
    return by_class


def _labelled(by_class: Mapping[str, Sequence[str]], wnids: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, label) for label, wnid in enumerate(wnids) for name in sorted(by_class[wnid])]


def _test_files(files: Files, wnids: Sequence[str]) -> list[tuple[str, int]]:
    """Return (name, label) of the validation images: in the order of val_annotations.txt, or by label if sorted.

    Many people's scripts sort these images into val/<wnid>/, with or without a folder images in it, as training has it,
    and some remove val_annotations.txt. Where it is there, it must agree.
    """
    by_class = _by_folder(files, "val", wnids)
    together = by_class.pop("images", [])
    if together or not any(by_class.values()):
        label_of = {wnid: label for label, wnid in enumerate(wnids)}
        listed = {f"val/images/{file}": label_of[wnid] for file, wnid in _annotated(files, wnids).items()}
        present = {name for name in files.marks if name.startswith("val/") and is_image(name)}
        if listed.keys() != present:
            first = min(listed.keys() ^ present)
            raise DataError(f"only one of {_ANNOTATIONS} and val/images in {files.where} has {first}: {_REMEDY}")
        return list(listed.items())
    if unknown := sorted(by_class.keys() - set(wnids)):
        raise DataError(f"val in {files.where} has the class {unknown[0]!r}, which wnids.txt lacks: {_REMEDY}")
    if _ANNOTATIONS in files.marks:
        sorted_so = {(name.rpartition("/")[2], wnid) for wnid, names in by_class.items() for name in names}
        if wrong := sorted(sorted_so ^ set(_annotated(files, wnids).items())):
            raise DataError(
                f"only one of {_ANNOTATIONS} and the folders of val in {files.where} has {wrong[0][0]} as {wrong[0][1]}"
                f" ({len(wrong)} such): {_REMEDY}"
            )
    return _labelled(by_class, wnids)


def _annotated(files: Files, wnids: Sequence[str]) -> dict[str, str]:
    """Return the WordNet id of each validation image."""
    found: dict[str, str] = {}
    for number, line in enumerate(files.text(_ANNOTATIONS).splitlines(), start=1):
        file, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in wnids:
            raise DataError(
                f"line {number} of {_ANNOTATIONS} in {files.where} has the class {wnid!r}, which wnids.txt lacks: "
                f"{_REMEDY}"
            )
        if found.setdefault(file, wnid) != wnid:
            raise DataError(f"line {number} of {_ANNOTATIONS} in {files.where} gives {file} another class: {_REMEDY}")
    return found


def _class_names(files: Files, wnids: Sequence[str]) -> tuple[str, ...]:
    if "words.txt" not in files.marks:
        return tuple(wnids)
    words = dict(line.split("\t", 1) for line in files.text("words.txt").splitlines() if "\t" in line)
    return tuple(words.get(wnid, wnid) for wnid in wnids)


def _decode_to(size: int) -> Decode:
    def decode(content: bytes) -> Image:
        image = open_rgb(content, formats=("JPEG",))
        if image.size != (_SIDE, _SIDE):
            raise UndecodableError(f"has {image.width} x {image.height} pixels, not {_SIDE} x {_SIDE}")
        return square(image, size)

    return decode
