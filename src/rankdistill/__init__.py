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
    from .methods.at import AT, at_loss
    from .methods.cald import CALD, cald_loss, class_temperatures, class_weights
    from .methods.catkd import CATKD, cam_transfer_loss, class_activation_maps
    from .methods.cc import CC, cc_loss
    from .methods.centred_mse import CentredMSE, centred_mse_loss
    from .methods.crd import CRD, crd_loss
    from .methods.crld import CRLD, CRLDTerms, crld_loss
    from .methods.ctkd import CTKD, ctkd_loss
    from .methods.dist import DIST, dist_loss, dist_terms
    from .methods.dkd import DKD, dkd_loss, dkd_terms
    from .methods.fcfd import FCFD, teacher_space_loss
    from .methods.fitnets import FitNets, fitnets_loss
    from .methods.ickd import ICKD, ickd_loss
    from .methods.kd import KD, KDLoss, kd_loss
    from .methods.kdsvd import KDSVD, kdsvd_loss
    from .methods.lskd import Standardized, standardize_logits
    from .methods.mlkd import MLKD, MLKDTerms, batch_relation_loss, class_relation_loss, mask_fractions, mlkd_loss
    from .methods.nkd import NKD, nkd_loss, nkd_terms
    from .methods.norm import NORM, n_to_one_loss
    from .methods.normalized import NormalizedCE, NormalizedKD, normalized_logits
    from .methods.nst import NST, nst_loss
    from .methods.ofd import OFD, margin_distance, negative_margin
    from .methods.pkt import PKT, pkt_loss
    from .methods.ra import RA, RankAlignmentLoss, rank_alignment_loss
    from .methods.reviewkd import ReviewKD, hierarchical_context_loss
    from .methods.rkd import RKD, rkd_angle_loss, rkd_distance_loss
    from .methods.rkkd import RKKD, rkkd_loss
    from .methods.simkd import SimKD, projected_feature_loss
    from .methods.sp import SP, sp_loss
    from .methods.stages import StageMap, StagePair, stage_pairs
    from .methods.ttm import TTM, WTTM, ttm_loss, wttm_loss
    from .methods.vid import VID, vid_loss
    from .models import MODELS
    from .models.checkpoints import Checkpoint, load_into, read_checkpoint
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
    "methods.at": (
        "AT",
        "at_loss",
    ),
    "methods.cald": (
        "CALD",
        "cald_loss",
        "class_temperatures",
        "class_weights",
    ),
    "methods.catkd": (
        "CATKD",
        "cam_transfer_loss",
        "class_activation_maps",
    ),
    "methods.cc": (
        "CC",
        "cc_loss",
    ),
    "methods.centred_mse": (
        "CentredMSE",
        "centred_mse_loss",
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
    "methods.ctkd": (
        "CTKD",
        "ctkd_loss",
    ),
    "methods.dist": (
        "DIST",
        "dist_loss",
        "dist_terms",
    ),
    "methods.dkd": (
        "DKD",
        "dkd_loss",
        "dkd_terms",
    ),
    "methods.fcfd": (
        "FCFD",
        "teacher_space_loss",
    ),
    "methods.fitnets": (
        "FitNets",
        "fitnets_loss",
    ),
    "methods.ickd": (
        "ICKD",
        "ickd_loss",
    ),
    "methods.kd": (
        "KD",
        "KDLoss",
        "kd_loss",
    ),
    "methods.kdsvd": (
        "KDSVD",
        "kdsvd_loss",
    ),
    "methods.lskd": (
        "Standardized",
        "standardize_logits",
    ),
    "methods.mlkd": (
        "MLKD",
        "MLKDTerms",
        "batch_relation_loss",
        "class_relation_loss",
        "mask_fractions",
        "mlkd_loss",
    ),
    "methods.nkd": (
        "NKD",
        "nkd_loss",
        "nkd_terms",
    ),
    "methods.norm": (
        "NORM",
        "n_to_one_loss",
    ),
    "methods.normalized": (
        "NormalizedCE",
        "NormalizedKD",
        "normalized_logits",
    ),
    "methods.nst": (
        "NST",
        "nst_loss",
    ),
    "methods.ofd": (
        "OFD",
        "margin_distance",
        "negative_margin",
    ),
    "methods.pkt": (
        "PKT",
        "pkt_loss",
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
    "methods.rkd": (
        "RKD",
        "rkd_angle_loss",
        "rkd_distance_loss",
    ),
    "methods.rkkd": (
        "RKKD",
        "rkkd_loss",
    ),
    "methods.simkd": (
        "SimKD",
        "projected_feature_loss",
    ),
    "methods.sp": (
        "SP",
        "sp_loss",
    ),
    "methods.stages": (
        "StageMap",
        "StagePair",
        "stage_pairs",
    ),
    "methods.ttm": (
        "TTM",
        "WTTM",
        "ttm_loss",
        "wttm_loss",
    ),
    "methods.vid": (
        "VID",
        "vid_loss",
    ),
    "models": ("MODELS",),
    "models.checkpoints": (
        "Checkpoint",
        "load_into",
        "read_checkpoint",
    ),
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
    "AT",
    "CALD",
    "CATKD",
    "CC",
    "CRD",
    "CRLD",
    "CTKD",
    "DIST",
    "DKD",
    "DOT",
    "DOTSGD",
    "FCFD",
    "ICKD",
    "KD",
    "KDSVD",
    "METHODS",
    "MLKD",
    "MODELS",
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
    "UPDATES",
    "VID",
    "WTTM",
    "Batch",
    "Bilevel",
    "CRLDTerms",
    "CentredMSE",
    "Checkpoint",
    "CrossEntropy",
    "Descend",
    "EachView",
    "FitNets",
    "KDLoss",
    "Losses",
    "MLKDTerms",
    "Method",
    "Network",
    "NormalizedCE",
    "NormalizedKD",
    "Output",
    "Pair",
    "RankAlignmentLoss",
    "ReviewKD",
    "SimKD",
    "StageMap",
    "StagePair",
    "Staged",
    "Standardized",
    "State",
    "Sum",
    "UpdateRule",
    "__version__",
    "at_loss",
    "batch_relation_loss",
    "batch_statistics",
    "cald_loss",
    "cam_transfer_loss",
    "cc_loss",
    "centred_mse_loss",
    "class_activation_maps",
    "class_relation_loss",
    "class_temperatures",
    "class_weights",
    "crd_loss",
    "crld_loss",
    "ctkd_loss",
    "dist_loss",
    "dist_terms",
    "dkd_loss",
    "dkd_terms",
    "fitnets_loss",
    "hierarchical_context_loss",
    "ickd_loss",
    "kd_loss",
    "kdsvd_loss",
    "load_into",
    "margin_distance",
    "mask_fractions",
    "meta_gradients",
    "mlkd_loss",
    "n_to_one_loss",
    "negative_margin",
    "nkd_loss",
    "nkd_terms",
    "normalized_logits",
    "nst_loss",
    "pair_of",
    "pkt_loss",
    "projected_feature_loss",
    "rank_alignment_loss",
    "rank_regime",
    "read_checkpoint",
    "resume",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "rkkd_loss",
    "roles",
    "select_roles",
    "soft_rank",
    "soft_sort",
    "sp_loss",
    "stage_pairs",
    "standardize_logits",
    "teacher_space_loss",
    "ttm_loss",
    "vid_loss",
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
