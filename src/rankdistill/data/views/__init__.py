"""Views of uint8 images: crops, flips, rotations, and the operations of MLKD's strong view; bit for bit Pillow's."""

from __future__ import annotations

from ...geometry import Geometry, SecondView
from .geometry import crop_and_flip, moved, num_words, rotate, weak_view
from .operate import operate
from .operations import RANGES, Operation, Operations, draw_operations
from .views import Views

__all__ = [
    "RANGES",
    "Geometry",
    "Operation",
    "Operations",
    "SecondView",
    "Views",
    "crop_and_flip",
    "draw_operations",
    "moved",
    "num_words",
    "operate",
    "rotate",
    "weak_view",
]
