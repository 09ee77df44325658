from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_logits import Golden, assert_golden
from loss_properties import Loss, shift_invariant, two_classes, zero_at_equality

from rankdistill import DIST, Batch, Output, dist_loss, dist_terms

GOLDEN = Golden("dist")


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("temperature", [1, 4])
def test_equals_the_authors_loss_terms_and_gradient(precision: str, temperature: float) -> None:
    student, teacher, _ = GOLDEN.inputs(precision)
    name = f"tau{temperature}_w2"
    loss = dist_loss(student, teacher, temperature=temperature)
    (2 * loss).backward()
    inter, intra = dist_terms(student, teacher, temperature=temperature)
    assert_golden(loss, GOLDEN[f"{name}.raw"])
    assert_golden(inter.mean(), GOLDEN[f"{name}.inter"])
    assert_golden(intra.mean(), GOLDEN[f"{name}.intra"])
    assert_golden(student.grad, GOLDEN[f"{name}.grad_kd_student"])


def test_method_with_cross_entropy_is_the_authors_total() -> None:
    student, teacher, labels = GOLDEN.inputs("f64")
    losses = DIST(temperature=4.0).losses(Batch(torch.zeros(8, 1), None), Output(student), Output(teacher))
    assert list(losses) == ["inter", "intra"]
    total = F.cross_entropy(student, labels) + 2 * losses["inter"] + 2 * losses["intra"]
    assert_golden(total, GOLDEN["tau4_w2.total_with_ce"])


def test_is_numpys_correlation_of_rows_and_of_columns() -> None:
    student, teacher = torch.randn(2, 7, 5, dtype=torch.float64)
    inter, intra = dist_terms(student, teacher, temperature=2.0)
    probabilities = [(logits / 2).softmax(1).numpy() for logits in (student, teacher)]
    for found, rows in ((inter, probabilities), (intra, [p.T for p in probabilities])):
        expected = [4 * (1 - np.corrcoef(a, b)[0, 1]) for a, b in zip(*rows, strict=True)]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_weights() -> None:
    student, teacher = torch.randn(2, 4, 5)
    inter, intra = dist_terms(student, teacher)
    found = dist_loss(student, teacher, beta=2.0, gamma=0.5)
    torch.testing.assert_close(found, 2 * inter.mean() + 0.5 * intra.mean())


def test_of_one_sample_nothing_is_within_a_class() -> None:
    student, teacher = torch.randn(1, 5, requires_grad=True), torch.randn(1, 5)
    _, intra = dist_terms(student, teacher, temperature=3.0)
    intra.sum().backward()
    assert torch.equal(intra.detach(), torch.full((5,), 9.0))
    assert student.grad is not None
    assert student.grad.abs().max() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", ["student", "teacher", "both"])
def test_constant_rows(constant: str, dtype: torch.dtype) -> None:
    student, teacher = torch.randn(2, 3, 10, dtype=dtype)
    for name, logits in (("student", student), ("teacher", teacher)):
        if constant in (name, "both"):
            logits[1] = 0.0
    student.requires_grad_()
    inter, intra = dist_terms(student, teacher)
    (inter.sum() + intra.sum()).backward()
    torch.testing.assert_close(inter[1].item(), 1.0, rtol=0, atol=0.2 if dtype == torch.float32 else 1e-7)
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("options", [{"beta": -1.0}, {"gamma": float("inf")}, {"temperature": 0.0}])
def test_refuses_options(options: dict[str, float]) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=f"{name} is {value}: it must be"):
        DIST(**options)


@pytest.mark.parametrize("holds", [two_classes, shift_invariant])
def test_properties(holds: Callable[[Loss], None]) -> None:
    holds(dist_loss)


def test_zero_at_equality_but_for_what_keeps_it_finite() -> None:
    zero_at_equality(dist_loss, tolerance=1e-6)
