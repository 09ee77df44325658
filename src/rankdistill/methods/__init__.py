"""Every method, by the short name of its paper."""

from ..core import CrossEntropy, Method
from .cald import CALD
from .crd import CRD
from .crld import CRLD
from .kd import KD
from .mlkd import MLKD
from .ofd import OFD
from .ra import RA
from .reviewkd import ReviewKD

METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "cald": CALD,
    "crd": CRD,
    "crld": CRLD,
    "kd": KD,
    "mlkd": MLKD,
    "ofd": OFD,
    "ra": RA,
    "reviewkd": ReviewKD,
}
"""Name -> class. Its keyword-only arguments are the method's options."""

__all__ = ["CALD", "CRD", "CRLD", "KD", "METHODS", "MLKD", "OFD", "RA", "CrossEntropy", "ReviewKD"]
