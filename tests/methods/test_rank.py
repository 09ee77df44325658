import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from loss_properties import Loss, half_precision, shift_invariant, two_classes
from torch import Tensor

from rankdistill import Batch, Output, Rank, exact_ranks, rank_loss, rank_terms, soft_rank
from rankdistill.methods.rank import relative_epsilon
from rankdistill.recipes.settings import SETTINGS
from rankdistill.softrank import rank_regime

OPTIONS = [
    {},
    {"axes": "classes"},
    {"axes": "samples"},
    {"epsilon": 0.05},
    {"teacher_ranks": "soft"},
    {"distance": "squared"},
    {"weights": "rank"},
    {"distance": "squared", "weights": "rank", "teacher_ranks": "soft", "epsilon": 1.0},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)

BENT: dict[str, Callable[[Tensor], Tensor]] = {
    "times 3": lambda z: 3.0 * z,
    "divided by 3": lambda z: z / 3.0,
    "exp": lambda z: (1.5 * z).exp(),
    "log of softmax": lambda z: z.log_softmax(1),
    "cube": lambda z: z**3,
    "other values": lambda z: torch.logspace(-30, 30, 12, dtype=z.dtype)[z.argsort(1).argsort(1)],
}
"""Functions that increase strictly along each row."""


def by_comparing(values: Tensor) -> Tensor:
    """Return descending ranks by counting: 1, plus the larger ones, plus half of the other equal ones."""
    larger = (values.unsqueeze(1) > values.unsqueeze(2)).sum(2)
    equal = (values.unsqueeze(1) == values.unsqueeze(2)).sum(2)
    return 1.0 + larger + 0.5 * (equal - 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_exact_ranks_are_what_counting_gives(dtype: torch.dtype) -> None:
    values = torch.cat([torch.randn(3, 9), torch.randint(3, (3, 9)), torch.zeros(1, 9)]).to(dtype)
    values[0, :3] = torch.tensor([0.0, -0.0, math.inf])
    assert torch.equal(exact_ranks(values), by_comparing(values).to(dtype))
    assert torch.equal(exact_ranks(values.t().contiguous().t()), exact_ranks(values))


def test_a_row_with_nan_has_no_ranks() -> None:
    ranks = exact_ranks(torch.tensor([[1.0, math.nan, 2.0], [1.0, 3.0, 2.0]]))
    assert ranks[0].isnan().all()
    assert ranks[1].tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("name", BENT)
@every_option
def test_no_increasing_function_of_the_teachers_logits_changes_a_bit(name: str, options: dict[str, str]) -> None:
    teacher = 0.1 * torch.stack([torch.randperm(12) for _ in range(8)]).double()
    found = []
    for logits in (teacher, BENT[name](teacher)):
        student = torch.randn(8, 12, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
        loss = rank_loss(student, logits, **{**options, "teacher_ranks": "exact"})
        loss.backward()
        found.append((loss.detach(), student.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_soft_ranks_of_the_teacher_read_its_values() -> None:
    student, teacher = torch.randn(2, 4, 12, dtype=torch.float64)
    loss = functools.partial(rank_loss, student, teacher_ranks="soft")
    torch.testing.assert_close(loss(3.0 * teacher), loss(teacher))
    assert not torch.isclose(loss(teacher.exp()), loss(teacher))


def correlation(first: Tensor, second: Tensor, weights: Tensor) -> float:
    """Return the weighted correlation of two rows, by NumPy."""
    covariance = np.cov(first.numpy(), second.numpy(), aweights=weights.numpy())
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


@pytest.mark.parametrize("weights", ["none", "rank"])
@pytest.mark.parametrize("teacher_ranks", ["exact", "soft"])
def test_terms_are_correlations_of_the_ranks_by_row_and_by_column(teacher_ranks: str, weights: str) -> None:
    student, teacher = torch.randn(2, 6, 9, dtype=torch.float64)

    def soft(rows: Tensor) -> Tensor:
        return torch.stack([soft_rank(row, epsilon=0.3 * float(row.std(correction=0))) for row in rows])

    ours, theirs = soft(student), by_comparing(teacher) if teacher_ranks == "exact" else soft(teacher)
    by_rank = 1.0 / theirs if weights == "rank" else torch.ones_like(theirs)
    found = rank_terms(student, teacher, epsilon=0.3, teacher_ranks=teacher_ranks, weights=weights)
    for dim, term in zip((0, 1), found, strict=True):
        rows = zip(*(ranks.unbind(dim) for ranks in (ours, theirs, by_rank)), strict=True)
        expected = [1.0 - correlation(*row) for row in rows]
        torch.testing.assert_close(term, torch.tensor(expected, dtype=torch.float64))


def test_hard_ranks_have_spearmans_rho_and_the_squared_distance_is_the_same() -> None:
    student, teacher = torch.randn(2, 5, 9, dtype=torch.float64)
    squares = (by_comparing(student) - by_comparing(teacher)).double().square().sum(1)
    expected = 6.0 * squares / (9 * (9**2 - 1))
    for distance in ("correlation", "squared"):
        found, _ = rank_terms(student, teacher, epsilon=1e-9, distance=distance)
        torch.testing.assert_close(found, expected)


def test_the_squared_distance_over_samples_leaves_the_mean_of_a_class_free() -> None:
    student, teacher = torch.randn(2, 5, 4, dtype=torch.float64)
    difference = (by_comparing(student) - by_comparing(teacher)).double()
    _, found = rank_terms(student, teacher, epsilon=1e-9, distance="squared")
    torch.testing.assert_close(found, difference.var(0, correction=0) / (2.0 * (4**2 - 1) / 12.0))


def test_axes_are_the_parts_of_the_sum() -> None:
    student, teacher = torch.randn(2, 4, 7)
    classes, samples = (rank_loss(student, teacher, axes=axes) for axes in ("classes", "samples"))
    torch.testing.assert_close(rank_loss(student, teacher), classes + samples)
    outputs = Batch(torch.zeros(4, 1), None), Output(student), Output(teacher)
    assert Rank().losses(*outputs) == {"classes": classes, "samples": samples}
    assert Rank(axes="samples").losses(*outputs) == {"samples": samples}


@every_option
def test_gradcheck_and_second_derivative(options: dict[str, str]) -> None:
    student, teacher = torch.randn(2, 4, 6, dtype=torch.float64)
    loss = functools.partial(rank_loss, teacher=teacher, **options)
    assert torch.autograd.gradcheck(loss, student.requires_grad_())
    assert torch.autograd.gradgradcheck(loss, student)


@every_option
def test_the_scale_of_the_student_changes_no_loss_and_divides_the_gradient_which_is_orthogonal_to_the_row(
    options: dict[str, str],
) -> None:
    student, teacher = torch.randn(2, 5, 8, dtype=torch.float64)
    found = []
    for scale in (1.0, 4.0):
        logits = (scale * student).requires_grad_()
        loss = rank_loss(logits, teacher, **options)
        (gradient,) = torch.autograd.grad(loss, logits)
        found.append((loss, scale * gradient))
        inner = (gradient * logits).sum(1).abs()
        assert inner.max() <= 1e-12 * gradient.norm() * logits.norm()
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1, -1e4])
@every_option
def test_a_constant_row_passes_no_gradient_and_spoils_no_other(value: float, options: dict[str, str]) -> None:
    student, teacher = torch.randn(2, 5, 8)
    student[1] = value
    teacher[2] = value
    student.requires_grad_()
    rank_loss(student, teacher, **options).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad[1].abs().max() == 0.0
    if options.get("axes") != "samples":
        assert student.grad[0].abs().max() > 0.0


def test_one_sample_has_no_gradient_over_samples() -> None:
    student, teacher = torch.randn(1, 5, requires_grad=True), torch.randn(1, 5)
    classes, samples = rank_terms(student, teacher)
    samples.sum().backward()
    assert samples.tolist() == [1.0] * 5
    assert student.grad is not None
    assert student.grad.abs().max() == 0.0
    assert classes.shape == (1,)


@pytest.mark.parametrize("num_classes", [50, 200, 1000])
def test_auto_separates_as_many_neighbours_at_any_number_of_classes(num_classes: int) -> None:
    def separated(number: int, epsilon: float | None = None) -> float:
        rows = torch.randn(256, number, generator=torch.Generator().manual_seed(1))
        rows = rows / rows.std(1, correction=0, keepdim=True)
        return rank_regime(rows, epsilon or relative_epsilon("auto", number)).separated.mean().item()

    assert relative_epsilon("auto", 100) == pytest.approx(0.05)
    assert separated(num_classes) == pytest.approx(separated(100), rel=0.15)
    assert separated(10, 0.05) > 0.5  # what a number would do
    assert separated(1000, 0.05) == 0.0


def test_the_meter_tells_the_regime_of_both_sides() -> None:
    student = torch.tensor([[0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 6.0]])
    teacher = torch.tensor([[3.0, 2.0, 1.0, 0.0], [1.0, 1.0, 2.0, 3.0]])
    outputs = Batch(torch.zeros(2, 1), None), Output(student), Output(teacher)
    assert Rank(epsilon=1e-3).observe(*outputs) == pytest.approx(
        {"student_separated": (1.0 + 1 / 3) / 2, "teacher_separated": (1.0 + 2 / 3) / 2}
    )
    assert Rank(epsilon=100.0, teacher_ranks="soft").observe(*outputs) == {
        "student_separated": 0.0,
        "teacher_separated": 0.0,
    }


@pytest.mark.usefixtures("unchecked")
def test_refuses() -> None:
    student, teacher = torch.randn(2, 3, 5)
    for epsilon in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"epsilon is {epsilon}: it must be positive and finite"):
            Rank(epsilon=epsilon)
    for option in ("axes", "teacher_ranks", "distance", "weights"):
        with pytest.raises(ValueError, match=f"{option} is 'other': it must be"):
            Rank(**{option: "other"})
        with pytest.raises(ValueError, match=f"{option} is 'other': it must be"):
            rank_loss(student, teacher, **{option: "other"})
    with pytest.raises(ValueError, match="there are 1 classes: ranks compare them"):
        rank_loss(student[:, :1], teacher[:, :1])


def test_the_recipe_clips() -> None:
    setting = SETTINGS["rank"]("resnet56", "resnet20")
    assert setting.optim == {"clip_norm": 5.0}
    assert setting.losses["rank"].weight == 32.0


@pytest.mark.parametrize("holds", [two_classes, shift_invariant, half_precision])
def test_properties(holds: Callable[[Loss], None]) -> None:
    holds(rank_loss)
