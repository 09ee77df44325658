"""The views of a training image: everything random about them drawn at once, on the host, for many images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Int64, Shaped
from torch import Tensor

from .augment import Geometry, operate
from .operations import Operations, draw_operations
from .random import Stream, draws

Second = Literal["mlkd", "weak"]
"""The second view: MLKD's strong one, or just another weak one. Both crop and flip for themselves."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for some images, in the CPU's memory.

    Attributes:
        first, second: [B, words], of the geometry of the two views; `second` is None if there is one view.
        operations: of the second view, if it has any.
    """

    first: Tensor
    second: Tensor | None = None
    operations: Operations | None = None

    def __getitem__(self, chosen: slice) -> Drawn:
        """Return that of some images."""
        second = None if self.second is None else self.second[chosen]
        return Drawn(self.first[chosen], second, None if self.operations is None else self.operations[chosen])


@dataclass(frozen=True, slots=True)
class Views:
    """One or two views of each image, functions of (seed, epoch, index).

    Attributes:
        seed: in [0, 2^64).
        geometry: of each view.
        height, width: of the images before it, in pixels.
        second: what the second view is; None if there is none.
        stream: what the first view's draws are for.
    """

    seed: int
    geometry: Geometry
    height: int
    width: int
    second: Second | None = None
    stream: Stream = Stream.WEAK_VIEW

    def draw(self, epoch: int, indices: Int64[Tensor, " batch"]) -> Drawn:
        """Return the draws of these samples, given on the CPU."""
        count = self.geometry.num_words
        first = draws(self.seed, epoch, indices, stream=self.stream, count=count)
        if self.second is None:
            return Drawn(first)
        second = draws(self.seed, epoch, indices, stream=Stream.STRONG_VIEW, count=count)
        if self.second == "weak":
            return Drawn(first, second)
        height, width = self.geometry.size(self.height, self.width)
        return Drawn(first, second, draw_operations(self.seed, epoch, indices, height=height, width=width))

    def make(
        self, images: Shaped[Tensor, "batch channels height width"], drawn: Drawn
    ) -> tuple[Shaped[Tensor, "batch channels new_height new_width"], Tensor | None]:
        """Return the first view of each image, and the second if there is one, on the images' device."""
        first = self.geometry.view(images, drawn.first)
        if drawn.second is None:
            return first, None
        second = self.geometry.view(images, drawn.second)
        return first, second if drawn.operations is None else operate(second, drawn.operations)
