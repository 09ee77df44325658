import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from rankdistill.contract import Batch
from rankdistill.data import Loader, Split, TransformLoader
from rankdistill.data.random import Stream, draws
from rankdistill.data.workers import _random_state_kept

CONSTANTS: dict[str, Any] = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}


def split_of(num: int) -> Split:
    images = torch.randint(0, 256, (num, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(num))
    return Split(images, torch.arange(num) % 5)


def numpy_random() -> float:
    return float(np.random.random())  # noqa: NPY002


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def noisy(image: Tensor) -> Tensor:
    """Draw from each of the three generators that a transform may use."""
    return torch.tensor([random.random(), numpy_random(), torch.rand(()).item()]).view(3, 1, 1).float()


PIPELINE = v2.Compose([v2.RandomCrop(8, padding=2), v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4)])


def loader_of(num: int, transform: Any = PIPELINE, **changes: Any) -> TransformLoader:
    options: dict[str, Any] = {"batch_size": 8, "seed": 0, "strong_transform": noisy}
    return TransformLoader(split_of(num), transform, **CONSTANTS | options | changes)


def equal(found: Iterator[Batch], expected: list[Batch]) -> bool:
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(found, expected, strict=True)
        for name in ("images", "labels", "indices", "strong")
    )


def test_order_labels_and_steps_are_those_of_the_loader() -> None:
    for mine, theirs in zip(
        loader_of(30).epoch(2), Loader(split_of(30), batch_size=8, seed=0, **CONSTANTS).epoch(2), strict=True
    ):
        assert mine.indices is not None
        assert theirs.indices is not None
        assert mine.labels is not None
        assert theirs.labels is not None
        assert torch.equal(mine.indices, theirs.indices)
        assert torch.equal(mine.labels, theirs.labels)
        assert (mine.epoch, mine.step) == (theirs.epoch, theirs.step)
        assert mine.images.shape == theirs.images.shape
    assert len(loader_of(30)) == 4
    assert loader_of(30).num_samples == 30


def test_without_randomness_images_are_the_loaders() -> None:
    mine = next(loader_of(30, v2.Identity(), strong_transform=None).epoch(1))
    theirs = next(Loader(split_of(30), batch_size=8, seed=0, **CONSTANTS).epoch(1))
    assert torch.equal(mine.images, theirs.images)
    assert mine.strong is None
    assert mine.images.is_contiguous(memory_format=torch.channels_last)


def test_each_sample_has_its_own_draws() -> None:
    loader = loader_of(30, noisy)
    epochs = [list(loader.epoch(number)) for number in (1, 2)]
    values = torch.cat([view for batches in epochs for batch in batches for view in (batch.images, batch.strong)])
    assert values.shape == (120, 3, 1, 1)
    assert len(values.flatten(1).unique(dim=0)) == 120
    batch = epochs[1][3]
    assert batch.indices is not None
    seeds = draws(0, 2, batch.indices[:1], stream=Stream.USER_TRANSFORM, count=2)[0]
    for view, seed in zip((batch.images, batch.strong), seeds.tolist(), strict=True):
        assert view is not None
        random.seed(seed)
        assert view[0].flatten()[0].item() == pytest.approx(random.random())


def test_a_stream_goes_on_anywhere_and_is_shared() -> None:
    whole = list(loader_of(30).epoch(3))
    assert equal(loader_of(30).epoch(3, first=2), whole[2:])
    for parts, batch in zip(
        zip(*(loader_of(30, rank=rank, world_size=3).epoch(3) for rank in range(3)), strict=True), whole, strict=True
    ):
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_workers_change_nothing() -> None:
    whole = list(loader_of(20).epoch(1))
    assert equal(loader_of(20, num_workers=2, start_method="fork").epoch(1), whole)


def test_the_random_state_of_this_process_is_kept() -> None:
    def state() -> tuple[float, float, float]:
        return random.random(), numpy_random(), torch.rand(()).item()

    seed_all(1)
    expected = state()
    seed_all(1)
    with _random_state_kept():
        seed_all(2)
    assert state() == expected
    seed_all(1)
    list(loader_of(20).epoch(1))
    assert state()[1:] == expected[1:]  # beartype, which checks the types here, draws from Python's generator


def test_what_is_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="num_workers is -1"):
        loader_of(20, num_workers=-1)
    with pytest.raises(ValueError, match="epoch 0, batch 0 does not exist"):
        loader_of(20).epoch(0)
    with pytest.raises(ValueError, match="a transform returned list"):
        next(loader_of(20, lambda image: image.tolist()).epoch(1))
