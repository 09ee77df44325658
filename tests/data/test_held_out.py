import pytest
import torch

from rankdistill.data.held_out import WithHeldOut
from rankdistill.data.loader import Loader
from rankdistill.data.sets import Split


def small_loader(size: int, batch_size: int, seed: int) -> Loader:
    images = torch.randint(256, (size, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    split = Split(images, torch.arange(size) % 3)
    return Loader(split, batch_size=batch_size, seed=seed, mean=(0.5,) * 3, std=(0.25,) * 3, padding=1, flip=True)


def small_loaders(every: int = 3) -> WithHeldOut:
    return WithHeldOut(small_loader(22, 6, 1), small_loader(9, 4, 2), every=every)


def test_every_few_steps_a_batch_has_the_next_held_out_batch() -> None:
    loader = small_loaders()
    assert (len(loader), loader.num_samples) == (4, 22)
    batches = [batch for epoch in (1, 2, 3, 4) for batch in loader.epoch(epoch)]
    assert [batch.step for batch in batches] == list(range(16))
    assert [batch.step for batch in batches if batch.held_out is not None] == [0, 3, 6, 9, 12, 15]
    held_out = [batch for epoch in (1, 2, 3) for batch in small_loader(9, 4, 2).epoch(epoch)]
    found = [batch.held_out for batch in batches if batch.held_out is not None]
    assert all(torch.equal(left.images, right.images) for left, right in zip(found, held_out, strict=True))
    assert all(torch.equal(left.labels, right.labels) for left, right in zip(found, held_out, strict=True))


def test_what_is_trained_on_is_the_same_as_without() -> None:
    for left, right in zip(small_loaders().epoch(2), small_loader(22, 6, 1).epoch(2), strict=True):
        assert torch.equal(left.images, right.images)


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_going_on_within_an_epoch_gives_the_same_batches(every: int) -> None:
    loader = small_loaders(every)
    for epoch in (1, 3):
        whole = list(loader.epoch(epoch))
        for first in range(4):
            for left, right in zip(whole[first:], loader.epoch(epoch, first=first), strict=True):
                assert (left.held_out is None) == (right.held_out is None)
                if left.held_out is not None and right.held_out is not None:
                    assert torch.equal(left.held_out.images, right.held_out.images)


def test_every_must_be_positive() -> None:
    with pytest.raises(ValueError, match="every is 0: it must be at least 1"):
        small_loaders(0)
