from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from loss_properties import LABELS, Loss, half_precision, sample_by_sample, two_classes, with_labels
from torch import Tensor

from rankdistill import PLD, Batch, Output, pld_loss
from rankdistill.recipes.settings import SETTINGS


def place_by_place(student: Tensor, teacher: Tensor, label: int, temperature: float) -> Tensor:
    """Return the formula's sum for one sample."""
    weights = (teacher / temperature).softmax(0)
    others = sorted((k for k in range(len(teacher)) if k != label), key=lambda k: -float(teacher[k]))
    left, total = [label, *others], student.new_zeros(())
    while left:
        total = total + weights[left[0]] * (student[left].logsumexp(0) - student[left[0]])
        left = left[1:]
    return total


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_equals_the_sum_over_places(temperature: float) -> None:
    student, teacher = torch.randn(2, 4, 5, dtype=torch.float64)
    rows = zip(student, teacher, LABELS.tolist(), strict=True)
    expected = torch.stack([place_by_place(s, t, label, temperature) for s, t, label in rows])
    torch.testing.assert_close(pld_loss(student, teacher, LABELS, temperature=temperature), expected)


def test_a_teacher_that_is_sure_of_the_label_gives_cross_entropy() -> None:
    student = torch.randn(4, 5, dtype=torch.float64)
    found = pld_loss(student, 1e4 * F.one_hot(LABELS, 5).double(), LABELS)
    torch.testing.assert_close(found, F.cross_entropy(student, LABELS, reduction="none"))


def test_a_constant_added_to_the_student_changes_nothing_and_the_loss_is_convex() -> None:
    student, other, teacher = torch.randn(3, 4, 5, dtype=torch.float64)
    loss = with_labels(pld_loss)
    torch.testing.assert_close(loss(student + 7.0, teacher), loss(student, teacher))
    assert (loss(0.5 * (student + other), teacher) <= 0.5 * (loss(student, teacher) + loss(other, teacher))).all()


def test_gradcheck_and_second_derivative() -> None:
    student, teacher = torch.randn(2, 4, 5, dtype=torch.float64)
    loss = lambda logits: pld_loss(logits, teacher, LABELS)  # noqa: E731
    assert torch.autograd.gradcheck(loss, student.requires_grad_())
    assert torch.autograd.gradgradcheck(loss, student)


def test_method_is_the_mean_and_its_recipe_has_no_other_loss() -> None:
    student, teacher = torch.randn(2, 4, 5)
    losses = PLD(temperature=2.0).losses(Batch(torch.zeros(4, 1), LABELS), Output(student), Output(teacher))
    assert losses == {"pld": pld_loss(student, teacher, LABELS, temperature=2.0).mean()}
    assert list(SETTINGS["pld"]("resnet56", "resnet20").losses) == ["pld"]


def test_refuses() -> None:
    with pytest.raises(ValueError, match="temperature is 0"):
        PLD(temperature=0)
    outputs = Output(torch.zeros(4, 5)), Output(torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"PLD needs one class per sample, but Batch.labels is of shape \(4, 5\)"):
        PLD().losses(Batch(torch.zeros(4, 1), torch.full((4, 5), 0.2)), *outputs)


@pytest.mark.parametrize("holds", [two_classes, sample_by_sample, half_precision])
def test_properties(holds: Callable[[Loss], None]) -> None:
    holds(with_labels(pld_loss))
