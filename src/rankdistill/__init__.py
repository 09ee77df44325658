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
    from .methods.kd import KD, KDLoss, kd_loss
    from .methods.ra import RA, RankAlignmentLoss, rank_alignment_loss
    from .models import MODELS
    from .models.checkpoints import Checkpoint, load_into, read_checkpoint
    from .network import Network, Staged, batch_statistics, pair_of, resume, roles, select_roles
    from .softrank import rank_regime, soft_rank, soft_sort

_HOMES = {
    "core": ("Batch", "CrossEntropy", "EachView", "Losses", "Method", "Output", "Pair", "Sum"),
    "methods": ("METHODS",),
    "methods.kd": ("KD", "KDLoss", "kd_loss"),
    "methods.ra": ("RA", "RankAlignmentLoss", "rank_alignment_loss"),
    "models": ("MODELS",),
    "models.checkpoints": ("Checkpoint", "load_into", "read_checkpoint"),
    "network": ("Network", "Staged", "batch_statistics", "pair_of", "resume", "roles", "select_roles"),
    "softrank": ("rank_regime", "soft_rank", "soft_sort"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "KD",
    "METHODS",
    "MODELS",
    "RA",
    "Batch",
    "Checkpoint",
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
    "Sum",
    "__version__",
    "batch_statistics",
    "kd_loss",
    "load_into",
    "pair_of",
    "rank_alignment_loss",
    "rank_regime",
    "read_checkpoint",
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
