"""Every method, by the short name of its paper.

What is imported here `as` itself is public: `rankdistill.NAME` is the same.
"""

from ..contract import Method
from ._stages import StageMap as StageMap, StagePair as StagePair, stage_pairs as stage_pairs
from ._surgery import Deployed
from .at import AT as AT, at_loss as at_loss
from .cald import (
    CALD as CALD,
    cald_loss as cald_loss,
    class_temperatures as class_temperatures,
    class_weights as class_weights,
)
from .catkd import (
    CATKD as CATKD,
    cam_transfer_loss as cam_transfer_loss,
    class_activation_maps as class_activation_maps,
)
from .cc import CC as CC, cc_loss as cc_loss
from .ce import CrossEntropy as CrossEntropy
from .centred_mse import CentredMSE as CentredMSE, centred_mse_loss as centred_mse_loss
from .combine import EachView as EachView, Sum as Sum
from .crd import CRD as CRD, crd_loss as crd_loss
from .crld import CRLD as CRLD, CRLDTerms as CRLDTerms, crld_loss as crld_loss
from .ctkd import CTKD as CTKD, ctkd_loss as ctkd_loss
from .dist import DIST as DIST, dist_loss as dist_loss, dist_terms as dist_terms
from .dkd import DKD as DKD, dkd_loss as dkd_loss, dkd_terms as dkd_terms
from .fcfd import FCFD as FCFD, teacher_space_loss as teacher_space_loss
from .fitnets import FitNets as FitNets, fitnets_loss as fitnets_loss
from .ickd import ICKD as ICKD, ickd_loss as ickd_loss
from .kd import KD as KD, kd_loss as kd_loss
from .kdsvd import KDSVD as KDSVD, kdsvd_loss as kdsvd_loss
from .label_first import LabelFirst as LabelFirst, label_first as label_first
from .lskd import Standardized as Standardized, standardize_logits as standardize_logits
from .mlkd import (
    MLKD as MLKD,
    MLKDTerms as MLKDTerms,
    batch_relation_loss as batch_relation_loss,
    class_relation_loss as class_relation_loss,
    mask_fractions as mask_fractions,
    mlkd_loss as mlkd_loss,
)
from .nkd import NKD as NKD, nkd_loss as nkd_loss, nkd_terms as nkd_terms
from .norm import NORM as NORM, Expanded, n_to_one_loss as n_to_one_loss
from .normalized import (
    NormalizedCE as NormalizedCE,
    NormalizedKD as NormalizedKD,
    normalized_logits as normalized_logits,
)
from .nst import NST as NST, nst_loss as nst_loss
from .ofd import OFD as OFD, margin_distance as margin_distance, negative_margin as negative_margin
from .pkt import PKT as PKT, pkt_loss as pkt_loss
from .pld import PLD as PLD, pld_loss as pld_loss
from .ra import RA as RA, rank_alignment_loss as rank_alignment_loss
from .rank import Rank as Rank, exact_ranks as exact_ranks, rank_loss as rank_loss, rank_terms as rank_terms
from .reviewkd import ReviewKD as ReviewKD, hierarchical_context_loss as hierarchical_context_loss
from .rkd import RKD as RKD, rkd_angle_loss as rkd_angle_loss, rkd_distance_loss as rkd_distance_loss
from .rkkd import RKKD as RKKD, rkkd_loss as rkkd_loss
from .simkd import Reusing, SimKD as SimKD, projected_feature_loss as projected_feature_loss
from .sp import SP as SP, sp_loss as sp_loss
from .ttm import TTM as TTM, WTTM as WTTM, ttm_loss as ttm_loss, wttm_loss as wttm_loss
from .vid import VID as VID, vid_loss as vid_loss

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
    "pld": PLD,
    "ra": RA,
    "rank": Rank,
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
