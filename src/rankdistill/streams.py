"""The data's side of a run: reading, splitting, and batches for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch

from . import distributed
from .core import Batch
from .data import DATASETS
from .data.held_out import WithHeldOut
from .data.loader import Loader, evaluation_batches
from .data.mixing import MixedLoader
from .data.sets import DataSet, Split
from .data.splits import few_labels, hold_out
from .run import Data, Run
from .updates import UpdateRule


def load_data(data: Data) -> DataSet:
    """Return the data set, with the classes and the image size that are asked for."""
    read = DATASETS[data.name]
    return read(data.root, image_size=data.image_size, num_classes=data.num_classes, download=data.download)


def split(data: DataSet, config: Data) -> tuple[Split, Split]:
    """Return what is trained on and what is evaluated on: the test images, or images kept out of training."""
    train, test = data.train, data.test
    if config.held_out:
        train, test = hold_out(train, config.held_out, seed=config.subset_seed)
    if config.num_labels is not None:
        train = few_labels(train, config.num_labels, seed=config.subset_seed)
    return train, test


def split_for(rule: UpdateRule, train: Split, num_classes: int, seed: int) -> tuple[Split, Split | None]:
    """Return what is trained on, and what the update rule wants kept out of it."""
    if not rule.held_out_per_class:
        return train, None
    return hold_out(train, rule.held_out_per_class * num_classes, seed=seed)


def training_batches(
    run: Run, train: Split, held_out: Split | None, rule: UpdateRule, data: DataSet, device: torch.device
) -> Loader:
    """Return the run's training batches; with `held_out`, every so many carry a batch of those."""

    def batches(split: Split, batch_size: int, seed: int) -> Loader:
        return Loader(
            split,
            batch_size=batch_size,
            seed=seed,
            mean=data.mean,
            std=data.std,
            padding=run.data.padding,
            flip=run.data.flip,
            device=device,
        )

    loader = batches(train, run.optim.batch_size, run.stream_seed)
    if run.data.mixup or run.data.cutmix:
        mixing = {"mixup": run.data.mixup, "cutmix": run.data.cutmix}
        loader = cast("Loader", MixedLoader(loader, num_classes=data.num_classes, seed=run.stream_seed, **mixing))
    if held_out is not None:
        other_draws = run.stream_seed ^ 1 << 63  # a training image of the same position has others
        loader = cast(
            "Loader", WithHeldOut(loader, batches(held_out, rule.held_out_batch, other_draws), every=rule.every)
        )
    return loader


def test_batches(split: Split, data: DataSet, device: torch.device) -> Iterator[Batch]:
    """Return batches of this process's part of the samples, so that together each is counted once."""
    if distributed.world_size() > 1:
        split = split.subset(torch.arange(len(split)).tensor_split(distributed.world_size())[distributed.rank()])
    return evaluation_batches(split, batch_size=500, mean=data.mean, std=data.std, device=device)
