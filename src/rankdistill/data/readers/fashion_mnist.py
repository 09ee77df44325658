"""Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28 x 28 grey pixels, 10 classes.

Xiao, Rasul and Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (2017),
arXiv:1708.07747. Files in the IDX format of MNIST, unpacked or as .gz; Debian's package dataset-fashion-mnist
installs them in /usr/share/datasets/fashion-mnist. torchvision downloads them; its reader does not notice damage.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dataset import DataError, DataSet, Request, Split, check_memory
from .files import absent

CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

# Over all 28 x 28 pixels of the training images, scaled to 0 .. 1; the values that everybody uses.
MEAN, STD = 0.2860, 0.3530

_SIDE = 28

# Bytes before the items, bytes of an item, official number of items, and SHA-256 of the unpacked official file. The .gz
# files differ between mirrors.
_FILES = {
    "train-images-idx3-ubyte": (16, 784, 60_000, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": (8, 1, 60_000, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (16, 784, 10_000, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": (8, 1, 10_000, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}


def load(request: Request) -> DataSet:
    """Return Fashion-MNIST as grey RGB images, by default zero-padded to 32 x 32.

    Args:
        request: its `root` is the folder with the four files, or torchvision's, which has them in FashionMNIST/raw.
            `image_size` is 28 or more. With `download`, torchvision fetches missing files into `root` (30 MB).

    Raises:
        DataError: a file is missing or is not the official one, or an argument is out of range.
    """
    root, size = request.root, request.size(32)
    if size < _SIDE:
        raise DataError(f"image_size {size} is too small: Fashion-MNIST is padded from 28 x 28, give 28 or more")
    if root is None:
        raise DataError("fashion_mnist needs a root: the folder that holds its files, or that they go to")
    if request.download and len(_find(root)) < len(_FILES):
        _download(root)
    paths = _find(root)
    if missing := [name for name in _FILES if name not in paths]:
        wrong = absent(root, f"{root} lacks {' and '.join(missing)} (plain or .gz)")
        raise DataError(f"{wrong}: give the folder that has the four files of Fashion-MNIST, or download them into it")
    train, test = (_split(paths, part, size) for part in ("train", "t10k"))
    return DataSet("fashion_mnist", train, test, CLASS_NAMES, (MEAN,) * 3, (STD,) * 3).first_classes(
        request.num_classes
    )


def _find(root: Path) -> dict[str, Path]:
    """Return name -> path of the files that are there, in `root` or where torchvision puts them below it."""
    folders = root, root / "FashionMNIST" / "raw"
    candidates = [(name, folder / (name + end)) for folder in folders for name in _FILES for end in (".gz", "")]
    return {name: path for name, path in candidates if path.is_file()}


def _download(root: Path) -> None:
    try:
        from torchvision.datasets import FashionMNIST
    except ImportError as error:
        raise DataError("downloading needs torchvision: pip install rankdistill[train]") from error
    try:
        FashionMNIST(str(root), download=True)
    except (RuntimeError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"Fashion-MNIST could not be downloaded into {root} ({reason}): try again, or put its four files there"
        ) from error


def _split(paths: dict[str, Path], part: str, size: int) -> Split:
    grey = _items(f"{part}-images-idx3-ubyte", paths).view(-1, _SIDE, _SIDE)
    labels = _items(f"{part}-labels-idx1-ubyte", paths).view(-1)
    check_memory(len(grey) * size * size * 3, size)
    before = (size - _SIDE) // 2
    after = size - _SIDE - before
    pixels = F.pad(grey, (before, after, before, after))[..., None].expand(-1, -1, -1, 3).contiguous()
    return Split(pixels.permute(0, 3, 1, 2), labels.to(torch.int64))


def _items(name: str, paths: dict[str, Path]) -> Tensor:
    """Return the items of a file, uint8 [N, bytes of an item], after comparing the file with the official one."""
    header, item, count, expected = _FILES[name]
    path, length = paths[name], header + count * item
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(length + 1)  # and not what a small file may unpack to
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged ({error}): get it again") from error
    if len(content) != length or hashlib.sha256(content).hexdigest() != expected:
        raise DataError(f"{path} is not the official file, or is damaged ({len(content)} bytes unpacked): get it again")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(-1, item)
