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
    from .methods.cald import CALD, cald_loss, class_temperatures, class_weights
    from .methods.crd import CRD, crd_loss
    from .methods.crld import CRLD, CRLDTerms, crld_loss
    from .methods.kd import KD, KDLoss, kd_loss
    from .methods.mlkd import MLKD, MLKDTerms, batch_relation_loss, class_relation_loss, mask_fractions, mlkd_loss
    from .methods.ofd import OFD, margin_distance, negative_margin
    from .methods.ra import RA, RankAlignmentLoss, rank_alignment_loss
    from .methods.reviewkd import ReviewKD, hierarchical_context_loss
    from .models import MODELS
    from .network import Network, Staged, batch_statistics, pair_of, resume, roles, select_roles
    from .softrank import rank_regime, soft_rank, soft_sort
    from .state import State
    from .updates import DOT, DOTSGD, UPDATES, Bilevel, Descend, UpdateRule, meta_gradients

_HOMES = {
    "core": (
        "Batch",
        "CrossEntropy",
        "EachView",
        "Losses",
        "Method",
        "Output",
        "Pair",
        "Sum",
    ),
    "methods": ("METHODS",),
    "methods.cald": (
        "CALD",
        "cald_loss",
        "class_temperatures",
        "class_weights",
    ),
    "methods.crd": (
        "CRD",
        "crd_loss",
    ),
    "methods.crld": (
        "CRLD",
        "CRLDTerms",
        "crld_loss",
    ),
    "methods.kd": (
        "KD",
        "KDLoss",
        "kd_loss",
    ),
    "methods.mlkd": (
        "MLKD",
        "MLKDTerms",
        "batch_relation_loss",
        "class_relation_loss",
        "mask_fractions",
        "mlkd_loss",
    ),
    "methods.ofd": (
        "OFD",
        "margin_distance",
        "negative_margin",
    ),
    "methods.ra": (
        "RA",
        "RankAlignmentLoss",
        "rank_alignment_loss",
    ),
    "methods.reviewkd": (
        "ReviewKD",
        "hierarchical_context_loss",
    ),
    "models": ("MODELS",),
    "network": (
        "Network",
        "Staged",
        "batch_statistics",
        "pair_of",
        "resume",
        "roles",
        "select_roles",
    ),
    "softrank": (
        "rank_regime",
        "soft_rank",
        "soft_sort",
    ),
    "state": ("State",),
    "updates": (
        "Bilevel",
        "DOT",
        "DOTSGD",
        "Descend",
        "UPDATES",
        "UpdateRule",
        "meta_gradients",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CALD",
    "CRD",
    "CRLD",
    "DOT",
    "DOTSGD",
    "KD",
    "METHODS",
    "MLKD",
    "MODELS",
    "OFD",
    "RA",
    "UPDATES",
    "Batch",
    "Bilevel",
    "CRLDTerms",
    "CrossEntropy",
    "Descend",
    "EachView",
    "KDLoss",
    "Losses",
    "MLKDTerms",
    "Method",
    "Network",
    "Output",
    "Pair",
    "RankAlignmentLoss",
    "ReviewKD",
    "Staged",
    "State",
    "Sum",
    "UpdateRule",
    "__version__",
    "batch_relation_loss",
    "batch_statistics",
    "cald_loss",
    "class_relation_loss",
    "class_temperatures",
    "class_weights",
    "crd_loss",
    "crld_loss",
    "hierarchical_context_loss",
    "kd_loss",
    "margin_distance",
    "mask_fractions",
    "meta_gradients",
    "mlkd_loss",
    "negative_margin",
    "pair_of",
    "rank_alignment_loss",
    "rank_regime",
    "resume",
    "roles",
    "select_roles",
    "soft_rank",
    "soft_sort",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
