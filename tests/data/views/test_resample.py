import pytest
import torch
from PIL import Image
from torch import Tensor

from rankdistill.data import Geometry
from rankdistill.data.random import Stream, draws
from rankdistill.data.views import moved, num_words
from rankdistill.data.views.resample import AREA, RATIO, draw_boxes, resized


def boxes_of(num: int, height: int, width: int) -> Tensor:
    words = draws(0, 1, torch.arange(num), stream=Stream.WEAK_VIEW, count=24)
    return draw_boxes(words[:, :2], words[:, 4:], height=height, width=width)


@pytest.mark.parametrize(("height", "width", "size"), [(40, 56, 24), (32, 32, 32), (20, 30, 48), (64, 64, 7)])
def test_each_pass_equals_pillows(height: int, width: int, size: int) -> None:
    boxes = boxes_of(60, height, width)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 3, height, width), dtype=torch.uint8, generator=generator)
    found = resized(images, boxes, size)
    assert found.is_contiguous(memory_format=torch.channels_last)
    for image, (top, left, down, across), view in zip(images, boxes.tolist(), found, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        part = picture.crop((left, top, left + across, top + down))
        rows_first = part.resize((size, down), Image.Resampling.BILINEAR).resize(
            (size, size), Image.Resampling.BILINEAR
        )
        assert view.permute(1, 2, 0).flatten().tolist() == list(rows_first.tobytes())


def test_boxes_are_torchvisions() -> None:
    height, width = 200, 300
    top, left, down, across = boxes_of(20_000, height, width).unbind(1)
    assert (down > 0).all()
    assert (across > 0).all()
    assert ((top >= 0) & (top + down <= height)).all()
    assert ((left >= 0) & (left + across <= width)).all()
    area = (down * across).double() / (height * width)
    ratio = across.double() / down
    assert AREA[0] - 0.01 < area.min() < 0.09
    assert 0.85 < area.max() <= 1.0
    assert ((ratio > RATIO[0] - 0.02) & (ratio < RATIO[1] + 0.02)).all()
    # From 20,000 calls of torchvision 0.29's RandomResizedCrop.get_params on such an image.
    assert abs(area.mean().item() - 0.391) < 0.008
    assert abs(ratio.log().mean().item() - 0.031) < 0.008


@pytest.mark.parametrize(("height", "width", "box"), [(4, 100, [0, 47, 4, 5]), (100, 4, [47, 0, 5, 4])])
def test_the_middle_is_taken_where_no_try_fits(height: int, width: int, box: list[int]) -> None:
    words = torch.full((2, 20), 2**32 - 1)  # all of the area, the widest ratio
    words[1, 1::2] = 0  # the narrowest
    found = draw_boxes(torch.zeros(2, 2, dtype=torch.int64), words, height=height, width=width)
    assert found.tolist() == [box, box]


def test_the_view_is_cropped_then_mirrored() -> None:
    images = torch.randint(0, 256, (40, 3, 16, 20), dtype=torch.uint8)
    words = draws(0, 1, torch.arange(40), stream=Stream.WEAK_VIEW, count=24)
    geometry = Geometry(flip=True, random_resized_crop=12)
    assert num_words(geometry) == 24
    assert geometry.size(16, 20) == (12, 12)
    plain = resized(images, draw_boxes(words[:, :2], words[:, 4:], height=16, width=20), 12)
    mirrored = (words[:, 2] >> 31).bool()
    expected = torch.where(mirrored[:, None, None, None], plain.flip(3), plain)
    assert torch.equal(moved(geometry, images, words), expected)


def test_floating_point_is_refused() -> None:
    with pytest.raises(ValueError, match="images to resize are"):
        resized(torch.zeros(1, 3, 8, 8), torch.tensor([[0, 0, 8, 8]]), 4)
