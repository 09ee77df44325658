"""Labels that people wrote: which of them are one class, in which order the classes are, and which have no images."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence

from ..dataset import DataError

_WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?")  # as pandas writes whole numbers where a column has gaps


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
