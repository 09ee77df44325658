import io
import os
import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize

from rankdistill.data import DATASETS, DataError
from rankdistill.data.readers.files import in_folder
from rankdistill.data.readers.images import (
    UndecodableError,
    decoded_chunks,
    is_image,
    open_rgb,
    resized,
    square,
    square_of,
)


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
@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM"])
def test_truncated_images_are_undecodable(form: str) -> None:
    whole = saved(noise(40, 30), form)
    assert open_rgb(whole).size == (40, 30)
    for end in (len(whole) // 2, 20, 0):
        with pytest.raises(UndecodableError, match="is no whole image"):
            open_rgb(whole[:end])


def png(width: int, height: int) -> bytes:
    """A black image of any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))

    pixels = zlib.compress(bytes((1 + 3 * width) * height), 9)
    header = struct.pack(">2L5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_what_a_file_claims_is_bounded_by_its_length() -> None:
    narrow = png(1, 10_000_000)
    assert len(narrow) < 100_000
    with pytest.raises(
        UndecodableError, match=r"has 1 x 10000000 pixels: too narrow to be resized to 224 pixels a side"
    ):
        square_of(224)(narrow)
    assert square_of(1)(narrow).size == (1, 1)
    claims = saved(noise(4, 4), "BMP")
    for width, height, message in (
        (5000, 5000, r"has 5000 x 5000 pixels in 102 bytes: at most 67,108,864 pixels are read"),
        (40_000, 40_000, r"is no whole image"),  # Pillow's own bound
    ):
        large = bytearray(claims)
        struct.pack_into("<2l", large, 18, width, height)
        with pytest.raises(UndecodableError, match=message):
            open_rgb(bytes(large))


def test_large_photographs_are_read() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)).resize(
        (6000, 4500)
    )
    content = saved(image, "JPEG")
    assert len(content) * 256 > 6000 * 4500 > 2**24
    assert square_of(8)(content).size == (8, 8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".eps"])
def test_no_other_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Pillow would give the content to Ghostscript, whatever the file is called."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(UndecodableError, match="is no whole image of a format that is read"):
        open_rgb(content)
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            noise(8, 8).save(tmp_path / "set" / part / name / "0.png")
    (tmp_path / "set" / "train" / "a" / f"1{suffix}").write_bytes(content)
    if suffix == ".eps":
        expected: Any = pytest.warns(UserWarning, match=r"1 files in .* are left out, .* \(1 .eps\)")
    else:
        expected = pytest.raises(DataError, match=f"a/1{suffix} in .* is no whole image")
    with expected:
        DATASETS["imagefolder"](tmp_path / "set", image_size=8)
    assert not (tmp_path / "started").exists()


def test_only_the_formats_of_the_suffixes_are_opened() -> None:
    for form in ("GIF", "ICO", "TGA", "PCX", "SGI", "DDS", "JPEG2000"):
        with pytest.raises(UndecodableError, match="is no whole image of a format that is read"):
            open_rgb(saved(noise(16, 16), form))


def test_memory_that_is_not_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(8, 8).save(tmp_path / "0.png")

    def fail(content: bytes) -> Image.Image:
        raise MemoryError

    files = in_folder(tmp_path, remedy="make it smaller")
    with pytest.raises(DataError, match=r"0.png in .* does not fit into the memory that is free: make it smaller"):
        list(decoded_chunks(files, ["0.png"], fail, 8))


def test_damaged_images_are_no_other_error() -> None:
    draw = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "PPM", "BMP"):
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
        open_rgb(saved(noise(4, 4), "PNG"), formats=("JPEG",))


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
