"""The views of a training image: everything random about them drawn at once, on the host, for many images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Int64, Shaped
from torch import Tensor

from .augment import Geometry, operate
from .operations import Operations, draw_operations
from .random import Stream, draws

Strong = Literal["mlkd", "weak"]
"""The second view: MLKD's strong one, or just another weak one. Both crop and flip for themselves."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for some images, in the CPU's memory.

    Attributes:
        weak: [B, words], of the weak view's geometry.
        strong: the same of the second view; None if there is one view.
        operations: of the second view, if it has any.
    """

    weak: Tensor
    strong: Tensor | None = None
    operations: Operations | None = None

    def __getitem__(self, chosen: slice) -> Drawn:
        """Return that of some images."""
        strong = None if self.strong is None else self.strong[chosen]
        return Drawn(self.weak[chosen], strong, None if self.operations is None else self.operations[chosen])


@dataclass(frozen=True, slots=True)
class Views:
    """One or two views of each image, functions of (seed, epoch, index).

    Attributes:
        seed: in [0, 2^64).
        geometry: of each view.
        height, width: of the images before it, in pixels.
        strong: what the second view is; None if there is none.
        stream: what the weak view's draws are for.
    """

    seed: int
    geometry: Geometry
    height: int
    width: int
    strong: Strong | None = None
    stream: Stream = Stream.WEAK_VIEW

    def draw(self, epoch: int, indices: Int64[Tensor, " batch"]) -> Drawn:
        """Return the draws of these samples, given on the CPU."""
        count = self.geometry.num_words
        weak = draws(self.seed, epoch, indices, stream=self.stream, count=count)
        if self.strong is None:
            return Drawn(weak)
        strong = draws(self.seed, epoch, indices, stream=Stream.STRONG_VIEW, count=count)
        if self.strong == "weak":
            return Drawn(weak, strong)
        height, width = self.geometry.size(self.height, self.width)
        return Drawn(weak, strong, draw_operations(self.seed, epoch, indices, height=height, width=width))

    def make(
        self, images: Shaped[Tensor, "batch channels height width"], drawn: Drawn
    ) -> tuple[Shaped[Tensor, "batch channels new_height new_width"], Tensor | None]:
        """Return the weak view of each image, and the second if there is one, on the images' device."""
        weak = self.geometry.view(images, drawn.weak)
        if drawn.strong is None:
            return weak, None
        strong = self.geometry.view(images, drawn.strong)
        return weak, strong if drawn.operations is None else operate(strong, drawn.operations)
