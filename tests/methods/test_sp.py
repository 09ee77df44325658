import pytest
import torch
from feature_golden import BATCH, DTYPES, check_gradient, features, golden, relative_error

from rankdistill import SP, Output, sp_loss
from rankdistill.methods.sp import similarity

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_authors_loss_and_gradient(dtype: torch.dtype) -> None:
    (student,), (teacher,) = features(dtype, "stage3")
    outputs = [Output(torch.zeros(4, 5), {"stage3": feature}) for feature in (student, teacher)]
    loss = 3000 * SP("stage3", "stage3").losses(BATCH, *outputs)["sp"]
    assert relative_error(loss, golden("sp", "a.out64.loss")) < TOLERANCE[dtype]
    loss.backward()
    check_gradient("sp", "s_feat3", student, TOLERANCE[dtype])


def test_gradcheck_with_features_of_different_shapes() -> None:
    student = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 5, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: sp_loss(s, teacher), student)


def test_zero_where_features_differ_by_a_rotation_and_a_factor_and_for_one_sample() -> None:
    teacher = torch.randn(5, 8, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    assert sp_loss(3 * teacher @ rotation, teacher) < 1e-24
    assert sp_loss(torch.randn(1, 8), torch.randn(1, 6)) == 0


def test_rows_have_unit_length_and_a_zero_feature_passes_no_gradient() -> None:
    feature = torch.randn(4, 6)
    assert torch.allclose(similarity(feature).norm(dim=1), torch.ones(4))
    feature[1] = 0
    feature.requires_grad_()
    loss = sp_loss(feature, torch.randn(4, 6))
    loss.backward()
    assert loss.isfinite()
    assert feature.grad.abs().max() < 1e3
