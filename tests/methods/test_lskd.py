import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from golden_logits import Golden, assert_golden

from rankdistill import CTKD, DKD, KD, NKD, Batch, EachView, Method, Output, Standardized, assemble, standardize_logits
from rankdistill.methods import METHODS
from rankdistill.models.resnet import resnet8
from rankdistill.runs.build import check_options, terms
from rankdistill.runs.options import loss

GOLDEN = Golden("lskd")
GOLDEN_CTKD = Golden("ctkd")
SETTINGS: list[tuple[str, Method, float]] = [
    ("kd_T2_w9", KD(temperature=2.0), 9.0),
    ("kd_T3_w9", KD(temperature=3.0), 9.0),
    ("kd_T4_w12", KD(temperature=4.0), 12.0),
    ("dkd_a1_b8_T2_w9", DKD(beta=8.0, temperature=2.0, warmup=0), 9.0),
    ("dkd_a1_b2_T3_w18", DKD(beta=2.0, temperature=3.0, warmup=0), 18.0),
]


def batch_of(size: int, **values: Any) -> Batch:
    return Batch(torch.zeros(size, 1), values.pop("labels", None), **values)


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("who", ["student", "teacher"])
def test_equals_the_authors_standardised_logits(precision: str, who: str) -> None:
    student, teacher, _ = GOLDEN.inputs(precision)
    assert_golden(standardize_logits({"student": student, "teacher": teacher}[who]), GOLDEN[f"normalize_{who}"])


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize(("name", "method", "weight"), SETTINGS)
def test_equals_the_authors_loss_and_gradient(name: str, method: Method, weight: float, precision: str) -> None:
    student, teacher, labels = GOLDEN.inputs(precision)
    losses = Standardized(method).losses(batch_of(8, labels=labels), Output(student), Output(teacher))
    total = weight * sum(losses.values())
    total.backward()
    assert_golden(total, GOLDEN[f"{name}.kd_total"])
    assert_golden(student.grad, GOLDEN[f"{name}.grad_kd_student"])
    task = (0.1 if isinstance(method, KD) else 1.0) * F.cross_entropy(student, labels)
    assert_golden(total + task, GOLDEN[f"{name}.total_with_ce"])


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize(("name", "epoch"), [("init", 1), ("mid", 5), ("late", 10)])
def test_ctkd_equals_the_authors_loss_and_gradients(name: str, epoch: int, precision: str) -> None:
    student, teacher, _ = GOLDEN_CTKD.inputs(precision)
    method = Standardized(CTKD()).to(student.dtype)
    (p,) = method.parameters()
    with torch.no_grad():
        p.fill_(GOLDEN_CTKD[f"{name}.p"])
    total = 9 * method.losses(batch_of(8, epoch=epoch), Output(student), Output(teacher))["ctkd"]
    total.backward()
    assert_golden(total, GOLDEN_CTKD[f"{name}.ls.kd_total_w9"])
    assert_golden(student.grad, GOLDEN_CTKD[f"{name}.ls.grad_kd_student_w9"])
    # What p receives is a small difference of large terms.
    assert_golden(p.grad, GOLDEN_CTKD[f"{name}.ls.grad_kd_p_reversed_w9"], 1e-9 if precision == "f64" else 3e-3)
    assert method.observes
    observed = method.observe(batch_of(8, epoch=epoch), Output(student), Output(teacher))
    assert observed == {"temperature": pytest.approx(float(GOLDEN_CTKD[f"{name}.temperature"]))}


def test_shifts_and_scales_of_rows_do_not_count() -> None:
    logits = 4 * torch.randn(6, 20, dtype=torch.float64)
    changed = logits * (0.5 + torch.rand(6, 1)) + torch.randn(6, 1)
    torch.testing.assert_close(standardize_logits(changed), standardize_logits(logits), rtol=1e-6, atol=0)
    rows = standardize_logits(logits)
    torch.testing.assert_close(rows.mean(1), torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(rows.square().sum(1) / 19, torch.ones(6, dtype=torch.float64), rtol=1e-6, atol=0)


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(standardize_logits, torch.randn(3, 5, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("value", [0.0, 0.1, -1e4])
def test_constant_rows_become_zero_and_pass_no_gradient(value: float) -> None:
    student = torch.randn(3, 7)
    student[1] = value
    student.requires_grad_()
    losses = Standardized(KD()).losses(batch_of(3), Output(student), Output(torch.randn(3, 7)))
    losses["kd"].backward()
    assert student.grad is not None
    assert standardize_logits(student)[1].abs().max() == 0.0
    assert student.grad[1].abs().max() == 0.0
    assert (student.grad[[0, 2]].abs().amax(1) > 0.0).all()
    assert student.grad.isfinite().all()


def test_half_precision_is_computed_in_float32() -> None:
    logits = torch.randn(4, 50).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = standardize_logits(logits)
    assert torch.equal(found, standardize_logits(logits.float()))


def test_each_view_is_standardised() -> None:
    weak, strong, teacher, teacher_strong = 3 * torch.randn(4, 4, 6)
    batch = batch_of(4, strong=torch.zeros(4, 1))
    student_output, teacher_output = Output(weak, strong=Output(strong)), Output(teacher, strong=Output(teacher_strong))
    found = EachView(Standardized(KD())).losses(batch, student_output, teacher_output)
    by_hand = [standardize_logits(logits) for logits in (weak, strong, teacher, teacher_strong)]
    expected = EachView(KD()).losses(
        batch, Output(by_hand[0], strong=Output(by_hand[1])), Output(by_hand[2], strong=Output(by_hand[3]))
    )
    assert found == expected


@pytest.mark.parametrize("name", METHODS)
def test_the_option_is_offered_where_it_works(name: str) -> None:
    offered = "standardized" in {field.name for field in dataclasses.fields(loss(name))}
    assert offered == (METHODS[name].reads_logits_once or name == "mlkd")  # MLKD standardises a part of itself
    if not offered:
        with pytest.raises(TypeError, match="unexpected keyword argument 'standardized'"):
            loss(name, standardized=True)


@pytest.mark.parametrize("name", METHODS)
def test_a_second_view_is_offered_to_methods_of_one_view_that_run_no_network(name: str) -> None:
    offered = "each_view" in {field.name for field in dataclasses.fields(loss(name))}
    assert offered == (METHODS[name].views == 1 and name != "fcfd")


def test_wrapper_refuses_other_methods() -> None:
    with pytest.raises(ValueError, match="NKD cannot be standardised"):
        Standardized(NKD())


@pytest.mark.parametrize("num_classes", [0, 1])
def test_refuses_too_few_classes(num_classes: int) -> None:
    with pytest.raises(ValueError, match=r"the logits have shape \(3, .\): to standardise them"):
        standardize_logits(torch.zeros(3, num_classes))


def test_runs_standardise_first_and_then_take_each_view() -> None:
    losses = {
        "kd": loss("kd", 9.0, temperature=2.0, standardized=True, each_view=True),
        "ctkd": loss("ctkd", 9.0, standardized=True, instance_wise=True),
        "plain": loss("kd"),
    }
    check_options(losses)
    built, _, _ = assemble(terms(losses), resnet8(5), resnet8(5), torch.zeros(2, 3, 8, 8), num_samples=10)
    kd, ctkd, plain = (built.methods[name] for name in losses)
    assert [type(module) for module in (kd, kd.method, kd.method.method)] == [EachView, Standardized, KD]
    assert [type(module) for module in (ctkd, ctkd.method, plain)] == [Standardized, CTKD, KD]
    assert built.weights == {"kd": 9.0, "ctkd": 9.0, "plain": 1.0}
    assert ctkd.method.raw[0].in_features == 10
    assert kd.method.method.temperature == 2.0
