"""Every method, by the short name of its paper."""

from ..core import CrossEntropy, Method
from .at import AT
from .cald import CALD
from .cc import CC
from .crd import CRD
from .crld import CRLD
from .fitnets import FitNets
from .ickd import ICKD
from .kd import KD
from .kdsvd import KDSVD
from .mlkd import MLKD
from .nst import NST
from .ofd import OFD
from .pkt import PKT
from .ra import RA
from .reviewkd import ReviewKD
from .rkd import RKD
from .sp import SP
from .vid import VID

METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "at": AT,
    "cald": CALD,
    "cc": CC,
    "crd": CRD,
    "crld": CRLD,
    "fitnets": FitNets,
    "ickd": ICKD,
    "kd": KD,
    "kdsvd": KDSVD,
    "mlkd": MLKD,
    "nst": NST,
    "ofd": OFD,
    "pkt": PKT,
    "ra": RA,
    "reviewkd": ReviewKD,
    "rkd": RKD,
    "sp": SP,
    "vid": VID,
}
"""Name -> class. Its keyword-only arguments are the method's options."""

__all__ = [
    "AT",
    "CALD",
    "CC",
    "CRD",
    "CRLD",
    "ICKD",
    "KD",
    "KDSVD",
    "METHODS",
    "MLKD",
    "NST",
    "OFD",
    "PKT",
    "RA",
    "RKD",
    "SP",
    "VID",
    "CrossEntropy",
    "FitNets",
    "ReviewKD",
]
