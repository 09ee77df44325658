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
)

from rankdistill import NKD, Batch, Output, nkd_loss, nkd_terms

GOLDEN = Golden("nkd")
SETTINGS = [(1.5, 1, "T1_g1.5"), (3.5, 3, "T3_g3.5")]


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize(("gamma", "temperature", "name"), SETTINGS)
def test_equals_the_authors_loss_terms_and_gradient(
    precision: str, gamma: float, temperature: float, name: str
) -> None:
    student, teacher, labels = GOLDEN.inputs(precision)
    loss = nkd_loss(student, teacher, labels, gamma=gamma, temperature=temperature).mean()
    loss.backward()
    target, rest = nkd_terms(student, teacher, labels, temperature=temperature)
    assert_golden(loss, GOLDEN[f"{name}.kd_total"])
    assert_golden(target.mean(), GOLDEN[f"{name}.part_target"])
    assert_golden(gamma * rest.mean(), GOLDEN[f"{name}.part_nontarget"])
    assert_golden(student.grad, GOLDEN[f"{name}.grad_kd_student"])


def test_method_with_cross_entropy_is_the_authors_total() -> None:
    student, teacher, labels = GOLDEN.inputs("f64")
    losses = NKD(gamma=3.5, temperature=3.0).losses(Batch(torch.zeros(8, 1), labels), Output(student), Output(teacher))
    assert list(losses) == ["target", "nontarget"]
    total = F.cross_entropy(student, labels) + losses["target"] + losses["nontarget"]
    assert_golden(total, GOLDEN["T3_g3.5.total_with_ce"])


def test_of_distributions_it_takes_the_largest_entry() -> None:
    student, teacher, labels = GOLDEN.inputs("f32")
    mixed = 0.6 * F.one_hot(labels, 100) + 0.4 * F.one_hot(labels.roll(1), 100)
    assert torch.equal(nkd_loss(student, teacher, mixed), nkd_loss(student, teacher, labels))


def test_smallest_at_the_teacher_among_other_classes() -> None:
    # A cross-entropy: its value there is the entropy of the teacher's other classes.
    teacher = torch.randn(4, 6, dtype=torch.float64)
    student = teacher.clone().requires_grad_()
    labels = torch.tensor([0, 5, 2, 3])
    _, rest = nkd_terms(student, teacher, labels)
    (slope,) = torch.autograd.grad(rest.sum(), student)
    others = torch.stack([row[torch.arange(6) != label] for row, label in zip(teacher, labels, strict=True)])
    torch.testing.assert_close(rest.detach(), torch.distributions.Categorical(logits=others).entropy())
    assert slope.abs().max() < 1e-15


def test_with_two_classes_only_the_target_is_left() -> None:
    student, teacher = torch.randn(2, 4, 2)
    labels = torch.tensor([0, 1, 1, 0])
    target, rest = nkd_terms(student, teacher, labels)
    column = labels.unsqueeze(1)
    expected = -teacher.softmax(1).gather(1, column) * student.log_softmax(1).gather(1, column)
    assert rest.abs().max() == 0.0
    torch.testing.assert_close(target, expected.squeeze(1))


def test_large_logits() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    target, rest = nkd_terms(student, torch.tensor([[0.0, 1e4, -1e4]]), torch.tensor([1]))
    assert target.item() == pytest.approx(2e4)
    assert rest.item() == pytest.approx(0.0)
    (target + rest).backward()
    torch.testing.assert_close(student.grad, torch.tensor([[1.0, -1.0, 0.0]]))


def test_needs_labels_and_two_classes() -> None:
    logits = Output(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"NKD needs Batch.labels, which is None: leave it out"):
        NKD().losses(Batch(torch.zeros(2, 1), None), logits, logits)
    with pytest.raises(ValueError, match="there are 1 classes: NKD needs some beside the label"):
        nkd_loss(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("options", [{"gamma": -1.0}, {"temperature": 0.0}])
def test_refuses_options(options: dict[str, float]) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=f"{name} is {value}: it must be"):
        NKD(**options)


@pytest.mark.parametrize("holds", [two_classes, sample_by_sample, shift_invariant])
def test_properties(holds: Callable[[Loss], None]) -> None:
    holds(with_labels(nkd_loss))
