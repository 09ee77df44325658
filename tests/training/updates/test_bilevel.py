import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contract_methods import Matched
from torch import Tensor, nn

from rankdistill import (
    CALD,
    KD,
    Batch,
    Bilevel,
    CrossEntropy,
    Descend,
    Losses,
    Method,
    Network,
    Output,
    Sum,
    meta_gradients,
)
from rankdistill.models.resnet import ResNet
from rankdistill.training.state import State
from rankdistill.training.updates.bilevel import LookAhead

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "cald_reconstruction.npz")
FORMS: tuple[LookAhead, ...] = ("exact", "finite_difference", "last_layer")


def golden(name: str) -> Tensor:
    return torch.from_numpy(np.asarray(GOLDEN[f"meta.{name}"]))


class Fixed(nn.Module):
    """Gives the same logits, whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


class Linear(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.classify = nn.Linear(*weight.shape, bias=False).double()
        with torch.no_grad():
            self.classify.weight.copy_(weight.T)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(images)


def golden_step() -> tuple[State, Batch]:
    cald = CALD(6).double()
    with torch.no_grad():
        cald.temperature_logits.copy_(golden("a"))
        cald.weight_logits.copy_(golden("b"))
    method = Sum(task=(1.0, CrossEntropy()), cald=(float(golden("lambda")), cald))
    student = Linear(golden("W0"))
    optimizer = torch.optim.SGD(student.parameters(), lr=float(golden("eta")))
    teacher = Network(Fixed(golden("teacher_logits")), frozen=True)
    state = State(Network(student), teacher, method, optimizer, Bilevel().make_meta_optimizer(method))
    held_out = Batch(golden("X_meta"), golden("y_meta"))
    return state, Batch(golden("X"), golden("y"), held_out=held_out)


@pytest.mark.parametrize(("look_ahead", "tolerance"), [("exact", 1e-12), ("last_layer", 1e-12)])
def test_meta_gradient_equals_the_one_confirmed_by_differences(look_ahead: LookAhead, tolerance: float) -> None:
    found = meta_gradients(*golden_step(), look_ahead=look_ahead)
    for gradient, name in zip(found, ("hypergrad_a", "hypergrad_b"), strict=True):
        expected = golden(name)
        assert (gradient - expected).abs().max() <= tolerance * expected.abs().max()
        assert torch.allclose(gradient, golden(f"{name}_fd"), rtol=1e-7, atol=1e-9)


def test_finite_difference_is_near_the_exact_gradient() -> None:
    found = meta_gradients(*golden_step(), look_ahead="finite_difference")
    for gradient, name in zip(found, ("hypergrad_a", "hypergrad_b"), strict=True):
        assert (gradient - golden(name)).abs().max() <= 1e-4 * golden(name).abs().max()


def small_state(dtype: torch.dtype = torch.float64) -> State:
    torch.manual_seed(3)
    student, teacher = (ResNet(8, (16, 16, 16, 16), 5).to(dtype) for _ in range(2))
    student = nn.Sequential(student, nn.Dropout(0.3))
    method = Sum(task=(1.0, CrossEntropy()), cald=(0.9, CALD(5))).to(dtype)
    rule = Bilevel()
    optimizer = rule.make_optimizer(student, method, lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=False)
    meta_optimizer = rule.make_meta_optimizer(method)
    return State(Network(student), Network(teacher, frozen=True), method, optimizer, meta_optimizer)


def small_batch(step: int = 0, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(10, 3, 16, 16, generator=generator, dtype=dtype)
    labels = torch.randint(5, (10,), generator=generator)
    held_out = Batch(images[6:], labels[6:])
    return Batch(images[:6], labels[:6], held_out=held_out, step=step)


def held_out_loss(state: State, batch: Batch) -> Tensor:
    """The held-out loss after a real step of plain gradient descent, on a copy of everything."""
    student, method = copy.deepcopy((state.student.module, state.method))
    network = Network(student)
    torch.manual_seed(11)
    method(batch, network, state.teacher)
    torch.manual_seed(11)
    losses = method(batch, network, state.teacher)
    gradients = torch.autograd.grad(sum(losses.values()), list(student.parameters()))
    assert batch.held_out is not None
    with torch.no_grad():
        for parameter, gradient in zip(student.parameters(), gradients, strict=True):
            parameter -= 0.1 * gradient
    torch.manual_seed(11)
    return F.cross_entropy(network.run(batch.held_out).logits, batch.held_out.labels)


def test_exact_is_the_derivative_of_what_a_real_step_gives() -> None:
    """Through batch norm, dropout and every layer of a network, against central differences of real steps."""
    state, batch = small_state(), small_batch()
    torch.manual_seed(11)
    found = meta_gradients(state, batch)
    directions = [torch.randn_like(gradient) for gradient in found]
    values = []
    for sign in (1.0, -1.0):
        shifted = small_state()
        with torch.no_grad():
            for parameter, direction in zip(shifted.method.meta_parameters(), directions, strict=True):
                parameter += sign * 1e-4 * direction
        values.append(held_out_loss(shifted, batch).item())
    along = sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True))
    assert along == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-5)


def test_a_held_out_loss_without_a_gradient_gives_none() -> None:
    """One class: the cross-entropy is 0 whatever the student does."""
    method = Sum(cald=(1.0, CALD(1)))
    student = Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 1)))
    optimizer = torch.optim.SGD(student.module.parameters(), lr=0.1)
    state = State(student, Network(Fixed(torch.ones(3, 1)), frozen=True), method, optimizer)
    images, labels = torch.randn(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    batch = Batch(images, labels, held_out=Batch(images, labels))
    for form in FORMS:
        assert not torch.cat(meta_gradients(state, batch, look_ahead=form)).any()


def test_finite_difference_is_near_the_exact_gradient_of_a_network() -> None:
    gradients = {}
    for form in ("exact", "finite_difference"):
        torch.manual_seed(11)
        gradients[form] = torch.cat(meta_gradients(small_state(), small_batch(), look_ahead=form))
    assert F.cosine_similarity(*gradients.values(), dim=0) > 0.999


@pytest.mark.parametrize("form", FORMS)
def test_looking_ahead_leaves_everything_as_it_was(form: LookAhead) -> None:
    state, batch = small_state(), small_batch()
    modules = (state.student.module, state.method)
    before = copy.deepcopy([module.state_dict() for module in modules])
    random = torch.get_rng_state()
    found = meta_gradients(state, batch, look_ahead=form)
    assert all(gradient.isfinite().all() and gradient.any() for gradient in found)
    for module, kept in zip(modules, before, strict=True):
        assert all(torch.equal(module.state_dict()[name], value) for name, value in kept.items())
        assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    assert state.method.methods["cald"].updates_state


@pytest.mark.parametrize("form", FORMS)
def test_meta_parameters_move_every_few_steps_and_the_student_as_without_them(form: LookAhead) -> None:
    rule, state, twin = Bilevel(every=3, look_ahead=form), small_state(), small_state()
    assert state.meta_optimizer is not None
    for step in range(4):
        batch = small_batch(step)
        before = [parameter.detach().clone() for parameter in state.method.meta_parameters()]
        torch.manual_seed(step)
        rule(state, batch)
        moved = [not torch.equal(*pair) for pair in zip(before, state.method.meta_parameters(), strict=True)]
        assert moved == [step % 3 == 0] * 2
        twin.method.load_state_dict(state.method.state_dict())
        torch.manual_seed(step)
        Descend()(twin, batch)
    for left, right in zip(state.student.module.parameters(), twin.student.module.parameters(), strict=True):
        assert torch.equal(left, right)
    for name, buffer in state.student.module.named_buffers():
        assert torch.equal(buffer, dict(twin.student.module.named_buffers())[name])
    held = {id(p) for group in state.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in state.student.module.parameters()}


def test_the_first_update_is_adams() -> None:
    state, batch = small_state(), small_batch()
    torch.manual_seed(0)
    gradients = meta_gradients(state, batch)
    before = [parameter.detach().clone() for parameter in state.method.meta_parameters()]
    torch.manual_seed(0)
    Bilevel(lr=1e-2)(state, batch)
    for parameter, start, gradient in zip(state.method.meta_parameters(), before, gradients, strict=True):
        assert torch.allclose(parameter, start - 1e-2 * gradient / (gradient.abs() + 1e-8), atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_under_bfloat16_autocast_the_gradient_points_the_same_way(form: LookAhead) -> None:
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        state = small_state(torch.float32)
        state.autocast = lambda dtype=dtype: torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32)
        torch.manual_seed(0)
        found.append(torch.cat(meta_gradients(state, small_batch(dtype=torch.float32), look_ahead=form)))
        Bilevel(look_ahead=form)(state, small_batch(dtype=torch.float32))
        assert all(parameter.isfinite().all() for parameter in state.method.meta_parameters())
    assert [gradient.dtype for gradient in found] == [torch.float32] * 2
    assert F.cosine_similarity(*found, dim=0) > 0.9
    if form == "finite_difference":  # computed in float32 all the same
        assert torch.equal(*found)


class Counting(Method):
    """Remembers how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        if self.updates_state:
            self.calls += 1
        return {"counting": 0.0 * student.logits.sum()}


def test_methods_remember_the_step_and_not_the_looks_ahead() -> None:
    state = small_state()
    state.method.methods["counting"] = Counting()
    state.method.weights["counting"] = 1.0
    for step in range(3):
        Bilevel(every=2)(state, small_batch(step))
    assert state.method.methods["counting"].calls == 3


def test_ordinary_parameters_of_methods_are_trained_and_meta_parameters_are_not() -> None:
    student = ResNet(8, (16, 16, 16, 16), 5)
    method = Sum(cald=(1.0, CALD(5)), near=(1.0, Matched(16, 16)))
    optimizer = Bilevel().make_optimizer(student, method, lr=0.1, momentum=0.9, weight_decay=0.0, nesterov=False)
    held = {id(p) for p in optimizer.param_groups[0]["params"]}
    bridge = method.methods["near"]
    assert held == {id(p) for p in (*student.parameters(), *bridge.parameters())}


@pytest.mark.parametrize("held_out", [None, Batch(torch.zeros(2, 3, 16, 16), None)])
def test_held_out_images_with_labels_are_needed(held_out: Batch | None) -> None:
    batch = Batch(torch.zeros(2, 3, 16, 16), torch.zeros(2).long(), held_out=held_out)
    with pytest.raises(ValueError, match=r"needs Batch\.held_out with labels, which is None"):
        Bilevel()(small_state(torch.float32), batch)


def test_a_linear_layer_is_needed_to_look_ahead_with_it() -> None:
    state, batch = golden_step()
    state.student = Network(nn.Sequential(nn.Unflatten(1, (5, 1)), nn.Conv1d(5, 6, 1).double(), nn.Flatten()))
    with pytest.raises(ValueError, match="Sequential has no linear layer"):
        meta_gradients(state, batch, look_ahead="last_layer")


def test_rule_and_method_must_go_together() -> None:
    plain, meta = Sum(task=(1.0, CrossEntropy()), kd=(1.0, KD())), Sum(cald=(1.0, CALD(5)))
    Bilevel().check(meta)
    Descend().check(plain)
    with pytest.raises(ValueError, match="Bilevel learns meta-parameters, and no loss has any"):
        Bilevel().check(plain)
    with pytest.raises(ValueError, match="Bilevel learns meta-parameters, and no loss has any"):
        Bilevel().make_meta_optimizer(plain)
    with pytest.raises(ValueError, match="CALD has meta-parameters, which the update rule Descend does not learn"):
        Descend().check(meta)
    state = small_state()
    state.meta_optimizer = None
    with pytest.raises(ValueError, match="the state has no meta_optimizer"):
        Bilevel()(state, small_batch())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every is 0: it must be at least 1"),
        ({"lr": 0.0}, r"lr is 0\.0: it must be positive"),
        ({"look_ahead": "far"}, "look_ahead is 'far': it must be"),
        ({"held_out_per_class": 0}, "held_out_per_class is 0"),
        ({"held_out_batch": 0}, "held_out_batch is 0"),
    ],
)
def test_refused_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Bilevel(**options)  # type: ignore[arg-type]
