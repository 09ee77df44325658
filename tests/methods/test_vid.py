import math

import pytest
import torch
from feature_golden import BATCH, DTYPES, check_gradient, check_parameters, features, golden, load, relative_error
from loss_properties import half_precision

from rankdistill import VID, Output, StageMap, StagePair, vid_loss

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
ROLES = ("stage1", "stage2", "stage3")
SHAPES = ((64, 32, 32), (128, 16, 16), (256, 8, 8))
LAYERS = ("0.weight", "2.weight", "4.weight")


def build(dtype: torch.dtype) -> VID:
    """Return the method with the golden file's regressors."""
    method = VID([StagePair(StageMap(r, s), StageMap(r, s)) for r, s in zip(ROLES, SHAPES, strict=True)]).to(dtype)
    for number, regressor in enumerate(method.regressors, 1):
        load(regressor, "vid", f"regressor{number}", dict(zip(LAYERS, LAYERS, strict=True)))
    return method


def outputs(dtype: torch.dtype) -> tuple[Output, Output]:
    return tuple(Output(torch.zeros(4, 5), dict(zip(ROLES, maps, strict=True))) for maps in features(dtype, *ROLES))


@pytest.mark.authors
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_mdistillers_loss_and_gradient(dtype: torch.dtype) -> None:
    method, (student, teacher) = build(dtype), outputs(dtype)
    assert method.alphas[0][0].item() == pytest.approx(float(golden("vid", "a.out.init_log_scale")), rel=1e-6)
    loss = method.losses(BATCH, student, teacher)["vid"]
    assert relative_error(loss, golden("vid", "a.out64.loss")) < TOLERANCE[dtype]
    loss.backward()
    for number, (role, regressor) in enumerate(zip(ROLES, method.regressors, strict=True), 1):
        check_gradient("vid", f"s_feat{number}", student.features[role], TOLERANCE[dtype])
        check_parameters("vid", f"regressor{number}", dict(regressor.named_parameters()), TOLERANCE[dtype])


@pytest.mark.authors
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_repdistillers_loss_whose_variance_is_trained(dtype: torch.dtype) -> None:
    method, (student, teacher) = build(dtype), outputs(dtype)
    with torch.no_grad():
        for number, alpha in enumerate(method.alphas, 1):
            alpha.copy_(golden("vid", f"a.param.rep_log_scale{number}"))
    for index, (role, regressor) in enumerate(zip(ROLES, method.regressors, strict=True)):
        found = vid_loss(regressor(student.features[role]), teacher.features[role], method.variance(index))
        assert relative_error(found.mean(), golden("vid", f"a.out64.rep_stage{index + 1}")) < TOLERANCE[dtype]
    loss = method.losses(BATCH, student, teacher)["vid"]
    assert relative_error(loss, golden("vid", "a.out64.rep_loss")) < TOLERANCE[dtype]
    loss.backward()
    for number, alpha in enumerate(method.alphas, 1):
        assert relative_error(alpha.grad, golden("vid", f"a.pgrad.rep_log_scale{number}")) < TOLERANCE[dtype]


def test_it_is_the_negative_log_likelihood_of_a_gaussian_without_its_constant() -> None:
    mean, teacher = torch.randn(2, 3, 4, 5, 5, dtype=torch.float64)
    variance = torch.rand(4, dtype=torch.float64) + 0.1
    gaussian = torch.distributions.Normal(mean, variance.sqrt()[:, None, None])
    expected = -gaussian.log_prob(teacher).mean((1, 2, 3)) - 0.5 * math.log(2 * math.pi)
    assert torch.allclose(vid_loss(mean, teacher, variance), expected)


def test_gradcheck() -> None:
    mean = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    variance = (torch.rand(3, dtype=torch.float64) + 0.1).requires_grad_()
    teacher = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda m, v: vid_loss(m, teacher, v), (mean, variance))


@pytest.mark.parametrize("variance", [1e-3, 5.0, 1e4])
def test_the_variance_begins_where_it_should(variance: float) -> None:
    stage = StagePair(StageMap("stage1", (2, 4, 4)), StageMap("stage1", (3, 4, 4)))
    method = VID([stage], initial_variance=variance)
    assert method.variance(0).tolist() == pytest.approx([variance] * 3, rel=1e-5)


def test_the_variance_is_trained_and_saved() -> None:
    stage = StagePair(StageMap("stage1", (2, 4, 4)), StageMap("stage1", (3, 4, 4)))
    method = VID([stage])
    assert any(parameter is method.alphas[0] for parameter in method.parameters())
    assert "alphas.0" in method.state_dict()


@pytest.mark.parametrize(("initial", "eps"), [(5.0, 0.0), (1e-5, 1e-5), (math.inf, 1e-5), (math.nan, 1e-5)])
def test_refuses_variances(initial: float, eps: float) -> None:
    with pytest.raises(ValueError, match=f"eps is {eps} and initial_variance {initial}: they must be positive"):
        VID([], initial_variance=initial, eps=eps)


def test_half_precision_is_computed_in_float32() -> None:
    variance = torch.tensor([0.5, 1.0, 2.0])
    half_precision(lambda student, teacher: vid_loss(student, teacher, variance), (4, 3, 4, 4))
