"""Differentiable ranking: the soft rank and soft sort of Blondel et al. (ICML 2020); see docs/soft-rank.md."""

from .functions import RankRegime, Regularization, rank_regime, separating_epsilon, soft_rank, soft_sort

__all__ = ["RankRegime", "Regularization", "rank_regime", "separating_epsilon", "soft_rank", "soft_sort"]
