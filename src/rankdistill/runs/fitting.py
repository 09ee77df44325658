"""Whether saved weights belong to the data that they meet: the same classes in their order, size and normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..data.dataset import DataSet

Classes = Literal["same", "by-name"]


def chosen_classes(
    header: Mapping[str, Any], data: DataSet, *, source: Path, classes: Classes, option: str
) -> list[int] | None:
    """Return which of a file's classes are those of the data, in the order of these; None if they are the same.

    Args:
        header: what the file says of itself; what it does not say is not compared.
        data: what its network is to see.
        source: the file, for errors.
        classes: "same" takes the file's classes as they are; "by-name" takes the classes of the data out of them.
        option: the flag that asks for "by-name", for errors.

    Raises:
        ValueError: the file was made for other classes, or for the same in another order.
    """
    theirs, ours = header.get("class_names"), list(data.class_names)
    if classes == "same":
        if theirs is not None and list(theirs) != ours:
            raise ValueError(
                f"{source} {_difference(list(theirs), ours)} of {data.name}: {_advice(theirs, ours, option)}"
            )
        return None
    if theirs is None:
        raise ValueError(f"{source} does not name its classes: they cannot be chosen by name; leave out {option}")
    places = {name: place for place, name in enumerate(theirs)}
    missing = [name for name in ours if name not in places]
    if missing or len(places) != len(theirs):
        what = f"has no class {missing[0]!r}" if missing else "has two classes of one name"
        raise ValueError(
            f"{source} {what}: its classes cannot be chosen by name ({len(missing)} of {data.name} missing)"
        )
    chosen = [places[name] for name in ours]
    return None if chosen == list(range(len(theirs))) else chosen


def with_classes(
    weights: Mapping[str, Tensor], network: Callable[[int], nn.Module], num_classes: int, chosen: Sequence[int]
) -> dict[str, Tensor]:
    """Return the weights with some of their classes alone.

    Args:
        weights: of a network of so many classes.
        network: makes one for a number of classes.
        num_classes: of the weights.
        chosen: which of these are taken, in their new order.
    """
    with torch.device("meta"):
        here, more = network(num_classes).state_dict(), network(num_classes + 1).state_dict()
    heads = {name for name, value in here.items() if value.shape != more[name].shape}
    rows = torch.tensor(chosen)
    return {
        name: value.index_select(0, rows) if name in heads and value.shape == here[name].shape else value
        for name, value in weights.items()
    }


def check_views(header: Mapping[str, Any], data: DataSet, shape: tuple[int, int, int], source: Path) -> None:
    """Raise ValueError if weights were made for images of another size or normalisation than those of a run.

    Args:
        header: what the file says of itself; what it does not say is not compared.
        data: the data set of the run.
        shape: channels, height and width of what its networks see.
        source: the file, for the error.
    """
    theirs = header.get("image_shape")
    if theirs is not None and tuple(theirs) != shape:
        raise ValueError(
            f"{source} was made for images of {_sized(theirs)}, this run has {_sized(shape)}: pass "
            f"--data.image-size {theirs[1]}, or other weights"
        )
    for name, mine in (("mean", data.mean), ("std", data.std)):
        known = header.get(name)
        if known is not None and not _close(known, mine):
            raise ValueError(
                f"{source} was made for images with {name} {_numbers(known)}, {data.name} has {_numbers(mine)}: "
                "take weights that were made for this normalisation"
            )


def _difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    if sorted(theirs) == sorted(ours):
        place = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
        return f"knows the classes in another order ({place} is {theirs[place]!r}, not {ours[place]!r})"
    other = [name for name in theirs if name not in set(ours)] or [name for name in ours if name not in set(theirs)]
    return f"knows {len(theirs)} classes, {_listed(theirs)}, not the {len(ours)}, {_listed(ours)}" + (
        f" (the first difference: {other[0]!r})" if other else ""
    )


def _advice(theirs: Sequence[str], ours: Sequence[str], option: str) -> str:
    if set(ours) <= set(theirs) and len(set(theirs)) == len(theirs):
        return f"pass {option} by-name to take them by their names"
    return "take weights that were made for these classes"


def _listed(names: Sequence[str], num: int = 3) -> str:
    return ", ".join(map(repr, names[:num])) + (" ..." if len(names) > num else "")


def _sized(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _close(theirs: Sequence[float], ours: Sequence[float]) -> bool:
    return len(theirs) == len(ours) and all(
        math.isclose(a, b, rel_tol=0, abs_tol=1e-3) for a, b in zip(theirs, ours, strict=True)
    )
