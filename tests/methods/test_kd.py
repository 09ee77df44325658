from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rankdistill import KD, Batch, Output, kd_loss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "kd.npz")
TOLERANCE = {"f64": 1e-9, "f32": 1e-5}


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(np.asarray(GOLDEN[name]))


def inputs(precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = {"f64": torch.float64, "f32": torch.float32}[precision]
    return golden("a.in.student").to(dtype).requires_grad_(), golden("a.in.teacher").to(dtype)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    return bool((found.detach() - expected).abs().max() <= tolerance * expected.abs().max())


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("temperature", [1, 4])
def test_equals_the_authors_loss(precision: str, temperature: int) -> None:
    student, teacher = inputs(precision)
    found = kd_loss(student, teacher, temperature=temperature).mean()
    assert close(found, golden(f"a.{precision}.raw_kd_T{temperature}"), TOLERANCE[precision])


@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_gradient_equals_the_authors(precision: str) -> None:
    student, teacher = inputs(precision)
    (0.9 * kd_loss(student, teacher, temperature=4.0).mean()).backward()
    assert student.grad is not None
    assert close(student.grad, golden(f"a.{precision}.grad_kd_student"), TOLERANCE[precision])


def test_with_cross_entropy_it_is_the_authors_total() -> None:
    student, teacher = inputs("f64")
    total = 0.1 * F.cross_entropy(student, golden("a.in.target")) + 0.9 * kd_loss(student, teacher).mean()
    assert close(total, golden("a.f64.total_with_ce"), 1e-9)


def test_method_is_the_mean_of_the_function() -> None:
    student, teacher = inputs("f64")
    batch = Batch(torch.zeros(8, 3, 8, 8), None)
    losses = KD(temperature=2.0).losses(batch, Output(student), Output(teacher))
    assert list(losses) == ["kd"]
    assert losses["kd"] == kd_loss(student, teacher, temperature=2.0).mean()


def test_zero_where_rows_differ_by_a_constant() -> None:
    logits = torch.randn(4, 10, dtype=torch.float64)
    assert kd_loss(logits, logits + torch.randn(4, 1, dtype=torch.float64)).abs().max() < 1e-12


def test_at_a_large_temperature_it_is_half_the_centred_mean_squared_error() -> None:
    student, teacher = torch.randn(4, 10, dtype=torch.float64), torch.randn(4, 10, dtype=torch.float64)
    difference = student - teacher
    expected = 0.5 * (difference - difference.mean(1, keepdim=True)).square().mean(1)
    assert torch.allclose(kd_loss(student, teacher, temperature=1e4), expected, rtol=1e-3)


def test_finite_and_correct_for_large_logits() -> None:
    student, teacher = torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([[-1e4, 1e4, 0.0]])
    assert kd_loss(student, teacher, temperature=1.0).item() == pytest.approx(2e4)


def test_half_precision_is_computed_in_float32() -> None:
    student, teacher = torch.randn(4, 100).bfloat16(), torch.randn(4, 100).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = kd_loss(student, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, kd_loss(student.float(), teacher.float()))


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    kd_loss(student, teacher).sum().backward()
    assert teacher.grad is None


def test_gradcheck() -> None:
    student = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: kd_loss(s, teacher, temperature=3.0), student)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_temperature(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature is {temperature}: it must be positive and finite"):
        KD(temperature=temperature)
    with pytest.raises(ValueError, match="positive and finite"):
        kd_loss(torch.zeros(1, 2), torch.zeros(1, 2), temperature=temperature)
