"""Images that a CSV file lists: a header with path, label and, if there is one, split; a line per image."""

from __future__ import annotations

import os
import stat
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from ..dataset import DataError, DataSet, Request
from ..subsets import a_fifth
from .decoded import read_parts
from .files import Files, mark_of, read_regular
from .images import IMAGENET_MEAN, IMAGENET_SIZE, IMAGENET_STD, square_of
from .lists import PARTS, Row, ordered, rows_of, tell_absent

_REMEDY = "replace it, or take it off the list"


def load(request: Request) -> DataSet:
    """Return images of your own, listed in a CSV file, by default 224 x 224.

    The columns `path` (relative to the file's folder, or absolute) and `label` (the class's name) are needed; others
    than these and `split` are left out. Blanks around labels do not count. Classes are the training labels, in order
    of numbers if all are whole numbers ("2" or "2.0"), else sorted as text. `split` is "train", "test" or "val"; the
    test part are the images of "test", or of "val" where there are none of "test". Without that column it is a fifth of
    the images, drawn evenly over the classes by `subsets.hold_out`'s rule with seed 0. Images are normalised with
    ImageNet's mean and standard deviation.

    Args:
        request: its `root` is the CSV file, in UTF-8. The shorter side of an image is resized to `image_size`, and the
            centre cropped. Only the first `num_classes` are read. `download` is not possible.

    Raises:
        DataError: the file or an image is missing or broken, an image is listed for both training and test or with two
            labels, a label is written in two ways, a test label is no training label, or an argument is out of range.
    """
    root = request.root
    if request.download:
        raise DataError("csv is a list of your own images: leave out download")
    if root is None:
        raise DataError("csv needs a root: the CSV file with the columns path and label")
    size = request.size(IMAGENET_SIZE)
    rows = rows_of(root)
    ordered(str(root), (row.label for row in rows))  # also of what is not read
    parts = _parts(root, rows)
    names = ordered(str(root), (row.label for row in parts["train"]))
    if len(names) < 2:
        raise DataError(f"{root} has {len(names)} class among its training images: at least 2 are needed")
    label_of = {name: label for label, name in enumerate(names)}
    for row in parts["test"]:
        if row.label not in label_of:
            raise DataError(
                f"line {row.line} of {root} has the label {row.label!r}, which no training image has: add one, or take "
                "it off the list"
            )
    files = _files(root, rows)
    listed = {part: (files, [(row.path, label_of[row.label]) for row in chosen]) for part, chosen in parts.items()}
    names = request.classes("csv", names)
    tell_absent(f"the test part of {root}", names, (label for _, label in listed["test"][1]))
    train, test = read_parts("csv", listed, square_of(size), size=size, num_classes=len(names), cache=request.cache)
    return DataSet("csv", train, test, names, IMAGENET_MEAN, IMAGENET_STD)


def _parts(root: Path, rows: list[Row]) -> dict[str, list[Row]]:
    """Return the training and the test rows."""
    if rows and not rows[0].split:
        number = {label: number for number, label in enumerate(sorted({row.label for row in rows}))}
        chosen = a_fifth(torch.tensor([number[row.label] for row in rows])).tolist()
        rows = [replace(row, split="test" if test else "train") for row, test in zip(rows, chosen, strict=True)]
    by_split = {part: [row for row in rows if row.split == part] for part in PARTS}
    parts = {"train": by_split["train"], "test": by_split["test"] or by_split["val"]}
    for part, chosen in parts.items():
        if not chosen:
            raise DataError(f"{root} lists no {part} images: mark some so in the column split, or leave the column out")
    if by_split["test"] and by_split["val"]:
        warnings.warn(f"{root} has test and val: the {len(by_split['val'])} of val are not read", stacklevel=2)
    first: dict[str, Row] = {}
    for row in (*parts["train"], *parts["test"]):
        before = first.setdefault(os.path.normpath(root.parent / row.path), row)
        where = f"line {row.line} of {root} lists {row.path!r}"
        if before.split != row.split:
            raise DataError(f"{where} for testing, and line {before.line} for training: keep one")
        if before.label != row.label:
            raise DataError(
                f"{where} with the label {row.label!r}, and line {before.line} with {before.label!r}: keep one"
            )
    return parts


def _files(root: Path, rows: list[Row]) -> Files:
    folder = root.parent
    marks = {}
    for row in rows:
        try:
            status = (folder / row.path).stat()
        except OSError as error:
            reason = error.strerror or error
            raise DataError(
                f"line {row.line} of {root} lists {row.path!r}, which cannot be read ({reason}): {_REMEDY}"
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"line {row.line} of {root} lists {row.path!r}, which is no file: {_REMEDY}")
        marks[row.path] = mark_of(status)
    return Files(str(root), marks, _REMEDY, lambda path, limit: read_regular(folder / path, limit))
