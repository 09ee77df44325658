import dataclasses
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rankdistill.contract import Batch
from rankdistill.data import Geometry, Loader, Split, evaluation_batches
from rankdistill.data.random import Stream, draws
from rankdistill.data.views import Views, weak_view

CROP_AND_FLIP = Geometry(padding=2, flip=True)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def split_of(num: int, size: int = 6) -> Split:
    generator = torch.Generator().manual_seed(num)
    images = torch.randint(0, 256, (num, 3, size, size), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(num) % 7)


def loader_of(split: Split, **changes: Any) -> Loader:
    options: dict[str, Any] = {"batch_size": 8, "seed": 0, "mean": MEAN, "std": STD, "geometry": CROP_AND_FLIP}
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
    batches = list(loader_of(split, geometry=Geometry()).epoch(1))
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


def both(batches: Iterator[Batch]) -> list[Batch]:
    found = list(batches)
    assert all(batch.strong is not None for batch in found)
    return found


def equal(a: Batch | None, b: Batch | None) -> bool:
    """Whether every tensor and number of two batches is the same."""
    if a is None or b is None:
        return a is b
    for field in dataclasses.fields(Batch):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, Batch) or isinstance(other, Batch):
            alike = equal(one, other)
        else:
            alike = torch.equal(one, other) if isinstance(one, Tensor) else one == other
        if not alike:
            return False
    return True


def test_the_strong_view_is_that_of_its_seed_epoch_and_index() -> None:
    split = split_of(30, 8)
    batches = both(loader_of(split, second_view="mlkd").epoch(4))
    indices = joined(batches, "indices")
    views = Views(0, CROP_AND_FLIP, 8, 8, "mlkd")
    weak, strong = views.make(split.images[indices], views.draw(4, indices))
    assert strong is not None
    torch.testing.assert_close(joined(batches, "strong").double(), normalized(strong), rtol=0, atol=1e-6)
    torch.testing.assert_close(joined(batches, "images").double(), normalized(weak), rtol=0, atol=1e-6)
    assert all(batch.strong.is_contiguous(memory_format=torch.channels_last) for batch in batches)  # type: ignore[union-attr]


def test_a_second_view_leaves_the_first_as_it_was() -> None:
    alone = list(loader_of(split_of(30)).epoch(1))
    assert all(same(a, b) for a, b in zip(alone, loader_of(split_of(30), second_view="mlkd").epoch(1), strict=True))
    assert all(batch.strong is None and batch.held_out is None for batch in alone)


def test_the_weak_stream_is_pinned() -> None:
    batch = next(loader_of(split_of(30), seed=5).epoch(2))
    assert batch.indices is not None
    assert batch.indices.tolist() == [1, 6, 12, 15, 4, 26, 5, 14]
    assert batch.images.double().sum().item() == pytest.approx(-73.49668562412262, abs=1e-6)


@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_all_of_a_batch_resumes_at_any_step(first: int, prefetch: int) -> None:
    changes = {"second_view": "mlkd", "held_out": split_of(13, 6), "held_out_batch_size": 5}
    changes["geometry"] = Geometry(padding=2, flip=True, rotation=20.0)
    whole = list(loader_of(split_of(31), **changes).epoch(3))
    rest = list(loader_of(split_of(31), prefetch=prefetch, **changes).epoch(3, first=first))
    assert len(rest) == len(whole) - first
    assert all(equal(a, b) for a, b in zip(whole[first:], rest, strict=True))


def test_draws_are_the_same_however_many_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(loader_of(split_of(31), second_view="mlkd").epoch(1))
    monkeypatch.setattr("rankdistill.data.loader._DRAWN_AT_ONCE", 16)
    assert all(equal(a, b) for a, b in zip(whole, loader_of(split_of(31), second_view="mlkd").epoch(1), strict=True))


@pytest.mark.parametrize(("num", "world_size"), [(30, 2), (30, 3), (30, 5), (33, 8), (8, 1)])
def test_processes_share_each_batch(num: int, world_size: int) -> None:
    changes = {"second_view": "mlkd", "held_out": split_of(11), "held_out_batch_size": 9}
    whole = list(loader_of(split_of(num), **changes).epoch(2))
    ranks = [
        list(loader_of(split_of(num), rank=rank, world_size=world_size, **changes).epoch(2))
        for rank in range(world_size)
    ]
    for batch, *parts in zip(whole, *ranks, strict=True):
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1
        assert sizes == sorted(sizes, reverse=True)
        assert {(part.epoch, part.step) for part in parts} == {(batch.epoch, batch.step)}
        for name in ("images", "labels", "indices", "strong"):
            assert torch.equal(joined(parts, name), getattr(batch, name))
        assert batch.held_out is not None
        assert torch.equal(joined([part.held_out for part in parts if part.held_out], "images"), batch.held_out.images)


def test_held_out_samples_come_in_passes_of_their_own() -> None:
    held_out = split_of(10)
    loader = loader_of(split_of(30), held_out=held_out, held_out_batch_size=4)
    batches = [batch.held_out for epoch in (1, 2) for batch in loader.epoch(epoch)]
    assert all(batch is not None and len(batch) == 4 and batch.strong is None for batch in batches)
    indices = torch.cat([batch.indices for batch in batches if batch and batch.indices is not None])
    for start in range(0, 30, 10):  # 8 batches of 4: three whole passes
        assert indices[start : start + 10].sort().values.tolist() == list(range(10))
    assert not torch.equal(indices[:10], indices[10:20])
    labels = torch.cat([batch.labels for batch in batches if batch and batch.labels is not None])
    assert torch.equal(labels, held_out.labels[indices])
    views = Views(0, CROP_AND_FLIP, 6, 6, stream=Stream.HELD_OUT_VIEW)
    view, _ = views.make(held_out.images[indices[20:30]], views.draw(2, indices[20:30]))
    images = torch.cat([batch.images for batch in batches if batch])[20:30]
    torch.testing.assert_close(images.double(), normalized(view), rtol=0, atol=1e-6)


def test_held_out_batches_are_as_large_as_the_others_where_there_are_enough() -> None:
    for num, size in ((10, 8), (5, 5)):
        batch = next(loader_of(split_of(30), held_out=split_of(num)).epoch(1))
        assert batch.held_out is not None
        assert len(batch.held_out) == size


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_of_a_mapped_file_give_the_same_batches(tmp_path: Path, channels_last: bool) -> None:
    split = split_of(30)
    layout = split.images.permute(0, 2, 3, 1) if channels_last else split.images
    layout.contiguous().numpy().tofile(tmp_path / "images")
    array = np.memmap(tmp_path / "images", np.uint8, mode="c", shape=tuple(layout.shape))
    images = torch.from_numpy(array)
    mapped = Split(images.permute(0, 3, 1, 2) if channels_last else images, split.labels)
    expected = list(loader_of(split, second_view="mlkd").epoch(1))
    for share in (0.0, 0.5):
        loader = loader_of(mapped, second_view="mlkd", resident_share=share)
        assert loader.prefetch == (2 if share == 0.0 else 0)
        assert all(equal(a, b) for a, b in zip(expected, loader.epoch(1), strict=True))


def test_a_resized_crop_changes_the_size_of_every_view() -> None:
    loader = loader_of(
        split_of(30, 12),
        geometry=Geometry(flip=True, random_resized_crop=8),
        second_view="mlkd",
        held_out=split_of(20, 12),
    )
    batch = next(loader.epoch(1))
    assert batch.strong is not None
    assert batch.held_out is not None
    assert batch.images.shape == batch.strong.shape == batch.held_out.images.shape == (8, 3, 8, 8)


def test_evaluation_takes_the_centre() -> None:
    split = split_of(4, 9)
    batch = next(evaluation_batches(split, batch_size=4, mean=MEAN, std=STD, centre_crop=4))
    expected = normalized(split.images[:, :, 2:6, 2:6])
    torch.testing.assert_close(batch.images.double(), expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="centre_crop is 10"):
        next(evaluation_batches(split, batch_size=4, mean=MEAN, std=STD, centre_crop=10))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prefetch": -1}, "prefetch is -1"),
        ({"resident_share": 1.5}, "resident_share is 1.5"),
        ({"rank": 2, "world_size": 2}, "rank is 2 of world_size 2"),
        ({"world_size": 3}, "the smallest batch has 2 of 10 samples for 3 processes"),
        ({"held_out_batch_size": 4}, "there is no held_out split"),
        ({"held_out": "split", "held_out_batch_size": 11}, "held_out_batch_size is 11: give 1 .* to 10"),
    ],
)
def test_bad_arguments_of_streams_are_refused(changes: dict[str, Any], message: str) -> None:
    if "held_out" in changes:
        changes = changes | {"held_out": split_of(10)}
    with pytest.raises(ValueError, match=message):
        loader_of(split_of(10), **changes)
