"""CIFAR's files as Python 2 wrote them, as Python 3 writes them, and broken in every way."""

import dataclasses
import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import Resize
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from rankdistill.data import DATASETS, DataError, cifar
from rankdistill.data.records import Record

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}
SETS = tuple(FOLDERS)


def python2(value: Any) -> bytes:
    """Pickle as Python 2 did: protocol 2, str as bytes without a type of their own, arrays by their old module."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: Any) -> bytes:
    match value:
        case str():
            return b"T" + struct.pack("<i", len(value)) + value.encode("latin1")
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case int():
            return b"J" + struct.pack("<i", value)
        case list():
            return b"](" + b"".join(_python2(item) for item in value) + b"e"
        case dict():
            return b"}(" + b"".join(_python2(key) + _python2(item) for key, item in value.items()) + b"u"
        case np.ndarray():
            empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
            dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            shape = b"(" + b"".join(_python2(side) for side in value.shape) + b"t"
            return empty + b"(K\x01" + shape + dtype + b"\x89" + _python2(value.tobytes()) + b"tb"
    raise TypeError(value)


def python3(value: Any) -> bytes:
    return pickle.dumps(value, protocol=2)


WRITERS: dict[str, Callable[[Any], bytes]] = {
    "python 2": python2,
    "python 3, protocol 2": python3,
    "python 3, protocol 4": lambda value: pickle.dumps(value, protocol=4),
    "python 3, bytes for text": lambda value: python3(
        {key.encode(): [x.encode() if isinstance(x, str) else x for x in item] if isinstance(item, list) else item
         for key, item in value.items()}
    ),
}  # fmt: skip


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def records(name: str) -> dict[str, dict[str, Any]]:
    """A small set: two training images of each class, ten or 100 test images; labels are 0, 1, .."""
    if name == "cifar100":
        fine, coarse = [list(range(100)) * times for times in (2, 1)], [label // 5 for label in range(100)]
        return {
            "train": {"data": pixels(200, 0), "fine_labels": fine[0], "coarse_labels": coarse * 2, "filenames": ["x"]},
            "test": {"data": pixels(100, 1), "fine_labels": fine[1], "coarse_labels": coarse, "batch_label": "test"},
            "meta": {
                "fine_label_names": [f"kind {label}" for label in range(100)],
                "coarse_label_names": [str(label) for label in range(20)],
            },
        }
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    labels = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1], [2, 3, 4, 5], [6, 7, 8, 9], list(range(10))]
    found = {
        file: {"data": pixels(len(some), seed), "labels": some, "batch_label": file}
        for seed, (file, some) in enumerate(zip(names, labels, strict=True))
    }
    return found | {"batches.meta": {"label_names": [f"kind {label}" for label in range(10)], "num_vis": 3072}}


def write(folder: Path, content: dict[str, dict[str, Any]], writer: Callable[[Any], bytes] = python2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, record in content.items():
        (folder / file).write_bytes(writer(record))
    return folder


def pack(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", SETS)
def test_images_labels_and_names(tmp_path: Path, name: str, writer: str) -> None:
    content = records(name)
    data = DATASETS[name](write(tmp_path, content, WRITERS[writer]))
    train = [record for file, record in content.items() if "train" in file or "data" in file]
    expected = torch.from_numpy(np.concatenate([record["data"] for record in train])).view(-1, 3, 32, 32)
    assert torch.equal(data.train.images, expected)
    assert data.train.images.is_contiguous(memory_format=torch.channels_last)
    key = "fine_labels" if name == "cifar100" else "labels"
    assert data.train.labels.tolist() == [label for record in train for label in record[key]]
    assert data.test.labels.tolist() == list(range(data.num_classes))
    assert data.class_names == tuple(f"kind {label}" for label in range(data.num_classes))
    assert data.image_shape == (3, 32, 32)


@pytest.mark.parametrize("name", SETS)
def test_folder_its_parent_and_archive_give_the_same(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "a" / FOLDERS[name], records(name))
    archive = pack(folder, tmp_path / ARCHIVES[name])
    before = sorted(tmp_path.rglob("*"))
    ours = [DATASETS[name](root) for root in (folder, folder.parent, archive, tmp_path)]
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked
    for other in ours[1:]:
        assert torch.equal(other.train.images, ours[0].train.images)
        assert torch.equal(other.test.labels, ours[0].test.labels)
        assert other.class_names == ours[0].class_names


@pytest.mark.parametrize("name", SETS)
def test_other_sizes_and_fewer_classes(tmp_path: Path, name: str) -> None:
    write(tmp_path, records(name))
    whole, small = DATASETS[name](tmp_path), DATASETS[name](tmp_path, image_size=20, num_classes=3)
    assert small.class_names == whole.class_names[:3]
    assert small.image_shape == (3, 20, 20)
    resized = pil_to_tensor(Resize(20)(to_pil_image(whole.test.images[2])))
    assert torch.equal(small.test.images[2], resized)
    with pytest.raises(DataError, match="image_size is 0"):
        DATASETS[name](tmp_path, image_size=0)


def test_the_constants_are_torchvisions() -> None:
    from torchvision.datasets import CIFAR10, CIFAR100

    for ours, theirs in ((cifar._CIFAR10, CIFAR10), (cifar._CIFAR100, CIFAR100)):
        assert (ours.url, ours.archive, ours.md5, ours.folder) == (
            theirs.url,
            theirs.filename,
            theirs.tgz_md5,
            theirs.base_folder,
        )
        listed = [*theirs.train_list, *theirs.test_list, (theirs.meta["filename"], theirs.meta["md5"])]
        assert {file: official.md5 for file, official in ours.official.items()} == dict(listed)
        assert ours.names == theirs.meta["key"]


def without(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def altered(file: str, **changes: Any) -> Callable[[Path], None]:
    """Write a file of CIFAR-100 anew with other entries; None takes one out."""

    def alter(folder: Path) -> None:
        record = records("cifar100")[file] | changes
        (folder / file).write_bytes(python2({key: value for key, value in record.items() if value is not None}))

    return alter


def holding(file: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(content) and None


def shortened(file: str, by: int) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-by]) and None


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no test": (without("test"), r"lacks test: get https"),
    "no meta": (without("meta"), r"lacks meta: get https"),
    "truncated": (shortened("train", 1000), r"train in .* is truncated or no file of CIFAR"),
    "half of the data": (shortened("train", 300_000), r"train in .* is truncated or no file of CIFAR"),
    "empty": (holding("test", b""), r"test in .* is truncated or no file of CIFAR \(EOFError\)"),
    "no pickle": (holding("test", b"no pickle"), r"test in .* is truncated or no file of CIFAR"),
    "no dict": (holding("test", python2([1])), r"test in .* holds a list, not a dict"),
    "no data": (altered("train", data=None), r"train in .* has no entry 'data'"),
    "no labels": (altered("train", fine_labels=None), r"train in .* has no entry 'fine_labels'"),
    "other data": (altered("train", data=pixels(200, 0)[:, :3000]), r"data of train in .* is uint8 \[200, 3000\]"),
    "data of another kind": (altered("train", data=[1, 2]), r"data of train in .* is a list, not uint8"),
    "fewer labels": (altered("train", fine_labels=[0] * 199), r"train in .* has 200 images and 199 labels"),
    "label out of range": (altered("test", fine_labels=[100] * 100), r"fine_labels of test in .* from 0 to 99"),
    "labels of another kind": (altered("test", fine_labels=["cat"] * 100), r"fine_labels of test in .* whole numbers"),
    "class without images": (altered("train", fine_labels=[*range(99), 0] * 2), r"1 classes of cifar100 have no train"),
    "fewer names": (altered("meta", fine_label_names=["cat", "dog"]), r"meta in .* names 2 classes, not 100"),
    "names twice": (altered("meta", fine_label_names=["cat"] * 100), r"meta in .* names 1 classes, not 100"),
    "no names": (altered("meta", fine_label_names=7), r"fine_label_names of meta in .* are not a list of names"),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_one_clear_error(tmp_path: Path, case: str, packed: bool) -> None:
    breaking, message = BROKEN[case]
    folder = write(tmp_path / FOLDERS["cifar100"], records("cifar100"))
    breaking(folder)
    root = pack(folder, tmp_path / ARCHIVES["cifar100"]) if packed else folder
    with pytest.raises(DataError, match=message) as error:
        DATASETS["cifar100"](root)
    assert "\n" not in str(error.value)


def test_a_truncated_archive(tmp_path: Path) -> None:
    archive = pack(write(tmp_path / FOLDERS["cifar100"], records("cifar100")), tmp_path / "cifar.tar.gz")
    content = archive.read_bytes()
    for broken in (content[: len(content) // 2], b"", b"no archive"):
        archive.write_bytes(broken)
        with pytest.raises(DataError, match=r"cifar.tar.gz is truncated or no archive"):
            DATASETS["cifar100"](archive)


def test_an_archive_that_points_outside_writes_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path / "in" / FOLDERS["cifar100"], records("cifar100"))
    path = tmp_path / "in" / "evil.tar"
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, f"../{folder.name}/{file.name}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"evil.tar lacks train and test and meta"):
        DATASETS["cifar100"](path)
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_and_empty_roots(tmp_path: Path) -> None:
    for name in SETS:
        with pytest.raises(DataError, match=f"{name} needs a root"):
            DATASETS[name]()
        with pytest.raises(DataError, match=rf"there is no .*nowhere: give {ARCHIVES[name]}"):
            DATASETS[name](tmp_path / "nowhere")
        with pytest.raises(DataError, match=f"has neither {FOLDERS[name]} nor {ARCHIVES[name]}"):
            DATASETS[name](tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02cos\nsystem\nU\x04echoR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"\x80\x02cnumpy\nload\nU\x04fileR.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.",
    ],
)
def test_pickles_can_call_nothing_else(content: bytes) -> None:
    with pytest.raises(DataError, match=r"is truncated or no file of CIFAR .*(refused|not in latin1)"):
        Record.read(content, where="train", remedy="get it again")


def test_random_damage_is_never_another_error() -> None:
    content = {"data": pixels(0, 0), "fine_labels": [0, 1], "names": ["a", "b"]}
    draw = np.random.default_rng(0)
    for whole in (python2(content), python3(content)):
        for _ in range(500):
            broken = bytearray(whole)
            for position in draw.integers(0, len(whole), 3):
                broken[position] = draw.integers(256)
            with suppress(DataError):
                record = Record.read(bytes(broken), where="train", remedy="get it again")
                assert record.images().shape[1:] == (32, 32, 3)
                assert len(record.names("names", 2)) == 2


def official(content: bytes, images: int) -> cifar._Official:
    return cifar._Official(len(content), hashlib.md5(content).hexdigest(), images)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cifar._Layout:
    """The small set's files, as though they were the official ones."""
    folder = write(tmp_path, records("cifar100"))
    counts = {"train": 200, "test": 100, "meta": 0}
    known = {file: official((folder / file).read_bytes(), count) for file, count in counts.items()}
    changed = dataclasses.replace(cifar._CIFAR100, official=known)
    monkeypatch.setattr(cifar, "_CIFAR100", changed)
    return changed


def test_a_damaged_official_file_is_an_error(tmp_path: Path, layout: cifar._Layout) -> None:
    assert len(DATASETS["cifar100"](tmp_path).train) == 200
    for file in layout.official:
        whole = (tmp_path / file).read_bytes()
        broken = bytearray(whole)
        broken[-100] ^= 1
        (tmp_path / file).write_bytes(broken)
        found = hashlib.md5(broken).hexdigest()
        with pytest.raises(
            DataError, match=rf"{file} in .* is damaged \(MD5 {found}, expected {layout.official[file].md5}\)"
        ):
            DATASETS["cifar100"](tmp_path)
        (tmp_path / file).write_bytes(whole)


def test_another_set_of_the_official_size_is_a_warning(tmp_path: Path, layout: cifar._Layout) -> None:
    write(tmp_path, records("cifar100") | {"test": {"data": pixels(100, 9), "fine_labels": list(range(100))}})
    with pytest.warns(UserWarning, match=r"test in .* is not the official file \(MD5 .*, expected .*published ones"):
        assert len(DATASETS["cifar100"](tmp_path).test) == 100


def test_python2_pickles_are_what_python_reads() -> None:
    value = {"data": pixels(2, 0), "labels": [0, 70_000], "name": "x" * 300}
    read = pickle.load(io.BytesIO(python2(value).replace(b"numpy.core", b"numpy._core")), encoding="latin1")
    assert np.array_equal(read.pop("data"), value.pop("data"))
    assert read == value
