"""What holds for every method of METHODS. What one method promises beside that is tested in a file of its own."""

import copy
import dataclasses
import functools
from collections.abc import Callable

import pytest
import torch
from method_pairs import (
    BY_OUTPUTS,
    ON_LOGITS,
    assembled,
    batch_of,
    each,
    given,
    leaves,
    total,
    variables,
)
from torch import Tensor

from rankdistill import METHODS, EachView
from rankdistill.contract import state_held

MOST_STEPS = 20

every_method = pytest.mark.parametrize("name", METHODS)
by_outputs = pytest.mark.parametrize("name", BY_OUTPUTS)
on_logits = pytest.mark.parametrize("name", ON_LOGITS)


@every_method
def test_gradients_reach_the_student_and_every_parameter_of_the_method(name: str) -> None:
    method, student, teacher = assembled(name)
    method.prepare(teacher, lambda: [batch_of(1)])
    before = copy.deepcopy(teacher.module.state_dict())
    untaught = dict(method.named_parameters())
    for step in range(MOST_STEPS):  # a method may draw which of its parameters a step uses
        loss = total(method(batch_of(step), student, teacher))
        loss.backward()
        assert loss.isfinite()
        untaught = {key: p for key, p in untaught.items() if p.grad is None or not p.grad.any()}
        if not untaught:
            break
    assert not untaught
    assert next(student.module.parameters()).grad.any()
    assert all(parameter.grad is None for parameter in teacher.module.parameters())
    assert_equal(teacher.module.state_dict(), before)


@every_method
def test_going_on_from_a_state_dict_is_bit_equal(name: str) -> None:
    method, student, teacher = assembled(name)
    method.prepare(teacher, lambda: [batch_of(1)])
    fresh, again, _ = assembled(name)
    total(method(batch_of(2), student, teacher)).backward()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter -= 0.01 * (0.0 if parameter.grad is None else parameter.grad)
    fresh.load_state_dict(copy.deepcopy(method.state_dict()))
    again.module.load_state_dict(copy.deepcopy(student.module.state_dict()))
    losses = method(batch_of(3), student, teacher)
    assert_equal(fresh(batch_of(3), again, teacher), losses)
    assert_equal(fresh.state_dict(), method.state_dict())


@every_method
def test_under_autocast_the_losses_are_in_float32(name: str) -> None:
    method, student, teacher = assembled(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method(batch_of(), student, teacher)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    total(losses).backward()
    assert next(student.module.parameters()).grad.isfinite().all()


@every_method
def test_a_teacher_or_a_second_view_that_is_read_and_not_there(name: str) -> None:
    method, student, teacher = assembled(name)
    batch = batch_of()
    if method.reads_teacher:
        with pytest.raises(ValueError, match="teacher"):
            method(batch, student, None)
    else:
        assert total(method(batch, student, None)).isfinite()
    if method.views == 2:
        with pytest.raises(ValueError, match=r"strong|view"):
            method(dataclasses.replace(batch, strong=None), student, teacher)


@by_outputs
def test_each_view_sums_two_views_and_the_second_leaves_no_trace(name: str) -> None:
    method, batch, student, teacher = given(name)
    if method.views == 2:
        with pytest.raises(ValueError, match="reads 2 views by itself"):
            EachView(method)
        return
    once = copy.deepcopy(method)
    losses = EachView(method).losses(batch, student, teacher)
    weak = once.losses(batch, student, teacher)
    assert_equal(method.state_dict(), once.state_dict())
    with state_held(once):
        strong = once.losses(batch, student.strong, teacher.strong)
    torch.testing.assert_close(losses, {key: weak[key] + strong[key] for key in weak})


@by_outputs
def test_no_gradient_reaches_what_the_teacher_says(name: str) -> None:
    method, batch, student, teacher = given(name)
    student, teacher = variables(student), variables(teacher)
    total(method.losses(batch, student, teacher)).backward()
    assert any(value.grad is not None and value.grad.any() for value in leaves(student))
    assert all(value.grad is None for value in leaves(teacher))


@by_outputs
def test_gradients_are_the_derivatives(name: str) -> None:
    method, batch, student, teacher = given(name)
    student, teacher = (each(output, torch.Tensor.double) for output in (variables(student), teacher))
    method.double()

    def losses(*values: Tensor) -> Tensor:
        remaining = iter(values)
        with state_held(method):
            return total(method.losses(batch, each(student, lambda _: next(remaining)), teacher))

    assert torch.autograd.gradcheck(losses, leaves(student), fast_mode=True)


@by_outputs
def test_half_precision_is_computed_in_float32(name: str) -> None:
    method, batch, student, teacher = given(name)
    half = [each(output, torch.Tensor.bfloat16) for output in (student, teacher)]
    same = [each(output, torch.Tensor.float) for output in half]
    with state_held(method):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = method.losses(batch, *half)
            assert_equal(method.losses(batch, half[0], same[1]), found)
        assert {loss.dtype for loss in found.values()} == {torch.float32}
        if not list(method.parameters()):  # else autocast holds for its layers, as for the networks'
            assert_equal(method.losses(batch, *same), found)


def _constant(value: Tensor) -> Tensor:
    """Return a batch in which the first sample is zero everywhere and the second the same everywhere."""
    first = torch.zeros_like(value[:1])
    return torch.cat([first, first + 3.0, value[2:]])


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "large": lambda value: 1e4 * value,
    "small": lambda value: 1e-6 * value,
    "large and tied": lambda value: 1e4 * value.sign(),
    "constant": _constant,
}


@by_outputs
@pytest.mark.parametrize("of_student", CHANGES)
def test_losses_and_gradients_are_finite_for_outputs_of_any_size(name: str, of_student: str) -> None:
    method, batch, student, teacher = given(name)
    for of_teacher in CHANGES.values():
        changed = variables(each(student, CHANGES[of_student]))
        loss = total(method.losses(batch, changed, each(teacher, of_teacher)))
        loss.backward()
        assert loss.isfinite()
        assert all(value.grad is None or value.grad.isfinite().all() for value in leaves(changed))


def _first(size: int, value: Tensor) -> Tensor:
    """Return the first sample of a batch; what is not of a batch, as a classifier's weight, as it is."""
    return value[:1] if len(value) == size else value


@by_outputs
def test_one_sample(name: str) -> None:
    method, batch, student, teacher = given(name)
    student, teacher = (each(output, functools.partial(_first, len(batch))) for output in (student, teacher))
    student = variables(student)
    first = {key: getattr(batch, key)[:1] for key in ("images", "labels", "indices", "strong")}
    one = dataclasses.replace(batch, **first)
    loss = total(method.eval().losses(one, student, teacher))
    loss.backward()
    assert loss.isfinite()
    assert all(value.grad is None or value.grad.isfinite().all() for value in leaves(student))


@on_logits
@pytest.mark.usefixtures("unchecked")
def test_refuses_logits_of_other_shapes(name: str) -> None:
    method, batch, student, teacher = given(name)
    classes, samples = (each(teacher, change) for change in (lambda v: v[:, 1:], lambda v: v[1:]))
    for other in (classes, samples):
        with pytest.raises(ValueError, match="shape"):
            method.losses(batch, student, other)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
