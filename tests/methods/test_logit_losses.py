"""What holds for every loss on logits: precision, gradients, invariances, edges. Their numbers are tested elsewhere."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import rankdistill
from rankdistill.methods import METHODS

Loss = Callable[[Tensor, Tensor], Tensor]

LABELS = torch.tensor([0, 2, 1, 4])


def with_labels(loss: Callable[..., Tensor]) -> Loss:
    return lambda student, teacher: loss(student, teacher, LABELS[: len(student)])


LOSSES: dict[str, Loss] = {
    "dkd": with_labels(rankdistill.dkd_loss),
    "nkd": with_labels(rankdistill.nkd_loss),
    "ttm": rankdistill.ttm_loss,
    "wttm": rankdistill.wttm_loss,
    "ctkd": lambda student, teacher: rankdistill.ctkd_loss(student, teacher, torch.tensor([5.0])),
    "dist": rankdistill.dist_loss,
    "rkkd": lambda student, teacher: rankdistill.rkkd_loss(student, teacher, steepness=2.0),
    "centred_mse": rankdistill.centred_mse_loss,
}

every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
def test_is_a_method(name: str) -> None:
    assert issubclass(METHODS[name], rankdistill.Method)


@every_loss
def test_gradcheck(name: str) -> None:
    student, teacher = torch.randn(2, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, teacher), student.requires_grad_())


@every_loss
def test_half_precision_is_computed_in_float32(name: str) -> None:
    student, teacher = torch.randn(2, 4, 50).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = LOSSES[name](student, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, LOSSES[name](student.float(), teacher.float()))


@every_loss
def test_teacher_of_half_precision_and_student_of_float32(name: str) -> None:
    student, teacher = torch.randn(4, 5), torch.randn(4, 5).half()
    assert torch.equal(LOSSES[name](student, teacher), LOSSES[name](student, teacher.float()))


@every_loss
def test_no_gradient_reaches_the_teacher(name: str) -> None:
    student, teacher = torch.randn(4, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    LOSSES[name](student, teacher).sum().backward()
    assert student.grad is not None
    assert student.grad.abs().max() > 0.0
    assert teacher.grad is None


@every_loss
def test_unchanged_by_shifts_of_rows(name: str) -> None:
    student, teacher = torch.randn(2, 4, 5, dtype=torch.float64)
    shifts = 10 * torch.randn(2, 4, 1, dtype=torch.float64)
    found = LOSSES[name](student + shifts[0], teacher + shifts[1])
    torch.testing.assert_close(found, LOSSES[name](student, teacher))


@pytest.mark.parametrize(("name", "tolerance"), [("dkd", 0.0), ("ctkd", 0.0), ("centred_mse", 0.0), ("dist", 1e-6)])
def test_zero_at_equality(name: str, tolerance: float) -> None:
    logits = torch.randn(4, 5, dtype=torch.float64)
    assert LOSSES[name](logits, logits.clone()).abs().max() <= tolerance


@every_loss
@pytest.mark.parametrize("scale", [1e4, 1e-4])
def test_finite_in_float32_for_logits_of_any_size(name: str, scale: float) -> None:
    student = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 1.0, 1.0]]) * scale
    teacher = torch.tensor([[-1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [-1.0, 1.0, 1.0]]) * scale
    student.requires_grad_()
    loss = LOSSES[name](student, teacher)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@every_loss
def test_finite_for_constant_rows(name: str) -> None:
    student, teacher = torch.randn(2, 4, 5)
    student[0] = 0.0
    teacher[1] = 3.0
    student[2] = teacher[2] = 0.0
    student.requires_grad_()
    loss = LOSSES[name](student, teacher)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "dist"])
def test_a_sample_counts_by_itself(name: str) -> None:
    student, teacher = torch.randn(2, 2, 5, dtype=torch.float64)
    found = LOSSES[name](student, teacher)
    assert found.shape == (2,)
    torch.testing.assert_close(found[:1], LOSSES[name](student[:1], teacher[:1]))


@every_loss
def test_two_classes_and_one_sample(name: str) -> None:
    student, teacher = torch.randn(1, 2, requires_grad=True), torch.randn(1, 2)
    loss = LOSSES[name](student, teacher)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize(("student", "teacher"), [((2, 3), (2, 4)), ((2, 3), (1, 3)), ((3,), (3,))])
def test_refuses_other_shapes(name: str, student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    # Shapes are checked twice: by the function, and in tests by jaxtyping, which comes first.
    with pytest.raises(Exception, match=r"shape|Type-check"):
        LOSSES[name](torch.zeros(student), torch.zeros(teacher))
