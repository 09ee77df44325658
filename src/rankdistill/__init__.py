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
    from .methods.catkd import CATKD, cam_transfer_loss, class_activation_maps
    from .methods.fcfd import FCFD, teacher_space_loss
    from .methods.kd import KD, KDLoss, kd_loss
    from .methods.norm import NORM, n_to_one_loss
    from .methods.normalized import NormalizedCE, NormalizedKD, normalized_logits
    from .methods.ra import RA, RankAlignmentLoss, rank_alignment_loss
    from .methods.simkd import SimKD, projected_feature_loss
    from .models import MODELS
    from .network import Network, Staged, batch_statistics, pair_of, resume, roles, select_roles
    from .softrank import rank_regime, soft_rank, soft_sort

_HOMES = {
    "core": ("Batch", "CrossEntropy", "EachView", "Losses", "Method", "Output", "Pair", "Sum"),
    "methods": ("METHODS",),
    "methods.catkd": ("CATKD", "cam_transfer_loss", "class_activation_maps"),
    "methods.fcfd": ("FCFD", "teacher_space_loss"),
    "methods.kd": ("KD", "KDLoss", "kd_loss"),
    "methods.norm": ("NORM", "n_to_one_loss"),
    "methods.normalized": ("NormalizedCE", "NormalizedKD", "normalized_logits"),
    "methods.ra": ("RA", "RankAlignmentLoss", "rank_alignment_loss"),
    "methods.simkd": ("SimKD", "projected_feature_loss"),
    "models": ("MODELS",),
    "network": ("Network", "Staged", "batch_statistics", "pair_of", "resume", "roles", "select_roles"),
    "softrank": ("rank_regime", "soft_rank", "soft_sort"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CATKD",
    "FCFD",
    "KD",
    "METHODS",
    "MODELS",
    "NORM",
    "RA",
    "Batch",
    "CrossEntropy",
    "EachView",
    "KDLoss",
    "Losses",
    "Method",
    "Network",
    "NormalizedCE",
    "NormalizedKD",
    "Output",
    "Pair",
    "RankAlignmentLoss",
    "SimKD",
    "Staged",
    "Sum",
    "__version__",
    "batch_statistics",
    "cam_transfer_loss",
    "class_activation_maps",
    "kd_loss",
    "n_to_one_loss",
    "normalized_logits",
    "pair_of",
    "projected_feature_loss",
    "rank_alignment_loss",
    "rank_regime",
    "resume",
    "roles",
    "select_roles",
    "soft_rank",
    "soft_sort",
    "teacher_space_loss",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
