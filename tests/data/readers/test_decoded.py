"""What the cache of decoded images promises, on Tiny-ImageNet's layout and on the real zip."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_tiny_imagenet import REAL_ZIP, write_image, write_tree, write_zip

from rankdistill.data import DATASETS, DataError, DataSet
from rankdistill.data.readers import decoded
from rankdistill.data.readers.decoded import user_cache

load = DATASETS["tiny_imagenet"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tiny-imagenet-200")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "new"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each part that is decoded, as it happens."""
    counts: list[int] = []
    inner = decoded.decoded_chunks
    monkeypatch.setattr(
        decoded, "decoded_chunks", lambda *args: (counts.append(len(args[1])), inner(*args))[1]
    )  # fmt: skip
    return counts


def same(ours: DataSet, other: DataSet) -> bool:
    pairs = (ours.train, other.train), (ours.test, other.test)
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs)


def entries(cache: Path) -> dict[str, Path]:
    """Files of the cache by what their names say without the key: tiny_imagenet-3-train-64px.npy."""
    return {path.stem.rpartition("-")[0] + path.suffix: path for path in sorted(cache.iterdir())}


@pytest.mark.parametrize("zipped", [False, True])
def test_the_second_time_nothing_is_decoded(tree: Path, cache: Path, decodings: list[int], zipped: bool) -> None:
    root = write_zip(tree) if zipped else tree
    data = load(root)
    assert decodings == [17, 6]
    first, second = load(root, cache=cache), load(root, cache=cache)
    assert decodings == [17, 6] * 2
    assert same(data, first)
    assert same(data, second)
    assert second.train.images.is_contiguous(memory_format=torch.channels_last)
    names = [f"tiny_imagenet-3-{part}-64px.{end}" for part in ("test", "train") for end in ("json", "npy")]
    assert list(entries(cache)) == names
    pixels = np.load(entries(cache)["tiny_imagenet-3-train-64px.npy"])
    assert torch.equal(torch.from_numpy(pixels), data.train.images.permute(0, 2, 3, 1))


def test_many_chunks_stay_in_order(
    tree: Path, cache: Path, decodings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(tree)
    for images_of_a_chunk in (1, 2):
        monkeypatch.setattr("rankdistill.data.readers.images._CHUNK_BYTES", images_of_a_chunk * 64 * 64 * 3)
        assert same(data, load(tree))
        for _ in range(2):
            assert same(data, load(tree, cache=cache / str(images_of_a_chunk)))
    assert decodings == [17, 6] * 5


def test_an_error_ends_the_decoding(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankdistill.data.readers.images._CHUNK_BYTES", 1)
    for name in ("n03_0.JPEG", "n03_9.JPEG"):
        (tree / "train" / "n03" / "images" / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"n03_0.JPEG in .* is no whole JPEG"):  # the first in order
        load(tree)


def test_without_a_cache_nothing_is_written(tree: Path) -> None:
    before = sorted(tree.parent.rglob("*"))
    load(tree)
    assert sorted(tree.parent.rglob("*")) == before


def test_sizes_and_classes_are_kept_apart(tree: Path, cache: Path, decodings: list[int]) -> None:
    for _ in range(2):
        assert load(tree, cache=cache).image_shape == (3, 64, 64)
        assert load(tree, cache=cache, image_size=32).image_shape == (3, 32, 32)
        assert load(tree, cache=cache, num_classes=2).train.labels.tolist() == [0, 0, 1, 1, 1]
    assert decodings == [17, 6, 17, 6, 5, 4]


def repainted(tree: Path) -> None:
    write_image(tree / "train" / "n01" / "images" / "n01_0.JPEG", 200)


def added(tree: Path) -> None:
    write_image(tree / "train" / "n01" / "images" / "n01_2.JPEG", 50)


def renamed(tree: Path) -> None:
    folder = tree / "train" / "n01" / "images"
    (folder / "n01_0.JPEG").rename(folder / "n01_9.JPEG")


def relabelled(tree: Path) -> None:
    path = tree / "train" / "n01" / "images" / "n01_0.JPEG"
    path.rename(tree / "train" / "n02" / "images" / "n02_9.JPEG")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("change", [repainted, added, renamed, relabelled])
def test_a_changed_source_is_noticed(
    tree: Path, cache: Path, decodings: list[int], change: Callable[[Path], None], zipped: bool
) -> None:
    load(write_zip(tree) if zipped else tree, cache=cache)
    change(tree)
    root = write_zip(tree) if zipped else tree
    decodings.clear()
    data = load(root, cache=cache)
    assert decodings == [len(data.train)]  # and not the test part
    assert same(data, load(root))
    assert len(entries(cache)) == 4  # what was kept before is gone


def test_changed_annotations_need_no_decoding(tree: Path, cache: Path, decodings: list[int]) -> None:
    load(tree, cache=cache)
    path = tree / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace("n01", "x").replace("n02", "n01").replace("x", "n02"))
    decodings.clear()
    assert load(tree, cache=cache).test.labels.tolist() == [0, 1, 2, 2, 1, 0]
    assert decodings == []


def test_a_cache_of_other_things_than_files_is_not_waited_for(tree: Path, cache: Path) -> None:
    first = load(tree, cache=cache)
    for path in sorted(cache.iterdir()):
        path.unlink()
        os.mkfifo(path)
    with pytest.warns(UserWarning, match=r"decoded images cannot be kept in .* \(.*it is a pipe, not a file"):
        assert same(load(tree, cache=cache), first)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("end", ["npy", "json"])
@pytest.mark.parametrize("damage", [flipped, torn, zeroed, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_entry_is_decoded_anew(
    tree: Path, cache: Path, decodings: list[int], damage: Callable[[Path], object], end: str
) -> None:
    data = load(tree)
    load(tree, cache=cache)
    damage(entries(cache)[f"tiny_imagenet-3-train-64px.{end}"])
    decodings.clear()
    assert same(data, load(tree, cache=cache))
    assert decodings == [17]
    assert same(data, load(tree, cache=cache))
    assert decodings == [17]


def test_pixels_are_read_to_be_sure_of_them_only_where_their_file_was_touched(
    tree: Path, cache: Path, decodings: list[int]
) -> None:
    data = load(tree)
    kept = load(tree, cache=cache)
    decodings.clear()
    digests = [split.pixel_digest() for split in (kept.train, kept.test)]
    assert digests == [split.pixel_digest() for split in (data.train, data.test)]
    path = entries(cache)["tiny_imagenet-3-train-64px.npy"]
    os.utime(path, (1, 1))
    manifest = path.with_suffix(".json")
    before = manifest.read_text()
    again = load(tree, cache=cache)
    assert [split.digest for split in (again.train, again.test)] == digests
    assert manifest.read_text() != before
    assert decodings == []


def test_manifests_of_others_are_not_trusted(tree: Path, cache: Path, decodings: list[int]) -> None:
    load(tree, cache=cache)
    path = entries(cache)["tiny_imagenet-3-train-64px.json"]
    content = json.loads(path.read_text())
    digest = {"sha256": content["sha256"]}
    for other in ([], {}, content | {"format": 0}, content | {"shape": [1]}, digest, content | {"sha256": 1}):
        path.write_text(json.dumps(other))
        decodings.clear()
        load(tree, cache=cache)
        assert decodings == [17]


def test_another_version_of_the_decoder(tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(tree, cache=cache)
    monkeypatch.setattr("PIL.__version__", "0.0")
    load(tree, cache=cache)
    assert len(list(cache.iterdir())) == 8


def test_a_broken_image_leaves_nothing_behind(tree: Path, cache: Path) -> None:
    (tree / "train" / "n03" / "images" / "n03_7.JPEG").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"n03_7.JPEG in .* is no whole JPEG"):
        load(tree, cache=cache)
    assert list(cache.iterdir()) == []


def test_left_overs_are_cleared_away_when_they_are_old(tree: Path, cache: Path) -> None:
    load(tree, cache=cache)
    path = entries(cache)["tiny_imagenet-3-train-64px.npy"]
    old, new = (path.with_name(f".{path.name}.{number}.tmp") for number in (1, 2))
    for left in (old, new):
        left.write_bytes(b"half")
    os.utime(old, (0, 0))
    path.unlink()
    load(tree, cache=cache)
    assert (old.exists(), new.exists()) == (False, True)


def test_images_of_the_cache_are_a_private_copy(tree: Path, cache: Path) -> None:
    data = load(tree, cache=cache)
    data = load(tree, cache=cache)
    before = data.train.images.clone()
    data.train.images.zero_()
    assert torch.equal(load(tree, cache=cache).train.images, before)


def test_images_stay_when_the_cache_goes(tree: Path, cache: Path) -> None:
    load(tree, cache=cache)
    data = load(tree, cache=cache)
    shutil.rmtree(cache)
    assert same(data, load(tree))


def test_a_cache_that_cannot_be_written_is_a_warning(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match=r"decoded images cannot be kept in .*file \(.*\): choose another folder"):
        data = load(tree, cache=tmp_path / "file")
    assert same(data, load(tree))


@pytest.mark.parametrize("cached", [False, True])
def test_without_pillow_the_error_says_what_to_install(
    tree: Path, cache: Path, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"by Pillow: pip install rankdistill\[train\]"):
        load(tree, cache=cache if cached else None)


def test_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert user_cache() == Path("/somewhere/rankdistill")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert user_cache() == Path("/home/somebody/.cache/rankdistill")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # there is no home
    assert user_cache() is None


@pytest.mark.skipif(not REAL_ZIP.is_file(), reason="needs tiny-imagenet-200.zip, which is not part of the project")
def test_the_real_zip(cache: Path, decodings: list[int]) -> None:
    first, second = (load(REAL_ZIP, num_classes=2, cache=cache) for _ in range(2))
    assert decodings == [300, 100]
    assert same(first, second)
