import pytest
import torch
from pillow_view import OPERATIONS, picture, pixels, strong_view
from torch import Tensor

from rankdistill.data import Geometry
from rankdistill.data.random import Stream, draws, integers, uniform
from rankdistill.data.views import RANGES, Operation, Operations, Views, draw_operations, operate

NO_BOX = torch.tensor([0, 0, -1, -1])


def images_of(num: int, height: int, width: int) -> Tensor:
    """Noise, noise of few levels, smooth images and images of one colour, [B, 3, H, W]."""
    generator = torch.Generator().manual_seed(num)
    noise = torch.randint(0, 256, (num, 3, height, width), generator=generator)
    low, levels = (torch.randint(1, 128, (num, 3, 1, 1), generator=generator) for _ in range(2))
    walk = torch.randn(num, 3, height, width, generator=generator).cumsum(2).cumsum(3)
    smooth = (128 + 4 * walk).clamp(0, 255).long()
    kinds = torch.stack([noise, low + noise % levels, smooth, noise[..., :1, :1].expand_as(noise)])
    return kinds[torch.arange(num) % 4, torch.arange(num)].to(torch.uint8)


def one_operation(kind: Operation, magnitudes: Tensor, height: int, width: int) -> Operations:
    kinds = torch.full((len(magnitudes), 1), int(kind))
    return Operations.of(kinds, magnitudes[:, None], NO_BOX.expand(len(magnitudes), 4), height=height, width=width)


def by_pillow(kind: Operation, images: Tensor, magnitudes: Tensor) -> Tensor:
    rows = images.permute(0, 2, 3, 1).contiguous().numpy()
    made = [
        torch.from_numpy(pixels(OPERATIONS[kind.name](picture(row), magnitude)).copy())
        for row, magnitude in zip(rows, magnitudes.tolist(), strict=True)
    ]
    return torch.stack(made).permute(0, 3, 1, 2)


@pytest.mark.parametrize("kind", Operation)
def test_every_operation_equals_pillows(kind: Operation) -> None:
    low, high = RANGES[kind]
    for num, height, width in ((120, 32, 32), (40, 17, 40), (8, 2, 5), (4, 1, 1)):
        images = images_of(num, height, width)
        generator = torch.Generator().manual_seed(int(kind))
        magnitudes = low + (high - low) * torch.rand(num, dtype=torch.float64, generator=generator)
        found = operate(images, one_operation(kind, magnitudes, height, width))
        assert torch.equal(found, by_pillow(kind, images, magnitudes))
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_every_level_and_factor_equals_pillows() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    image = torch.cat([ramp, ramp.flip(2), ramp.mT], dim=1)
    magnitudes = torch.linspace(0.05, 0.95, 300, dtype=torch.float64)
    images = image.expand(len(magnitudes), -1, -1, -1)
    for kind in (Operation.BRIGHTNESS, Operation.COLOR, Operation.CONTRAST, Operation.SHARPNESS):
        found = operate(images, one_operation(kind, magnitudes, 16, 16))
        assert torch.equal(found, by_pillow(kind, images, magnitudes))
    for kind, wanted in ((Operation.POSTERIZE, (4.0, 5.0, 7.999)), (Operation.SOLARIZE, (1e-9, 1.0, 99.5, 255.9))):
        values = torch.tensor(wanted, dtype=torch.float64)
        found = operate(images[: len(values)], one_operation(kind, values, 16, 16))
        assert torch.equal(found, by_pillow(kind, images[: len(values)], values))


def test_every_range_is_stretched_as_by_pillow() -> None:
    pairs = torch.tensor([(low, high) for low in range(0, 256, 9) for high in range(low, 256, 4)], dtype=torch.uint8)
    images = pairs[:, None, None, :].expand(-1, 3, 2, -1)
    magnitudes = torch.zeros(len(images), dtype=torch.float64)
    stretched = operate(images, one_operation(Operation.AUTOCONTRAST, magnitudes, 2, 2))
    assert torch.equal(stretched, by_pillow(Operation.AUTOCONTRAST, images, magnitudes))
    between = torch.cat([images, (images // 2 + images.flip(3) // 2)], dim=2)  # and what lies inside the range
    operations = one_operation(Operation.AUTOCONTRAST, magnitudes, 4, 2)
    assert torch.equal(operate(between, operations), by_pillow(Operation.AUTOCONTRAST, between, magnitudes))


@pytest.mark.parametrize("size", [(32, 32), (17, 40), (2, 3)])
def test_an_image_is_the_same_in_any_batch(size: tuple[int, int]) -> None:
    height, width = size
    num = 400
    images = images_of(num, height, width)
    operations = draw_operations(0, 1, torch.arange(num), height=height, width=width)
    assert set(operations.kinds.flatten().tolist()) == set(Operation)
    found = operate(images, operations)
    assert torch.equal(operate(images[::100], operations[::100]), found[::100])
    assert torch.equal(operate(images[7:8], operations[7:8]), found[7:8])
    assert not torch.equal(found, images)


def test_operations_are_uniform_independent_and_in_their_ranges() -> None:
    num = 20_000
    words = draws(5, 1, torch.arange(num), stream=Stream.OPERATIONS, count=4)
    drawn = draw_operations(5, 1, torch.arange(num), height=32, width=32)
    pairs = (drawn.kinds[:, 0] * 14 + drawn.kinds[:, 1]).bincount(minlength=196).double()
    expected = num / 196
    chi_square = ((pairs - expected) ** 2 / expected).sum()
    assert (chi_square - 195).abs() < 6 * 390**0.5  # with replacement: all 196 pairs, in either order
    assert torch.equal(drawn.kinds, integers(words[:, :2], 14))
    for kind, (low, high) in RANGES.items():
        share = uniform(words[:, 2:])[drawn.kinds == kind]
        assert share.max() > 0.99
        assert share.min() < 0.01
        assert (share.mean() - 0.5).abs() < 6 / (12 * len(share)) ** 0.5
        factors = drawn.factors[drawn.kinds == kind].double()
        torch.testing.assert_close(factors, low + (high - low) * share, rtol=1e-6, atol=1e-6)


def test_parameters_follow_from_the_magnitude() -> None:
    drawn = draw_operations(0, 1, torch.arange(30_000), height=24, width=32)
    numbers = {kind: drawn.integers[drawn.kinds == kind] for kind in Operation}
    assert numbers[Operation.POSTERIZE][:, 0].unique().tolist() == [0xF0, 0xF8, 0xFC, 0xFE]
    assert numbers[Operation.SOLARIZE][:, 0].unique().tolist() == list(range(1, 257))
    across, down = numbers[Operation.TRANSLATE_X][:, 2] / 65536, numbers[Operation.TRANSLATE_Y][:, 5] / 65536
    assert (across - 0.5).unique().tolist() == list(range(-10, 11))  # 0.3 of 32 is 9.6
    assert (down - 0.5).unique().tolist() == list(range(-7, 8))  # 0.3 of 24 is 7.2


def test_the_box_has_the_authors_quirks() -> None:
    boxes = draw_operations(0, 1, torch.arange(100_000), height=32, width=32).boxes
    left, top, right, bottom = boxes.unbind(1)
    assert (right.clamp(max=31) - left + 1).max() == 16  # int(v) + 1, and v is below 16
    assert left.min() == top.min() == 0
    assert left.max() == top.max() == 31
    assert right.max() == bottom.max() == 32  # clipped by the image
    area = (right.clamp(max=31) - left + 1) * (bottom.clamp(max=31) - top + 1)
    assert abs(area.double().mean().item() - 85) < 1  # as measured on the authors' code


def test_the_strong_view_equals_a_pipeline_of_pillow() -> None:
    num, seed, epoch, side = 400, 11, 3, 32
    images = images_of(num, side, side)
    views = Views(seed, Geometry(padding=4, flip=True), side, side, "mlkd")
    indices = torch.arange(num)
    _, strong = views.make(images, views.draw(epoch, indices))
    assert strong is not None
    geometry = draws(seed, epoch, indices, stream=Stream.STRONG_VIEW, count=3).tolist()
    words = draws(seed, epoch, indices, stream=Stream.OPERATIONS, count=7).tolist()
    rows = images.permute(0, 2, 3, 1).contiguous().numpy()
    for index in range(num):
        image = strong_view(rows[index], geometry[index], words[index], 4)
        assert (strong[index].permute(1, 2, 0).numpy() == pixels(image)).all(), (index, words[index])


def test_views_crop_for_themselves() -> None:
    images = images_of(300, 8, 8)
    views = Views(0, Geometry(padding=2, flip=True), 8, 8, "weak")
    drawn = views.draw(1, torch.arange(300))
    weak, strong = views.make(images, drawn)
    assert strong is not None
    assert drawn.second is not None
    alike = (weak == strong).flatten(1).all(dim=1).double().mean()
    assert alike < 0.4  # a quarter of the images has one colour
    sides = integers(drawn.weak[:, 2], 2) == integers(drawn.second[:, 2], 2)
    assert 110 < sides.sum() < 190


def test_what_has_no_256_levels_is_refused() -> None:
    operations = draw_operations(0, 1, torch.arange(2), height=4, width=4)
    for images in (torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="defined on uint8 RGB"):
            operate(images, operations)


def test_nothing_comes_back_from_a_device() -> None:
    images = images_of(60, 12, 10)
    geometry = Geometry(padding=2, flip=True, rotation=20.0)
    for each in (geometry, Geometry(flip=True, random_resized_crop=8)):
        views = Views(0, each, 12, 10, "mlkd")
        drawn = views.draw(1, torch.arange(60))
        real = views.make(images, drawn)
        unreal = views.make(images.to("meta"), drawn)  # a device without values: reading one would be an error
        for one, other in zip(real, unreal, strict=True):
            assert one is not None
            assert other is not None
            assert other.device.type == "meta"
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
