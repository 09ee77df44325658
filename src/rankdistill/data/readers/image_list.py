"""Images that a CSV file lists: a header with path, label and, if there is one, split; a line per image."""

from __future__ import annotations

import csv
import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import torch

from ..dataset import DataError, DataSet, Request
from ..subsets import a_fifth
from .decoded import read_parts
from .files import Files, mark_of, read_regular
from .images import IMAGENET_MEAN, IMAGENET_SIZE, IMAGENET_STD, square_of
from .labels import ordered, tell_absent

_PARTS = ("train", "test", "val")
_REMEDY = "replace it, or take it off the list"
_LINE, _LIST = 2**16, 2**30  # the most characters of a line, and bytes of the file


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
    rows = _rows(root)
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


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the list, counted from 1; `split` is empty where there is no such column."""

    line: int
    path: str
    label: str
    split: str


def _rows(root: Path) -> list[_Row]:
    if not root.is_file():
        raise DataError(f"there is no file {root}: give a CSV file with the columns path and label")
    if root.stat().st_size > _LIST:
        raise DataError(f"{root} has {root.stat().st_size:,} bytes: at most {_LIST:,} are read of a list of images")
    try:
        with root.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(_lines(file), strict=True)
            columns = [name.strip() for name in next(reader, [])]
            if missing := [name for name in ("path", "label") if columns.count(name) != 1]:
                raise DataError(
                    f"{root} has the columns {', '.join(columns) or 'none'}, not {' and '.join(missing)} once: give a "
                    "header path,label or path,label,split"
                )
            rows = [_row(root, reader.line_num, columns, cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{root} is no CSV file in UTF-8 ({error}): write it anew") from error
    return rows


def _lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of a file; a single one of gigabytes would fill the memory."""
    while line := file.readline(_LINE + 1):
        if len(line) > _LINE:
            raise csv.Error(f"a line has more than {_LINE} characters")
        yield line


def _row(root: Path, line: int, columns: list[str], cells: list[str]) -> _Row:
    if len(cells) > len(columns):
        raise DataError(
            f"line {line} of {root} has {len(cells)} cells for {len(columns)} columns: quote a cell with a comma"
        )
    found = dict(zip(columns, cells, strict=False))
    path, label, split = found.get("path", ""), found.get("label", "").strip(), found.get("split", "").strip()
    if not path or not label or "\0" in path or ("split" in columns and split not in _PARTS):
        raise DataError(
            f"line {line} of {root} has path {path!r}, label {label!r} and split {split!r}: give all of them, and "
            f"{', '.join(_PARTS)} as split"
        )
    return _Row(line, path, label, split)


def _parts(root: Path, rows: list[_Row]) -> dict[str, list[_Row]]:
    """Return the training and the test rows."""
    if rows and not rows[0].split:
        number = {label: number for number, label in enumerate(sorted({row.label for row in rows}))}
        chosen = a_fifth(torch.tensor([number[row.label] for row in rows])).tolist()
        rows = [replace(row, split="test" if test else "train") for row, test in zip(rows, chosen, strict=True)]
    by_split = {part: [row for row in rows if row.split == part] for part in _PARTS}
    parts = {"train": by_split["train"], "test": by_split["test"] or by_split["val"]}
    for part, chosen in parts.items():
        if not chosen:
            raise DataError(f"{root} lists no {part} images: mark some so in the column split, or leave the column out")
    if by_split["test"] and by_split["val"]:
        warnings.warn(f"{root} has test and val: the {len(by_split['val'])} of val are not read", stacklevel=2)
    first: dict[str, _Row] = {}
    for row in (*parts["train"], *parts["test"]):
        before = first.setdefault(os.path.normpath(root.parent / row.path), row)
        if before.split != row.split:
            raise DataError(
                f"line {row.line} of {root} lists {row.path} for testing, and line {before.line} for training: keep one"
            )
        if before.label != row.label:
            raise DataError(
                f"line {row.line} of {root} lists {row.path} with the label {row.label!r}, and line {before.line} with "
                f"{before.label!r}: keep one"
            )
    return parts


def _files(root: Path, rows: list[_Row]) -> Files:
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
