from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from loss_properties import (
    Loss,
    sample_by_sample,
    shift_invariant,
    two_classes,
    zero_at_equality,
)

from rankdistill import Batch, CentredMSE, Output, centred_mse_loss, kd_loss, rank_alignment_loss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "ra.npz")


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_equals_golden_ranking_alignment_where_it_does_not_rank(
    scale: int, dtype: torch.dtype, tolerance: float
) -> None:
    name = f"C100.s{scale}"
    assert GOLDEN[f"{name}.e1.f64.linear_regime"].all()
    student, teacher = (torch.from_numpy(GOLDEN[f"{name}.{who}"]).to(dtype) for who in ("student", "teacher"))
    student.requires_grad_()
    loss = centred_mse_loss(student, teacher)
    loss.mean().backward()
    np.testing.assert_allclose(loss.detach(), GOLDEN[f"{name}.e1.f64.centred_mse"], rtol=tolerance)
    expected = GOLDEN[f"{name}.e1.f64.grad_l2"]
    np.testing.assert_allclose(student.grad, expected, rtol=0, atol=tolerance * abs(expected).max())


def test_is_ranking_alignment_at_epsilon_1_for_usual_logits() -> None:
    student, teacher = 4 * torch.randn(2, 16, 100, dtype=torch.float64)
    torch.testing.assert_close(centred_mse_loss(student, teacher), rank_alignment_loss(student, teacher, epsilon=1.0))


def test_is_twice_the_limit_of_kd() -> None:
    student, teacher = torch.randn(2, 6, 10, dtype=torch.float64)
    torch.testing.assert_close(
        centred_mse_loss(student, teacher), 2 * kd_loss(student, teacher, temperature=1e5), rtol=1e-4, atol=0
    )


def test_method_is_the_mean() -> None:
    student, teacher = torch.randn(2, 4, 6)
    losses = CentredMSE().losses(Batch(torch.zeros(4, 1), None), Output(student), Output(teacher))
    assert losses == {"centred_mse": centred_mse_loss(student, teacher).mean()}


def test_of_one_class_it_is_zero() -> None:
    assert torch.equal(centred_mse_loss(torch.randn(3, 1), torch.randn(3, 1)), torch.zeros(3))


@pytest.mark.parametrize("holds", [two_classes, sample_by_sample, shift_invariant, zero_at_equality])
def test_properties(holds: Callable[[Loss], None]) -> None:
    holds(centred_mse_loss)
