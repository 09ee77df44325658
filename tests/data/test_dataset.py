import pytest
import torch

from rankdistill.data import DataError, DataSet, Split


def split_of(labels: list[int], size: int = 2) -> Split:
    return Split(torch.zeros(len(labels), 3, size, size, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64))


def data_of(train: Split, test: Split, names: tuple[str, ...] = ("cat", "dog")) -> DataSet:
    return DataSet("pets", train, test, names, (0.5,) * 3, (0.5,) * 3)


def test_subset_keeps_order_and_memory_format() -> None:
    images = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).view(4, 3, 2, 2)
    subset = Split(images, torch.arange(4)).subset(torch.tensor([3, 0]))
    assert torch.equal(subset.images, images[[3, 0]])
    assert subset.labels.tolist() == [3, 0]
    assert subset.images.is_contiguous(memory_format=torch.channels_last)
    assert len(subset) == 2


def test_properties() -> None:
    data = data_of(split_of([0, 1, 1]), split_of([1]))
    assert data.num_classes == 2
    assert data.image_shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2).long(), r"images are torch.float32 \[2, 3, 4, 4\]"),
        (torch.zeros(2, 4, 4).byte(), torch.zeros(2).long(), r"images are torch.uint8 \[2, 4, 4\]"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.zeros(3).long(), r"labels of 2 images are torch.int64 \[3\]"),
        (torch.zeros(2, 3, 4, 4).byte(), torch.zeros(2), r"labels of 2 images are torch.float32 \[2\]"),
    ],
)
def test_a_split_checks_its_tensors(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Split(images, labels)


@pytest.mark.parametrize(
    ("train", "test", "names", "message"),
    [
        (split_of([0]), split_of([0]), ("cat",), "pets has 1 class"),
        (split_of([]), split_of([0]), ("cat", "dog"), "no training images"),
        (split_of([0, 1]), split_of([]), ("cat", "dog"), "no test images"),
        (split_of([0, 2]), split_of([0]), ("cat", "dog"), "training labels of pets run from 0 to 2, not 0 to 1"),
        (split_of([0, 1]), split_of([-1]), ("cat", "dog"), "test labels of pets run from -1 to -1"),
        (split_of([0, 0]), split_of([0]), ("cat", "dog"), "1 classes of pets have no training image, 'dog' first"),
        (split_of([0, 1]), split_of([0], size=3), ("cat", "dog"), "different shapes"),
    ],
)
def test_a_data_set_checks_its_parts(train: Split, test: Split, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        data_of(train, test, names)
