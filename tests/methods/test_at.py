import pytest
import torch
from feature_golden import BATCH, DTYPES, check_gradient, features, golden, relative_error

from rankdistill import AT, Output, StageMap, StagePair, at_loss
from rankdistill.methods.at import attention_map

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.authors
def test_equals_the_authors_loss_and_gradient(dtype: torch.dtype) -> None:
    roles = ("stage1", "stage2", "stage3")
    student, teacher = features(dtype, *roles)
    pairs = [StagePair(StageMap(role, (1, 1, 1)), StageMap(role, (1, 1, 1))) for role in roles]
    outputs = [Output(torch.zeros(4, 5), dict(zip(roles, maps, strict=True))) for maps in (student, teacher)]
    for number, maps in enumerate(zip(student, teacher, strict=True), 1):
        assert relative_error(at_loss(*maps).mean(), golden("at", f"a.out64.stage{number}")) < TOLERANCE[dtype]
    loss = 1000 * AT(pairs).losses(BATCH, *outputs)["at"]
    assert relative_error(loss, golden("at", "a.out64.loss")) < TOLERANCE[dtype]
    loss.backward()
    for number, feature in enumerate(student, 1):
        check_gradient("at", f"s_feat{number}", feature, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_authors_last_stage(dtype: torch.dtype) -> None:
    (student,), (teacher,) = features(dtype, "stage3")
    loss = at_loss(student, teacher).mean()
    assert relative_error(loss, golden("at", "a.out64.stage3")) < TOLERANCE[dtype]
    (1000 * loss).backward()
    check_gradient("at", "s_feat3", student, TOLERANCE[dtype])


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_gradcheck_with_pooling_of_either_side(power: float) -> None:
    large = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    small = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: at_loss(s, small.detach(), power=power), large)
    assert torch.autograd.gradcheck(lambda s: at_loss(s, large.detach(), power=power), small)


def test_the_larger_map_is_averaged_down() -> None:
    student, teacher = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 4, 4)
    expected = at_loss(torch.nn.functional.avg_pool2d(student, 2), teacher)
    assert torch.allclose(at_loss(student, teacher), expected)
    assert torch.allclose(at_loss(teacher, student), expected)


def test_an_attention_map_has_unit_length_and_no_sign() -> None:
    feature = torch.randn(2, 3, 4, 5)
    for power in (1.0, 2.0, 3.0):
        found = attention_map(feature, power=power)
        assert found.shape == (2, 20)
        assert torch.allclose(found.norm(dim=1), torch.ones(2))
        assert torch.equal(found, attention_map(-feature, power=power))
    assert torch.allclose(
        attention_map(feature) * feature.square().mean(1).flatten(1).norm(dim=1, keepdim=True),
        feature.square().mean(1).flatten(1),
    )


def test_zero_where_maps_differ_by_a_factor_or_a_permutation_of_channels() -> None:
    feature = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    assert at_loss(7 * feature[:, torch.randperm(4)], feature).max() < 1e-20


def test_a_map_of_zeros_is_finite_and_passes_no_gradient() -> None:
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = at_loss(student, torch.rand(2, 3, 4, 4))
    loss.sum().backward()
    assert torch.allclose(loss, torch.full((2,), 1 / 16))
    assert not student.grad.any()


@pytest.mark.parametrize("power", [0.5, float("nan"), float("inf")])
def test_refuses_a_power(power: float) -> None:
    with pytest.raises(ValueError, match=rf"power is {power}: it must be (finite and )?at least 1"):
        AT([], power=power)
    with pytest.raises(ValueError, match="at least 1"):
        at_loss(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), power=power)
