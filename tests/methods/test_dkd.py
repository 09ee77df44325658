from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from golden_logits import Golden, assert_golden
from loss_properties import (
    Loss,
    sample_by_sample,
    shift_invariant,
    two_classes,
    with_labels,
    zero_at_equality,
)
from torch import Tensor

from rankdistill import DKD, Batch, Output, dkd_loss, dkd_terms, kd_loss

GOLDEN = Golden("dkd")
SETTINGS = [(8.0, 4, "a1_b8_T4"), (2.0, 4, "a1_b2_T4"), (0.5, 1, "a1_b0.5_T1")]


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize(("beta", "temperature", "name"), SETTINGS)
def test_equals_the_authors_loss_terms_and_gradient(precision: str, beta: float, temperature: float, name: str) -> None:
    student, teacher, labels = GOLDEN.inputs(precision)
    loss = dkd_loss(student, teacher, labels, beta=beta, temperature=temperature).mean()
    loss.backward()
    target, rest = dkd_terms(student, teacher, labels, temperature=temperature)
    assert_golden(loss, GOLDEN[f"{name}.kd_total"])
    assert_golden(target.mean(), GOLDEN[f"{name}.tckd"])
    assert_golden(rest.mean(), GOLDEN[f"{name}.nckd"])
    assert_golden(student.grad, GOLDEN[f"{name}.grad_kd_student"])


def test_with_cross_entropy_it_is_the_authors_total() -> None:
    student, teacher, labels = GOLDEN.inputs("f64")
    total = F.cross_entropy(student, labels) + dkd_loss(student, teacher, labels).mean()
    assert_golden(total, GOLDEN["a1_b8_T4.total_with_ce"])


def method_loss(method: DKD, epoch: int) -> Tensor:
    student, teacher, labels = GOLDEN.inputs("f64")
    losses = method.losses(Batch(torch.zeros(8, 1), labels, epoch=epoch), Output(student), Output(teacher))
    assert list(losses) == ["tckd", "nckd"]
    return losses["tckd"] + losses["nckd"]


def test_warms_up_as_the_authors() -> None:
    found = torch.stack([method_loss(DKD(), epoch) for epoch in (1, 5, 20, 25)])
    assert_golden(found, GOLDEN["warmup20_epochs_1_5_20_25.loss_kd_a1_b8_T4"])


@pytest.mark.parametrize("warmup", [0, 1])
def test_without_warm_up_the_first_epoch_is_full(warmup: int) -> None:
    assert_golden(method_loss(DKD(warmup=warmup), 1), GOLDEN["a1_b8_T4.kd_total"])


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_its_terms_make_up_kd(num_classes: int) -> None:
    student, teacher = 4 * torch.randn(2, 6, num_classes, dtype=torch.float64)
    labels = torch.randint(num_classes, (6,))
    target, rest = dkd_terms(student, teacher, labels, temperature=3.0)
    on_label = (teacher / 3).softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(target + (1 - on_label) * rest, kd_loss(student, teacher, temperature=3.0))


def test_with_two_classes_nothing_is_beside_the_label() -> None:
    student, teacher = torch.randn(2, 4, 2)
    _, rest = dkd_terms(student, teacher, torch.tensor([0, 1, 1, 0]))
    assert torch.equal(rest, torch.zeros(4))


@pytest.mark.parametrize("teacher_gap", [0.0, 300.0])
@pytest.mark.parametrize("student_gap", [-300.0, 300.0])
def test_float32_is_right_where_probabilities_vanish(student_gap: float, teacher_gap: float) -> None:
    # The label's probability is below 1e-45 (or above 1 less that); the sum of probabilities would be 0.
    labels = torch.tensor([0])

    def terms(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        student = torch.tensor([[-student_gap, 1.0, 0.5, -2.0]], dtype=dtype, requires_grad=True)
        teacher = torch.tensor([[-teacher_gap, 0.0, 1.0, 0.25]], dtype=dtype)
        loss = dkd_loss(student, teacher, labels, temperature=1.0).sum()
        return loss.detach(), torch.autograd.grad(loss, student)[0]

    for found, expected in zip(terms(torch.float32), terms(torch.float64), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_vanishing_probabilities_by_hand() -> None:
    # q is (1, 0, 0) and p is (0, 1, 0): the divergence is the gap, and in the rest both are one-half each.
    student, teacher = torch.tensor([[-1e4, 0.0, 0.0]]), torch.tensor([[1e4, 0.0, 0.0]])
    target, rest = dkd_terms(student, teacher, torch.tensor([0]), temperature=1.0)
    assert target.item() == pytest.approx(1e4 + 0.6931, rel=1e-6)
    assert rest.item() == 0.0


def test_large_logits_of_other_classes_are_not_taken_for_the_label() -> None:
    # Lowering the label's logit by 1000, as the authors do, would fail here.
    student = torch.tensor([[0.0, -5e3, -5e3 - 1.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, -5e3, -5e3 + 2.0]], dtype=torch.float64)
    _, rest = dkd_terms(student, teacher, torch.tensor([0]), temperature=1.0)
    torch.testing.assert_close(rest, kd_loss(student[:, 1:], teacher[:, 1:], temperature=1.0))


@pytest.mark.parametrize("labels", [None, torch.rand(2, 3)])
def test_needs_unmixed_labels(labels: Tensor | None) -> None:
    outputs = Output(torch.zeros(2, 3)), Output(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"DKD needs one class per sample, but Batch.labels is .*: train on unmixed"):
        DKD().losses(Batch(torch.zeros(2, 1), labels), *outputs)


def test_refuses_one_class() -> None:
    with pytest.raises(ValueError, match="there are 1 classes: DKD compares label and rest"):
        dkd_loss(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"beta": float("nan")}, {"warmup": -1}, {"temperature": 0.0}])
def test_refuses_options(options: dict[str, float]) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=f"{name} is {value}: it must be"):
        DKD(**options)


@pytest.mark.parametrize("holds", [two_classes, sample_by_sample, shift_invariant, zero_at_equality])
def test_properties(holds: Callable[[Loss], None]) -> None:
    holds(with_labels(dkd_loss))
