"""Every method, by the short name of its paper."""

from ..core import CrossEntropy, Method
from .crd import CRD
from .kd import KD
from .ra import RA

METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "crd": CRD,
    "kd": KD,
    "ra": RA,
}
"""Name -> class. Its keyword-only arguments are the method's options."""

__all__ = ["CRD", "KD", "METHODS", "RA", "CrossEntropy"]
