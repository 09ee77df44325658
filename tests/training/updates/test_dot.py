import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from contract_methods import Matched
from torch import nn

from rankdistill import DOT, DOTSGD, KD, Batch, CrossEntropy, assemble
from rankdistill.models.resnet import ResNet
from rankdistill.training.state import State
from rankdistill.training.updates.dot import split_task

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "dot.npz")
NAMES = ("both", "task_only", "kd_only", "late_both")
SETTINGS = {
    "m0.9_d0.075_wd5e-4": {"delta": 0.075, "weight_decay": 5e-4},
    "m0.9_d0.09_wd1e-4": {"delta": 0.09, "weight_decay": 1e-4},
    "m0.9_d0_wd5e-4": {"delta": 0.0, "weight_decay": 5e-4},
    "m0.9_d0.075_wd0": {"delta": 0.075, "weight_decay": 0.0},
}
DTYPES = {"f32": (torch.float32, 1e-6), "f64": (torch.float64, 1e-12)}


def gradient(kind: str, name: str, step: int, dtype: torch.dtype) -> torch.Tensor | None:
    if not GOLDEN[f"has_{kind}.{name}"][step]:
        return None
    return torch.from_numpy(GOLDEN[f"grad_{kind}.{name}"][step]).to(dtype)


def take_step(optimizer: torch.optim.Optimizer, step: int, dtype: torch.dtype) -> None:
    """One step as the golden file records it: distillation gradients first, then task gradients."""
    optimizer.param_groups[0]["lr"] = float(GOLDEN["lr_per_step"][step])
    optimizer.zero_grad()
    parameters = optimizer.param_groups[0]["params"]
    optimizer.add_distillation([gradient("kd", name, step, dtype) for name in NAMES])
    for parameter, name in zip(parameters, NAMES, strict=True):
        parameter.grad = gradient("task", name, step, dtype)
    optimizer.step()


def initial(dtype: torch.dtype) -> list[nn.Parameter]:
    return [nn.Parameter(torch.from_numpy(GOLDEN[f"init.{name}"]).to(dtype)) for name in NAMES]


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_step_equals_the_authors_parameters_and_buffers(setting: str, precision: str) -> None:
    dtype, tolerance = DTYPES[precision]
    parameters = initial(dtype)
    optimizer = DOTSGD(parameters, lr=0.1, momentum=0.9, **SETTINGS[setting])
    for step in range(5):
        take_step(optimizer, step, dtype)
        for parameter, name in zip(parameters, NAMES, strict=True):
            golden = {
                key: torch.from_numpy(np.asarray(GOLDEN[f"{setting}.{precision}.{key}.{name}"][step]))
                for key in ("param", "buf_task", "buf_kd")
            }
            assert torch.allclose(parameter.detach().double(), golden["param"].double(), rtol=tolerance, atol=tolerance)
            for key, buffer in (("buf_task", "task_momentum"), ("buf_kd", "distillation_momentum")):
                found = optimizer.state[parameter].get(buffer)
                if found is None:
                    assert golden[key].isnan().all(), (step, name, key)
                else:
                    assert torch.allclose(found.double(), golden[key].double(), rtol=tolerance, atol=tolerance)


def test_with_delta_zero_it_is_sgd_on_the_sum() -> None:
    ours, torchs = initial(torch.float64)[:1], initial(torch.float64)[:1]
    dot = DOTSGD(ours, lr=0.05, momentum=0.9, delta=0.0, weight_decay=5e-4)
    sgd = torch.optim.SGD(torchs, lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(6):
        task, distillation = torch.randn(2, 5, 4, dtype=torch.float64)
        dot.zero_grad()
        dot.add_distillation([distillation])
        ours[0].grad, torchs[0].grad = task, task + distillation
        dot.step()
        sgd.step()
        assert torch.allclose(ours[0], torchs[0], rtol=1e-13, atol=1e-15)


def test_both_momenta_survive_the_state_dict() -> None:
    whole, halves = initial(torch.float64), initial(torch.float64)
    one, first = (DOTSGD(p, lr=0.1, delta=0.075, weight_decay=5e-4) for p in (whole, halves))
    for step in range(5):
        take_step(one, step, torch.float64)
    for step in range(3):
        take_step(first, step, torch.float64)
    second = DOTSGD(halves, lr=1.0, delta=0.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for step in range(3, 5):
        take_step(second, step, torch.float64)
    assert all(torch.equal(left, right) for left, right in zip(whole, halves, strict=True))
    assert all(
        torch.equal(one.state[left][key], second.state[right][key])
        for left, right in zip(whole, halves, strict=True)
        for key in one.state[left]
    )


def test_groups_have_their_own_options() -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = DOTSGD([{"params": parameters[:1], "lr": 0.0}, {"params": parameters[1:]}], lr=0.5)
    optimizer.add_distillation([torch.ones(2), torch.ones(2)])
    optimizer.step()
    assert torch.equal(parameters[0].detach(), torch.ones(2))
    assert torch.equal(parameters[1].detach(), torch.full((2,), 0.5))


def test_distillation_gradients_add_up_and_are_not_overwritten() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = DOTSGD([parameter], lr=1.0)
    given = torch.ones(2)
    optimizer.add_distillation([given])
    optimizer.add_distillation([torch.full((2,), 2.0)])
    optimizer.step()
    assert torch.equal(parameter.detach(), torch.full((2,), -3.0))
    assert torch.equal(given, torch.ones(2))


def test_a_step_that_overflows_is_dropped_whole() -> None:
    """What a loss scale for float16 needs: both kinds of gradients can be looked at, and are dropped together."""
    parameter = nn.Parameter(torch.ones(3))
    optimizer = DOTSGD([parameter], lr=0.1)
    for distillation in (torch.ones(3), torch.full((3,), torch.inf), torch.ones(3)):
        optimizer.zero_grad()
        optimizer.add_distillation([distillation])
        parameter.grad = torch.ones(3)
        if all(g.isfinite().all() for g in (parameter.grad, *optimizer.distillation_gradients)):
            optimizer.step()
        else:
            before = copy.deepcopy(optimizer.state[parameter]["task_momentum"])
            optimizer.zero_grad()
            assert (parameter.grad, optimizer.distillation_gradients) == (None, [])
            assert torch.equal(optimizer.state[parameter]["task_momentum"], before)
    assert torch.allclose(optimizer.state[parameter]["distillation_momentum"], torch.full((3,), 1.975))
    assert torch.allclose(optimizer.state[parameter]["task_momentum"], torch.full((3,), 1.825))


@pytest.mark.parametrize("options", [{"delta": -0.1}, {"delta": 0.1}, {"momentum": 0.05}, {"lr": -1.0}])
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        DOTSGD([nn.Parameter(torch.zeros(1))], **{"lr": 0.1, **options})


def test_no_closure() -> None:
    with pytest.raises(ValueError, match="takes no closure"):
        DOTSGD([nn.Parameter(torch.zeros(1))], lr=0.1).step(lambda: 0.0)  # type: ignore[arg-type]


def small_state(rule: DOT, dtype: torch.dtype = torch.float64) -> State:
    torch.manual_seed(3)
    student, teacher = (ResNet(8, widths, 5).to(dtype) for widths in ((16, 16, 16, 16), (16, 16, 24, 32)))
    terms = {"task": (0.1, CrossEntropy()), "kd": (0.9, KD()), "near": (0.5, Matched)}
    images = torch.zeros(2, 3, 16, 16, dtype=dtype)
    method, trained, frozen = assemble(terms, student, teacher, images, num_samples=12)
    method.to(dtype)
    rule.check(method)
    optimizer = rule.make_optimizer(student, method, lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=False)
    return State(trained, frozen, method, optimizer)


def small_batch(step: int, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(6, 3, 16, 16, generator=generator, dtype=dtype)
    return Batch(images, torch.randint(5, (6,), generator=generator), step=step)


def test_the_rule_gives_each_parameter_its_two_gradients() -> None:
    rule = DOT(delta=0.05)
    state, twin = small_state(rule), small_state(rule)
    optimizer = twin.optimizer
    assert isinstance(optimizer, DOTSGD)
    for step in range(3):
        losses = rule(state, small_batch(step))
        assert losses.keys() == {"task", "kd", "near"}
        again = twin.losses(small_batch(step))
        optimizer.zero_grad()
        (again["kd"] + again["near"]).backward(retain_graph=True)
        kept = [None if p.grad is None else p.grad.clone() for p in optimizer.parameters]
        for parameter in optimizer.parameters:
            parameter.grad = None
        again["task"].backward()
        optimizer.add_distillation(kept)
        optimizer.step()
    for left, right in zip(state.optimizer.param_groups[0]["params"], optimizer.parameters, strict=True):
        assert torch.allclose(left, right, rtol=1e-12, atol=1e-14)
    bridge = state.method.methods["near"].bridge.weight
    assert state.optimizer.state[bridge].keys() == {"distillation_momentum"}
    assert len(state.optimizer.state) == len(list(state.student.module.parameters())) + 2


def test_under_bfloat16_autocast_gradients_and_momenta_are_float32() -> None:
    rule = DOT()
    state = small_state(rule, torch.float32)
    state.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    losses = rule(state, small_batch(0, torch.float32))
    assert {value.dtype for value in losses.values()} == {torch.float32}
    momenta = [m for entry in state.optimizer.state.values() for m in entry.values()]
    assert {momentum.dtype for momentum in momenta} == {torch.float32}
    assert all(momentum.isfinite().all() for momentum in momenta)


def test_losses_are_split_at_the_name_task() -> None:
    losses = {name: torch.tensor(float(n)) for n, name in enumerate(["task", "kd", "task/second", "crd/task"], 1)}
    task, distillation = split_task(losses)
    assert (task.item(), distillation.item()) == (1 + 3, 2 + 4)


@pytest.mark.parametrize("names", [("task",), ("kd", "tasks")])
def test_both_kinds_of_losses_are_needed(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"the losses are {', '.join(names)}: it needs both kinds"):
        split_task({name: torch.zeros(()) for name in names})


def test_what_the_rule_refuses() -> None:
    with pytest.raises(ValueError, match=r"delta is 0\.5: it must be"):
        DOT(delta=0.5)
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    with pytest.raises(ValueError, match="nesterov is True"):
        DOT().make_optimizer(nn.Linear(2, 2), KD(), **options, nesterov=True)
    state = small_state(DOT())
    state.optimizer = torch.optim.SGD(state.student.module.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"given the optimizer SGD: make it with DOT\.make_optimizer"):
        DOT()(state, small_batch(0))
