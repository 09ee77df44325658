"""Every method, by the short name of its paper."""

from ..core import CrossEntropy, Method
from .crd import CRD
from .kd import KD
from .ofd import OFD
from .ra import RA
from .reviewkd import ReviewKD

METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "crd": CRD,
    "kd": KD,
    "ofd": OFD,
    "ra": RA,
    "reviewkd": ReviewKD,
}
"""Name -> class. Its keyword-only arguments are the method's options."""

__all__ = ["CRD", "KD", "METHODS", "OFD", "RA", "CrossEntropy", "ReviewKD"]
