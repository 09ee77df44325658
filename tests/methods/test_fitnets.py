import pytest
import torch
from feature_golden import BATCH, DTYPES, check_gradient, check_parameters, features, golden, load, relative_error
from loss_properties import half_precision

from rankdistill import FitNets, Output, StageMap, StagePair, fitnets_loss
from rankdistill.methods.fitnets import Regressor

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
NAMES = ("conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
HINT = StagePair(StageMap("stage2", (128, 16, 16)), StageMap("stage2", (128, 16, 16)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.authors
def test_equals_the_authors_step(dtype: torch.dtype) -> None:
    student, teacher = features(dtype, "stage2")
    method = FitNets([HINT], hint_stage=1).to(dtype)
    load(method.regressor, "fitnets", "conv_reg", dict(zip(NAMES, NAMES, strict=True)))
    outputs = [Output(torch.zeros(4, 5), {"stage2": maps[0]}) for maps in (student, teacher)]
    loss = 100 * method.losses(BATCH, *outputs)["fitnets"]
    assert relative_error(loss, golden("fitnets", "a.out64.loss")) < TOLERANCE[dtype]
    loss.backward()
    check_gradient("fitnets", "s_feat2", student[0], TOLERANCE[dtype])
    parameters = dict(method.regressor.named_parameters())
    check_parameters("fitnets", "conv_reg", parameters, TOLERANCE[dtype])


SIZES = {
    "equal": ((5, 8, 8), (7, 8, 8), "Conv2d", (1, 1), (1, 1)),
    "twice": ((5, 16, 16), (7, 8, 8), "Conv2d", (3, 3), (2, 2)),
    "twice, odd": ((5, 14, 14), (7, 7, 7), "Conv2d", (3, 3), (2, 2)),
    "half": ((5, 4, 4), (7, 8, 8), "ConvTranspose2d", (4, 4), (2, 2)),
    "half, odd": ((5, 7, 7), (7, 14, 14), "ConvTranspose2d", (4, 4), (2, 2)),
    "smaller": ((5, 7, 7), (7, 5, 5), "Conv2d", (3, 3), (1, 1)),
    "much smaller": ((5, 16, 16), (7, 4, 4), "Conv2d", (13, 13), (1, 1)),
    "oblong": ((5, 6, 9), (7, 4, 8), "Conv2d", (3, 2), (1, 1)),
    "twice as high only": ((5, 16, 8), (7, 8, 8), "Conv2d", (9, 1), (1, 1)),
}


@pytest.mark.parametrize("case", SIZES)
def test_the_regressor_follows_the_sizes(case: str) -> None:
    student, teacher, kind, kernel, stride = SIZES[case]
    regressor = Regressor(student, teacher)
    assert type(regressor.conv).__name__ == kind
    assert (regressor.conv.kernel_size, regressor.conv.stride) == (kernel, stride)
    assert regressor.conv.bias is not None
    found = regressor(torch.randn(2, *student))
    assert found.shape == (2, *teacher)
    assert found.min() == 0


@pytest.mark.parametrize("sizes", [((3, 4, 4), (3, 7, 7)), ((3, 4, 4), (3, 12, 12)), ((3, 4, 8), (3, 8, 8))])
def test_the_regressor_refuses_other_sizes(sizes: tuple[tuple[int, int, int], tuple[int, int, int]]) -> None:
    with pytest.raises(ValueError, match=r"no regressor from 4x\d to .*: the student's map must be at least as large"):
        Regressor(*sizes)


def test_the_statistics_are_those_of_the_batch_and_are_updated_by_the_first_view_only() -> None:
    method = FitNets([HINT], hint_stage=1)
    outputs = [Output(torch.zeros(4, 5), {"stage2": torch.randn(4, 128, 16, 16)}) for _ in range(2)]
    before = method.regressor.bn.running_mean.clone()
    convolved = method.regressor.conv(outputs[0].features["stage2"]).mean((0, 2, 3))
    first = method.losses(BATCH, *outputs)["fitnets"]
    after = method.regressor.bn.running_mean.clone()
    assert torch.allclose(after, 0.9 * before + 0.1 * convolved, atol=1e-6)
    method.updates_state = False
    assert torch.equal(method.losses(BATCH, *outputs)["fitnets"], first)
    assert torch.equal(method.regressor.bn.running_mean, after)


@pytest.mark.parametrize("hint_stage", [0, 2, -1])
def test_refuses_a_stage(hint_stage: int) -> None:
    with pytest.raises(
        ValueError, match=f"hint_stage is {hint_stage}: the networks have 1 stages in common; count from 1"
    ):
        FitNets([HINT], hint_stage=hint_stage)


def test_loss() -> None:
    student = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: fitnets_loss(s, teacher), student)
    assert torch.equal(fitnets_loss(teacher + 2, teacher), torch.full((3,), 4.0, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"the regressed map has shape \(3, 2, 4, 4\), the teacher's \(3, 1, 4, 4\)"):
        fitnets_loss(student, teacher[:, :1])


def test_half_precision_is_computed_in_float32() -> None:
    half_precision(fitnets_loss, (4, 3, 4, 4))
