"""Every method, by the short name of its paper."""

from ..core import CrossEntropy, Method
from .cald import CALD
from .crld import CRLD
from .kd import KD
from .mlkd import MLKD
from .ra import RA

METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "kd": KD,
    "ra": RA,
    "mlkd": MLKD,
    "crld": CRLD,
    "cald": CALD,
}
"""Name -> class. Its keyword-only arguments are the method's options."""

__all__ = ["CALD", "CRLD", "KD", "METHODS", "MLKD", "RA", "CrossEntropy"]
