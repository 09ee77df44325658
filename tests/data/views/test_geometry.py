from typing import Any

import numpy as np
import pillow_view
import pytest
import torch
from PIL import Image

from rankdistill.data import Geometry
from rankdistill.data.random import Stream, draws, uniform
from rankdistill.data.views import crop_and_flip, moved, rotate, weak_view


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


@pytest.mark.parametrize("channels_last", [True, False])
def test_crops_are_pillows_in_any_memory_format_and_type(channels_last: bool) -> None:
    images = torch.randint(0, 256, (200, 3, 7, 9), dtype=torch.uint8)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    words = draws(3, 1, torch.arange(200), stream=Stream.WEAK_VIEW, count=3)
    for padding in (0, 1, 4, 12):
        found = weak_view(images, words, padding=padding, flip=True)
        rows = images.permute(0, 2, 3, 1).contiguous().numpy()
        for view, row, drawn in zip(found, rows, words.tolist(), strict=True):
            assert torch.equal(view, tensor(pillow_view.weak_view(row, drawn, padding)))
        assert torch.equal(weak_view(images.float(), words, padding=padding, flip=True), found.float())


def test_no_images_give_no_views() -> None:
    images = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    words = draws(0, 1, torch.arange(0), stream=Stream.WEAK_VIEW, count=24)
    assert moved(Geometry(padding=1, flip=True, rotation=5.0), images, words).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("size", [(32, 32), (17, 40)])
def test_rotation_equals_pillows(size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (60, 3, *size), dtype=torch.uint8)
    degrees = 40 * torch.rand(60, dtype=torch.float64) - 20
    degrees[:3] = torch.tensor([0.0, 20.0, -20.0])
    found = rotate(images, degrees)
    for image, angle, turned in zip(images, degrees.tolist(), found, strict=True):
        assert torch.equal(turned, tensor(picture_of(image).rotate(angle)))
    assert torch.equal(rotate(images.float(), degrees), found.float())


def test_the_geometry_turns_then_crops_then_mirrors() -> None:
    images = torch.randint(0, 256, (50, 3, 16, 16), dtype=torch.uint8)
    words = draws(0, 2, torch.arange(50), stream=Stream.WEAK_VIEW, count=4)
    degrees = 20.0 * (2 * uniform(words[:, 3]) - 1)
    turned = rotate(images, degrees)
    geometry = Geometry(padding=2, flip=True, rotation=20.0)
    assert torch.equal(moved(geometry, images, words), weak_view(turned, words[:, :3], padding=2, flip=True))
    assert torch.equal(moved(Geometry(rotation=20.0), images, words), turned)
    assert torch.equal(moved(Geometry(), images, words), images)
    assert -20 < degrees.min() < -15
    assert 15 < degrees.max() < 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": -1}, "padding is -1"),
        ({"padding": 10**20}, "padding is 1" + "0" * 20),
        ({"rotation": float("nan")}, "rotation is nan"),
        ({"rotation": 91.0}, "rotation is 91.0"),
        ({"random_resized_crop": 0}, "random_resized_crop is 0"),
        ({"random_resized_crop": 8, "padding": 4}, "padding is 4 beside random_resized_crop"),
    ],
)
def test_a_geometry_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Geometry(**options)


def picture_of(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
