import functools
import itertools
from collections.abc import Callable

import pytest
import torch
from golden_logits import Golden, assert_golden
from loss_properties import Loss, sample_by_sample, shift_invariant, two_classes
from torch import Tensor

from rankdistill import RKKD, Batch, Output, rkkd_loss
from rankdistill.methods import rkkd

GOLDEN = Golden("rkkd_reconstruction")


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("steepness", [0.1, 1, 10, 100])
@pytest.mark.parametrize("chunk", [1, 8 * 100 * 7, 2**20])
def test_equals_the_reference_for_any_size_of_chunks(
    precision: str, steepness: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rkkd, "_CHUNK", chunk)
    student, teacher, _ = GOLDEN.inputs(precision)
    loss = rkkd_loss(student, teacher, steepness=steepness)
    loss.mean().backward()
    assert_golden(loss, GOLDEN[f"k{steepness}.per_sample"])
    assert_golden(student.grad, GOLDEN[f"k{steepness}.grad_kd_student"])


def kendall(first: Tensor, second: Tensor) -> float:
    """Return Kendall's tau of two rows without ties, by counting."""
    pairs = list(itertools.combinations(range(len(first)), 2))
    agree = sum(bool((first[i] - first[j]) * (second[i] - second[j]) > 0) for i, j in pairs)
    return (2 * agree - len(pairs)) / len(pairs)


def test_steep_it_is_one_minus_kendalls_tau() -> None:
    student, teacher = torch.randn(2, 5, 9, dtype=torch.float64)
    expected = [1 - kendall(a, b) for a, b in zip(student, teacher, strict=True)]
    found = rkkd_loss(student, teacher, steepness=1e6)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_extremes() -> None:
    logits = torch.arange(6.0).unsqueeze(0)
    assert rkkd_loss(logits, 3 * logits + 1).item() == 0.0
    assert rkkd_loss(logits, -logits).item() == 2.0


def test_tied_teacher_passes_no_gradient() -> None:
    student = torch.randn(3, 5, requires_grad=True)
    loss = rkkd_loss(student, torch.ones(3, 5), steepness=1.0)
    loss.sum().backward()
    assert torch.equal(loss.detach(), torch.ones(3))
    assert student.grad is not None
    assert student.grad.abs().max() == 0.0


def test_memory_does_not_grow_with_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    plain = rkkd._signs

    def recorded(logits: Tensor, first: slice, steepness: float) -> Tensor:
        signs = plain(logits, first, steepness)
        sizes.append(signs.numel())
        return signs

    monkeypatch.setattr(rkkd, "_signs", recorded)
    student = torch.randn(8, 1000, requires_grad=True)
    loss = rkkd_loss(student, torch.randn(8, 1000))
    assert max(sizes) <= 2**20
    assert sum(sizes) == 2 * 8 * 1000**2
    assert sum(saved.numel() for saved in loss.grad_fn.saved_tensors) == 3 * 8 * 1000  # type: ignore[union-attr]


def test_second_derivative() -> None:
    student, teacher = torch.randn(2, 3, 5, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda s: rkkd_loss(s, teacher, steepness=2.0), student.requires_grad_())


def test_method_is_the_mean() -> None:
    student, teacher = torch.randn(2, 4, 6)
    losses = RKKD(steepness=2.0).losses(Batch(torch.zeros(4, 1), None), Output(student), Output(teacher))
    assert losses == {"rkkd": rkkd_loss(student, teacher, steepness=2.0).mean()}


def test_refuses() -> None:
    with pytest.raises(ValueError, match="there are 1 classes: RKKD compares pairs"):
        rkkd_loss(torch.zeros(2, 1), torch.zeros(2, 1))
    for steepness in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"steepness is {steepness}: it must be positive and finite"):
            RKKD(steepness=steepness)


@pytest.mark.parametrize("holds", [two_classes, sample_by_sample, shift_invariant])
def test_properties(holds: Callable[[Loss], None]) -> None:
    holds(functools.partial(rkkd_loss, steepness=2.0))
