from itertools import pairwise

import pytest
import torch

from rankdistill.data import DataError, Split, few_labels, hold_out

FEW = [4, 7, 13, 51, 60, 63, 68, 81, 82]
HELD_OUT = [0, 4, 24, 28, 31, 36, 68, 69, 72]


def split_of(counts: list[int]) -> Split:
    """Images that all differ, classes in mixed order."""
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    numbers = torch.arange(len(labels))
    pixels = torch.stack([numbers // 256, numbers % 256], dim=1).to(torch.uint8)
    return Split(pixels[:, :, None, None], labels)


def numbers_of(split: Split) -> list[int]:
    high, low = split.images.long().flatten(1).unbind(1)
    return (high * 256 + low).tolist()


@pytest.mark.parametrize("num", [3, 30, 31, 32, 77])
def test_few_labels_gives_classes_equal_shares(num: int) -> None:
    whole = split_of([100, 40, 60])
    subset = few_labels(whole, num, seed=1)
    counts = subset.labels.bincount(minlength=3)
    assert len(subset) == num
    assert counts.max() - counts.min() <= 1
    chosen = numbers_of(subset)
    assert chosen == sorted(set(chosen))
    assert torch.equal(whole.labels[chosen], subset.labels)


def test_small_classes_give_all_they_have() -> None:
    assert few_labels(split_of([100, 4, 60]), 44, seed=0).labels.bincount().tolist() == [20, 4, 20]
    assert numbers_of(few_labels(split_of([5, 4]), 9, seed=0)) == list(range(9))


def test_hold_out_divides_the_samples() -> None:
    whole = split_of([100, 40, 60])
    train, held_out = hold_out(whole, 50, seed=4)
    assert sorted(numbers_of(train) + numbers_of(held_out)) == list(range(200))
    assert sorted(held_out.labels.bincount().tolist()) == [16, 17, 17]
    assert torch.equal(whole.labels[numbers_of(held_out)], held_out.labels)


def test_hold_out_leaves_every_class_a_training_sample() -> None:
    train, held_out = hold_out(split_of([50, 2, 3]), 52, seed=0)
    assert train.labels.bincount().tolist() == [1, 1, 1]
    assert held_out.labels.bincount().tolist() == [49, 1, 2]


def test_the_seed_decides_and_nothing_else() -> None:
    whole = split_of([30, 30, 30])
    assert numbers_of(few_labels(whole, 9, seed=0)) == FEW
    assert numbers_of(hold_out(whole, 9, seed=0)[1]) == HELD_OUT
    torch.manual_seed(1)
    assert numbers_of(few_labels(whole, 9, seed=0)) == FEW
    assert numbers_of(few_labels(whole, 9, seed=1)) != FEW


def test_smaller_subsets_are_part_of_larger_ones() -> None:
    whole = split_of([30, 30, 30])
    chosen = [set(numbers_of(few_labels(whole, num, seed=2))) for num in (4, 20, 21, 70)]
    assert all(smaller < larger for smaller, larger in pairwise(chosen))


def test_labels_that_are_not_used_do_not_count_as_classes() -> None:
    assert few_labels(split_of([10, 0, 10]), 2, seed=0).labels.tolist() in ([0, 2], [2, 0])


@pytest.mark.parametrize(("num", "message"), [(2, "give 3 "), (91, "to 90"), (-1, "give 3 ")])
def test_few_labels_refuses(num: int, message: str) -> None:
    with pytest.raises(DataError, match=f"^{num} labelled samples.*{message}"):
        few_labels(split_of([30, 30, 30]), num, seed=0)


@pytest.mark.parametrize("num", [2, 88])
def test_hold_out_refuses(num: int) -> None:
    with pytest.raises(DataError, match=f"{num} of 90 samples.*give 3 to 87"):
        hold_out(split_of([30, 30, 30]), num, seed=0)
