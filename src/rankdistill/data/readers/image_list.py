"""Images that a CSV file lists: a header with path, label and, if there is one, split; a line per image."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..dataset import DataError, DataSet, Request
from ..subsets import held_out_mask
from .decoded import read_parts
from .files import Files, mark_of
from .images import IMAGENET_MEAN, IMAGENET_SIZE, IMAGENET_STD, square_of

SPLIT_SEED = 0

_PARTS = ("train", "test", "val")
_REMEDY = "replace it, or take it off the list"


def load(request: Request) -> DataSet:
    """Return images of your own, listed in a CSV file, by default 224 x 224.

    The columns `path` (relative to the file's folder, or absolute) and `label` (the class's name) are needed; others
    than these and `split` are left out. Classes are the training labels, in the order of numbers if all are whole
    numbers, else sorted as text. `split` is "train", "test" or "val"; the test part are the images of "test", or of
    "val" where there are none of "test". Without that column it is a fifth of the images, drawn evenly over the classes
    by `subsets.hold_out`'s rule with seed 0. Images are normalised with ImageNet's mean and standard deviation.

    Args:
        request: its `root` is the CSV file, in UTF-8. The shorter side of an image is resized to `image_size`, and the
            centre cropped. Only the first `num_classes` are read. `download` is not possible.

    Raises:
        DataError: the file or an image is missing or broken, an image is listed for both training and test, a test
            label is no training label, or an argument is out of range.
    """
    root = request.root
    if request.download:
        raise DataError("csv is a list of your own images: leave out download")
    if root is None:
        raise DataError("csv needs a root: the CSV file with the columns path and label")
    size = request.size(IMAGENET_SIZE)
    rows = _rows(root)
    parts = _parts(root, rows)
    names = _class_names(root, parts["train"])
    label_of = {name: label for label, name in enumerate(names)}
    for row in parts["test"]:
        if row.label not in label_of:
            raise DataError(
                f"line {row.line} of {root} has the label {row.label!r}, which no training image has: add one, or take "
                "it off the list"
            )
    files = _files(root, rows)
    names = request.classes("csv", names)
    listed = {part: (files, [(row.path, label_of[row.label]) for row in chosen]) for part, chosen in parts.items()}
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
    try:
        with root.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            if missing := [name for name in ("path", "label") if name not in columns]:
                raise DataError(
                    f"{root} has the columns {', '.join(columns) or 'none'}, not {' and '.join(missing)}: give a "
                    "header path,label or path,label,split"
                )
            # A line with too few commas has None in what is missing.
            rows = [
                _Row(reader.line_num, row["path"] or "", row["label"] or "", row.get("split") or "") for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{root} is no CSV file in UTF-8 ({error}): write it anew") from error
    for row in rows:
        if not row.path or not row.label or ("split" in columns and row.split not in _PARTS):
            raise DataError(
                f"line {row.line} of {root} has path {row.path!r}, label {row.label!r} and split {row.split!r}: give "
                f"all of them, and {', '.join(_PARTS)} as split"
            )
    return rows


def _parts(root: Path, rows: list[_Row]) -> dict[str, list[_Row]]:
    """Return the training and the test rows."""
    if rows and not rows[0].split:
        labels = torch.tensor(_numbered([row.label for row in rows]))
        chosen = held_out_mask(labels, max(len(rows) // 5, int(labels.max()) + 1), seed=SPLIT_SEED).tolist()
        rows = [replace(row, split="test" if test else "train") for row, test in zip(rows, chosen, strict=True)]
    by_split = {part: [row for row in rows if row.split == part] for part in _PARTS}
    parts = {"train": by_split["train"], "test": by_split["test"] or by_split["val"]}
    for part, chosen in parts.items():
        if not chosen:
            raise DataError(f"{root} lists no {part} images: mark some so in the column split, or leave the column out")
    trained = {os.path.normpath(row.path) for row in parts["train"]}
    for row in parts["test"]:
        if os.path.normpath(row.path) in trained:
            raise DataError(
                f"line {row.line} of {root} lists {row.path} for testing, and another for training: keep one"
            )
    return parts


def _class_names(root: Path, rows: list[_Row]) -> tuple[str, ...]:
    labels = {row.label for row in rows}
    if len(labels) < 2:
        raise DataError(f"{root} has {len(labels)} class among its training images: at least 2 are needed")
    whole = all(label.isdecimal() for label in labels)
    return tuple(sorted(labels, key=lambda label: (int(label) if whole else 0, label)))


def _numbered(labels: list[str]) -> list[int]:
    order = {label: number for number, label in enumerate(sorted(set(labels)))}
    return [order[label] for label in labels]


def _files(root: Path, rows: list[_Row]) -> Files:
    folder = root.parent
    marks = {}
    for row in rows:
        try:
            marks[row.path] = mark_of((folder / row.path).stat())
        except OSError as error:
            reason = error.strerror or error
            raise DataError(
                f"line {row.line} of {root} lists {row.path}, which cannot be read ({reason}): {_REMEDY}"
            ) from error
    return Files(str(root), marks, _REMEDY, lambda path: (folder / path).read_bytes())
