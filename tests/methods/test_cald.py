from pathlib import Path

import numpy as np
import pytest
import torch

from rankdistill import CALD, Batch, EachView, Output, Pair, Sum, cald_loss, class_temperatures, class_weights, kd_loss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "cald_reconstruction.npz")


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(np.asarray(GOLDEN[name]))


def close(found: torch.Tensor | None, expected: torch.Tensor) -> bool:
    assert found is not None
    return bool((found.detach() - expected).abs().max() <= 1e-9 * expected.abs().max())


def golden_method() -> CALD:
    method = CALD(100).double()
    with torch.no_grad():
        method.temperature_logits.copy_(golden("a.a"))
        method.weight_logits.copy_(golden("a.b"))
    return method


def test_loss_and_gradients_equal_the_reconstruction() -> None:
    method = golden_method()
    student = golden("a.in.student").double().requires_grad_()
    batch = Batch(torch.zeros(8, 3, 8, 8), golden("a.in.target"))
    losses = method.losses(batch, Output(student), Output(golden("a.in.teacher").double()))
    losses["cald"].backward()
    assert list(losses) == ["cald"]
    assert close(losses["cald"], golden("a.f64.kd_total"))
    assert close(student.grad, golden("a.f64.grad_kd_student"))
    assert close(method.temperature_logits.grad, golden("a.f64.grad_a_inner"))
    assert close(method.weight_logits.grad, golden("a.f64.grad_b_inner"))
    assert close(method.temperatures, golden("a.T"))
    assert close(method.weights, golden("a.w"))


def test_it_starts_as_kd_at_temperature_4() -> None:
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64).unbind()
    method = CALD(5).double()
    batch = Batch(torch.zeros(6, 3, 8, 8), torch.randint(5, (6,)))
    found = method.losses(batch, Output(student), Output(teacher))["cald"]
    assert found.item() == pytest.approx(kd_loss(student, teacher, temperature=4.0).mean().item(), rel=1e-6)


def test_each_sample_has_the_temperature_and_the_weight_of_its_class() -> None:
    student, teacher = torch.randn(2, 4, 3, dtype=torch.float64).unbind()
    temperatures, weights = torch.tensor([2.0, 3.0, 5.0]).double(), torch.tensor([0.5, 2.0, 0.0]).double()
    labels = torch.tensor([2, 0, 1, 0])
    found = cald_loss(student, teacher, labels, temperatures=temperatures, weights=weights)
    for row, label in enumerate(labels):
        alone = kd_loss(student[row : row + 1], teacher[row : row + 1], temperature=temperatures[label].item())
        assert found[row].item() == pytest.approx((weights[label] * alone).item(), rel=1e-12)


def test_temperatures_stay_in_their_range_and_weights_have_mean_one() -> None:
    logits = torch.tensor([-1e3, -1.0, 0.0, 1.0, 1e3])
    temperatures = class_temperatures(logits, minimum=2.0, maximum=6.0)
    assert (temperatures.min(), temperatures.max(), temperatures[2]) == (2.0, 6.0, 4.0)
    assert class_weights(torch.randn(7, dtype=torch.float64)).mean().item() == pytest.approx(1.0)
    assert torch.equal(class_weights(torch.zeros(3)), torch.ones(3))


def test_gradcheck_to_second_order() -> None:
    student, teacher = torch.randn(2, 3, 4, dtype=torch.float64).unbind()
    temperatures = torch.rand(4, dtype=torch.float64).add(1).requires_grad_()
    weights = torch.rand(4, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 3, 3])

    def loss(s: torch.Tensor, t: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return cald_loss(s, teacher, labels, temperatures=t, weights=w)

    inputs = (student.requires_grad_(), temperatures, weights)
    assert torch.autograd.gradcheck(loss, inputs)
    assert torch.autograd.gradgradcheck(loss, inputs)


def test_zero_where_rows_differ_by_a_constant_and_finite_for_large_logits() -> None:
    labels = torch.tensor([0, 1])
    options = {"temperatures": torch.tensor([1.0, 8.0]), "weights": torch.ones(2)}
    logits = torch.randn(2, 2)
    assert cald_loss(logits, logits + 3.0, labels, **options).abs().max() < 1e-5
    student = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = cald_loss(student, -student.detach(), labels, **options)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad.isfinite().all()


def test_half_precision_is_computed_in_float32_and_no_gradient_reaches_the_teacher() -> None:
    labels = torch.tensor([0, 1, 1])
    options = {"temperatures": torch.tensor([2.0, 3.0]), "weights": torch.ones(2)}
    student, teacher = torch.randn(3, 2).bfloat16(), torch.randn(3, 2).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cald_loss(student.requires_grad_(), teacher, labels, **options)
    found.sum().backward()
    assert found.dtype == torch.float32
    assert torch.equal(found, cald_loss(student.float(), teacher.float(), labels, **options))
    assert teacher.grad is None


@pytest.mark.parametrize("mode", ["both", "temperature", "weight"])
def test_what_is_learned_is_a_meta_parameter_and_the_rest_a_buffer(mode: str) -> None:
    method = CALD(3, mode=mode)
    learned = {"both": {"temperature_logits", "weight_logits"}}.get(mode, {f"{mode}_logits"})
    assert set(method.meta) == set(dict(method.named_parameters())) == learned
    assert method.state_dict().keys() == {"temperature_logits", "weight_logits"}
    for wrapped in (method, EachView(method), Sum(a=(1.0, Sum(b=(0.5, method))))):
        assert {id(p) for p in wrapped.meta_parameters()} == {id(p) for p in method.parameters()}


def test_the_pair_knows_the_number_of_classes() -> None:
    pair = Pair(torch.nn.Identity(), None, {}, {}, num_classes=7, num_samples=1)
    method = CALD.for_pair(pair, mode="weight", temperature=2.0)
    assert torch.allclose(method.temperatures, torch.full((7,), 2.0))


@pytest.mark.usefixtures("unchecked")
def test_refusals() -> None:
    with pytest.raises(ValueError, match="mode is 'all': it must be"):
        CALD(3, mode="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="they must ascend"):
        CALD(3, temperature=9.0)
    logits = Output(torch.zeros(2, 3))
    for labels, found in ((None, "None"), (torch.ones(2, 3) / 3, r"of shape \(2, 3\)")):
        with pytest.raises(ValueError, match=rf"Batch\.labels is {found}"):
            CALD(3).losses(Batch(torch.zeros(2, 3, 8, 8), labels), logits, logits)
    with pytest.raises(ValueError, match="2 temperatures and 2 weights for 3 classes"):
        cald_loss(
            logits.logits, logits.logits, torch.zeros(2).long(), temperatures=torch.ones(2), weights=torch.ones(2)
        )
