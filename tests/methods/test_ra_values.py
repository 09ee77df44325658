"""Values of epsilon and options that make no sense are refused where they are given, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rankdistill import RA, rank_alignment_loss, rank_regime, soft_rank, soft_sort

VALUES = torch.tensor([[3.0, -3.0, 1.0]])

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "RA": lambda epsilon: RA(epsilon=epsilon),
    "RA's end": lambda epsilon: RA(epsilon_schedule="linear", epsilon_end=epsilon, epsilon_epochs=3),
    "soft_rank": lambda epsilon: soft_rank(VALUES, epsilon=epsilon),
    "soft_sort": lambda epsilon: soft_sort(VALUES, epsilon=epsilon),
    "rank_regime": lambda epsilon: rank_regime(VALUES, epsilon),
    "rank_alignment_loss": lambda epsilon: rank_alignment_loss(VALUES, -VALUES, epsilon=epsilon),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("epsilon", "message"),
    [
        (torch.tensor(0.1), r"epsilon(_end)? is a tensor: it is one number for all rows, so give a float, as eps"),
        (True, r"epsilon(_end)? is True, a bool: give a positive number"),
        ("small", r"epsilon(_end)? is 'small'"),
        (None, r"epsilon(_end)? is None, a NoneType|ends at None"),
        (-1.0, r"epsilon(_end)? is -1.0: it must be positive and finite"),
        (0, r"epsilon(_end)? is 0: it must be positive and finite"),
        (math.nan, r"epsilon(_end)? is nan: it must be positive and finite"),
        (math.inf, r"epsilon(_end)? is inf: it must be positive and finite"),
        (1e-310, r"epsilon(_end)? is 1e-310: it must be from 1e-300 to 1e\+150"),
        (1e200, r"epsilon(_end)? is 1e\+200: it must be from"),
    ],
)
def test_an_epsilon_that_makes_no_sense(name: str, epsilon: object, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as error:
        FUNCTIONS[name](epsilon)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("option", ["regularization", "distance", "units", "epsilon_schedule"])
def test_an_option_that_there_is_not(option: str) -> None:
    with pytest.raises(ValueError, match="'l3'"):
        RA(**{option: "l3"})


@pytest.mark.parametrize("epsilon", [1e-300, 1e-30, 1e30, 1e150])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("regularization", ["l2", "kl"])
def test_any_other_epsilon_gives_finite_ranks_and_gradients(
    epsilon: float, dtype: torch.dtype, regularization: Any
) -> None:
    values = VALUES.to(dtype).requires_grad_()

    def finite(result: Tensor) -> bool:
        (gradient,) = torch.autograd.grad(result.sum(), values)
        return bool(result.isfinite().all()) and bool(gradient.isfinite().all())

    options = {"epsilon": epsilon, "regularization": regularization}
    assert finite(soft_rank(values, **options))
    if epsilon < 1.0:
        assert torch.equal(soft_rank(values, **options).detach(), torch.tensor([[1.0, 3.0, 2.0]], dtype=dtype))
    assert finite(rank_alignment_loss(values, -VALUES.to(dtype), **options))
