"""The operator inside torch: derivatives of every mode and order, transforms, compilation, autocast, fake tensors."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from rankdistill.methods.ra import rank_alignment_loss
from rankdistill.softrank import rank_regime, soft_rank, soft_sort
from rankdistill.softrank.functions import squared_rank_distance

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "ra.npz")
FUNCTIONS = [
    pytest.param(
        lambda x, f=f, r=r, d=d: f(x, epsilon=0.4, regularization=r, descending=d),
        id=f"{f.__name__}-{r}-{'descending' if d else 'ascending'}",
    )
    for f in (soft_rank, soft_sort)
    for r in ("l2", "kl")
    for d in (True, False)
]
# Torch compiles its own rules of forward mode in this way, at the first use.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")

Function = Callable[[Tensor], Tensor]


@pytest.fixture
def values() -> Tensor:
    """Rows of one block, of several and of all, far from where blocks meet."""
    rows = [[0.1, 0.13, 0.22, 0.17, 0.0], [3.1, 0.23, 3.0, -2.7, 0.57], [9.1, -3.2, 4.7, 1.3, 0.0]]
    return torch.tensor(rows, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def _no_vmap_fallback() -> Iterator[None]:
    """The slow fallback warns only if asked to, and warnings are errors."""
    torch._C._functorch._set_vmap_fallback_enabled(False)
    yield
    torch._C._functorch._set_vmap_fallback_enabled(True)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_derivatives_equal_finite_differences(function: Function, values: Tensor) -> None:
    assert torch.autograd.gradcheck(function, values, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, values)


@pytest.mark.parametrize("distance", ["l2", "l1", "spearman"])
@pytest.mark.parametrize("epsilon", [0.4, 30.0])
def test_derivatives_of_the_loss_equal_finite_differences(distance: str, epsilon: float, values: Tensor) -> None:
    teacher = values.detach().roll(1, 1)

    def loss(student: Tensor) -> Tensor:
        return rank_alignment_loss(student, teacher, epsilon=epsilon, distance=distance)

    assert torch.autograd.gradcheck(loss, values)
    assert torch.autograd.gradgradcheck(loss, values)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_forward_mode_equals_reverse_mode(function: Function, values: Tensor) -> None:
    tangent = torch.randn_like(values)
    (expected,) = torch.autograd.functional.jvp(function, values.detach(), tangent, strict=True)[1:]
    _, product = torch.func.jvp(function, (values.detach(),), (tangent,))
    torch.testing.assert_close(product, expected)
    with forward_ad.dual_level():
        dual = function(forward_ad.make_dual(values.detach(), tangent))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, expected)
    jacobian = torch.func.jacrev(function)(values.detach()[1])
    torch.testing.assert_close(torch.func.jacfwd(function)(values.detach()[1]), jacobian)
    torch.testing.assert_close(jacobian @ tangent[1], expected[1])


def test_forward_mode_equals_the_golden_products() -> None:
    tangent = torch.from_numpy(GOLDEN["C100.v"]).double()
    for name in ("C100.s1", "C100.s4"):
        student = torch.from_numpy(GOLDEN[f"{name}.student"]).double()
        for epsilon in ("0.01", "0.1", "1", "10"):
            _, product = torch.func.jvp(lambda x, e=float(epsilon): soft_rank(x, epsilon=e), (student,), (tangent,))
            expected = torch.from_numpy(GOLDEN[f"{name}.e{epsilon}.f64.jvp_v"])
            torch.testing.assert_close(product, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functional_gradients_equal_eager_ones(function: Function, values: Tensor) -> None:
    def energy(x: Tensor) -> Tensor:
        return (function(x) * torch.arange(1.0, 6.0).double()).square().sum()

    (expected,) = torch.autograd.grad(energy(values), values)
    torch.testing.assert_close(torch.func.grad(energy)(values.detach()), expected)
    row = values.detach()[0]
    expected = torch.autograd.functional.hessian(energy, row)
    torch.testing.assert_close(torch.func.hessian(energy)(row), expected)
    assert expected.abs().max() > 1e-3


@pytest.mark.usefixtures("_no_vmap_fallback")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_vmap_equals_the_batch(function: Function, values: Tensor) -> None:
    batch = values.detach()
    torch.testing.assert_close(torch.func.vmap(function)(batch), function(batch))
    torch.testing.assert_close(
        torch.func.vmap(function, in_dims=1, out_dims=1)(batch.t().contiguous()).t(), function(batch)
    )
    stacked = torch.stack((batch, 2 * batch))
    torch.testing.assert_close(torch.func.vmap(torch.func.vmap(function))(stacked), function(stacked))

    def energy(row: Tensor) -> Tensor:
        return function(row).pow(3).sum()

    (expected,) = torch.autograd.grad(function(values).pow(3).sum(), values)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(energy))(batch), expected)


def value_and_gradient(function: Function, values: Tensor) -> tuple[Tensor, Tensor]:
    values = values.detach().requires_grad_()
    result = function(values)
    return result.detach(), torch.autograd.grad(result.pow(3).sum(), values)[0]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_compiled_equals_eager(function: Function, backend: str, values: Tensor) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    torch.testing.assert_close(value_and_gradient(compiled, values), value_and_gradient(function, values))


def test_compiled_distance_equals_eager(values: Tensor) -> None:
    torch._dynamo.reset()
    teacher = values.detach().roll(1, 1)

    def distance(student: Tensor) -> Tensor:
        return squared_rank_distance(student, teacher, epsilon=30.0, regularization="l2")

    compiled = torch.compile(distance, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(value_and_gradient(compiled, values), value_and_gradient(distance, values))


@pytest.mark.parametrize("kl", [False, True])
@pytest.mark.parametrize("name", ["rank_blocks", "sort_blocks"])
def test_operators_are_registered_well(name: str, kl: bool) -> None:
    operator = getattr(torch.ops.rankdistill, name).default
    values = torch.randn(3, 4, 6).sort(dim=-1, descending=True).values
    strength = -2.0 if name == "rank_blocks" else 2.0
    torch.library.opcheck(operator, (values, strength, kl))
    torch.library.opcheck(operator, (values[0, 0].double(), strength, kl))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_autocast_changes_nothing(function: Function) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        values = (3 * torch.randn(4, 50)).to(dtype)
        expected = value_and_gradient(function, values)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = value_and_gradient(function, values)
            transformed = torch.func.vmap(function)(values)
        assert all(torch.equal(*pair) for pair in zip(actual, expected, strict=True))
        assert transformed.dtype == dtype
        torch.testing.assert_close(transformed, expected[0])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_shapes_are_known_without_data(function: Function) -> None:
    result = function(torch.empty(2, 3, 5, dtype=torch.bfloat16, device="meta"))
    assert (result.shape, result.dtype, result.device.type) == ((2, 3, 5), torch.bfloat16, "meta")
    with FakeTensorMode():
        fake = torch.empty(4, 7, requires_grad=True)
        result = function(fake)
        assert torch.autograd.grad(result.sum(), fake)[0].shape == (4, 7)
    assert (result.shape, result.dtype) == ((4, 7), torch.float32)


def test_regime_shape_is_known_without_data() -> None:
    regime = rank_regime(torch.empty(2, 3, 5, device="meta"))
    assert regime.blocks.shape == regime.separated.shape == (2, 3)


def test_parameters_and_no_grad_take_the_same_path(values: Tensor) -> None:
    parameter = torch.nn.Parameter(values.detach())
    torch.testing.assert_close(value_and_gradient(soft_rank, parameter), value_and_gradient(soft_rank, values))
    with torch.no_grad():
        assert not soft_rank(values).requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(soft_rank(values), soft_rank(values))
