"""Every method, by the short name of its paper."""

from ..core import CrossEntropy, Method
from ._heads import Deployed
from .at import AT
from .cald import CALD
from .catkd import CATKD
from .cc import CC
from .crd import CRD
from .crld import CRLD
from .fcfd import FCFD
from .fitnets import FitNets
from .ickd import ICKD
from .kd import KD
from .kdsvd import KDSVD
from .mlkd import MLKD
from .norm import NORM, Expanded
from .normalized import NormalizedCE, NormalizedKD
from .nst import NST
from .ofd import OFD
from .pkt import PKT
from .ra import RA
from .reviewkd import ReviewKD
from .rkd import RKD
from .simkd import Reusing, SimKD
from .sp import SP
from .vid import VID

METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "at": AT,
    "cald": CALD,
    "catkd": CATKD,
    "cc": CC,
    "crd": CRD,
    "crld": CRLD,
    "fcfd": FCFD,
    "fitnets": FitNets,
    "ickd": ICKD,
    "kd": KD,
    "kdsvd": KDSVD,
    "mlkd": MLKD,
    "norm": NORM,
    "normalized_ce": NormalizedCE,
    "normalized_kd": NormalizedKD,
    "nst": NST,
    "ofd": OFD,
    "pkt": PKT,
    "ra": RA,
    "reviewkd": ReviewKD,
    "rkd": RKD,
    "simkd": SimKD,
    "sp": SP,
    "vid": VID,
}
"""Name -> class. Its keyword-only arguments are the method's options."""

DEPLOYED: dict[str, type[Deployed]] = {
    "norm": Expanded,
    "simkd": Reusing,
}
"""Name in the header of saved weights -> class of a deployed student that is not the plain network."""

__all__ = [
    "AT",
    "CALD",
    "CATKD",
    "CC",
    "CRD",
    "CRLD",
    "DEPLOYED",
    "FCFD",
    "ICKD",
    "KD",
    "KDSVD",
    "METHODS",
    "MLKD",
    "NORM",
    "NST",
    "OFD",
    "PKT",
    "RA",
    "RKD",
    "SP",
    "VID",
    "CrossEntropy",
    "FitNets",
    "NormalizedCE",
    "NormalizedKD",
    "ReviewKD",
    "SimKD",
]
