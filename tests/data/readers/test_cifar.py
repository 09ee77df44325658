"""CIFAR's files as Python 2 wrote them. Small ones stand for the official ones: their MD5s are put into the table."""

import hashlib
import pickle
import struct
import tarfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torchvision.transforms import Resize
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from rankdistill.data import DATASETS, DataError

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


def write(folder: Path, content: dict[str, dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, record in content.items():
        (folder / file).write_bytes(python2(record))
    return folder


def pack(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def known(name: str) -> Any:
    return getattr(torchvision.datasets, name.upper())


def make_official(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path, archive: Path | None = None) -> None:
    """Let torchvision's table have the MD5s of these files."""
    table = known(name)
    for files in ("train_list", "test_list"):
        now = [[file, md5((folder / file).read_bytes())] for file, _ in getattr(table, files)]
        monkeypatch.setattr(table, files, now)
    meta = dict(table.meta)
    monkeypatch.setattr(table, "meta", meta | {"md5": md5((folder / meta["filename"]).read_bytes())})
    if archive is not None:
        monkeypatch.setattr(table, "tgz_md5", md5(archive.read_bytes()))


@pytest.fixture(params=SETS)
def small(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path, Path]:
    """Name, folder and archive of a small set, whose files are taken for the official ones."""
    name = request.param
    folder = write(tmp_path / "a" / FOLDERS[name], records(name))
    archive = pack(folder, tmp_path / ARCHIVES[name])
    make_official(monkeypatch, name, folder, archive)
    return name, folder, archive


def test_images_labels_and_names(small: tuple[str, Path, Path]) -> None:
    name, folder, _ = small
    data = DATASETS[name](folder)
    train = [record for file, record in records(name).items() if "train" in file or "data" in file]
    expected = torch.from_numpy(np.concatenate([record["data"] for record in train])).view(-1, 3, 32, 32)
    assert torch.equal(data.train.images, expected)
    assert data.train.images.is_contiguous(memory_format=torch.channels_last)
    key = "fine_labels" if name == "cifar100" else "labels"
    assert data.train.labels.tolist() == [label for record in train for label in record[key]]
    assert data.test.labels.tolist() == list(range(data.num_classes))
    assert data.class_names == tuple(f"kind {label}" for label in range(data.num_classes))
    assert data.image_shape == (3, 32, 32)


def test_torchvision_reads_the_same(small: tuple[str, Path, Path]) -> None:
    name, folder, _ = small
    data = DATASETS[name](folder)
    for train, ours in ((True, data.train), (False, data.test)):
        theirs = known(name)(folder.parent, train=train)
        assert np.array_equal(ours.images.permute(0, 2, 3, 1).numpy(), theirs.data)
        assert ours.labels.tolist() == theirs.targets
        assert data.class_names == tuple(theirs.classes)


def test_folder_its_parent_and_archive_give_the_same(small: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, folder, archive = small
    before = sorted(tmp_path.rglob("*"))
    ours = [DATASETS[name](root) for root in (folder, folder.parent, archive, tmp_path)]
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked
    for other in ours[1:]:
        assert torch.equal(other.train.images, ours[0].train.images)
        assert torch.equal(other.test.labels, ours[0].test.labels)
        assert other.class_names == ours[0].class_names


def test_other_sizes_and_fewer_classes(small: tuple[str, Path, Path]) -> None:
    name, folder, _ = small
    whole, reduced = DATASETS[name](folder), DATASETS[name](folder, image_size=20, num_classes=3)
    assert reduced.class_names == whole.class_names[:3]
    assert reduced.image_shape == (3, 20, 20)
    resized = pil_to_tensor(Resize(20)(to_pil_image(whole.test.images[2])))
    assert torch.equal(reduced.test.images[2], resized)
    with pytest.raises(DataError, match="image_size is 0"):
        DATASETS[name](folder, image_size=0)


def test_the_tables_are_those_of_the_official_files() -> None:
    """Our own record of the MD5s, against which a change of torchvision's would show."""
    sums = {name: dict([*known(name).train_list, *known(name).test_list]) for name in SETS}
    assert sums["cifar100"]["train"] == "16019d7e3df5f24257cddd939b257f8d"
    assert sums["cifar100"]["test"] == "f0ef6b0ae62326f3e7ffdfab6717acfc"
    assert sums["cifar10"]["data_batch_5"] == "482c414d41f54cd18b22e5b47cb7c3cb"
    assert [known(name).tgz_md5 for name in SETS] == [
        "c58f30108f718f92721af3b95e74349a",
        "eb9058c3a382ffc7106e4002c42a8d85",
    ]


def shortened(content: bytes) -> bytes:
    return content[:-1000]


def flipped(content: bytes) -> bytes:
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "truncated": shortened,
    "a flipped bit": flipped,
    "empty": lambda content: b"",
    "one byte more": lambda content: content + b"\0",
    "an evil pickle": lambda content: b"\x80\x02cos\nsystem\nU\x04echoR.",
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_not_the_official_one_is_never_unpickled(
    small: tuple[str, Path, Path], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, folder, archive = small
    unpickled: list[bytes] = []
    monkeypatch.setattr(pickle, "loads", lambda content, **options: unpickled.append(content))
    table = known(name)
    for file in (table.train_list[0][0], table.test_list[0][0], table.meta["filename"]):
        whole = (folder / file).read_bytes()
        broken = BROKEN[case](whole)
        (folder / file).write_bytes(broken)
        with pytest.raises(DataError, match=rf"{file} in .* is not the official file, .*MD5 {md5(broken)}") as error:
            DATASETS[name](folder)
        assert "\n" not in str(error.value)
        assert "get https://www.cs.toronto.edu" in str(error.value)
        (folder / file).write_bytes(whole)
    archive.write_bytes(BROKEN[case](archive.read_bytes()))
    with pytest.raises(DataError, match=rf"{archive} is not the official file, or is damaged"):
        DATASETS[name](archive)
    assert not unpickled


def test_a_file_of_gigabytes_is_refused_before_it_is_read(small: tuple[str, Path, Path]) -> None:
    name, folder, archive = small
    for path, root in ((folder / known(name).meta["filename"], folder), (archive, archive)):
        with path.open("wb") as file:
            file.truncate(3 * 2**30)  # a hole: it takes no room
        with pytest.raises(
            DataError, match=rf"^{path} cannot be read \(it has 3,221,225,472 bytes, and at most 268,435"
        ):
            DATASETS[name](root)


def test_missing_files(small: tuple[str, Path, Path]) -> None:
    name, folder, _ = small
    gone = [known(name).test_list[0][0], known(name).meta["filename"]]
    for file in gone:
        (folder / file).unlink()
    with pytest.raises(DataError, match=rf"{folder} lacks {gone[0]} and {gone[1]}: get https"):
        DATASETS[name](folder.parent)


def test_missing_and_empty_roots(tmp_path: Path) -> None:
    for name in SETS:
        with pytest.raises(DataError, match=f"{name} needs a root"):
            DATASETS[name]()
        with pytest.raises(DataError, match=rf"there is no .*nowhere: give {ARCHIVES[name]}"):
            DATASETS[name](tmp_path / "nowhere")
        with pytest.raises(DataError, match=f"has neither {FOLDERS[name]} nor {ARCHIVES[name]}"):
            DATASETS[name](tmp_path)


def test_parquet_files_are_named(tmp_path: Path) -> None:
    parquet = tmp_path / "cifar100" / "train-00000-of-00001.parquet"
    parquet.parent.mkdir()
    parquet.write_bytes(b"PAR1PAR1")
    for name, root in product((*SETS, "tiny_imagenet", "fashion_mnist"), (tmp_path, parquet)):
        with pytest.raises(DataError, match=rf"^{root} holds parquet files, .* not read: give ") as error:
            DATASETS[name](root)
        assert ARCHIVES.get(name, "give the ") in str(error.value)
