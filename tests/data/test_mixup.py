import dataclasses
from collections.abc import Iterator

import pytest
import torch

from rankdistill.contract import Batch
from rankdistill.data.dataset import Split
from rankdistill.data.loader import Loader
from rankdistill.data.mixup import MixedLoader


class TwoViews(Loader):
    def epoch(self, number: int, *, first: int = 0) -> Iterator[Batch]:
        for batch in super().epoch(number, first=first):
            yield dataclasses.replace(batch, strong=batch.images.clone())


def a_loader() -> Loader:
    images = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(20, 3, 8, 8).contiguous()
    return TwoViews(Split(images, torch.arange(20) % 4), batch_size=8, seed=1, mean=(0,) * 3, std=(1,) * 3)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_images_and_labels_are_mixed_by_the_same_share(kind: str) -> None:
    for batch, plain in zip(
        MixedLoader(a_loader(), num_classes=4, seed=5, **{kind: 1.0}).epoch(1), a_loader().epoch(1), strict=True
    ):
        assert batch.labels is not None
        assert plain.labels is not None
        assert batch.strong is not None
        assert batch.labels.shape == (len(plain), 4)
        torch.testing.assert_close(batch.labels.sum(1), torch.ones(len(plain)))
        torch.testing.assert_close(batch.images, batch.strong)
        mean = batch.images.mean((1, 2, 3))
        own, other = plain.images.mean((1, 2, 3)), plain.images.roll(1, 0).mean((1, 2, 3))
        share = ((mean - other) / (own - other)).mean()
        expected = torch.zeros_like(batch.labels)
        expected += share * torch.nn.functional.one_hot(plain.labels, 4)
        expected += (1 - share) * torch.nn.functional.one_hot(plain.labels.roll(1, 0), 4)
        torch.testing.assert_close(batch.labels, expected, rtol=1e-4, atol=1e-4)


def test_draws_are_a_function_of_seed_and_step() -> None:
    whole = list(MixedLoader(a_loader(), num_classes=4, seed=5, mixup=0.4).epoch(2))
    torch.rand(3)
    rest = list(MixedLoader(a_loader(), num_classes=4, seed=5, mixup=0.4).epoch(2, first=1))
    other = list(MixedLoader(a_loader(), num_classes=4, seed=6, mixup=0.4).epoch(2))
    assert all(torch.equal(a.images, b.images) for a, b in zip(whole[1:], rest, strict=True))
    assert not torch.equal(whole[0].images, other[0].images)
    assert len({batch.labels.max().item() for batch in whole}) > 1


def test_random_state_is_left_alone() -> None:
    loader = MixedLoader(a_loader(), num_classes=4, seed=5, mixup=0.4)
    before = torch.get_rng_state()
    next(iter(loader.epoch(1)))
    assert torch.equal(before, torch.get_rng_state())


def test_one_of_them() -> None:
    for options in ({}, {"mixup": 0.2, "cutmix": 1.0}):
        with pytest.raises(ValueError, match="one of them must be positive"):
            MixedLoader(a_loader(), num_classes=4, seed=0, **options)
