"""The views of a training image: everything random about them drawn at once, on the host, for many images."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int64, Shaped
from torch import Tensor

from ...geometry import Geometry, SecondView
from ..random import Stream, draws
from .geometry import moved, num_words
from .operate import operate
from .operations import Operations, draw_operations


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for some images, in the CPU's memory.

    Attributes:
        weak: [B, words], of the geometry of the weak view.
        second: the same of the second view; None if there is one view.
        operations: of the second view, if it has any.
    """

    weak: Tensor
    second: Tensor | None = None
    operations: Operations | None = None

    def __getitem__(self, chosen: slice) -> Drawn:
        """Return that of some images."""
        second = None if self.second is None else self.second[chosen]
        return Drawn(self.weak[chosen], second, None if self.operations is None else self.operations[chosen])


@dataclass(frozen=True, slots=True)
class Views:
    """One or two views of each image, functions of (seed, epoch, index).

    Attributes:
        seed: in [0, 2^64).
        geometry: of each view.
        height, width: of the images before it, in pixels.
        second_view: what the second view is; None if there is none.
        stream: what the weak view's draws are for.
    """

    seed: int
    geometry: Geometry
    height: int
    width: int
    second_view: SecondView | None = None
    stream: Stream = Stream.WEAK_VIEW

    def draw(self, epoch: int, indices: Int64[Tensor, " batch"]) -> Drawn:
        """Return the draws of these samples, given on the CPU."""
        count = num_words(self.geometry)
        weak = draws(self.seed, epoch, indices, stream=self.stream, count=count)
        if self.second_view is None:
            return Drawn(weak)
        second = draws(self.seed, epoch, indices, stream=Stream.STRONG_VIEW, count=count)
        if self.second_view == "weak":
            return Drawn(weak, second)
        height, width = self.geometry.size(self.height, self.width)
        return Drawn(weak, second, draw_operations(self.seed, epoch, indices, height=height, width=width))

    def make(
        self, images: Shaped[Tensor, "batch channels height width"], drawn: Drawn
    ) -> tuple[Shaped[Tensor, "batch channels new_height new_width"], Tensor | None]:
        """Return the weak view of each image, and the second if there is one, on the images' device."""
        weak = moved(self.geometry, images, drawn.weak)
        if drawn.second is None:
            return weak, None
        second = moved(self.geometry, images, drawn.second)
        return weak, second if drawn.operations is None else operate(second, drawn.operations)
