from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden_logits import Golden, assert_golden
from loss_properties import (
    Loss,
    half_precision,
    sample_by_sample,
    shift_invariant,
    two_classes,
    zero_at_equality,
)
from torch import Tensor, nn

from rankdistill import CTKD, Batch, Output, Pair, ctkd_loss, kd_loss
from rankdistill.methods.ctkd import reversal_strength

GOLDEN = Golden("ctkd")
EPOCHS = {"init": 1, "mid": 5, "late": 10}


def loss_of(method: CTKD, student: Tensor, teacher: Tensor, epoch: int = 1) -> Tensor:
    batch = Batch(torch.zeros(len(student), 1), None, epoch=epoch)
    losses = method.losses(batch, Output(student), Output(teacher))
    assert list(losses) == ["ctkd"]
    return losses["ctkd"]


def only_parameter(method: CTKD) -> nn.Parameter:
    (parameter,) = method.parameters()
    return parameter


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("name", EPOCHS)
def test_equals_the_authors_temperature_loss_and_gradients(precision: str, name: str) -> None:
    student, teacher, labels = GOLDEN.inputs(precision)
    method = CTKD().to(student.dtype)
    p = only_parameter(method)
    with torch.no_grad():
        p.fill_(GOLDEN[f"{name}.p"])
    loss = loss_of(method, student, teacher, EPOCHS[name])
    (0.9 * loss).backward()
    assert_golden(method.temperature(student, teacher, 1), GOLDEN[f"{name}.temperature"])
    assert_golden(loss, GOLDEN[f"{name}.raw_kd"])
    assert_golden(student.grad, GOLDEN[f"{name}.grad_kd_student"])
    assert_golden(p.grad, GOLDEN[f"{name}.grad_kd_p_reversed"], 1e-9 if precision == "f64" else 1e-4)
    total = 0.1 * F.cross_entropy(student, labels) + 0.9 * loss
    assert_golden(total, GOLDEN[f"{name}.total_with_ce"])


def test_reversal_follows_the_authors_schedule() -> None:
    for num_epochs in (10, 5):
        found = [reversal_strength(epoch, num_epochs) for epoch in GOLDEN["schedule.cosine_epoch"].tolist()]
        assert found == pytest.approx(GOLDEN[f"schedule.cosine_value_0_-1_{num_epochs}"].tolist())
    assert [float(GOLDEN[f"{name}.lambda"]) for name in EPOCHS] == pytest.approx(
        [reversal_strength(epoch, 10) for epoch in EPOCHS.values()]
    )


def test_parameter_takes_the_authors_path_step_by_step() -> None:
    student, teacher, _ = GOLDEN.inputs("f64")
    method = CTKD().double()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    path = [only_parameter(method).item()]
    for _ in range(5):
        optimizer.zero_grad()
        (0.9 * loss_of(method, student.detach(), teacher, epoch=3)).backward()
        optimizer.step()
        path.append(only_parameter(method).item())
    assert path == pytest.approx(GOLDEN["traj.a.f64.p_after_steps_lr0.05_m0.9_wd5e-4_epoch3"].tolist(), rel=1e-9)


def test_at_a_fixed_temperature_it_is_kd() -> None:
    student, teacher = torch.randn(2, 4, 10, dtype=torch.float64)
    temperatures = torch.tensor([1.0, 4.0, 15.0, 21.0], dtype=torch.float64)
    expected = [
        kd_loss(s.unsqueeze(0), t.unsqueeze(0), temperature=float(temperature))
        for s, t, temperature in zip(student, teacher, temperatures, strict=True)
    ]
    torch.testing.assert_close(ctkd_loss(student, teacher, temperatures), torch.cat(expected))
    torch.testing.assert_close(
        ctkd_loss(student, teacher, torch.tensor([4.0])), kd_loss(student, teacher, temperature=4.0)
    )


def test_gradcheck_in_logits_and_temperature() -> None:
    student = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    temperature = torch.tensor([1.5, 4.0, 9.0], dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s, t: ctkd_loss(s, teacher, t), (student, temperature))


def test_small_losses_at_large_temperatures_keep_their_digits() -> None:
    student, teacher = torch.randn(2, 64, 100)
    temperature = torch.tensor([20.0])
    found = ctkd_loss(student, teacher, temperature).mean().double()
    expected = ctkd_loss(student.double(), teacher.double(), temperature).mean()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def pair_of_classes(num_classes: int) -> Pair:
    return Pair(nn.Identity(), nn.Identity(), {}, {}, num_classes, 100)


class TestInstanceWise:
    """Reconstructed: there are no golden numbers, so what is stated of it is tested."""

    def test_each_sample_has_its_temperature_in_range(self) -> None:
        method = CTKD.for_pair(pair_of_classes(10), instance_wise=True, lowest=2.0, span=3.0)
        for parameter in method.parameters():
            nn.init.normal_(parameter, std=0.1)
        temperature = method.temperature(*(4 * torch.randn(2, 6, 10)), 1)
        assert temperature.shape == (6,)
        assert len(temperature.unique()) == 6
        assert ((temperature > 2.0) & (temperature < 5.0)).all()

    def test_begins_where_the_global_one_does(self) -> None:
        logits = torch.randn(2, 6, 10)
        found = CTKD(10, instance_wise=True).temperature(*logits, 1)
        torch.testing.assert_close(found, CTKD().temperature(*logits, 1).expand(6), rtol=0.01, atol=0)

    def test_network_goes_up_the_loss(self) -> None:
        student, teacher = torch.randn(6, 10, requires_grad=True), 3 * torch.randn(6, 10)
        method = CTKD(10, instance_wise=True)
        before = loss_of(method, student, teacher, epoch=10)
        before.backward()
        with torch.no_grad():
            for parameter in method.parameters():
                assert parameter.grad is not None
                assert parameter.grad.abs().max() > 0.0
                parameter -= 1e-3 * parameter.grad
        assert loss_of(method, student, teacher) > before

    def test_student_gets_no_gradient_through_the_network(self) -> None:
        student, teacher = torch.randn(6, 10, requires_grad=True), torch.randn(6, 10)
        method = CTKD(10, instance_wise=True)
        for parameter in method.parameters():
            nn.init.normal_(parameter, std=0.3)
        (slope,) = torch.autograd.grad(loss_of(method, student, teacher, epoch=10), student)
        fixed = method.temperature(student, teacher, 1).detach()
        (expected,) = torch.autograd.grad(ctkd_loss(student, teacher, fixed).mean(), student)
        torch.testing.assert_close(slope, expected)

    def test_under_autocast_it_is_computed_in_float32(self) -> None:
        student, teacher = torch.randn(2, 6, 10).bfloat16()
        method = CTKD(10, instance_wise=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss_of(method, student, teacher)
        assert torch.equal(found, loss_of(method, student.float(), teacher.float()))

    def test_needs_the_number_of_classes(self) -> None:
        with pytest.raises(ValueError, match="reads logits, but num_classes is None: give their number"):
            CTKD(instance_wise=True)


def test_observes_its_temperature() -> None:
    logits = Output(torch.randn(4, 5))
    batch = Batch(torch.zeros(4, 1), None)
    assert CTKD().observe(batch, logits, logits) == {"temperature": pytest.approx(15.6212, rel=1e-5)}
    assert CTKD.for_pair(pair_of_classes(5), span=4.0).observe(batch, logits, logits)["temperature"] < 5.0


@pytest.mark.parametrize("options", [{"lowest": 0.0}, {"span": float("inf")}, {"reversal_epochs": 0}])
def test_refuses_options(options: dict[str, Any]) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(ValueError, match=f"{name} is {value}: it must be"):
        CTKD(**options)


@pytest.mark.parametrize(
    "holds",
    [
        two_classes,
        half_precision,
        sample_by_sample,
        shift_invariant,
        zero_at_equality,
    ],
)
def test_properties_at_a_fixed_temperature(holds: Callable[[Loss], None]) -> None:
    holds(lambda student, teacher: ctkd_loss(student, teacher, torch.tensor([5.0])))
