import pickle
from pathlib import Path

import pytest
import torch

from rankdistill.data import DATASETS, DataError, DataSet, Reader, Request, Split


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


def test_an_error_is_one_line_whatever_files_are_called() -> None:
    assert str(DataError("a\nb\r.png is missing")) == r"a\nb\r.png is missing"
    assert str(pickle.loads(pickle.dumps(DataError("a\nb")))) == r"a\nb"


def test_a_request_says_what_is_out_of_range() -> None:
    assert (Request().size(32), Request(image_size=8).size(32)) == (32, 8)
    assert Request(num_classes=2).classes("pets", ["cat", "dog", "eel"]) == ("cat", "dog")
    for size in (0, -1, 4097, 10**20):
        with pytest.raises(DataError, match=f"image_size is {size}: give 1 to 4096 pixels"):
            Request(image_size=size)
    with pytest.raises(DataError, match="4 classes of pets were asked for: give 2 to 3"):
        Request(num_classes=4).classes("pets", ["cat", "dog", "eel"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), r"the data in somewhere does not fit into the memory that is free: give a smaller image_size"),
        (PermissionError(13, "Permission denied", "x/y"), r"^x/y cannot be read \(Permission denied\): check that"),
        (OSError("what"), r"^somewhere cannot be read \(what\)"),
    ],
)
def test_what_the_machine_cannot_do_is_a_sentence(error: Exception, message: str) -> None:
    def read(request: Request) -> DataSet:
        """Return nothing."""
        raise error

    reader = Reader(read)
    assert reader.__doc__ == "Return nothing."
    with pytest.raises(DataError, match=message):
        reader(Path("somewhere"))
    with pytest.raises(TypeError, match="sise"):
        reader(sise=1)


def test_images_that_no_machine_has_room_for_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankdistill.data.dataset.memory", lambda device: 1e6)
    with pytest.raises(
        DataError, match=r"images of 64 x 64 pixels take 0.081 GB here, more than the memory of this ma"
    ):
        DATASETS["digits"](image_size=64)
