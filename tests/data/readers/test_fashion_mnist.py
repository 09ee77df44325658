import gzip
import hashlib
import struct
from pathlib import Path

import pytest
import torch

from rankdistill.data import DATASETS, DataError
from rankdistill.data.readers import fashion_mnist

load = DATASETS["fashion_mnist"]

STEMS = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def images_of(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def idx(magic: int, items: torch.Tensor) -> bytes:
    return struct.pack(f">{1 + items.ndim}I", magic, *items.shape) + items.numpy().tobytes()


def write(folder: Path, *, packed: bool = True) -> Path:
    """30 training and 20 test images in the official format; labels are 0, 1, .. 9, 0, 1, .."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, content in CONTENTS.items():
        if packed:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(content, compresslevel=1))
        else:
            (folder / stem).write_bytes(content)
    return folder


def contents() -> dict[str, bytes]:
    """Stem -> the unpacked file."""
    labels = {count: torch.arange(count, dtype=torch.uint8) % 10 for count in (30, 20)}
    return {
        stem: idx(0x803, images_of(count)) if "images" in stem else idx(0x801, labels[count])
        for stem, count in zip(STEMS, (30, 30, 20, 20), strict=True)
    }


CONTENTS = contents()


@pytest.fixture(autouse=True)
def _official(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the small files be the official ones."""
    for stem, content in CONTENTS.items():
        header, item, _, _ = fashion_mnist._FILES[stem]
        small = header, item, (len(content) - header) // item, hashlib.sha256(content).hexdigest()
        monkeypatch.setitem(fashion_mnist._FILES, stem, small)


@pytest.mark.parametrize("packed", [True, False])
def test_images_are_padded_and_repeated(tmp_path: Path, packed: bool) -> None:
    data = load(write(tmp_path, packed=packed))
    assert (len(data.train), len(data.test)) == (30, 20)
    assert data.image_shape == (3, 32, 32)
    assert data.class_names[9] == "Ankle boot"
    assert data.train.labels.tolist() == list(range(10)) * 3
    for split, count in ((data.train, 30), (data.test, 20)):
        assert torch.equal(split.images[:, :, 2:30, 2:30], images_of(count)[:, None].expand(-1, 3, -1, -1))
        assert split.images.long().sum() == 3 * images_of(count).long().sum()  # the border is 0


def test_other_sizes_and_fewer_classes(tmp_path: Path) -> None:
    write(tmp_path)
    assert torch.equal(load(tmp_path, image_size=28).train.images[:, 0], images_of(30))
    assert torch.equal(load(tmp_path, image_size=31).train.images[:, 0, 1:29, 1:29], images_of(30))
    few = load(tmp_path, num_classes=2)
    assert few.class_names == ("T-shirt/top", "Trouser")
    assert few.train.labels.tolist() == [0, 1] * 3


def test_folder_of_torchvision(tmp_path: Path) -> None:
    write(tmp_path / "FashionMNIST" / "raw", packed=False)
    assert len(load(tmp_path).train) == 30


def test_download_fills_the_root_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def download_into(root: str, *, download: bool) -> None:
        assert download
        calls.append(root)
        write(Path(root) / "FashionMNIST" / "raw")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", download_into)
    for _ in range(2):
        assert len(load(tmp_path / "new", download=True).train) == 30
    assert calls == [str(tmp_path / "new")]


def test_a_failed_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: str, *, download: bool) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried two mirrors")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", fail)
    with pytest.raises(
        DataError, match=r"could not be downloaded into .* \(Error downloading train-.*:\): try again"
    ) as error:
        load(tmp_path, download=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stem", STEMS)
def test_a_missing_file(tmp_path: Path, stem: str) -> None:
    write(tmp_path)
    (tmp_path / f"{stem}.gz").unlink()
    with pytest.raises(DataError, match=f"^{tmp_path} lacks {stem}"):
        load(tmp_path)


def test_missing_and_empty_roots(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path} lacks train-images-idx3-ubyte"):
        load(tmp_path)
    with pytest.raises(DataError, match=f"^there is no {tmp_path}/nowhere: give the folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="needs a root"):
        load()


@pytest.mark.parametrize("stem", STEMS)
def test_truncated_and_foreign_files(tmp_path: Path, stem: str) -> None:
    path = write(tmp_path) / f"{stem}.gz"
    content = gzip.decompress(path.read_bytes())
    for broken, message in (
        (path.read_bytes()[:-20], "is truncated or damaged"),
        (b"not a gzip file", "is truncated or damaged"),
        (gzip.compress(content[:-1]), rf"is not the official file, .*\({len(content) - 1} bytes unpacked\)"),
        (gzip.compress(content + b"\0"), rf"is not the official file, .*\({len(content) + 1} bytes unpacked\)"),
        (gzip.compress(b""), r"is not the official file, .*\(0 bytes unpacked\)"),
        (gzip.compress(content[:-1] + bytes([content[-1] ^ 1])), "is not the official file, or is damaged"),
    ):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=message) as error:
            load(tmp_path)
        assert str(path) in str(error.value)


def test_no_more_is_unpacked_than_a_file_should_hold(tmp_path: Path) -> None:
    path = write(tmp_path) / "train-labels-idx1-ubyte.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(50):
            file.write(bytes(2**20))
    with pytest.raises(DataError, match=r"\(39 bytes unpacked\)"):
        load(tmp_path)


def test_a_size_below_28_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="image_size 27 is too small"):
        load(tmp_path, image_size=27)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_official_files() -> None:
    data = load(DEBIAN, image_size=28)
    assert data.train.labels.bincount().tolist() == [6000] * 10
    assert data.test.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    grey = data.train.images[:, 0].double() / 255
    assert grey.mean().item() == pytest.approx(fashion_mnist.MEAN, abs=5e-5)
    assert grey.std(correction=0).item() == pytest.approx(fashion_mnist.STD, abs=5e-5)
