import pytest
import torch
import torch.nn.functional as F
from two_views import Golden, close, random_logits

from rankdistill import CRLD, Batch, Output, crld_loss, kd_loss

GOLDEN = Golden("crld")


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("setting", ["cifar", "tiny"])
def test_terms_and_gradients_equal_the_authors(setting: str, precision: str) -> None:
    given = {
        key: float(GOLDEN[f"hp.{setting}.{key}"]) for key in ("temperature", "tau_w", "tau_s", "wv_weight", "cv_weight")
    }
    method = CRLD(
        temperature=given["temperature"],
        within_weight=given["wv_weight"],
        cross_weight=given["cv_weight"],
        weak_threshold=given["tau_w"],
        strong_threshold=given["tau_s"],
    )
    logits = GOLDEN.logits(precision)
    student, teacher = (Output(logits[i], strong=Output(logits[i + 2])) for i in (0, 1))
    losses = method.losses(Batch(torch.zeros(8, 3, 8, 8), None), student, teacher)
    (losses["within"] + losses["cross"]).backward()
    assert close(losses["within"], GOLDEN[f"a.{precision}.{setting}.loss_kd_wv"], precision)
    assert close(losses["cross"], GOLDEN[f"a.{precision}.{setting}.loss_kd_cv"], precision)
    assert close(logits[0].grad, GOLDEN[f"a.{precision}.{setting}.grad_kd_student"], precision)
    assert close(logits[2].grad, GOLDEN[f"a.{precision}.{setting}.grad_kd_student_strong"], precision)
    task = sum(F.cross_entropy(each, GOLDEN["a.in.target"]) for each in (logits[0], logits[2]))
    total = task + losses["within"] + losses["cross"]
    assert close(total, GOLDEN[f"a.{precision}.{setting}.total_with_ce"], precision)


def test_defaults_are_those_of_cifar() -> None:
    method = CRLD()
    assert (method.temperature, method.within_weight, method.cross_weight) == (4.0, 2.0, 0.5)
    assert (method.weak_threshold, method.strong_threshold) == (0.9, 0.2)


def masks(teacher: torch.Tensor, teacher_strong: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    sure = (F.softmax(teacher, 1).amax(1) >= 0.9).double()
    return sure, (F.softmax(teacher_strong, 1).amax(1) >= 0.2).double()


def test_masks_of_the_official_code_and_of_the_view_in_each_term() -> None:
    student, teacher, student_strong, teacher_strong = random_logits()
    teacher[::2] *= 8
    teacher_strong[::3] *= 0.01
    teacher_strong[1] = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.1])
    weak, strong = masks(teacher, teacher_strong)
    strong[:] = (F.softmax(teacher_strong, 1).amax(1) >= 0.3).double()
    assert 0 < weak.sum() < 6
    assert 0 < strong.sum() < 6

    options = {"temperature": 2.0, "strong_threshold": 0.3}
    kd = {
        pair: kd_loss(own, target, temperature=2.0)
        for pair, own, target in (
            ("ww", student, teacher),
            ("ss", student_strong, teacher_strong),
            ("ws", student_strong, teacher),
            ("sw", student, teacher_strong),
        )
    }
    official = crld_loss(student, teacher, student_strong, teacher_strong, **options)
    assert torch.allclose(official.within, weak * (kd["ww"] + kd["ss"]))
    assert torch.allclose(official.cross, strong * (kd["ws"] + kd["sw"]))
    by_view = crld_loss(student, teacher, student_strong, teacher_strong, mask_source="label_view", **options)
    assert torch.allclose(by_view.within, weak * kd["ww"] + strong * kd["ss"])
    assert torch.allclose(by_view.cross, weak * kd["ws"] + strong * kd["sw"])


def test_masked_samples_count_as_zero_without_a_gradient() -> None:
    student, _, student_strong, _ = (each.requires_grad_() for each in random_logits())
    unsure = torch.zeros(6, 5, dtype=torch.float64)
    terms = crld_loss(student, unsure, student_strong, unsure, strong_threshold=0.21)
    sum(terms).sum().backward()
    assert not torch.stack(terms).any()
    assert not student.grad.any()
    assert not student_strong.grad.any()


@pytest.mark.parametrize("mask_source", ["official", "label_view"])
def test_gradcheck_and_zero_where_all_agree(mask_source: str) -> None:
    student, teacher, student_strong, teacher_strong = random_logits(3, 4)
    options = {"weak_threshold": 0.3, "strong_threshold": 0.0, "mask_source": mask_source}

    def loss(s: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.stack(crld_loss(s, teacher, v, teacher_strong, **options))

    assert torch.autograd.gradcheck(loss, (student.requires_grad_(), student_strong.requires_grad_()))
    assert torch.stack(crld_loss(teacher + 1.0, teacher, teacher, teacher - 1.0, **options)).abs().max() < 1e-12


@pytest.mark.parametrize("rows", ["one sample, two classes", "constant", "large"])
def test_edges_are_finite_in_float32(rows: str) -> None:
    size = (1, 2) if rows.startswith("one") else (4, 10)
    logits = [torch.randn(size) * (1e4 if rows == "large" else 1.0) for _ in range(4)]
    if rows == "constant":
        logits[0], logits[1] = torch.full(size, 2.0), torch.zeros(size)
    logits[0].requires_grad_()
    total = torch.stack(crld_loss(*logits)).sum()
    total.backward()
    assert total.isfinite()
    assert logits[0].grad.isfinite().all()


def test_half_precision_is_computed_in_float32_and_no_gradient_reaches_the_teacher() -> None:
    logits = [(4 * each).bfloat16() for each in random_logits()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.stack(crld_loss(*logits))
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.stack(crld_loss(*(each.float() for each in logits))))
    student, teacher, student_strong, teacher_strong = (each.requires_grad_() for each in random_logits())
    torch.stack(crld_loss(student, teacher, student_strong, teacher_strong)).sum().backward()
    assert (teacher.grad, teacher_strong.grad) == (None, None)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"weak_threshold": 1.5}, "weak_threshold is 1.5: it must be from 0 to 1"),
        ({"strong_threshold": -0.1}, "strong_threshold is -0.1"),
        ({"mask_source": "teacher"}, "mask_source is 'teacher': it must be"),
        ({"within_weight": -1.0}, "within_weight is -1.0: it must be finite"),
        ({"cross_weight": float("inf")}, "cross_weight is inf: it must be finite"),
    ],
)
def test_refused_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CRLD(**options)  # type: ignore[arg-type]


def test_the_second_view_is_needed() -> None:
    with pytest.raises(ValueError, match=r"CRLD needs Batch\.strong"):
        CRLD().losses(Batch(torch.zeros(2, 3, 8, 8), None), Output(torch.zeros(2, 3)), Output(torch.zeros(2, 3)))
