"""Parts of a training set as functions of a seed: held-out images to choose settings on, subsets with few labels.

Both are stratified: classes get equal shares, so that their counts differ by at most one, unless a class has too few
samples for its share. Only labels and seed decide who is chosen.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from .dataset import DataError, Split
from .random import Stream, permutation


def hold_out(split: Split, num: int, *, seed: int) -> tuple[Split, Split]:
    """Return (what stays for training, `num` samples held out), each in the order of `split`.

    Every class keeps at least one training sample.

    Raises:
        DataError: `num` is less than the number of classes, or leaves some class without a training sample.
    """
    chosen = held_out_mask(split.labels, num, seed=seed)
    return split.subset((~chosen).nonzero().flatten()), split.subset(chosen.nonzero().flatten())


def held_out_mask(labels: Int64[Tensor, " samples"], num: int, *, seed: int) -> Bool[Tensor, " samples"]:
    """Return which samples `hold_out` holds out. See there."""
    order, turns = _balanced_order(labels, seed, Stream.HOLD_OUT)
    num_classes = int(labels.bincount().count_nonzero())
    if not num_classes <= num <= len(labels) - num_classes:
        raise DataError(
            f"{num} of {len(labels)} samples are to be held out: give {num_classes} to {len(labels) - num_classes}, "
            f"so that each of the {num_classes} classes is in both parts"
        )
    last = turns == labels.bincount()[labels[order]] - 1
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[order[~last][:num]] = True
    return chosen


def a_fifth(labels: Int64[Tensor, " samples"]) -> Bool[Tensor, " samples"]:
    """Return which samples are for testing where a data set does not say: a fifth, by `hold_out` with seed 0.

    Args:
        labels: [N], from 0 to the number of classes without gaps. Where a fifth of N is less than one of each class, it
            is one of each class that has two.

    Raises:
        DataError: there are fewer than two samples per class.
    """
    return held_out_mask(labels, max(len(labels) // 5, int(labels.max()) + 1), seed=0)


def few_labels(split: Split, num: int, *, seed: int) -> Split:
    """Return `num` samples, in the order of `split`. With the same seed, a smaller subset is part of a larger one.

    Raises:
        DataError: `num` is less than the number of classes or more than there are samples.
    """
    num_classes = int(split.labels.bincount().count_nonzero())
    if not num_classes <= num <= len(split):
        raise DataError(
            f"{num} labelled samples are to be kept: give {num_classes} (one per class) to {len(split)} (all)"
        )
    order, _ = _balanced_order(split.labels, seed, Stream.FEW_LABELS)
    return split.subset(order[:num].sort().values)


def _balanced_order(
    labels: Int64[Tensor, " samples"], seed: int, stream: Stream
) -> tuple[Int64[Tensor, " samples"], Int64[Tensor, " samples"]]:
    """Return positions ordered so that every beginning is balanced, and each one's turn within its class, from 0.

    In each turn every class that has samples left gives one; which class comes first in a turn is drawn as well.
    """
    shuffled = permutation(seed, 0, len(labels), stream=stream)
    grouped = shuffled[labels[shuffled].argsort(stable=True)]  # by class, at random within each
    counts = labels.bincount()
    turns = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[grouped]]
    places = permutation(seed, 1, len(counts), stream=stream)
    dealt = (turns * len(counts) + places[labels[grouped]]).argsort()
    return grouped[dealt], turns[dealt]
