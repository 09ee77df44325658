"""What a data set is once it has been read: uint8 images and labels in memory, in a training and a test part."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from .device import memory

_MAX_SIDE = 4096


class DataError(ValueError):
    """Data that is missing, broken, or not what was asked for. The message says which, where, and what to do.

    The message is one line, whatever files are called: line breaks in it are written as backslashes and letters.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.replace("\r", "\\r").replace("\n", "\\n"))


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Labelled images, resident in memory.

    Attributes:
        images: [N, C, H, W] uint8, in memory or mapped from a file. Channels-last is what the loader reads fastest.
        labels: [N] int64.
        digest: what `pixel_digest` returns, where whoever made the split knows it.

    Raises:
        DataError: dtypes or shapes are others than these.
    """

    images: Tensor
    labels: Tensor
    digest: str | None = None

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise DataError(f"images are {_described(images)}: give uint8 [N, C, H, W]")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise DataError(f"labels of {len(images)} images are {_described(labels)}: give int64 [N]")

    def __len__(self) -> int:
        return len(self.labels)

    def pixel_digest(self) -> str:
        """Return the SHA-256 of the pixels, of height, width and channels in this order; made if it is not known."""
        if self.digest is not None:
            return self.digest
        total = hashlib.sha256()
        pixels = self.images.permute(0, 2, 3, 1)
        for start in range(0, len(pixels), 1024):
            total.update(pixels[start : start + 1024].contiguous().numpy().data)
        return total.hexdigest()

    def subset(self, indices: Int64[Tensor, " chosen"]) -> Split:
        """Return the samples at these positions, in this order, copied."""
        pixels = self.images.permute(0, 2, 3, 1).index_select(0, indices)
        return Split(pixels.permute(0, 3, 1, 2), self.labels.index_select(0, indices))


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """A data set with its official parts.

    Attributes:
        name: its key in `DATASETS`.
        train, test: images of one shape, labels below `num_classes`. Each class has training images.
        class_names: by label.
        mean, std: per channel, for pixels scaled to 0 .. 1; what the field normalises with.

    Raises:
        DataError: there are fewer than two classes, a class has no training image, or the parts do not fit together.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise DataError(f"{self.name} has {self.num_classes} class: classification needs at least 2")
        for part, split in (("training", self.train), ("test", self.test)):
            if len(split) == 0:
                raise DataError(f"{self.name} has no {part} images: check that its files are whole")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= self.num_classes:
                raise DataError(
                    f"{part} labels of {self.name} run from {low} to {high}, not 0 to {self.num_classes - 1}"
                )
        empty = (self.train.labels.bincount(minlength=self.num_classes) == 0).nonzero().flatten().tolist()
        if empty:
            names = ", ".join(repr(self.class_names[label]) for label in empty[:3])
            raise DataError(f"{len(empty)} classes of {self.name} have no training image, {names} first: add some")
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise DataError(f"{self.name} has training and test images of different shapes: give one image size")

    @property
    def num_classes(self) -> int:
        """Return how many classes there are."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width)."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    def first_classes(self, num: int | None) -> DataSet:
        """Return the data set reduced to its first `num` classes in label order; None keeps all.

        Raises:
            DataError: there are fewer classes, or `num` is less than 2.
        """
        if num is None:
            return self
        check_num_classes(self.name, num, self.num_classes)
        train, test = (split.subset((split.labels < num).nonzero().flatten()) for split in (self.train, self.test))
        return replace(self, train=train, test=test, class_names=self.class_names[:num])


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a reader is asked for: the arguments of every data set.

    Attributes:
        root: the folder or file that the data set is in; None for one that comes with a package.
        image_size: height and width in pixels; None for the usual size.
        num_classes: keep only the first so many classes in label order; None keeps all.
        download: fetch what is missing into `root`.
        cache: the folder that keeps decoded images for the next time; None keeps none. Sets whose files hold pixels
            as they are have nothing to keep.

    Raises:
        DataError: the image size is out of range.
    """

    root: Path | None = None
    image_size: int | None = None
    num_classes: int | None = None
    download: bool = False
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None and not 1 <= self.image_size <= _MAX_SIDE:
            raise DataError(f"image_size is {self.image_size}: give 1 to {_MAX_SIDE} pixels")

    def size(self, usual: int) -> int:
        """Return the image size that is asked for, in pixels, or the usual one."""
        return usual if self.image_size is None else self.image_size

    def classes(self, name: str, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the classes that are asked for, of those that the data set `name` has.

        Raises:
            DataError: it has fewer classes, or fewer than two are asked for.
        """
        if self.num_classes is not None:
            check_num_classes(name, self.num_classes, len(names))
        return tuple(names[: self.num_classes])


class Reader:
    """A data set that can be read: `DATASETS["digits"](image_size=8)`.

    Args:
        read: the function that reads the data set. The first line of its docstring is what `rankdistill list` shows.
    """

    def __init__(self, read: Callable[[Request], DataSet]) -> None:
        self.read = read
        functools.update_wrapper(self, read)

    def __call__(self, root: Path | None = None, **arguments: Any) -> DataSet:
        """Return the data set.

        Args:
            root: the folder or file that it is in.
            **arguments: the other attributes of `Request`.

        Raises:
            DataError: the data is missing, broken or too large, or an argument has no meaning for this data set.
        """
        try:
            return self.read(Request(root=root, **arguments))
        except MemoryError as error:
            raise DataError(
                f"the data in {root} does not fit into the memory that is free: give a smaller image_size, or fewer "
                "num_classes"
            ) from error
        except OSError as error:
            place, reason = error.filename or root, error.strerror or error
            raise DataError(f"{place} cannot be read ({reason}): check that it is there and may be read") from error


def check_memory(num_bytes: int, size: int) -> None:
    """Raise DataError if images of `size` pixels a side would take more than the memory of this machine."""
    if num_bytes > memory(torch.device("cpu")):
        raise DataError(
            f"images of {size} x {size} pixels take {num_bytes / 1e9:.3g} GB here, more than the memory of this "
            "machine: give a smaller image_size, or fewer num_classes"
        )


def check_num_classes(name: str, num: int, available: int) -> None:
    """Raise DataError unless `num` of the `available` classes of a data set can be used."""
    if not 2 <= num <= available:
        raise DataError(f"{num} classes of {name} were asked for: give 2 to {available}")


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"
