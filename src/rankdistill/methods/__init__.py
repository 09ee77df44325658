"""Every method, by the short name of its paper."""

from ..core import CrossEntropy, Method
from ._heads import Deployed
from .at import AT
from .cald import CALD
from .catkd import CATKD
from .cc import CC
from .centred_mse import CentredMSE
from .crd import CRD
from .crld import CRLD
from .ctkd import CTKD
from .dist import DIST
from .dkd import DKD
from .fcfd import FCFD
from .fitnets import FitNets
from .ickd import ICKD
from .kd import KD
from .kdsvd import KDSVD
from .mlkd import MLKD
from .nkd import NKD
from .norm import NORM, Expanded
from .normalized import NormalizedCE, NormalizedKD
from .nst import NST
from .ofd import OFD
from .pkt import PKT
from .ra import RA
from .reviewkd import ReviewKD
from .rkd import RKD
from .rkkd import RKKD
from .simkd import Reusing, SimKD
from .sp import SP
from .ttm import TTM, WTTM
from .vid import VID

METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "at": AT,
    "cald": CALD,
    "catkd": CATKD,
    "cc": CC,
    "centred_mse": CentredMSE,
    "crd": CRD,
    "crld": CRLD,
    "ctkd": CTKD,
    "dist": DIST,
    "dkd": DKD,
    "fcfd": FCFD,
    "fitnets": FitNets,
    "ickd": ICKD,
    "kd": KD,
    "kdsvd": KDSVD,
    "mlkd": MLKD,
    "nkd": NKD,
    "norm": NORM,
    "normalized_ce": NormalizedCE,
    "normalized_kd": NormalizedKD,
    "nst": NST,
    "ofd": OFD,
    "pkt": PKT,
    "ra": RA,
    "reviewkd": ReviewKD,
    "rkd": RKD,
    "rkkd": RKKD,
    "simkd": SimKD,
    "sp": SP,
    "ttm": TTM,
    "vid": VID,
    "wttm": WTTM,
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
    "CTKD",
    "DEPLOYED",
    "DIST",
    "DKD",
    "FCFD",
    "ICKD",
    "KD",
    "KDSVD",
    "METHODS",
    "MLKD",
    "NKD",
    "NORM",
    "NST",
    "OFD",
    "PKT",
    "RA",
    "RKD",
    "RKKD",
    "SP",
    "TTM",
    "VID",
    "WTTM",
    "CentredMSE",
    "CrossEntropy",
    "FitNets",
    "NormalizedCE",
    "NormalizedKD",
    "ReviewKD",
    "SimKD",
]
