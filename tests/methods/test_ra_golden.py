"""What the loss and its method do beyond the golden numbers of `test_ra.py`: invariances, units, edges, schedule."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rankdistill.methods.ra import RA, rank_alignment_loss, scheduled_epsilon
from rankdistill.softrank import soft_rank

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "ra.npz")
DISTANCES = ("l2", "l1", "spearman")


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    student, teacher = 4 * torch.randn(2, 6, 20, dtype=torch.float64)
    return student.requires_grad_(), teacher


def test_golden_closed_form_of_the_linear_regime() -> None:
    student, teacher = (torch.from_numpy(GOLDEN[f"C100.s1.{who}"]).double() for who in ("student", "teacher"))
    assert GOLDEN["C100.s1.e1.f64.linear_regime"].all()
    expected = torch.from_numpy(GOLDEN["C100.s1.e1.f64.centred_mse"])
    torch.testing.assert_close(rank_alignment_loss(student, teacher), expected, rtol=1e-9, atol=0)


def test_spearman_of_hard_ranks_is_the_textbook_formula(logits: tuple[Tensor, Tensor]) -> None:
    student, teacher = logits
    ranks = [soft_rank(x, epsilon=1e-8).detach() for x in logits]
    rho = 1 - 6 * (ranks[0] - ranks[1]).square().sum(1) / (20 * (20**2 - 1))
    actual = rank_alignment_loss(student, teacher, epsilon=1e-8, distance="spearman")
    torch.testing.assert_close(actual, 1 - rho)


@pytest.mark.parametrize("regularization", ["l2", "kl"])
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("epsilon", [0.1, 100.0])
def test_invariances(epsilon: float, distance: str, regularization: str, logits: tuple[Tensor, Tensor]) -> None:
    student, teacher = logits
    options = {"distance": distance, "regularization": regularization}
    loss = rank_alignment_loss(student, teacher, epsilon=epsilon, **options)
    order = torch.randperm(20)
    for other in (
        rank_alignment_loss(student + 5.3, teacher - 2.1, epsilon=epsilon, **options),
        rank_alignment_loss(student[:, order], teacher[:, order], epsilon=epsilon, **options),
        rank_alignment_loss(3 * student, 3 * teacher, epsilon=3 * epsilon, **options),
    ):
        torch.testing.assert_close(other, loss)
    shifted = rank_alignment_loss(teacher + 1.7, teacher, epsilon=epsilon, **options)
    torch.testing.assert_close(shifted, torch.zeros_like(shifted), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("distance", "power"), [("l2", 2), ("l1", 1), ("spearman", 0)])
@pytest.mark.parametrize("epsilon", [0.05, 100.0])
def test_units(epsilon: float, distance: str, power: int, logits: tuple[Tensor, Tensor]) -> None:
    losses = [
        rank_alignment_loss(*logits, epsilon=epsilon, distance=distance, units=units) for units in ("rank", "logit")
    ]
    torch.testing.assert_close(losses[1], losses[0] * epsilon**power)


def test_logit_units_are_centred_mean_squared_error_whatever_epsilon(logits: tuple[Tensor, Tensor]) -> None:
    student, teacher = (x - x.mean(1, keepdim=True) for x in logits)
    expected = (student - teacher).square().mean(1)
    for epsilon in (10.0, 1e3, 1e6):
        torch.testing.assert_close(rank_alignment_loss(*logits, epsilon=epsilon, units="logit"), expected)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("epsilon", [0.1, 100.0])
def test_only_the_student_learns_and_bad_samples_are_nan(
    epsilon: float, distance: str, logits: tuple[Tensor, Tensor]
) -> None:
    student, teacher = logits
    teacher = teacher.clone().requires_grad_()
    loss = rank_alignment_loss(student, teacher, epsilon=epsilon, distance=distance)
    gradients = torch.autograd.grad(loss.sum(), (student, teacher), allow_unused=True, materialize_grads=True)
    assert gradients[0].abs().sum() > 0
    assert gradients[1].abs().sum() == 0
    bad = teacher.detach().clone()
    bad[2, 3] = math.nan
    bad[4, 0] = math.inf
    marred = rank_alignment_loss(student, bad, epsilon=epsilon, distance=distance)
    assert marred.isnan().tolist() == [False, False, True, False, True, False]
    good = torch.tensor([0, 1, 3, 5])
    torch.testing.assert_close(marred[good], loss[good])


@pytest.mark.parametrize("distance", DISTANCES)
def test_half_precision_is_computed_in_float32(distance: str, logits: tuple[Tensor, Tensor]) -> None:
    half = [x.detach().bfloat16() for x in logits]
    loss = rank_alignment_loss(*half, distance=distance)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, rank_alignment_loss(*(x.float() for x in half), distance=distance))


def test_spearman_of_constant_logits_is_1_without_a_gradient() -> None:
    student = torch.zeros(2, 5, requires_grad=True)
    loss = rank_alignment_loss(student, torch.randn(2, 5), distance="spearman")
    loss.sum().backward()
    assert loss.tolist() == [1, 1]
    assert not student.grad.any()


@pytest.mark.parametrize(
    ("schedule", "expected"), [("linear", (1.0, 0.505, 0.01, 0.01)), ("geometric", (1.0, 0.1, 0.01, 0.01))]
)
def test_schedules_reach_their_end_and_stay(schedule: str, expected: tuple[float, ...]) -> None:
    method = RA(epsilon=1.0, epsilon_schedule=schedule, epsilon_end=0.01, epsilon_epochs=3)
    for epoch, epsilon in enumerate(expected, 1):
        assert method.epsilon_in(epoch) == pytest.approx(epsilon)
        assert scheduled_epsilon(epoch, 1.0, 0.01, 3, schedule=schedule) == method.epsilon_in(epoch)
    assert RA(epsilon=0.7).epsilon_in(100) == 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon_end": 0.1}, "has no effect"),
        ({"epsilon_epochs": 5}, "has no effect"),
        ({"epsilon_schedule": "linear"}, "give both"),
        ({"epsilon_schedule": "linear", "epsilon_end": 0.1, "epsilon_epochs": 1}, "give both"),
        ({"epsilon_schedule": "geometric", "epsilon_end": -1.0, "epsilon_epochs": 5}, r"epsilon_end is -1\.0"),
    ],
)
def test_wrong_options_say_what_is_wrong(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RA(**options)
