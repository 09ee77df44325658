"""Lists of images that people wrote: the rows of a CSV file, which labels are one class, and their order."""

from __future__ import annotations

import csv
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..dataset import DataError

PARTS = ("train", "test", "val")

_LINE, _LIST = 2**16, 2**30  # the most characters of a line, and bytes of a file
_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?")  # as pandas writes whole numbers where a column has gaps


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the list, counted from 1; `split` is empty where there is no such column."""

    line: int
    path: str
    label: str
    split: str


def rows_of(root: Path) -> list[Row]:
    """Return the lines of a CSV file with the columns path, label and, if there is one, split, in any order.

    Raises:
        DataError: there is no such file, it is no CSV file in UTF-8, a column is missing or there twice, or a line is
            incomplete.
    """
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


def _row(root: Path, line: int, columns: list[str], cells: list[str]) -> Row:
    if len(cells) > len(columns):
        raise DataError(
            f"line {line} of {root} has {len(cells)} cells for {len(columns)} columns: quote a cell with a comma"
        )
    found = dict(zip(columns, cells, strict=False))
    path, label, split = found.get("path", ""), found.get("label", "").strip(), found.get("split", "").strip()
    if not path or not label or "\0" in path or ("split" in columns and split not in PARTS):
        raise DataError(
            f"line {line} of {root} has path {path!r}, label {label!r} and split {split!r}: give all of them, and "
            f"{', '.join(PARTS)} as split"
        )
    return Row(line, path, label, split)


def ordered(where: str, labels: Iterable[str]) -> tuple[str, ...]:
    """Return the different labels in the order of their numbers if all are whole numbers, else sorted as text.

    Args:
        where: what errors call the place that the labels are from.
        labels: "2" and "10", "2.0" and "10.0", or "cat" and "dog", without blanks around them.

    Raises:
        DataError: two labels are the same written in two ways, as "1" and "01", or in two forms of Unicode.
    """
    different = sorted(set(labels))
    whole = bool(different) and all(_WHOLE.fullmatch(label) for label in different)
    numbers = {label: int(label.partition(".")[0]) if whole else 0 for label in different}
    seen: dict[tuple[int, str], str] = {}
    for label in different:
        same = (numbers[label], "" if whole else unicodedata.normalize("NFC", label))
        if same in seen:
            raise DataError(
                f"{where} has the labels {seen[same]!r} and {label!r}, which are the same: write it one way"
            )
        seen[same] = label
    return tuple(sorted(different, key=lambda label: (numbers[label], label)))


def tell_absent(where: str, names: Sequence[str], labels: Iterable[int]) -> None:
    """Warn of classes that have no images to test on."""
    used = set(labels)
    if absent := [name for label, name in enumerate(names) if label not in used]:
        warnings.warn(
            f"{where} has no images of {absent[0]!r} ({len(absent)} of {len(names)} classes): accuracy is that of the "
            "other classes",
            stacklevel=2,
        )
