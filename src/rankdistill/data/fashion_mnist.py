"""Fashion-MNIST: 60,000 training and 10,000 test images of clothes, 28 x 28 grey pixels, 10 classes.

Xiao, Rasul and Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (2017),
arXiv:1708.07747. Files in the IDX format of MNIST, unpacked or as .gz; Debian's package dataset-fashion-mnist
installs them in /usr/share/datasets/fashion-mnist.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .sets import DataError, DataSet, Split

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# Over all 28 x 28 pixels of the training images, scaled to 0 .. 1; the values that everybody uses.
MEAN = 0.2860
STD = 0.3530

_SIDE = 28
_IMAGES_MAGIC = 0x00000803
_LABELS_MAGIC = 0x00000801

# Of the unpacked official files, with their number of items. The .gz files differ between mirrors.
_OFFICIAL = {
    "train-images-idx3-ubyte": (60_000, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    "train-labels-idx1-ubyte": (60_000, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": (10_000, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "t10k-labels-idx1-ubyte": (10_000, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
}


def load(
    root: Path | None = None,
    *,
    image_size: int | None = None,
    num_classes: int | None = None,
    download: bool = False,
    cache: Path | None = None,
) -> DataSet:
    """Return Fashion-MNIST as grey RGB images, by default zero-padded to 32 x 32. See `sets.Load`.

    Magic numbers, counts and lengths are always checked; SHA-256 where a file has the official number of items, so
    that a smaller set in the same format can be read as well.

    Args:
        root: the folder with the four files, or torchvision's, which has them in FashionMNIST/raw.
        image_size: 28 or more, in pixels.
        num_classes: keep only the first so many classes; None keeps all.
        download: if files are missing, let torchvision download them into `root` (30 MB).
        cache: not needed, since nothing is decoded.

    Raises:
        DataError: a file is missing, truncated, damaged or of another format, or an argument is out of range.
    """
    del cache
    size = 32 if image_size is None else image_size
    if size < _SIDE:
        raise DataError(f"image_size {size} is too small: Fashion-MNIST is padded from 28 x 28, give 28 or more")
    if root is None:
        raise DataError("fashion_mnist needs a root: the folder that holds its files, or that they go to")
    paths = _find(root)
    if download and len(paths) < len(_OFFICIAL):
        _download(root)
        paths = _find(root)
    if missing := [name for name in _OFFICIAL if name not in paths]:
        raise DataError(
            f"{root} lacks {' and '.join(missing)} (plain or .gz): give the folder that has the four files of "
            "Fashion-MNIST, or download them into it"
        )
    train, test = (_read_split(paths, part, size) for part in ("train", "t10k"))
    return DataSet("fashion_mnist", train, test, CLASS_NAMES, (MEAN,) * 3, (STD,) * 3).first_classes(num_classes)


def _find(root: Path) -> dict[str, Path]:
    """Return name -> path of the files that are there, in `root` or where torchvision puts them below it."""
    folders = root, root / "FashionMNIST" / "raw"
    candidates = [(name, folder / (name + end)) for folder in folders for name in _OFFICIAL for end in (".gz", "")]
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


def _read_split(paths: dict[str, Path], part: str, size: int) -> Split:
    images_path, labels_path = paths[f"{part}-images-idx3-ubyte"], paths[f"{part}-labels-idx1-ubyte"]
    grey = _read_items(images_path, _IMAGES_MAGIC, _SIDE, _SIDE)
    labels = _read_items(labels_path, _LABELS_MAGIC)
    if len(grey) != len(labels):
        raise DataError(
            f"{images_path} has {len(grey)} images, {labels_path.name} {len(labels)} labels: get both again"
        )
    if len(counts := labels.bincount()) != len(CLASS_NAMES) or not counts.all():
        raise DataError(
            f"{labels_path} has labels {counts.nonzero().flatten().tolist()}: each of 0 to 9 is needed, and no other"
        )
    before = (size - _SIDE) // 2
    after = size - _SIDE - before
    pixels = F.pad(grey, (before, after, before, after))[..., None].expand(-1, -1, -1, 3).contiguous()
    return Split(pixels.permute(0, 3, 1, 2), labels.to(torch.int64))


def _read_items(path: Path, magic: int, *item_shape: int) -> Tensor:
    """Return the content of an IDX file, uint8 [N, *item_shape]."""
    content = _unpacked(path)
    header = struct.Struct(f">{2 + len(item_shape)}I")
    found_magic, count, *found_shape = header.unpack_from(content[: header.size].ljust(header.size, b"\0"))
    if (found_magic, *found_shape) != (magic, *item_shape):
        raise DataError(
            f"{path} starts with magic number {found_magic:#010x} and item shape {found_shape}, not {magic:#010x} and "
            f"{list(item_shape)}: give a file of Fashion-MNIST"
        )
    if count == 0 or len(content) != header.size + count * math.prod(item_shape):
        raise DataError(f"{path} has {len(content)} bytes unpacked, which do not hold its {count} items: get it again")
    official_count, official_digest = _OFFICIAL[path.name.removesuffix(".gz")]
    if count == official_count and hashlib.sha256(content).hexdigest() != official_digest:
        raise DataError(f"{path} is damaged (the SHA-256 of its content is another): get it again")
    return torch.frombuffer(content, dtype=torch.uint8, offset=header.size).view(count, *item_shape)


def _unpacked(path: Path) -> bytearray:
    content = path.read_bytes()
    if path.suffix != ".gz":
        return bytearray(content)
    try:
        return bytearray(gzip.decompress(content))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged ({error}): get it again") from error
