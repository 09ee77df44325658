"""Images in a folder per class, as ImageNet usually lies: root/train/<class>/... and root/val/<class>/... or test/."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import compress
from pathlib import Path

import torch

from ..dataset import DataError, DataSet, Request
from ..subsets import a_fifth
from .decoded import Listed, read_parts
from .files import Files, in_folder
from .images import IMAGENET_MEAN, IMAGENET_SIZE, IMAGENET_STD, is_image, square_of
from .lists import tell_absent

_REMEDY = "replace it, or take it out"


def load(request: Request) -> DataSet:
    """Return images of your own, in a folder per class, by default 224 x 224.

    Classes are the folders of root/train, sorted by name as torchvision's ImageFolder does; images may lie deeper.
    The test part is root/test if it has folders of classes, else root/val; where both have, val is left alone. Where
    root has none of these three folders, classes are the folders of root, and the test part is a fifth of the images,
    drawn evenly over the classes by `subsets.hold_out`'s rule with seed 0. Hidden files and files that are no images by
    their name are left out; what may be images of other kinds is counted. Images are normalised with ImageNet's mean
    and standard deviation.

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
    flat = root.is_dir() and not any(_there(root / part) for part in ("train", "test", "val"))
    if not flat and not _there(root / "train"):
        raise DataError(f"{root} has no folder train: give the folder that has train and test (or val)")
    places = {"train": root, "test": root} if flat else {"train": root / "train"}
    names = _class_names(places["train"])
    if inside := [root / name for name in names if flat and _there(root / name / "train")]:
        raise DataError(f"{inside[0]} has a folder train, so {root} has no classes: give {inside[0]}")
    if not flat:
        places["test"] = _test_folder(root, names)
    files = {place: in_folder(place, remedy=_REMEDY) for place in dict.fromkeys(places.values())}
    parts = {part: (files[place], _listed(files[place], names)) for part, place in places.items()}
    _check_each_has_images(places["train"], names, parts["train"][1])
    if flat:
        everything, listed = parts["train"]
        chosen = a_fifth(torch.tensor([label for _, label in listed]))
        parts = {
            part: (everything, list(compress(listed, mask.tolist())))
            for part, mask in (("train", ~chosen), ("test", chosen))
        }
    names = request.classes("imagefolder", names)
    tell_absent(f"the test part of {root}" if flat else str(places["test"]), names, (n for _, n in parts["test"][1]))
    train, test = read_parts(
        "imagefolder", parts, square_of(size), size=size, num_classes=len(names), cache=request.cache
    )
    return DataSet("imagefolder", train, test, names, IMAGENET_MEAN, IMAGENET_STD)


def _there(folder: Path) -> bool:
    """Return whether there is such a folder, or a link that is to lead to one."""
    return folder.is_dir() or folder.is_symlink()


def _class_names(train: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in train.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise DataError(f"{train} has {len(names)} class folders: at least 2 are needed, with a class's images in each")
    return tuple(names)


def _test_folder(root: Path, names: Sequence[str]) -> Path:
    """Return test, unless its images have no classes, as ImageNet's, and val is there."""
    test, val = root / "test", root / "val"
    with_classes = any((test / name).is_dir() for name in names)
    if with_classes and val.is_dir():
        warnings.warn(f"{test} and {val} both have images: those of {val} are not read", stacklevel=2)
    if with_classes or (_there(test) and not _there(val)):
        return test
    if not _there(val):
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
    if len(found := set(folders.values())) < 2 and not found & set(names):
        wrong = f"all its images in one folder, {images[0].rpartition('/')[0]!r}" if images else "no images"
        raise DataError(
            f"{files.where} has {wrong}: put them in a folder per class (the layout that Tiny-ImageNet comes in is "
            "read by the data set tiny_imagenet)"
        )
    label_of = {name: label for label, name in enumerate(names)}
    for name, folder in folders.items():
        if folder not in label_of:
            raise DataError(f"{name} in {files.where} is not in the folder of a training class: move it or take it out")
    return sorted(((name, label_of[folder]) for name, folder in folders.items()), key=lambda image: image[1])
