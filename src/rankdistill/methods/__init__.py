"""Every method, by the short name of its paper."""

from ..core import CrossEntropy, Method
from .at import AT
from .cc import CC
from .fitnets import FitNets
from .ickd import ICKD
from .kd import KD
from .kdsvd import KDSVD
from .nst import NST
from .pkt import PKT
from .ra import RA
from .rkd import RKD
from .sp import SP
from .vid import VID

METHODS: dict[str, type[Method]] = {
    "at": AT,
    "cc": CC,
    "ce": CrossEntropy,
    "fitnets": FitNets,
    "ickd": ICKD,
    "kd": KD,
    "kdsvd": KDSVD,
    "nst": NST,
    "pkt": PKT,
    "ra": RA,
    "rkd": RKD,
    "sp": SP,
    "vid": VID,
}
"""Name -> class. Its keyword-only arguments are the method's options."""

__all__ = [
    "AT",
    "CC",
    "ICKD",
    "KD",
    "KDSVD",
    "METHODS",
    "NST",
    "PKT",
    "RA",
    "RKD",
    "SP",
    "VID",
    "CrossEntropy",
    "FitNets",
]
