import io
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from rankdistill.data.readers.images import UndecodableError, is_image, open_rgb, resized, square


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [1, 7, 32, 33, 50])
@pytest.mark.parametrize(("width", "height"), [(32, 32), (33, 32), (32, 47), (61, 40), (40, 61), (100, 9), (1, 5)])
def test_square_is_torchvisions(width: int, height: int, size: int) -> None:
    image = noise(width, height)
    expected = Compose([Resize(size), CenterCrop(size)])(image)
    assert square(image, size).size == (size, size)
    assert np.array_equal(np.asarray(square(image, size)), np.asarray(expected))


def test_resized_is_square_of_each() -> None:
    images = torch.from_numpy(np.stack([np.asarray(noise(8, 8)), np.asarray(noise(8, 8).rotate(90))]))
    assert torch.equal(resized(images, 5)[1], torch.from_numpy(np.array(square(noise(8, 8).rotate(90), 5))))
    assert resized(images, 8) is images


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_of_8_bits_becomes_rgb(mode: str) -> None:
    image = noise(9, 5, mode)
    opened = open_rgb(saved(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert (opened.mode, opened.size) == ("RGB", (9, 5))
    assert np.array_equal(np.asarray(opened), np.asarray(image.convert("RGB")))


def test_a_palette_with_transparency_gives_its_colours() -> None:
    image = noise(9, 5, "P")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = open_rgb(saved(image, "PNG", transparency=bytes(range(200))))
    assert np.array_equal(np.asarray(opened), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_are_refused(mode: str) -> None:
    image = Image.fromarray(np.full((4, 4), 700, dtype={"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    with pytest.raises(UndecodableError, match=f"has pixels of mode {mode}"):
        open_rgb(saved(image, "TIFF"))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # what Pillow says of a TIFF, beside its error
@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF"])
def test_truncated_images_are_undecodable(form: str) -> None:
    whole = saved(noise(40, 30), form)
    assert open_rgb(whole).size == (40, 30)
    for end in (len(whole) // 2, 20, 0):
        with pytest.raises(UndecodableError, match="is no whole image"):
            open_rgb(whole[:end])


def test_damaged_images_are_no_other_error() -> None:
    draw = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        whole = saved(noise(20, 15), form)
        for _ in range(40):
            broken = bytearray(whole)
            for position in draw.integers(0, min(len(whole), 200), 4):
                broken[position] = draw.integers(256)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with suppress(UndecodableError):
                    assert open_rgb(bytes(broken)).mode == "RGB"


def test_only_the_formats_that_are_allowed() -> None:
    with pytest.raises(UndecodableError, match="is no whole JPEG"):
        open_rgb(saved(noise(4, 4), "PNG"), formats=["JPEG"])


def test_gigantic_images_are_undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UndecodableError):
        open_rgb(saved(noise(20, 20), "PNG"))


def test_names_of_images() -> None:
    assert [is_image(name) for name in ("a/b.JPEG", "b.jpg", "c.png.txt", "jpg", "d.Tiff")] == [
        True,
        True,
        False,
        False,
        True,
    ]
