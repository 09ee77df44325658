import pytest
import torch
from feature_golden import BATCH, DTYPES, check_gradient, features, golden, relative_error

from rankdistill import NST, Output, StageMap, StagePair, nst_loss

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.authors
def test_equals_the_authors_loss_and_gradient(dtype: torch.dtype) -> None:
    roles = ("stage1", "stage2", "stage3")
    student, teacher = features(dtype, *roles)
    outputs = [Output(torch.zeros(4, 5), dict(zip(roles, maps, strict=True))) for maps in (student, teacher)]
    method = NST([StagePair(StageMap(role, (1, 1, 1)), StageMap(role, (1, 1, 1))) for role in roles])
    loss = 50 * method.losses(BATCH, *outputs)["nst"]
    assert relative_error(loss, golden("nst", "a.out64.loss")) < TOLERANCE[dtype]
    loss.backward()
    for number, feature in enumerate(student, 1):
        check_gradient("nst", f"s_feat{number}", feature, TOLERANCE[dtype])


# More positions than channels, and fewer: the two ways to compute it.
@pytest.mark.parametrize("shapes", [((3, 4, 4), (5, 4, 4)), ((7, 2, 2), (5, 2, 2)), ((3, 6, 6), (9, 3, 2))])
def test_equals_the_formula_channel_by_channel(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    student, teacher = (torch.randn(2, *shape, dtype=torch.float64) for shape in shapes)

    def channels(x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.adaptive_avg_pool2d(x, shapes[1][1:]).flatten(2)
        return x / x.norm(dim=2, keepdim=True)

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bip,bjp->bij", x, y).square().mean((1, 2))

    s, t = channels(student), channels(teacher)
    expected = kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)
    assert torch.allclose(nst_loss(student, teacher), expected, rtol=1e-9)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: nst_loss(x, teacher), student)


@pytest.mark.parametrize("size", [2, 6])
def test_zero_where_channels_are_permuted_scaled_or_doubled(size: int) -> None:
    teacher = torch.randn(2, 6, size, size, dtype=torch.float64)
    student = (torch.rand(6, 1, 1, dtype=torch.float64) + 1) * teacher[:, torch.randperm(6)]
    assert nst_loss(torch.cat([student, student], 1), teacher).abs().max() < 1e-15


@pytest.mark.parametrize("size", [2, 6])
def test_a_channel_of_zeros_is_finite_and_passes_no_gradient(size: int) -> None:
    student = torch.randn(2, 4, size, size)
    student[:, 1] = 0
    student.requires_grad_()
    loss = nst_loss(student, torch.randn(2, 3, size, size))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert not student.grad[:, 1].any()
    assert student.grad.any()
