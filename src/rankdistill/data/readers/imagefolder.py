"""Images in a folder per class, as ImageNet usually lies: root/train/<class>/... and root/val/<class>/... or test/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..dataset import DataError, DataSet, Request
from .decoded import Listed, read_parts
from .files import Files, in_folder
from .images import IMAGENET_MEAN, IMAGENET_SIZE, IMAGENET_STD, is_image, square_of

_REMEDY = "replace it, or take it out"


def load(request: Request) -> DataSet:
    """Return images of your own, in a folder per class, by default 224 x 224.

    Classes are the folders of root/train, sorted by name as torchvision's ImageFolder does; images may lie deeper.
    The test part is root/test if it has folders of classes, else root/val; where both have, val is left alone. Hidden
    files and files that are no images by their name are left out. Images are normalised with ImageNet's mean and
    standard deviation.

    Args:
        request: its `root` is the folder that has train. The shorter side of an image is resized to `image_size`, and
            the centre cropped. Only the first `num_classes` are read. `download` is not possible.

    Raises:
        DataError: a folder or a class is missing, an image cannot be decoded, the test part lies in one folder or has
            classes that training has not, or an argument is out of range.
    """
    root = request.root
    if request.download:
        raise DataError("imagefolder is a folder of your own: leave out download")
    if root is None:
        raise DataError("imagefolder needs a root: the folder that has train and test (or val)")
    size = request.size(IMAGENET_SIZE)
    if not (root / "train").is_dir():
        raise DataError(f"{root} has no folder train: give the folder that has train and test (or val)")
    names = _class_names(root / "train")
    places = {"train": root / "train", "test": _test_folder(root, names)}
    files = {part: in_folder(place, remedy=_REMEDY) for part, place in places.items()}
    parts = {part: (files[part], _listed(files[part], names)) for part in files}
    _check_each_has_images(places["train"], names, parts["train"][1])
    names = request.classes("imagefolder", names)
    train, test = read_parts(
        "imagefolder", parts, square_of(size), size=size, num_classes=len(names), cache=request.cache
    )
    return DataSet("imagefolder", train, test, names, IMAGENET_MEAN, IMAGENET_STD)


def _class_names(train: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in train.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise DataError(f"{train} has {len(names)} class folders: at least 2 are needed, with a class's images in each")
    return tuple(names)


def _test_folder(root: Path, names: Sequence[str]) -> Path:
    """Return test, unless its images have no classes, as ImageNet's, and val is there."""
    test, val = root / "test", root / "val"
    if any((test / name).is_dir() for name in names) or (test.is_dir() and not val.is_dir()):
        return test
    if not val.is_dir():
        raise DataError(f"{root} has no folder test, and no val: give the folder that has train and test (or val)")
    return val


def _check_each_has_images(train: Path, names: Sequence[str], listed: Listed) -> None:
    used = {label for _, label in listed}
    if empty := [name for label, name in enumerate(names) if label not in used]:
        raise DataError(f"{train} has no images of {empty[0]!r} ({len(empty)} such classes): add some, or remove it")


def _listed(files: Files, names: Sequence[str]) -> list[tuple[str, int]]:
    """Return (name, label) of the images of a part, by label and then by name."""
    images = sorted(name for name in files.marks if is_image(name))
    folders = {name: name.partition("/")[0] if "/" in name else "" for name in images}
    if len(set(folders.values())) < 2:
        found = f"all its images in one folder, {images[0].rpartition('/')[0]!r}" if images else "no images"
        raise DataError(
            f"{files.where} has {found}: put them in a folder per class (the layout that Tiny-ImageNet comes in is "
            "read by the data set tiny_imagenet)"
        )
    label_of = {name: label for label, name in enumerate(names)}
    for name, folder in folders.items():
        if folder not in label_of:
            raise DataError(f"{name} in {files.where} is not in the folder of a training class: move it or take it out")
    return sorted(((name, label_of[folder]) for name, folder in folders.items()), key=lambda image: image[1])
