"""Every reader of image data on inputs that are nearly right: each is read or refused by one sentence.

`--fuzz-inputs N` sets how many inputs a test has; `make test-faults` runs 5,000.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision
from fuzzing import ODD_STRINGS, mutated, mutated_json, odd_integer, watch
from PIL import Image

from rankdistill.data import DATASETS, DataError
from rankdistill.data.readers import fashion_mnist
from rankdistill.data.readers.images import FORMATS, UndecodableError, square_of

SIDE = 12


@pytest.fixture
def inputs(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("fuzz_inputs"))


@pytest.fixture
def folders(inputs: int) -> int:
    """As many as there are other inputs, but a quarter in the quick run: each is a folder to write."""
    return inputs if inputs > 100 else inputs // 4


def picture(seed: int, width: int = 20, height: int = 16) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


def encoded(form: str, image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def other_images(form: str) -> list[bytes]:
    """Images of one format that go other ways through its decoder."""
    rgb = picture(0)
    ways: dict[str, list[tuple[Image.Image, dict[str, object]]]] = {
        "JPEG": [
            *[(rgb, {"progressive": True}), (rgb, {"dpi": (3, 3)})],
            *[(rgb.convert("L"), {}), (rgb.convert("CMYK"), {})],
        ],
        "PNG": [
            *[(rgb.convert("P"), {"transparency": 1}), (rgb.convert("L"), {"bits": 2})],
            *[(rgb.convert("RGBA"), {}), (rgb.convert("1"), {})],
        ],
        "TIFF": [
            *((rgb, {"compression": kind}) for kind in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
            *[(rgb.convert("1"), {"compression": "group4"}), (rgb.convert("CMYK"), {})],
        ],
        "WEBP": [
            *[(rgb, {"lossless": True}), (rgb.convert("RGBA"), {})],
            (rgb, {"save_all": True, "append_images": [picture(1)]}),
        ],
        "BMP": [(rgb.convert("P"), {}), (rgb.convert("1"), {}), (rgb.convert("L"), {})],
        "PPM": [(rgb.convert("L"), {}), (rgb.convert("1"), {})],
    }  # fmt: skip
    made = [encoded(form, rgb), *(encoded(form, image, **options) for image, options in ways[form])]
    return made + [b"P3\n2 2\n255\n1 2 3 4 5 6 7 8 9 10 11 12\n", b"P2 2 1 9 1 2"] * (form == "PPM")


def with_checksums(content: bytes) -> bytes:
    """Return a PNG whose chunks have the checksums of what they hold, so that a change is not noticed at once."""
    whole = bytearray(content)
    place = 8
    while place + 12 <= len(whole):
        length = int.from_bytes(whole[place : place + 4], "big")
        end = place + 8 + length
        if end + 4 > len(whole):
            break
        struct.pack_into(">L", whole, end, zlib.crc32(whole[place + 4 : end]))
        place = end + 4
    return bytes(whole)


@pytest.mark.parametrize("form", FORMATS)
def test_images(form: str, inputs: int) -> None:
    draw = random.Random(form)
    whole = other_images(form)

    def images() -> Iterator[bytes]:
        yield from whole
        for _ in range(inputs):
            content = mutated(draw, draw.choice(whole), whole)
            yield with_checksums(content) if form == "PNG" and draw.random() < 0.7 else content

    counts = watch(square_of(SIDE), images(), refusals=(UndecodableError,))
    assert counts["read"] >= len(whole)
    assert counts["refused"] > 0


def tree(root: Path) -> Path:
    """Two classes, three training images and a test image of each, in all six formats."""
    names = ["train/a/0.png", "train/a/1.jpg", "train/a/2.bmp", "train/b/0.tif", "train/b/1.webp", "train/b/2.ppm"]
    for number, name in enumerate([*names, "val/a/0.png", "val/b/0.png"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(root / name)
    return root


def disturbed(draw: random.Random, root: Path) -> None:
    """Change one thing of a folder of files: a content, a name, a kind, a place."""
    path = draw.choice([path for path in sorted(root.rglob("*")) if not path.is_symlink()] or [root])
    odd = path.parent / draw.choice(
        ("x.png", "x.gif", "a", "train", "val", "\udcff.png", "-.jpg", "[a].png", "x" * 250)
    )
    free = not os.path.lexists(odd)
    match draw.randrange(10):
        case 0 | 1 | 2 if path.is_file() and path.stat().st_size < 2**20:  # not one that case 8 made
            path.write_bytes(
                mutated(draw, path.read_bytes(), [encoded("PNG", picture(0)), b"%!PS-Adobe-3.0 EPSF-3.0\n"])
            )
        case 3:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        case 4 if free:
            path.rename(odd)
        case 5 if free:
            odd.symlink_to(draw.choice((path, path.parent, root, Path("/dev/zero"), Path("nothing"), odd)))
        case 6 if free:
            os.mkfifo(odd)
        case 7 if free:
            odd.mkdir()
        case 8 if free:
            with odd.open("wb") as file:
                file.truncate(draw.choice((0, 2**20, 2**32)))
        case _ if path.is_file():
            path.unlink()
            path.mkdir()


def each_disturbed(draw: random.Random, number: int, whole: Path, place: Path) -> Iterator[Path]:
    """Yield a copy of a folder, each time disturbed anew; the first is whole."""
    for turn in range(number + 1):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        for _ in range(draw.choice((1, 1, 2)) if turn else 0):
            disturbed(draw, place)
        yield place


def check(counts: Counter[str]) -> None:
    """Some inputs were read and some refused: else the test would show nothing."""
    assert counts["read"] > 0
    assert counts["refused"] > 0


@pytest.mark.parametrize("layout", ["with parts", "flat"])
def test_folders_of_images(tmp_path: Path, folders: int, layout: str) -> None:
    whole = tree(tmp_path / "whole")
    copies = each_disturbed(
        random.Random(layout), folders, whole if layout == "with parts" else whole / "train", tmp_path / "x"
    )
    check(watch(lambda root: DATASETS["imagefolder"](root, image_size=SIDE), copies, refusals=(DataError,)))


def csv_text(draw: random.Random, lines: list[list[str]]) -> bytes:
    """Return the lines of a list as text, some of their cells, commas and ends odd."""
    rows = [list(row) for row in lines]
    for _ in range(draw.choice((1, 1, 2, 5))):
        row = draw.choice(rows)
        place = draw.randrange(len(row)) if row else 0
        match draw.randrange(6):
            case 0 | 1 if row:
                row[place] = draw.choice(ODD_STRINGS)
            case 2 if row:
                row[place] = draw.choice((" {}", "{} ", '"{}"', '"{}', "{}\0", "{}.0", "0{}", "./{}", "{}/")).format(
                    row[place]
                )
            case 3 if row:
                del row[place]
            case 4:
                row.insert(place, draw.choice(draw.choice(lines)))
            case _:
                rows.insert(draw.randrange(len(rows) + 1), list(draw.choice(rows)))
    text = draw.choice(("\n", "\n", "\r\n", "\r")).join(",".join(row) for row in rows)
    content = text.encode("utf-8", "surrogateescape")
    return mutated(draw, content) if draw.random() < 0.3 else content


@pytest.mark.parametrize("split", [True, False])
def test_lists_of_images(tmp_path: Path, inputs: int, split: bool) -> None:
    draw = random.Random(split)
    tree(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    rows = [["path", "label"], *([name, str(number % 2)] for number, name in enumerate(names))]
    parts = ["split", *("test" if name.startswith("val") else "train" for name in names)]
    lines = [[*row, part] for row, part in zip(rows, parts, strict=True)] if split else rows
    lists = [",".join(row) for row in lines]

    def read(content: bytes) -> object:
        (tmp_path / "list.csv").write_bytes(content)
        return DATASETS["csv"](tmp_path / "list.csv", image_size=SIDE)

    texts = (csv_text(draw, lines) if turn else "\n".join(lists).encode() for turn in range(inputs + 1))
    check(watch(read, texts, refusals=(DataError,)))


def tiny_tree(root: Path) -> Path:
    for number, wnid in enumerate(("n01", "n02")):
        for name in (f"train/{wnid}/images/{wnid}_0.JPEG", f"val/images/val_{number}.JPEG"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(encoded("JPEG", picture(number, 64, 64)))
    (root / "wnids.txt").write_text("n01\nn02\n")
    (root / "words.txt").write_text("n01\tgoldfish\nn02\tnewt\n")
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t9\t9\nval_1.JPEG\tn02\t0\t0\t9\t9\n")
    return root


def test_folders_of_tiny_imagenet(tmp_path: Path, folders: int) -> None:
    whole = tiny_tree(tmp_path / "whole")
    copies = each_disturbed(random.Random(0), folders, whole, tmp_path / "x")
    check(watch(DATASETS["tiny_imagenet"], copies, refusals=(DataError,)))


def zip_mutated(draw: random.Random, content: bytes) -> bytes:
    """Return a zip with a change in one of the fields that say where and how long everything is."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2))):
        kind = draw.choice((b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))
        places = [place for place in range(len(content)) if content.startswith(kind, place)]
        place = draw.choice(places) + draw.randrange(4, 46)
        width = draw.choice((1, 2, 4))
        changed[place : place + width] = odd_integer(draw, width, len(content))[: len(changed[place : place + width])]
    return bytes(changed)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips_of_tiny_imagenet(tmp_path: Path, inputs: int, method: int) -> None:
    draw = random.Random(method)
    folder, path = tiny_tree(tmp_path / "tiny-imagenet-200"), tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(tmp_path))
    whole = path.read_bytes()

    def read(content: bytes) -> object:
        path.write_bytes(content)
        return DATASETS["tiny_imagenet"](path)

    def zips() -> Iterator[bytes]:
        yield whole
        for _ in range(inputs):
            yield zip_mutated(draw, whole) if draw.random() < 0.7 else mutated(draw, whole, [whole])

    check(watch(read, zips(), refusals=(DataError,)))


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist(tmp_path: Path, inputs: int, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(packed)
    labels = bytes(range(10)) * 2
    known: dict[str, bytes] = {}
    for stem, (header, item, _, _) in fashion_mnist._FILES.items():
        content = bytes(header) + (labels if item == 1 else bytes(item * len(labels)))
        facts = header, item, len(labels), hashlib.sha256(content).hexdigest()
        monkeypatch.setitem(fashion_mnist._FILES, stem, facts)
        known[f"{stem}.gz" if packed else stem] = gzip.compress(content) if packed else content

    def read(disturbed: tuple[str, Callable[[bytes], bytes]]) -> object:
        for name, content in known.items():
            (tmp_path / name).write_bytes(disturbed[1](content) if name == disturbed[0] else content)
        return DATASETS["fashion_mnist"](tmp_path)

    def files() -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
        yield "", bytes
        for _ in range(inputs):
            yield draw.choice(list(known)), lambda content: mutated(draw, content, list(known.values()))

    check(watch(read, files(), refusals=(DataError,)))


@pytest.mark.parametrize("packed", [True, False])
def test_cifar(tmp_path: Path, inputs: int, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the MD5s of these files in the table. Nothing else is unpickled, so damage is all that there is to fuzz."""
    draw = random.Random(packed)
    table = torchvision.datasets.CIFAR100
    folder, archive = tmp_path / table.base_folder, tmp_path / "x" / table.filename
    folder.mkdir()
    archive.parent.mkdir()
    data = np.zeros((100, 3072), dtype=np.uint8)
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps({"data": data, "fine_labels": list(range(100))}, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(n) for n in range(100)]}, protocol=2))
    with tarfile.open(archive, "w:gz") as packing:
        packing.add(folder, folder.name)
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in ("train", "test", "meta")}
    monkeypatch.setattr(table, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(table, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(table, "meta", table.meta | {"md5": sums["meta"]})
    monkeypatch.setattr(table, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    path = archive if packed else folder / "meta"
    whole = path.read_bytes()

    def read(content: bytes) -> object:
        path.write_bytes(content)
        return DATASETS["cifar100"](archive if packed else folder)

    check(
        watch(read, (mutated(draw, whole, [whole]) if n else whole for n in range(inputs + 1)), refusals=(DataError,))
    )


def test_the_cache_of_decoded_images(tmp_path: Path, folders: int) -> None:
    """A cache is never refused: what is not as it was written is made anew."""
    draw = random.Random(0)
    root, cache = tree(tmp_path / "whole"), tmp_path / "cache"
    data = DATASETS["imagefolder"](root, image_size=SIDE, cache=cache)
    expected = data.train.images.clone(), data.test.images.clone()  # not mapped from files that are to change
    manifests, arrays = (sorted(cache.glob(f"*.{end}")) for end in ("json", "npy"))
    kept = {path: path.read_bytes() for path in (*manifests, *arrays)}

    def read(turn: int) -> None:
        for path, content in kept.items():
            path.write_bytes(content)
        if draw.random() < 0.6:
            path = draw.choice(manifests)
            text = mutated_json(draw, json.loads(kept[path]))
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        else:
            path = draw.choice(arrays)
            path.write_bytes(mutated(draw, kept[path]))
        found = DATASETS["imagefolder"](root, image_size=SIDE, cache=cache)
        assert found.train.images.equal(expected[0])
        assert found.test.images.equal(expected[1])

    assert watch(read, range(folders), refusals=()) == {"read": folders}
