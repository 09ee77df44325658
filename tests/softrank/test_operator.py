"""The operator against its oracle and its theorem, on every hard case, on all of its paths and in other processes."""

import math
import multiprocessing
import queue
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata
from torch import Tensor

from rankdistill.softrank import op, portable, rank_regime, reference, separating_epsilon, soft_rank, soft_sort

GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "ra.npz")
REGULARIZATIONS = ("l2", "kl")
# Decimals are not binary fractions, so that no two blocks touch by chance, where rounding decides whether they join.
ROWS = {
    "one": [2.7],
    "two": [0.31, -1.42],
    "all equal": [1.3] * 7,
    "all zero": [0.0] * 5,
    "two values": [0.3, 4.9, 0.3, 4.9, 4.9, 0.3],
    "signed zeros": [0.0, -0.0, 3.1, -0.0, -3.3],
    "sorted": [9.17, 7.01, 6.93, 3.31, 2.22, -4.57],
    "reversed": [-4.57, 2.22, 3.31, 6.93, 7.01, 9.17],
    "pairs": [5.11, 5.12, 0.23, 0.24, -7.31, -7.32, 5.113],
    "one far": [100.0, 2.2, 2.19, 1.17, 0.13],
    "huge": [1.1e30, 2.3e30, -3.7e30, 2.31e30],
    "tiny": [1.1e-30, 2.3e-30, -3.7e-30, 2.31e-30],
    "one huge": [1.0e30, 0.13, 1.17, 2.19, 2.2],
    "one hugely negative": [-1.0e30, 0.13, 1.17, 2.19, 2.2],
}
EPSILONS = (1e-6, 0.03, 0.5, 1.0, 1e6)


def oracle_gradient(values: Tensor, tangent: Tensor, epsilon: float, regularization: str) -> Tensor:
    """Return the product of the (symmetric) Jacobian of descending ranks with the tangent, from the oracle's blocks."""
    result = torch.empty_like(tangent, dtype=torch.float64)
    for row, v, out in zip(values.double(), tangent.double(), result, strict=True):
        ranks, blocks = reference.rank_row((-row).tolist(), epsilon, regularization)
        for block in blocks:
            weight = torch.tensor([1.0 if regularization == "l2" else ranks[i] for i in block], dtype=torch.float64)
            out[block] = -weight * (v[block] - (weight * v[block]).sum() / weight.sum()) / epsilon
    return result


def by_portable_path(values: Tensor, epsilon: float, regularization: str) -> Tensor:
    blocks = portable.rank_blocks(values.detach(), -1.0 / epsilon, regularization == "kl")
    return portable.ranks_of_blocks(values, blocks, -1.0 / epsilon, regularization == "kl", 0.0)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = 1e-9, *, unit: float = 1e-30) -> None:
    """Assert equality up to a fraction of the largest value expected, or of the unit if that is more."""
    peak = max(expected.double().abs().max().item(), unit)
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=tolerance * peak)


@pytest.fixture
def _two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("name", ROWS)
def test_rows_equal_the_oracle_on_both_paths(name: str, epsilon: float, regularization: str) -> None:
    values = torch.tensor([ROWS[name]], dtype=torch.float64, requires_grad=True)
    expected = reference.soft_rank(values, epsilon=epsilon, regularization=regularization)
    tangent = torch.randn_like(values)
    for ranks in (
        soft_rank(values, epsilon=epsilon, regularization=regularization),
        by_portable_path(values, epsilon, regularization),
    ):
        assert_near(ranks, expected)
        (gradient,) = torch.autograd.grad(ranks, values, tangent)
        assert_near(gradient, oracle_gradient(values.detach(), tangent, epsilon, regularization), unit=1.0 / epsilon)


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("name", ROWS)
def test_sorted_rows_equal_the_oracle_on_both_paths(name: str, epsilon: float, regularization: str) -> None:
    values = torch.tensor([ROWS[name]], dtype=torch.float64)
    ordered = values.sort(dim=-1, descending=True).values
    kl = regularization == "kl"
    expected = reference.soft_sort(values, epsilon=epsilon, regularization=regularization)
    assert_near(soft_sort(values, epsilon=epsilon, regularization=regularization), expected)
    blocks = portable.sort_blocks(ordered, epsilon, kl)
    assert_near(portable.sorted_of_blocks(ordered, blocks, epsilon, kl), expected)


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_random_rows_equal_the_oracle_on_both_paths(dtype: torch.dtype, tolerance: float, regularization: str) -> None:
    for n in (1, 2, 3, 5, 16, 33, 100):
        for epsilon in (0.01, 0.1, 1.0, 30.0):
            values = (4.0 * torch.randn(3, n, dtype=dtype)).requires_grad_()
            tangent = torch.randn(3, n, dtype=dtype)
            expected = reference.soft_rank(values, epsilon=epsilon, regularization=regularization)
            slope = oracle_gradient(values.detach(), tangent, epsilon, regularization)
            for ranks in (
                soft_rank(values, epsilon=epsilon, regularization=regularization),
                by_portable_path(values, epsilon, regularization),
            ):
                assert ranks.dtype == dtype
                assert_near(ranks, expected, tolerance)
                assert_near(torch.autograd.grad(ranks, values, tangent)[0], slope, tolerance, unit=1.0 / epsilon)
            choice = (-1.0 / epsilon, regularization == "kl")
            assert torch.equal(op.rank_blocks(values.detach(), *choice), portable.rank_blocks(values.detach(), *choice))


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize(
    ("shape", "dim"), [((7,), 0), ((4, 6), 0), ((2, 5, 3), 1), ((2, 3, 5), -1), ((1, 1, 4, 2), -2)]
)
def test_shapes_and_directions_equal_the_oracle(
    shape: tuple[int, ...], dim: int, descending: bool, regularization: str
) -> None:
    values = 3.0 * torch.randn(shape, dtype=torch.float64)
    options = {"dim": dim, "descending": descending, "epsilon": 0.7, "regularization": regularization}
    assert_near(soft_rank(values, **options), reference.soft_rank(values, **options))
    assert_near(soft_sort(values, **options), reference.soft_sort(values, **options))


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
def test_paths_of_soft_sort_are_equal(regularization: str) -> None:
    ordered = torch.randn(8, 37, dtype=torch.float64).sort(dim=-1, descending=True).values
    for epsilon in (0.1, 1.0, 10.0, 1000.0):
        blocks = op.sort_blocks(ordered, epsilon, regularization == "kl")
        assert torch.equal(blocks, portable.sort_blocks(ordered, epsilon, regularization == "kl"))


def test_golden_direction_and_hard_ranks() -> None:
    values = torch.from_numpy(GOLDEN["direction.values"])
    assert_near(soft_rank(values, epsilon=0.01), torch.from_numpy(GOLDEN["direction.descending_eps0.01"]))
    ascending = torch.from_numpy(GOLDEN["direction.ascending_eps0.01_library_default"])
    assert_near(soft_rank(values, epsilon=0.01, descending=False), ascending)
    for name in ("C100.s1", "C100.s4"):
        student = torch.from_numpy(GOLDEN[f"{name}.student"])[:3]
        assert_near(soft_rank(student, epsilon=1e-8), torch.from_numpy(GOLDEN[f"{name}.hard_rank_student_rows012"]))


def test_golden_blocks_that_touch_are_one() -> None:
    theta, tangent = (torch.from_numpy(GOLDEN[f"touch1.{key}"]) for key in ("theta", "v"))
    assert rank_regime(theta).blocks == len(GOLDEN["touch1.partition_sizes"])
    for path in (soft_rank, lambda x: by_portable_path(x, 1.0, "l2")):
        values = theta.clone().requires_grad_()
        ranks = path(values)
        assert_near(ranks, torch.from_numpy(GOLDEN["touch1.rank_eps1"]))
        expected = torch.from_numpy(GOLDEN["touch1.vjp_v"])
        assert_near(torch.autograd.grad(ranks, values, tangent)[0], expected)


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
def test_invariances(regularization: str) -> None:
    values = 3.0 * torch.randn(5, 40, dtype=torch.float64)
    n = values.shape[1]
    permutation = torch.randperm(n)
    for epsilon in (0.01, 0.2, 5.0):
        ranks = soft_rank(values, epsilon=epsilon, regularization=regularization)

        def rank(x: Tensor, scale: float = 1.0, epsilon: float = epsilon) -> Tensor:
            return soft_rank(x, epsilon=scale * epsilon, regularization=regularization)

        assert_near(rank(values[:, permutation]), ranks[:, permutation])
        assert_near(rank(values + 17.3), ranks)
        assert_near(rank(values * 0.37, 0.37), ranks)
        assert_near(ranks.sum(1), torch.full((5,), n * (n + 1) / 2))
        assert ranks.min() >= 1.0 - 1e-12
        assert ranks.max() <= n + 1e-12
        assert (ranks.gather(1, values.argsort(1)).diff(dim=1) <= 1e-12).all()


def test_ascending_euclidean_ranks_are_n_plus_1_less_the_descending_ones() -> None:
    values = torch.randn(5, 30, dtype=torch.float64)
    assert_near(soft_rank(values, epsilon=0.1, descending=False), 31 - soft_rank(values, epsilon=0.1))


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
def test_limits_of_epsilon(regularization: str) -> None:
    values = torch.randint(-5, 5, (20, 12), dtype=torch.float64)
    hard = torch.from_numpy(rankdata(values.numpy(), axis=1))
    assert_near(soft_rank(values, epsilon=1e-4, descending=False, regularization="l2"), hard)
    distinct = torch.randperm(12).double()
    assert_near(
        soft_rank(distinct, epsilon=1e-4, descending=False, regularization=regularization),
        torch.from_numpy(rankdata(distinct.numpy())),
    )
    assert_near(soft_rank(values, epsilon=1e12, regularization=regularization), torch.full((20, 12), 6.5))
    sorted_values = values.sort(dim=1, descending=True).values
    assert_near(soft_sort(values, epsilon=1e-6, regularization=regularization), sorted_values)
    limit = values.mean(1) if regularization == "l2" else torch.logsumexp(values, 1) - math.log(12)
    flat = soft_sort(values, epsilon=1e12, regularization=regularization)
    assert_near(flat, limit[:, None].expand(20, 12))


def test_entropic_ranks_of_one_block_are_a_softmax() -> None:
    values = 0.1 * torch.randn(4, 10, dtype=torch.float64)
    assert rank_regime(values, regularization="kl").blocks.tolist() == [1] * 4
    assert_near(soft_rank(values, regularization="kl"), torch.softmax(-values, 1) * 55)


@pytest.mark.parametrize("n", [2, 10, 100])
@pytest.mark.parametrize("epsilon", [0.125, 1.0, 3.0])
def test_linear_regime_is_tight(n: int, epsilon: float) -> None:
    """Half of the values 0 and half epsilon n / 2: the greatest range that is linear whatever lies between."""
    high = torch.arange(n).double() % 2
    edge = (high * epsilon * n / 2).requires_grad_()
    above = high * epsilon * n / 2 * (1 + 1e-9)
    regime = rank_regime(torch.stack((edge.detach(), above)), epsilon)
    assert regime.blocks.tolist() == [1, 2]
    torch.testing.assert_close(regime.separated, torch.tensor([0.0, 1 / (n - 1)]))
    ranks = soft_rank(edge, epsilon=epsilon)
    assert_near(ranks, (n + 1) / 2 - (edge.detach() - edge.detach().mean()) / epsilon)
    tangent = torch.randn(n, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(ranks, edge, tangent)
    assert_near(gradient, (tangent.mean() - tangent) / epsilon)


def test_rows_within_the_range_are_linear_whatever_their_neighbours() -> None:
    values = torch.rand(50, 30, dtype=torch.float64)
    values = (
        15 * (values - values.amin(1, keepdim=True)) / (values.amax(1, keepdim=True) - values.amin(1, keepdim=True))
    )
    values[::2] *= 40
    blocks = rank_regime(values).blocks
    assert (blocks[1::2] == 1).all()
    assert (blocks[::2] > 1).all()
    linear = 15.5 - (values - values.mean(1, keepdim=True))
    ranks = soft_rank(values)
    assert_near(ranks[1::2], linear[1::2])
    assert_near(ranks[::2], reference.soft_rank(values[::2]))


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
def test_regime_counts_the_blocks_of_the_oracle(regularization: str) -> None:
    values = torch.randn(6, 4, 25, dtype=torch.float64)
    for epsilon in (0.001, 0.02, 0.3, 100.0):
        regime = rank_regime(values, epsilon, regularization=regularization)
        rows = values.view(-1, 25)
        expected = [len(reference.rank_row((-row).tolist(), epsilon, regularization)[1]) for row in rows]
        assert regime.blocks.flatten().tolist() == expected
        torch.testing.assert_close(regime.separated, (regime.blocks - 1) / 24)
    assert regime.blocks.shape == (6, 4)


def test_regime_at_the_edges() -> None:
    regime = rank_regime(torch.tensor([[1.0, math.nan], [0.0, 1e9]]))
    assert regime.blocks.tolist() == [0, 2]
    assert regime.separated[0].isnan()
    assert regime.separated[1] == 1
    one = rank_regime(torch.zeros(3, 1))
    assert one.blocks.tolist() == [1, 1, 1]
    assert one.separated.tolist() == [0, 0, 0]
    assert rank_regime(torch.zeros(0, 5)).blocks.shape == (0,)


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_separating_epsilon_is_the_largest(fraction: float, regularization: str) -> None:
    logits = 4 * torch.randn(16, 20, dtype=torch.float64)
    epsilon = separating_epsilon(logits, fraction, regularization=regularization, tolerance=1e-4)

    def separated(epsilon: float) -> float:
        return rank_regime(logits, epsilon, regularization=regularization).separated.double().mean().item()

    assert separated(epsilon) >= fraction - 1e-6
    assert separated(1.001 * epsilon) < fraction
    scaled = separating_epsilon(100 * logits, fraction, regularization=regularization, tolerance=1e-4)
    assert scaled == pytest.approx(100 * epsilon, rel=1e-3)


def test_separating_epsilon_says_what_is_wrong() -> None:
    logits = torch.randn(4, 5)
    for fraction in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match="fraction is"):
            separating_epsilon(logits, fraction)
    with pytest.raises(ValueError, match=r"\(0, 5\) are empty or not all finite"):
        separating_epsilon(logits[:0])
    with pytest.raises(ValueError, match="not all finite"):
        separating_epsilon(torch.tensor([1.0, math.inf]))
    for equal in (torch.ones(4, 5), torch.tensor([[1.0, 1.0, 1.0, 2.0]]), torch.zeros(3, 1)):
        with pytest.raises(ValueError, match="too many logits are equal"):
            separating_epsilon(equal, 0.5)


@pytest.mark.parametrize("function", [soft_rank, soft_sort])
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0,), (2, 0, 4)])
def test_nothing_gives_nothing(function, shape: tuple[int, ...]) -> None:
    values = torch.zeros(shape, requires_grad=True)
    result = function(values)
    result.sum().backward()
    assert result.shape == values.grad.shape == shape


@pytest.mark.parametrize("function", [soft_rank, soft_sort])
@pytest.mark.parametrize("regularization", REGULARIZATIONS)
def test_memory_layout_does_not_matter(function, regularization: str) -> None:
    base = 20 * torch.randn(6, 8, 10)
    layouts = (base.transpose(0, 2), base[::2, :, 1::3], base[:1].expand(4, 8, 10), base[:, :1, :1].expand(6, 8, 10))
    for view in layouts:
        results = []
        for values in (view, view.contiguous()):
            values = values.detach().requires_grad_()
            result = function(values, regularization=regularization)
            (gradient,) = torch.autograd.grad(result.square().sum(), values)
            results.append((result, gradient))
        torch.testing.assert_close(results[0], results[1])


def test_a_gradient_that_is_expanded_or_strided_is_read_right() -> None:
    values = (20 * torch.randn(6, 10, dtype=torch.float64)).requires_grad_()
    for tangent in (torch.randn(6, 1).expand(6, 10), torch.randn(10, 6).t()):
        tangent = tangent.double()
        (gradient,) = torch.autograd.grad(soft_rank(values), values, tangent)
        assert_near(gradient, oracle_gradient(values.detach(), tangent, 1.0, "l2"))


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, regularization: str) -> None:
    values = (10 * torch.randn(3, 3000)).to(dtype).requires_grad_()
    wide = values.detach().float().requires_grad_()
    for function in (soft_rank, soft_sort):
        results = [function(x, epsilon=0.1, regularization=regularization) for x in (values, wide)]
        assert results[0].dtype == dtype
        assert torch.equal(results[0], results[1].to(dtype))
        gradients = [
            torch.autograd.grad(result.float().mean(), x)[0] for result, x in zip(results, (values, wide), strict=True)
        ]
        assert torch.equal(gradients[0], gradients[1].to(dtype))


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
@pytest.mark.parametrize("epsilon", [0.01, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bad_row_is_nan_and_no_other(dtype: torch.dtype, epsilon: float, regularization: str) -> None:
    clean = torch.randn(7, 9, dtype=dtype)
    bad = clean.clone()
    bad[1, 4], bad[3, 0], bad[5, 8] = math.nan, math.inf, -math.inf
    bad[6] = math.nan
    good = torch.tensor([0, 2, 4])
    tangent = torch.randn(7, 9, dtype=dtype)
    scale, kl = -1.0 / epsilon, regularization == "kl"
    functions = (
        lambda x: soft_rank(x, epsilon=epsilon, regularization=regularization),
        lambda x: soft_sort(x, epsilon=epsilon, regularization=regularization),
        lambda x: by_portable_path(x, epsilon, regularization),
        lambda x: portable.ranks_of_blocks(x, op.rank_blocks(x.detach(), scale, kl), scale, kl, 0.0),
    )
    for function in functions:
        results = []
        for values in (bad.clone().requires_grad_(), clean.clone().requires_grad_()):
            result = function(values)
            results.append((result, torch.autograd.grad(result, values, tangent)[0]))
        for actual, expected in zip(*results, strict=True):
            torch.testing.assert_close(actual[good], expected[good])
            assert actual[[1, 3, 5, 6]].isnan().all()


@pytest.mark.parametrize("epsilon", [1e-9, 1e-4, 1.0])
def test_a_hundred_thousand_values(epsilon: float) -> None:
    """The isotonic regression of SciPy is the oracle: ours is too slow here."""
    n = 100_000
    values = torch.randn(1, n, dtype=torch.float64, requires_grad=True)
    s, order = (-values.detach()[0] / epsilon).sort(descending=True)
    fit = isotonic_regression((s - torch.arange(n, 0, -1)).numpy(), increasing=False)
    expected = torch.empty(n, dtype=torch.float64).scatter(0, order, s - torch.from_numpy(fit.x.copy()))
    for ranks in (soft_rank(values, epsilon=epsilon), by_portable_path(values, epsilon, "l2")):
        assert_near(ranks[0], expected, 1e-8)
        (gradient,) = torch.autograd.grad(ranks.square().sum() / n**2, values)
        assert abs(gradient.sum().item()) <= 1e-9 * gradient.abs().sum().item() + 1e-30
    assert rank_regime(values, epsilon).blocks.item() == len(fit.blocks) - 1


@pytest.mark.parametrize("function", [soft_rank, soft_sort])
def test_wrong_arguments_say_what_is_wrong(function) -> None:
    values = torch.randn(2, 3)
    for integers in (values.long(), values > 0):
        with pytest.raises(TypeError, match=f"{integers.dtype}: .*values.float"):
            function(integers)
    for epsilon in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"epsilon is {epsilon}: it must be positive and finite"):
            function(values, epsilon=epsilon)
    for dim in (2, -3):
        with pytest.raises(ValueError, match=re.escape(f"dim is {dim}, but the values have shape (2, 3)")):
            function(values, dim=dim)
    with pytest.raises(ValueError, match=r"dim is -1, but the values have shape \(\)"):
        function(torch.tensor(1.0))
    with pytest.raises(ValueError, match="regularization is 'entropy'"):
        function(values, regularization="entropy")


def test_regime_checks_its_arguments() -> None:
    with pytest.raises(TypeError, match="int64"):
        rank_regime(torch.ones(3, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="epsilon is 0"):
        rank_regime(torch.randn(3, 3), 0.0)


def ranks_and_gradient(values: Tensor) -> tuple[Tensor, Tensor]:
    values = values.detach().requires_grad_()
    ranks = soft_rank(values, epsilon=0.05)
    (gradient,) = torch.autograd.grad(ranks.square().mean(), values)
    return ranks.detach(), gradient


def put_ranks_and_gradient(values: Tensor, tangent: Tensor, results: "multiprocessing.Queue[list[np.ndarray]]") -> None:
    """Nothing here but the operator may use threads: those of torch do not survive a fork."""
    ranks = soft_rank(values, epsilon=0.05)
    (gradient,) = torch.autograd.grad(ranks, values, tangent)
    results.put([ranks.detach().numpy(), gradient.numpy()])


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_ranks_after_its_parent_did() -> None:
    values, tangent = torch.randn(256, 2000, requires_grad=True), torch.randn(256, 2000)
    ranks = soft_rank(values, epsilon=0.05)
    (gradient,) = torch.autograd.grad(ranks, values, tangent)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=put_ranks_and_gradient, args=(values, tangent, results), daemon=True)
    child.start()
    try:
        actual = results.get(timeout=30)
    except queue.Empty:
        pytest.fail("the forked process hangs or died")
    finally:
        child.kill()
        child.join()
    assert torch.equal(ranks, torch.from_numpy(actual[0]))
    assert torch.equal(gradient, torch.from_numpy(actual[1]))


@pytest.mark.usefixtures("_two_threads")
def test_threads_rank_at_once() -> None:
    inputs = [torch.randn(64, 1000 + i) for i in range(16)]
    expected = [ranks_and_gradient(values) for values in inputs]
    with ThreadPoolExecutor(4) as pool:
        actual = list(pool.map(ranks_and_gradient, inputs))
    for ours, theirs in zip(expected, actual, strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_number_of_threads_changes_nothing(dtype: torch.dtype, regularization: str) -> None:
    values = torch.randn(300, 700, dtype=dtype)
    values[7, 3] = math.nan
    values[::5] *= 1e-3
    alone = soft_rank(values, epsilon=0.01, regularization=regularization)
    torch.set_num_threads(3)
    try:
        shared = soft_rank(values, epsilon=0.01, regularization=regularization)
    finally:
        torch.set_num_threads(1)
    torch.testing.assert_close(shared, alone, rtol=0, atol=0, equal_nan=True)
