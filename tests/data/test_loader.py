from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from rankdistill.core import Batch
from rankdistill.data import Loader, Split, evaluation_batches, weak_view
from rankdistill.data.random import Stream, draws

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def split_of(num: int, size: int = 6) -> Split:
    generator = torch.Generator().manual_seed(num)
    images = torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(num) % 7)


def loader_of(split: Split, **changes: Any) -> Loader:
    options: dict[str, Any] = {"batch_size": 8, "seed": 0, "mean": MEAN, "std": STD, "padding": 2, "flip": True}
    return Loader(split, **options | changes)


def normalized(images: Tensor) -> Tensor:
    return (images.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def joined(batches: list[Batch], name: str) -> Tensor:
    return torch.cat([getattr(batch, name) for batch in batches])


def same(a: Batch, b: Batch) -> bool:
    tensors = all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("images", "labels", "indices"))
    return tensors and (a.epoch, a.step) == (b.epoch, b.step)


def test_an_epoch_holds_every_sample_once() -> None:
    split = split_of(30)
    loader = loader_of(split)
    batches = list(loader.epoch(3))
    assert [len(batch) for batch in batches] == [8, 8, 8, 6]
    assert len(loader) == 4
    assert loader.num_samples == 30
    indices = joined(batches, "indices")
    assert indices.sort().values.tolist() == list(range(30))
    assert torch.equal(joined(batches, "labels"), split.labels[indices])
    assert [batch.step for batch in batches] == [8, 9, 10, 11]
    assert {batch.epoch for batch in batches} == {3}


@pytest.mark.parametrize(
    ("num", "batch_size", "sizes"),
    [(17, 8, [8, 9]), (16, 8, [8, 8]), (18, 8, [8, 8, 2]), (3, 1, [1, 1, 1]), (1, 8, [1]), (9, 8, [9]), (3, 8, [3])],
)
def test_a_single_sample_left_over_joins_the_last_batch(num: int, batch_size: int, sizes: list[int]) -> None:
    loader = loader_of(split_of(num), batch_size=batch_size)
    batches = list(loader.epoch(1))
    assert [len(batch) for batch in batches] == sizes
    assert len(loader) == len(sizes)
    assert joined(batches, "indices").sort().values.tolist() == list(range(num))


def test_without_augmentation_the_images_are_only_normalized() -> None:
    split = split_of(30)
    batches = list(loader_of(split, padding=0, flip=False).epoch(1))
    expected = normalized(split.images[joined(batches, "indices")])
    torch.testing.assert_close(joined(batches, "images").double(), expected, rtol=0, atol=1e-6)
    assert joined(batches, "images").dtype == torch.float32


def test_each_image_gets_the_view_of_its_seed_epoch_and_index() -> None:
    split = split_of(30)
    for seed, epoch in ((0, 1), (0, 2), (9, 1)):
        batches = list(loader_of(split, seed=seed).epoch(epoch))
        indices = joined(batches, "indices")
        words = draws(seed, epoch, indices, stream=Stream.WEAK_VIEW, count=3)
        expected = normalized(weak_view(split.images[indices], words, padding=2, flip=True))
        torch.testing.assert_close(joined(batches, "images").double(), expected, rtol=0, atol=1e-6)


def test_views_do_not_depend_on_the_batch() -> None:
    split = split_of(30)
    by_index = [
        joined(batches, "images")[joined(batches, "indices").argsort()]
        for batches in (list(loader_of(split, batch_size=size).epoch(5)) for size in (4, 7, 30))
    ]
    assert all(torch.equal(a, b) for a, b in pairwise(by_index))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    split = split_of(64)
    orders = [joined(list(loader_of(split, seed=seed).epoch(epoch)), "indices") for seed in (0, 1) for epoch in (1, 2)]
    assert len({tuple(order.tolist()) for order in orders}) == 4
    loader = loader_of(split)
    first = list(loader.epoch(1))
    list(loader.epoch(2))
    assert all(same(a, b) for a, b in zip(first, loader.epoch(1), strict=True))


def test_an_epoch_can_go_on_from_any_batch() -> None:
    loader = loader_of(split_of(31))
    whole = list(loader.epoch(2))
    for first in range(len(loader)):
        assert all(same(a, b) for a, b in zip(whole[first:], loader.epoch(2, first=first), strict=True))


def test_memory_format() -> None:
    split = split_of(16)
    for batches in (
        loader_of(split, channels_last=True).epoch(1),
        evaluation_batches(split, batch_size=8, mean=MEAN, std=STD),
    ):
        assert next(batches).images.is_contiguous(memory_format=torch.channels_last)
    plain = next(loader_of(split, channels_last=False).epoch(1))
    assert plain.images.is_contiguous()
    assert torch.equal(plain.images, next(loader_of(split).epoch(1)).images)


def test_evaluation_batches_are_in_order() -> None:
    split = split_of(17)
    batches = list(evaluation_batches(split, batch_size=8, mean=MEAN, std=STD))
    assert [len(batch) for batch in batches] == [8, 8, 1]
    assert joined(batches, "indices").tolist() == list(range(17))
    assert torch.equal(joined(batches, "labels"), split.labels)
    torch.testing.assert_close(joined(batches, "images").double(), normalized(split.images), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"padding": -1}, "padding is -1"),
        ({"mean": (0.5,)}, "give 3 numbers each"),
        ({"std": (0.2, 0.2, 0.0)}, "std above 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(loader_of(split_of(10), **changes).epoch(1))


def test_what_does_not_exist_is_refused() -> None:
    loader = loader_of(split_of(10))
    for number, first in ((0, 0), (1, 2), (1, -1)):
        with pytest.raises(ValueError, match=f"epoch {number}, batch {first} does not exist"):
            next(loader.epoch(number, first=first))
    with pytest.raises(ValueError, match="the split is empty"):
        loader_of(split_of(10).subset(torch.arange(0)))
    with pytest.raises(ValueError, match="the split is empty"):
        next(evaluation_batches(split_of(10).subset(torch.arange(0)), batch_size=8, mean=MEAN, std=STD))
