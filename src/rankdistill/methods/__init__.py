"""Every method, by the short name of its paper."""

from ..core import CrossEntropy, Method
from .kd import KD
from .ra import RA

METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "kd": KD,
    "ra": RA,
}
"""Name -> class. Its keyword-only arguments are the method's options."""

__all__ = ["KD", "METHODS", "RA", "CrossEntropy"]
