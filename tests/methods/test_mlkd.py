import pytest
import torch
import torch.nn.functional as F
from two_views import Golden, close, random_logits

from rankdistill import (
    MLKD,
    Batch,
    Output,
    batch_relation_loss,
    class_relation_loss,
    kd_loss,
    mask_fractions,
    mlkd_loss,
)

GOLDEN = Golden("mlkd")
OFFICIAL = {"official_T4_ce0.1_kd0.9": (4.0, 0.1, 0.9), "official_T1_ce0.5_kd0.5": (1.0, 0.5, 0.5)}


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("setting", OFFICIAL)
def test_official_levels_and_gradients_equal_the_authors(setting: str, precision: str) -> None:
    temperature, task_weight, weight = OFFICIAL[setting]
    logits = GOLDEN.logits(precision)
    terms = mlkd_loss(*logits, temperature=temperature)
    (weight * sum(terms)).backward()
    for name, value in terms._asdict().items():
        assert close(weight * value, GOLDEN[f"a.{precision}.{setting}.loss_{name}"], precision)
    assert close(logits[0].grad, GOLDEN[f"a.{precision}.{setting}.grad_kd_student"], precision)
    assert close(logits[2].grad, GOLDEN[f"a.{precision}.{setting}.grad_kd_student_strong"], precision)
    task = sum(F.cross_entropy(each, GOLDEN["a.in.target"]) for each in (logits[0], logits[2]))
    assert close(task_weight * task + weight * sum(terms), GOLDEN[f"a.{precision}.{setting}.total_with_ce"], precision)


@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_fixed_is_the_sum_of_the_authors_helpers_over_both_views(precision: str) -> None:
    logits = GOLDEN.logits(precision)
    terms = mlkd_loss(*logits, variant="fixed")
    sum(terms).backward()
    assert close(sum(terms), GOLDEN[f"a.{precision}.derived.kd_total"], precision)
    assert close(logits[0].grad, GOLDEN[f"a.{precision}.derived.grad_kd_student"], precision)
    assert close(logits[2].grad, GOLDEN[f"a.{precision}.derived.grad_kd_student_strong"], precision)
    parts = {"kd": ("ins_weak_unmasked", "ins_strong"), "cc": ("cls_weak_unmasked", "cls_strong")}
    for name, keys in (parts | {"bc": ("bat_weak_unmasked", "bat_strong")}).items():
        expected = sum(GOLDEN[f"a.{precision}.derived.{key}"] for key in keys)
        assert close(getattr(terms, name), expected, precision)


@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_standardised_equals_the_authors_of_logit_standardisation(precision: str) -> None:
    logits = GOLDEN.logits(precision)
    terms = mlkd_loss(*logits, temperature=2.0, standardized=True)
    (9 * sum(terms)).backward()
    for name, value in terms._asdict().items():
        assert close(9 * value, GOLDEN[f"a.{precision}.mlkd_T2_w9.loss_{name}"], precision)
    assert close(logits[0].grad, GOLDEN[f"a.{precision}.mlkd_T2_w9.grad_kd_student"], precision)
    assert close(logits[2].grad, GOLDEN[f"a.{precision}.mlkd_T2_w9.grad_kd_student_strong"], precision)


def test_relations_by_sample_and_class_can_be_masked() -> None:
    """The masks that the authors meant: each level, summed over temperatures, on the half that is less sure."""
    student, teacher, _, _ = GOLDEN.logits("f64")
    samples, classes = GOLDEN["a.f64.mask_sample"].double(), GOLDEN["a.f64.mask_class"].double()
    masked = torch.zeros(3, dtype=torch.float64)
    for temperature in (4.0, 3.0, 5.0, 2.0, 6.0):
        masked[0] += (samples * kd_loss(student.detach(), teacher, temperature=temperature)).mean()
        masked[1] += (classes * class_relation_loss(student.detach(), teacher, temperature=temperature)).mean()
        masked[2] += (samples * batch_relation_loss(student.detach(), teacher, temperature=temperature)).mean()
    for value, name in zip(masked, ("ins_weak", "cls_weak", "bat_weak"), strict=True):
        assert close(value, GOLDEN[f"a.f64.derived.{name}"], "f64")


def test_mask_fractions() -> None:
    found = mask_fractions(GOLDEN["a.in.teacher"])
    expected = [GOLDEN[f"a.f32.mask_{kind}"].float().mean() for kind in ("sample", "class")]
    assert list(found) == expected == [0.5, 0.5]
    assert [float(f) for f in mask_fractions(torch.randn(7, 5))] == pytest.approx([4 / 7, 3 / 5])
    assert float(mask_fractions(torch.randn(1, 4))[0]) == 1.0
    assert [float(f) for f in mask_fractions(torch.zeros(4, 6))] == [1.0, 1.0]
    ties = torch.tensor([[5.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert float(mask_fractions(ties)[0]) == 0.75


@pytest.mark.parametrize("variant", ["official", "fixed"])
@pytest.mark.parametrize("standardized", [False, True])
def test_gradcheck(variant: str, standardized: bool) -> None:
    student, teacher, student_strong, teacher_strong = random_logits(3, 4)

    def loss(s: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return sum(mlkd_loss(s, teacher, v, teacher_strong, variant=variant, standardized=standardized))

    assert torch.autograd.gradcheck(loss, (student.requires_grad_(), student_strong.requires_grad_()))


@pytest.mark.parametrize("variant", ["official", "fixed"])
def test_invariances(variant: str) -> None:
    logits = random_logits()
    value = torch.stack(mlkd_loss(*logits, variant=variant))
    zero = mlkd_loss(logits[1] + 3.0, logits[1], logits[3] - 1.0, logits[3], variant=variant)
    assert torch.stack(zero).abs().max() < 1e-12
    samples, classes = torch.randperm(6), torch.randperm(5)
    permuted = [each[samples][:, classes] for each in logits]
    assert torch.allclose(torch.stack(mlkd_loss(*permuted, variant=variant)), value)


def test_standardised_kd_ignores_scale_and_shift() -> None:
    logits = random_logits()
    scaled = [3.0 * each + 2.0 for each in logits]
    kd, _, _ = mlkd_loss(*logits, standardized=True)
    assert torch.allclose(mlkd_loss(*scaled, standardized=True).kd, kd, rtol=1e-6)


@pytest.mark.parametrize("variant", ["official", "fixed"])
@pytest.mark.parametrize("rows", ["one sample, two classes", "constant", "large"])
def test_edges_are_finite_in_float32(variant: str, rows: str) -> None:
    size = (1, 2) if rows.startswith("one") else (4, 10)
    logits = [torch.randn(size) * (1e4 if rows == "large" else 1.0) for _ in range(4)]
    if rows == "constant":
        logits = [torch.full(size, 2.0), torch.zeros(size), logits[2], logits[3]]
    logits[0].requires_grad_()
    total = sum(mlkd_loss(*logits, variant=variant))
    total.backward()
    assert total.isfinite()
    assert logits[0].grad is not None
    assert logits[0].grad.isfinite().all()


def test_half_precision_is_computed_in_float32_and_no_gradient_reaches_the_teacher() -> None:
    logits = [each.bfloat16() for each in random_logits()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mlkd_loss(*logits)
    assert {value.dtype for value in found} == {torch.float32}
    assert torch.equal(torch.stack(found), torch.stack(mlkd_loss(*(each.float() for each in logits))))
    student, teacher, student_strong, teacher_strong = (each.requires_grad_() for each in random_logits())
    sum(mlkd_loss(student, teacher, student_strong, teacher_strong)).backward()
    assert (teacher.grad, teacher_strong.grad) == (None, None)


def test_method_reads_both_views() -> None:
    student, teacher, student_strong, teacher_strong = random_logits()
    batch = Batch(torch.zeros(6, 3, 8, 8), None)
    method = MLKD(temperature=2.0, variant="fixed", standardized=True)
    outputs = Output(student, strong=Output(student_strong)), Output(teacher, strong=Output(teacher_strong))
    losses = method.losses(batch, *outputs)
    terms = mlkd_loss(
        student, teacher, student_strong, teacher_strong, temperature=2.0, variant="fixed", standardized=True
    )
    assert losses == terms._asdict()
    assert method.views == 2
    with pytest.raises(ValueError, match=r"MLKD needs Batch\.strong"):
        method.losses(batch, Output(student), Output(teacher))


@pytest.mark.usefixtures("unchecked")
def test_refused_options() -> None:
    with pytest.raises(ValueError, match="variant is 'published': it must be"):
        MLKD(variant="published")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"temperature is 0\.0"):
        MLKD(temperature=0.0)
    with pytest.raises(ValueError, match="are needed"):
        mlkd_loss(*random_logits()[:3], torch.zeros(6, 4))
