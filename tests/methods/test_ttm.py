import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from golden_logits import Golden, assert_golden
from loss_properties import Loss, sample_by_sample, shift_invariant, two_classes

from rankdistill import TTM, WTTM, Batch, Output, kd_loss, ttm_loss, wttm_loss
from rankdistill.methods.ttm import transformed_mass

GOLDEN = {"ttm": Golden("ttm"), "wttm": Golden("wttm")}
LOSSES = {"ttm": ttm_loss, "wttm": wttm_loss}
METHODS = {"ttm": TTM, "wttm": WTTM}


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize(("exponent", "weight"), [(0.1, 45), (0.2, 4), (0.4, 10), (1, 1)])
@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_authors_loss_and_gradient(name: str, exponent: float, weight: float, precision: str) -> None:
    golden = GOLDEN[name]
    student, teacher, _ = golden.inputs(precision)
    loss = LOSSES[name](student, teacher, exponent=exponent).mean()
    (weight * loss).backward()
    assert_golden(loss, golden[f"l{exponent}_beta{weight}.raw"])
    assert_golden(student.grad, golden[f"l{exponent}_beta{weight}.grad_kd_student"])


@pytest.mark.parametrize("name", METHODS)
def test_method_with_cross_entropy_is_the_authors_total(name: str) -> None:
    student, teacher, labels = GOLDEN[name].inputs("f64")
    losses = METHODS[name](exponent=0.2).losses(Batch(torch.zeros(8, 1), None), Output(student), Output(teacher))
    assert list(losses) == [name]
    assert_golden(F.cross_entropy(student, labels) + 4 * losses[name], GOLDEN[name]["l0.2_beta4.total_with_ce"])


@pytest.mark.parametrize("exponent", [0.1, 1.0, 2.0])
def test_zero_where_the_student_is_the_transformed_teacher(exponent: float) -> None:
    teacher = torch.randn(4, 10, dtype=torch.float64)
    assert wttm_loss(exponent * teacher + torch.randn(4, 1).double(), teacher, exponent=exponent).abs().max() < 1e-14


def test_at_exponent_1_both_are_kl() -> None:
    student, teacher = torch.randn(2, 4, 10, dtype=torch.float64)
    expected = kd_loss(student, teacher, temperature=1.0)
    torch.testing.assert_close(ttm_loss(student, teacher, exponent=1.0), expected)
    torch.testing.assert_close(wttm_loss(student, teacher, exponent=1.0), expected)


def test_sample_weight_goes_from_certain_to_uniform() -> None:
    logits = torch.tensor([[110.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 3.0], [0.0, 0.0, -110.0, -110.0]])
    # In float32 exp(-110) is 0, but exp(-110) ** 0.1 is not.
    little = math.exp(-11)
    expected = torch.tensor([1 + 3 * little, 4**0.9, 2**0.9 * (1 + little)])
    torch.testing.assert_close(transformed_mass(logits, exponent=0.1), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_large_logits_in_float32(name: str) -> None:
    student, teacher = torch.randn(2, 6, 20) * 3e3
    found = LOSSES[name](student, teacher)
    assert found.isfinite().all()
    torch.testing.assert_close(found.double(), LOSSES[name](student.double(), teacher.double()), rtol=1e-4, atol=0)


@pytest.mark.parametrize("exponent", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_an_exponent(exponent: float) -> None:
    for call in (lambda: TTM(exponent=exponent), lambda: WTTM(exponent=exponent)):
        with pytest.raises(ValueError, match=f"exponent is {exponent}: it must be positive and finite"):
            call()
    with pytest.raises(ValueError, match="positive and finite"):
        ttm_loss(torch.zeros(1, 2), torch.zeros(1, 2), exponent=exponent)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("holds", [two_classes, sample_by_sample, shift_invariant])
def test_properties(holds: Callable[[Loss], None], name: str) -> None:
    holds(LOSSES[name])
