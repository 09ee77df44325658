"""The data's side of a run: reading, splitting, and batches for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from .. import distributed
from ..contract import Batch
from ..data import DATASETS
from ..data.dataset import DataSet, Split
from ..data.loader import Loader, evaluation_batches
from ..data.readers.decoded import user_cache
from ..data.schedule import Batches
from ..data.subsets import few_labels, hold_out
from ..training.updates import UpdateRule
from .config import Data, Run


def load_data(data: Data) -> DataSet:
    """Return the data set, with the classes and the image size that are asked for."""
    return DATASETS[data.name](
        data.root,
        image_size=data.image_size,
        num_classes=data.num_classes,
        download=data.download,
        cache=user_cache() if data.cache == "auto" else None if data.cache == "off" else Path(data.cache),
    )


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


def view_shape(data: DataSet, config: Data) -> tuple[int, int, int]:
    """Return the channels, height and width of what the networks see.

    Raises:
        ValueError: images are to be resized to more pixels than there are for evaluation.
    """
    channels, height, width = data.image_shape
    size = config.random_resized_crop
    if size is None:
        return data.image_shape
    if size > min(height, width):
        raise ValueError(
            f"data.random_resized_crop is {size}, more than the {height} x {width} pixels that {data.name} has for "
            "evaluation: give a smaller one, or a larger data.image_size"
        )
    return channels, size, size


def training_batches(
    run: Run,
    train: Split,
    held_out: Split | None,
    rule: UpdateRule,
    data: DataSet,
    *,
    views: int,
    device: torch.device,
) -> Batches:
    """Return this process's part of the run's training batches; with `held_out`, some carry a batch of those.

    Raises:
        ValueError: a second view is described that no loss reads.
    """
    if run.data.second_view != "mlkd" and views == 1:
        raise ValueError(
            f"data.second_view is {run.data.second_view!r}, but no loss of this run reads a second view: leave it out"
        )
    loader = Loader(
        train,
        batch_size=run.optim.batch_size,
        seed=run.stream_seed,
        mean=data.mean,
        std=data.std,
        geometry=run.data,
        second_view=run.data.second_view if views == 2 else None,
        held_out=held_out,
        held_out_every=rule.every,
        held_out_batch_size=None if held_out is None else min(rule.held_out_batch, len(held_out)),
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        device=device,
    )
    mixup, cutmix = run.data.mixup, run.data.cutmix
    if not mixup and not cutmix:
        return loader
    from ..data.mixup import MixedLoader  # with torchvision, which only this needs

    return MixedLoader(loader, num_classes=data.num_classes, seed=run.stream_seed, mixup=mixup, cutmix=cutmix)


def test_batches(split: Split, data: DataSet, config: Data, device: torch.device) -> Iterator[Batch]:
    """Return batches of this process's part of the samples, so that together each is counted once."""
    if distributed.world_size() > 1:
        split = split.subset(torch.arange(len(split)).tensor_split(distributed.world_size())[distributed.rank()])
    return evaluation_batches(
        split,
        batch_size=500,
        mean=data.mean,
        std=data.std,
        centre_crop=config.random_resized_crop,
        device=device,
    )
