"""Whether saved weights belong to the data that they meet: the same classes in their order, size and normalisation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..data.dataset import DataSet

Classes = Literal["same", "by-name"]


def fitted(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    header: Mapping[str, Any],
    data: DataSet,
    *,
    source: Path,
    classes: Classes,
    option: str,
) -> dict[str, Tensor]:
    """Return the weights for the classes of the data.

    Args:
        module: a network for the classes of the data, of the architecture of the weights.
        weights: of its state dict, perhaps for other classes.
        header: what the file says of itself; what it does not say is not compared.
        data: what the network is to see.
        source: the file, for errors.
        classes: "same" takes the weights as they are; "by-name" takes the outputs of the data's classes out of them.
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
        return dict(weights)
    if theirs is None:
        raise ValueError(f"{source} does not name its classes: they cannot be chosen by name; leave out {option}")
    missing = [name for name in ours if name not in set(theirs)]
    if missing or len(set(theirs)) != len(theirs):
        what = f"has no class {missing[0]!r}" if missing else "has two classes of one name"
        raise ValueError(
            f"{source} {what}: its classes cannot be chosen by name ({len(missing)} of {data.name} missing)"
        )
    chosen = torch.tensor([list(theirs).index(name) for name in ours])
    heads = [name for name, value in module.state_dict().items() if len(value.shape) and len(value) == len(ours)][-2:]
    taken = {
        name: weights[name].index_select(0, chosen)
        for name in heads
        if name in weights and weights[name].ndim and len(weights[name]) == len(theirs)
    }
    return {**weights, **taken}


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
