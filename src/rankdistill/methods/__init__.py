"""Every method, by the short name of its paper."""

from ..core import CrossEntropy, Method
from ._heads import Deployed
from .catkd import CATKD
from .fcfd import FCFD
from .kd import KD
from .norm import NORM, Expanded
from .normalized import NormalizedCE, NormalizedKD
from .ra import RA
from .simkd import Reusing, SimKD

METHODS: dict[str, type[Method]] = {
    "catkd": CATKD,
    "ce": CrossEntropy,
    "fcfd": FCFD,
    "kd": KD,
    "norm": NORM,
    "normalized_ce": NormalizedCE,
    "normalized_kd": NormalizedKD,
    "ra": RA,
    "simkd": SimKD,
}
"""Name -> class. Its keyword-only arguments are the method's options."""

DEPLOYED: dict[str, type[Deployed]] = {
    "norm": Expanded,
    "simkd": Reusing,
}
"""Name in the header of saved weights -> class of a deployed student that is not the plain network."""

__all__ = [
    "CATKD",
    "DEPLOYED",
    "FCFD",
    "KD",
    "METHODS",
    "NORM",
    "RA",
    "CrossEntropy",
    "NormalizedCE",
    "NormalizedKD",
    "SimKD",
]
