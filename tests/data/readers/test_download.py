"""Downloads from a server on this machine, in the place of the official ones."""

import hashlib
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_cifar import FOLDERS, known, make_official, pack, records, write
from test_tiny_imagenet import write_tree, write_zip

from rankdistill.data import DATASETS, DataError
from rankdistill.data.readers import tiny_imagenet
from rankdistill.data.readers.download import fetch


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address that it is served at."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_tiny_imagenet(tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = served
    path = write_zip(write_tree(folder / "tiny-imagenet-200"))
    monkeypatch.setattr(tiny_imagenet, "URL", f"{address}/{path.name}")
    monkeypatch.setattr(tiny_imagenet, "MD5", md5(path))
    root = tmp_path / "new" / "root"
    with pytest.raises(DataError, match=r"there is no .*root: give the zip"):
        DATASETS["tiny_imagenet"](root)
    assert len(DATASETS["tiny_imagenet"](root, download=True).train) == 17
    assert [file.name for file in root.iterdir()] == ["tiny-imagenet-200.zip"]
    path.unlink()  # what is there is not fetched again
    assert len(DATASETS["tiny_imagenet"](root, download=True).test) == 6
    assert len(DATASETS["tiny_imagenet"](root).test) == 6


def test_cifar(tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = served
    files = write(tmp_path / FOLDERS["cifar100"], records("cifar100"))
    archive = pack(files, folder / "cifar-100-python.tar.gz")
    make_official(monkeypatch, "cifar100", files, archive)
    monkeypatch.setattr(known("cifar100"), "url", f"{address}/{archive.name}")
    root = tmp_path / "root"
    for _ in range(2):
        assert len(DATASETS["cifar100"](root, download=True).train) == 200
        archive.unlink(missing_ok=True)
    with tarfile.open(root / "cifar-100-python.tar.gz") as kept:
        assert "cifar-100-python/train" in kept.getnames()


def test_another_checksum(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, address = served
    (folder / "set.zip").write_bytes(b"something else")
    found = md5(folder / "set.zip")
    with pytest.raises(DataError, match=f"{address}/set.zip was downloaded with MD5 {found}, expected {'0' * 32}"):
        fetch(f"{address}/set.zip", tmp_path / "root", "0" * 32)
    assert list((tmp_path / "root").iterdir()) == []


def test_what_cannot_be_downloaded(tmp_path: Path, served: tuple[Path, str]) -> None:
    address = served[1]
    (tmp_path / "file").write_text("in the way")
    for url, folder in ((f"{address}/nothing.zip", "root"), (f"{address}/", "file/root")):
        with pytest.raises(DataError, match=f"^{url} could not be downloaded into .*: try again, or put") as error:
            fetch(url, tmp_path / folder, "0" * 32)
        assert "\n" not in str(error.value)


def test_a_connection_that_breaks_leaves_nothing(
    tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    (folder / "set.zip").write_bytes(b"0" * 1000)
    monkeypatch.setattr(Quiet, "copyfile", lambda self, source, target: target.write(source.read()[:100]))
    with pytest.raises(DataError, match=r"set.zip (could not be downloaded|was downloaded with MD5)"):
        fetch(f"{address}/set.zip", tmp_path / "root", md5(folder / "set.zip"))
    assert list((tmp_path / "root").iterdir()) == []


def test_without_torchvision_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets.utils", None)
    with pytest.raises(DataError, match=r"downloading needs torchvision: pip install rankdistill\[train\]"):
        fetch("http://127.0.0.1/x", tmp_path, "")
