"""MLKD's strong view: two random operations on each image, then a cut-out (Jin et al., CVPR 2023; also LSKD and CRLD).

Two of 14 operations are drawn uniformly with replacement and always applied, magnitudes uniform in their ranges; a grey
box of up to half the image's width always follows. Results are those of Pillow, bit for bit.

What is done to which image is drawn on the host, where floating-point draws become integers (`Operations`). A device
gets these integers and the images grouped by operation, so it decides nothing and nobody waits for it. The operations
themselves are in `operate`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntEnum

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from ..random import Stream, draws, integers, uniform


class Operation(IntEnum):
    """The operations. From `ROTATE` on they move pixels; the others change colours."""

    IDENTITY = 0
    AUTOCONTRAST = 1
    EQUALIZE = 2
    BRIGHTNESS = 3
    COLOR = 4
    CONTRAST = 5
    SHARPNESS = 6
    POSTERIZE = 7
    SOLARIZE = 8
    ROTATE = 9
    SHEAR_X = 10
    SHEAR_Y = 11
    TRANSLATE_X = 12
    TRANSLATE_Y = 13


RANGES: dict[Operation, tuple[float, float]] = {
    Operation.IDENTITY: (0.0, 1.0),
    Operation.AUTOCONTRAST: (0.0, 1.0),
    Operation.EQUALIZE: (0.0, 1.0),
    Operation.BRIGHTNESS: (0.05, 0.95),
    Operation.COLOR: (0.05, 0.95),
    Operation.CONTRAST: (0.05, 0.95),
    Operation.SHARPNESS: (0.05, 0.95),
    Operation.POSTERIZE: (4.0, 8.0),
    Operation.SOLARIZE: (0.0, 256.0),
    Operation.ROTATE: (-30.0, 30.0),
    Operation.SHEAR_X: (-0.3, 0.3),
    Operation.SHEAR_Y: (-0.3, 0.3),
    Operation.TRANSLATE_X: (-0.3, 0.3),
    Operation.TRANSLATE_Y: (-0.3, 0.3),
}
"""Of the magnitudes: a factor (1 changes nothing), bits (truncated), a threshold, degrees, a slope, or a share of the
side. The first three operations have no magnitude: theirs is drawn and not used."""

CUTOUT_COLOUR = (125, 123, 114)

NUM_OPERATIONS = 2
NUM_WORDS = 2 * NUM_OPERATIONS + 3


@dataclass(frozen=True, slots=True)
class Operations:
    """What is done to each image of a batch, in the CPU's memory.

    Attributes:
        kinds: [B, S] int64, values of `Operation`, in the order of their application.
        integers: [B, S, 6] int64. Operations that move pixels: the affine map from a place to its source in 16.16
            fixed point. Posterize: the mask. Solarize: the first level that is inverted.
        factors: [B, S] float32, of brightness, colour, contrast and sharpness.
        boxes: [B, 4] int64, the cut-out: left, top, right and bottom, all inclusive, parts outside the image ignored.
    """

    kinds: Int64[Tensor, "batch slots"]
    integers: Int64[Tensor, "batch slots 6"]
    factors: Float32[Tensor, "batch slots"]
    boxes: Int64[Tensor, "batch 4"]

    @classmethod
    def of(
        cls,
        kinds: Int64[Tensor, "batch slots"],
        magnitudes: Float64[Tensor, "batch slots"],
        boxes: Int64[Tensor, "batch 4"],
        *,
        height: int,
        width: int,
    ) -> Operations:
        """Return the operations of these kinds and magnitudes (see `RANGES`) on images of one size in pixels."""
        matrices = _matrices(kinds, magnitudes, height, width)
        posterize = 256 - 2 ** (8 - magnitudes.clamp(0, 8).long())
        matrices[..., 0] = torch.where(kinds == Operation.POSTERIZE, posterize, matrices[..., 0])
        matrices[..., 0] = torch.where(kinds == Operation.SOLARIZE, magnitudes.ceil().long(), matrices[..., 0])
        return cls(kinds, matrices, magnitudes.float(), boxes)

    def __getitem__(self, chosen: slice) -> Operations:
        """Return those of some images."""
        parts = {f.name: getattr(self, f.name)[chosen] for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **parts)


def draw_operations(seed: int, epoch: int, indices: Int64[Tensor, " batch"], *, height: int, width: int) -> Operations:
    """Return the operations of the strong view of these samples, a function of (seed, epoch, index).

    The cut-out has the quirks of the authors' code: its side v is uniform in 0 .. width / 2; its centre is uniform in
    1 .. width (1 .. height for the row), not 0 .. width; at the left and top edges it is shifted inward, at the others
    clipped; corners are truncated and inclusive, so that its side in pixels is int(v) + 1.

    Args:
        seed: as for `draws`.
        epoch: likewise.
        indices: [B], of the samples, on the CPU.
        height: of the images, in pixels.
        width: likewise.
    """
    words = draws(seed, epoch, indices, stream=Stream.OPERATIONS, count=NUM_WORDS)
    kinds = integers(words[:, :NUM_OPERATIONS], len(Operation))
    low, high = torch.tensor([RANGES[kind] for kind in Operation], dtype=torch.float64).unbind(1)
    share = uniform(words[:, NUM_OPERATIONS : 2 * NUM_OPERATIONS])
    magnitudes = low[kinds] + (high - low)[kinds] * share
    side = 0.5 * width * uniform(words[:, -3])
    boxes = []
    for word, length in ((words[:, -2], width), (words[:, -1], height)):
        centre = length + (1 - length) * uniform(word)
        start = (centre - 0.5 * side).clamp(min=0).long()
        boxes.append((start, (start + side).clamp(max=length).long()))
    (left, right), (top, bottom) = boxes
    return Operations.of(kinds, magnitudes, torch.stack([left, top, right, bottom], dim=1), height=height, width=width)


def rotation(degrees: Float64[Tensor, "*shape"], *, height: int, width: int) -> Float64[Tensor, "*shape 6"]:
    """Return the affine maps, from places to their sources, that turn images counter-clockwise about their centre."""
    # Pillow rounds sine and cosine, so that right angles are exact.
    cosine, sine = (f(-torch.deg2rad(degrees)).round(decimals=15) for f in (torch.cos, torch.sin))
    x, y = 0.5 * width, 0.5 * height
    across = cosine * -x + sine * -y + x
    down = -sine * -x + cosine * -y + y
    return torch.stack([cosine, sine, across, -sine, cosine, down], dim=-1)


def fixed_point(matrices: Float64[Tensor, "*shape 6"]) -> Int64[Tensor, "*shape 6"]:
    """Return affine maps of pixel centres in 16.16 fixed point, rounded as Pillow does."""
    a, b, c, d, e, f = matrices.unbind(-1)
    centred = torch.stack([a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5], dim=-1)
    return (centred * 65536.0 + 0.5).floor().long()


def _matrices(kinds: Tensor, magnitudes: Tensor, height: int, width: int) -> Tensor:
    """The affine maps in fixed point, [B, S, 6], where the kind is one that moves pixels."""
    identity = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    floating = identity.repeat(*kinds.shape, 1)
    turned = (kinds == Operation.ROTATE)[..., None]
    floating = torch.where(turned, rotation(magnitudes, height=height, width=width), floating)
    # Where there is nothing but a shift, Pillow does not use fixed point: it takes whole pixels, rounded half up.
    for kind, place, values in (
        (Operation.SHEAR_X, 1, magnitudes),
        (Operation.SHEAR_Y, 3, magnitudes),
        (Operation.TRANSLATE_X, 2, (magnitudes * width + 0.5).floor()),
        (Operation.TRANSLATE_Y, 5, (magnitudes * height + 0.5).floor()),
    ):
        floating[..., place] = torch.where(kinds == kind, values, floating[..., place])
    return fixed_point(floating)
