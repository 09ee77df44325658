import pytest
import torch

from rankdistill.data import crop_and_flip, weak_view
from rankdistill.data.random import Stream, draws


def plain(image: torch.Tensor, top: int, left: int, mirrored: bool, padding: int) -> torch.Tensor:
    """One pixel at a time, as the definition says."""
    _, height, width = image.shape
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            source_row = row + top - padding
            source_column = (width - 1 - column if mirrored else column) + left - padding
            if 0 <= source_row < height and 0 <= source_column < width:
                result[:, row, column] = image[:, source_row, source_column]
    return result


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_offset_and_side(shape: tuple[int, int, int], dtype: torch.dtype, channels_last: bool) -> None:
    padding = 2
    cases = [(top, left, side) for top in range(5) for left in range(5) for side in (False, True)]
    images = torch.randint(1, 256, (len(cases), *shape)).to(dtype)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    top, left, side = (torch.tensor(values) for values in zip(*cases, strict=True))
    found = crop_and_flip(images, top, left, side, padding=padding)
    expected = [plain(image, *case, padding) for image, case in zip(images, cases, strict=True)]
    assert torch.equal(found, torch.stack(expected))
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_every_position_and_side_is_as_likely() -> None:
    num = 18_000
    image = torch.zeros(1, 1, 3, 9, dtype=torch.uint8)
    image[0, 0, 1, 1] = 1  # seen in columns 0 to 2, or, mirrored, in columns 6 to 8
    words = draws(0, 1, torch.arange(num), stream=Stream.WEAK_VIEW, count=3)
    views = weak_view(image.expand(num, -1, -1, -1), words, padding=1, flip=True)
    counts = views.long().sum(dim=0).view(3, 3, 3)  # row, third of the image, column
    assert (counts[:, 1] == 0).all()
    assert ((counts[:, ::2] - num / 18).abs() < 6 * (num / 18) ** 0.5).all()


def test_what_is_off_stays_off() -> None:
    images = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    words = draws(0, 1, torch.arange(64), stream=Stream.WEAK_VIEW, count=3)
    assert torch.equal(weak_view(images, words, padding=0, flip=False), images)
    mirrored_only = weak_view(images, words, padding=0, flip=True)
    same = (mirrored_only == images).flatten(1).all(dim=1)
    turned = (mirrored_only == images.flip(3)).flatten(1).all(dim=1)
    assert torch.equal(same, ~turned)
    assert 16 < same.sum() < 48
    row_marks = torch.arange(8, dtype=torch.uint8).expand(64, 1, 8, 8)  # brighter to the right
    cropped_only = weak_view(row_marks + 1, words, padding=2, flip=False).int()
    inside = (cropped_only[..., 1:] > 0) & (cropped_only[..., :-1] > 0)
    assert (cropped_only.diff(dim=3)[inside] == 1).all()
