import pytest
import torch
from feature_golden import BATCH, DTYPES, check_gradient, features, golden, relative_error

from rankdistill import RKD, Output, rkd_angle_loss, rkd_distance_loss

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}
BOTH = (rkd_distance_loss, rkd_angle_loss)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_authors_losses_and_gradient(dtype: torch.dtype) -> None:
    (student,), (teacher,) = features(dtype, "pooled")
    assert relative_error(rkd_distance_loss(student, teacher), golden("rkd", "a.out64.dist")) < TOLERANCE[dtype]
    assert relative_error(rkd_angle_loss(student, teacher), golden("rkd", "a.out64.angle")) < TOLERANCE[dtype]
    outputs = [Output(torch.zeros(4, 5), {"pooled": feature}) for feature in (student, teacher)]
    loss = sum(RKD().losses(BATCH, *outputs).values())
    assert relative_error(loss, golden("rkd", "a.out64.loss")) < TOLERANCE[dtype]
    loss.backward()
    check_gradient("rkd", "s_pooled", student, TOLERANCE[dtype])


def test_equals_the_formula_sample_by_sample() -> None:
    student, teacher = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)

    def distances(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.stack([(a - b).norm() for b in x]) for a in x]) / torch.pdist(x).mean()

    def cosine(x: torch.Tensor, i: int, j: int, k: int) -> torch.Tensor:
        return torch.nn.functional.cosine_similarity(x[j] - x[i], x[k] - x[i], dim=0)

    smooth = torch.nn.functional.smooth_l1_loss
    assert torch.allclose(rkd_distance_loss(student, teacher), smooth(distances(student), distances(teacher)))
    triples = [(i, j, k) for i in range(5) for j in range(5) for k in range(5)]
    cosines = [torch.stack([cosine(x, *triple) for triple in triples]) for x in (student, teacher)]
    assert torch.allclose(rkd_angle_loss(student, teacher), smooth(*cosines))


@pytest.mark.parametrize("loss", BOTH)
def test_gradcheck(loss) -> None:
    student = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student)


@pytest.mark.parametrize("loss", BOTH)
def test_zero_where_features_differ_by_a_rotation_a_shift_and_a_factor(loss) -> None:
    teacher = torch.randn(6, 8, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    assert loss(5 * teacher @ rotation + 3, teacher) < 1e-24


@pytest.mark.parametrize("num_samples", [1, 2])
@pytest.mark.parametrize("loss", BOTH)
def test_zero_for_fewer_than_three_samples(loss, num_samples: int) -> None:
    student = torch.randn(num_samples, 4, requires_grad=True)
    value = loss(student, torch.randn(num_samples, 4))
    value.backward()
    assert value.abs() < 1e-12
    assert student.grad.abs().max() < 1e-6


@pytest.mark.parametrize("loss", BOTH)
def test_equal_features_are_finite(loss) -> None:
    student = torch.ones(4, 3, requires_grad=True)
    value = loss(student, torch.randn(4, 3))
    value.backward()
    assert value.isfinite()
    assert not student.grad.any()


def test_float32_is_exact_for_features_that_are_near_each_other_and_far_from_zero() -> None:
    student, teacher = (100 + 0.01 * torch.randn(2, 5, 16)).unbind()
    for loss in BOTH:
        assert torch.allclose(loss(student, teacher).double(), loss(student.double(), teacher.double()), rtol=1e-4)


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_refuses_a_weight(weight: float) -> None:
    with pytest.raises(ValueError, match=f"distance_weight is {weight}: it must be finite and not negative"):
        RKD(distance_weight=weight)
    with pytest.raises(ValueError, match="angle_weight"):
        RKD(angle_weight=weight)
