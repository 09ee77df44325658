"""Every method, by the short name of its paper."""

from ..core import CrossEntropy, Method
from .centred_mse import CentredMSE
from .ctkd import CTKD
from .dist import DIST
from .dkd import DKD
from .kd import KD
from .nkd import NKD
from .ra import RA
from .rkkd import RKKD
from .ttm import TTM, WTTM

METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "kd": KD,
    "dkd": DKD,
    "nkd": NKD,
    "ctkd": CTKD,
    "ttm": TTM,
    "wttm": WTTM,
    "dist": DIST,
    "ra": RA,
    "rkkd": RKKD,
    "centred_mse": CentredMSE,
}
"""Name -> class. Its keyword-only arguments are the method's options."""

__all__ = [
    "CTKD",
    "DIST",
    "DKD",
    "KD",
    "METHODS",
    "NKD",
    "RA",
    "RKKD",
    "TTM",
    "WTTM",
    "CentredMSE",
    "CrossEntropy",
]
