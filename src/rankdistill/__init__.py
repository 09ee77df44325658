"""Knowledge distillation of image classifiers: the soft-rank operator, the losses, the methods, and what trains them.

Names are imported when they are first used, so `import rankdistill` costs next to nothing. The operator, the losses and
the methods need torch, NumPy, numba and jaxtyping; training, reports and the rest are extras (see pyproject.toml).
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from .core import Batch, CrossEntropy, EachView, Losses, Method, Output, Pair, Sum
    from .methods import METHODS
    from .methods.centred_mse import CentredMSE, centred_mse_loss
    from .methods.ctkd import CTKD, ctkd_loss
    from .methods.dist import DIST, dist_loss, dist_terms
    from .methods.dkd import DKD, dkd_loss, dkd_terms
    from .methods.kd import KD, KDLoss, kd_loss
    from .methods.lskd import Standardized, standardize_logits
    from .methods.nkd import NKD, nkd_loss, nkd_terms
    from .methods.ra import RA, RankAlignmentLoss, rank_alignment_loss
    from .methods.rkkd import RKKD, rkkd_loss
    from .methods.ttm import TTM, WTTM, ttm_loss, wttm_loss
    from .models import MODELS
    from .network import Network, Staged, batch_statistics, pair_of, resume, roles, select_roles
    from .softrank import rank_regime, soft_rank, soft_sort

_HOMES = {
    "core": ("Batch", "CrossEntropy", "EachView", "Losses", "Method", "Output", "Pair", "Sum"),
    "methods": ("METHODS",),
    "methods.centred_mse": ("CentredMSE", "centred_mse_loss"),
    "methods.ctkd": ("CTKD", "ctkd_loss"),
    "methods.dist": ("DIST", "dist_loss", "dist_terms"),
    "methods.dkd": ("DKD", "dkd_loss", "dkd_terms"),
    "methods.kd": ("KD", "KDLoss", "kd_loss"),
    "methods.lskd": ("Standardized", "standardize_logits"),
    "methods.nkd": ("NKD", "nkd_loss", "nkd_terms"),
    "methods.ra": ("RA", "RankAlignmentLoss", "rank_alignment_loss"),
    "methods.rkkd": ("RKKD", "rkkd_loss"),
    "methods.ttm": ("TTM", "WTTM", "ttm_loss", "wttm_loss"),
    "models": ("MODELS",),
    "network": ("Network", "Staged", "batch_statistics", "pair_of", "resume", "roles", "select_roles"),
    "softrank": ("rank_regime", "soft_rank", "soft_sort"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CTKD",
    "DIST",
    "DKD",
    "KD",
    "METHODS",
    "MODELS",
    "NKD",
    "RA",
    "RKKD",
    "TTM",
    "WTTM",
    "Batch",
    "CentredMSE",
    "CrossEntropy",
    "EachView",
    "KDLoss",
    "Losses",
    "Method",
    "Network",
    "Output",
    "Pair",
    "RankAlignmentLoss",
    "Staged",
    "Standardized",
    "Sum",
    "__version__",
    "batch_statistics",
    "centred_mse_loss",
    "ctkd_loss",
    "dist_loss",
    "dist_terms",
    "dkd_loss",
    "dkd_terms",
    "kd_loss",
    "nkd_loss",
    "nkd_terms",
    "pair_of",
    "rank_alignment_loss",
    "rank_regime",
    "resume",
    "rkkd_loss",
    "roles",
    "select_roles",
    "soft_rank",
    "soft_sort",
    "standardize_logits",
    "ttm_loss",
    "wttm_loss",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
