import pytest
import torch
from feature_golden import BATCH, DTYPES, check_gradient, check_parameters, features, golden, load, relative_error
from loss_properties import half_precision

from rankdistill import ICKD, Output, StageMap, StagePair, ickd_loss
from rankdistill.methods.ickd import channel_correlation

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
NAMES = {
    "0.weight": "conv2d.weight",
    **{f"1.{name}": f"l2norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.authors
def test_equals_the_authors_step(dtype: torch.dtype) -> None:
    (student,), (teacher,) = features(dtype, "stage3")
    method = ICKD(StagePair(StageMap("stage3", (256, 8, 8)), StageMap("stage3", (256, 8, 8)))).to(dtype)
    load(method.embed, "ickd", "embed_s", NAMES)
    outputs = [Output(torch.zeros(4, 5), {"stage3": feature}) for feature in (student, teacher)]
    loss = method.losses(BATCH, *outputs)["ickd"]
    assert relative_error(loss, golden("ickd", "a.out64.loss")) < TOLERANCE[dtype]
    loss.backward()
    check_gradient("ickd", "s_feat3", student, TOLERANCE[dtype])
    named = {NAMES[name]: parameter for name, parameter in method.embed.named_parameters()}
    check_parameters("ickd", "embed_s", named, TOLERANCE[dtype])


def test_every_parameter_is_used_and_statistics_are_updated_by_the_first_view_only() -> None:
    method = ICKD(StagePair(StageMap("stage4", (3, 4, 4)), StageMap("last", (5, 2, 2))))
    outputs = [
        Output(torch.zeros(4, 5), {"stage4": torch.randn(4, 3, 4, 4)}),
        Output(torch.zeros(4, 5), {"last": torch.randn(4, 5, 2, 2)}),
    ]
    method.losses(BATCH, *outputs)["ickd"].backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    before = method.embed[1].running_mean.clone()
    assert before.any()
    method.updates_state = False
    method.losses(BATCH, *outputs)
    assert torch.equal(method.embed[1].running_mean, before)


def test_gradcheck_with_maps_of_different_sizes() -> None:
    student = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: ickd_loss(s, teacher), student)


def test_zero_where_positions_are_permuted_and_maps_scaled() -> None:
    teacher = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    student = 3 * teacher.flatten(2)[:, :, torch.randperm(16)].unflatten(2, (2, 8))
    assert ickd_loss(student, teacher).max() < 1e-24


def test_rows_have_unit_length_or_none() -> None:
    feature = torch.randn(2, 3, 4, 4)
    feature[:, 1] = 0
    norms = channel_correlation(feature).norm(dim=2)
    assert torch.allclose(norms, torch.tensor([1.0, 0.0, 1.0]).expand(2, 3))


def test_refuses_other_widths() -> None:
    with pytest.raises(ValueError, match="the student's map has 2 channels, the teacher's 3: embed"):
        ickd_loss(torch.zeros(1, 2, 1, 1), torch.zeros(1, 3, 1, 1))


def test_half_precision_is_computed_in_float32() -> None:
    half_precision(ickd_loss, (4, 3, 4, 4))
