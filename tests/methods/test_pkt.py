import pytest
import torch
from feature_golden import BATCH, DTYPES, check_gradient, features, golden, relative_error

from rankdistill import PKT, Output, pkt_loss

# The authors' float32 is off by 6e-4 from their float64; ours is not.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5}


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_authors_loss_and_gradient(dtype: torch.dtype) -> None:
    (student,), (teacher,) = features(dtype, "pooled")
    outputs = [Output(torch.zeros(4, 5), {"pooled": feature}) for feature in (student, teacher)]
    loss = 30000 * PKT().losses(BATCH, *outputs)["pkt"]
    assert relative_error(loss, golden("pkt", "a.out64.loss")) < TOLERANCE[dtype]
    loss.backward()
    check_gradient("pkt", "s_pooled", student, TOLERANCE[dtype])


def test_equals_the_formula_as_it_is_written() -> None:
    student, teacher = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 9, dtype=torch.float64)

    def probabilities(x: torch.Tensor) -> torch.Tensor:
        unit = x / (x.norm(dim=1, keepdim=True) + 1e-7)
        return torch.nn.functional.normalize((unit @ unit.T + 1) / 2, p=1, dim=1)

    p, q = probabilities(teacher), probabilities(student)
    expected = (p * ((p + 1e-7) / (q + 1e-7)).log()).mean()
    assert torch.allclose(pkt_loss(student, teacher), expected, rtol=1e-9)


def test_gradcheck() -> None:
    student = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(5, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: pkt_loss(s, teacher), student)


def test_float32_is_exact_where_student_and_teacher_are_near() -> None:
    teacher = torch.randn(64, 32)
    student = teacher + 0.01 * torch.randn(64, 32)
    assert torch.allclose(pkt_loss(student, teacher).double(), pkt_loss(student.double(), teacher.double()), rtol=1e-3)


def test_zero_where_features_differ_by_a_rotation_and_factors_and_for_one_sample() -> None:
    teacher = torch.randn(5, 8, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    factors = 1e3 * torch.rand(5, 1, dtype=torch.float64) + 1e3
    assert pkt_loss(factors * (teacher @ rotation), 1e3 * teacher) < 1e-18
    assert pkt_loss(torch.randn(1, 8), torch.randn(1, 6)) == 0


def test_opposite_and_zero_features_are_finite() -> None:
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    loss = pkt_loss(student, torch.randn(3, 4))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
