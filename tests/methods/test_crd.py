import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from rankdistill import CRD, Batch, EachView, Network, Output, crd_loss, pair_of
from rankdistill.contract import Pair
from rankdistill.methods.crd import draw_negatives, draw_negatives_with_replacement
from rankdistill.models import MODELS
from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.settings import SETTINGS

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "crd.npz")
PRECISIONS = {"out": (torch.float32, 1e-4), "out64": (torch.float64, 1e-6)}


def golden(name: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    value = torch.from_numpy(np.asarray(GOLDEN[name]))
    return value.to(dtype) if value.is_floating_point() else value


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    return bool((found.detach() - expected).abs().max() <= tolerance * expected.abs().max())


def authors_method(dtype: torch.dtype) -> CRD:
    method = CRD(256, 256, torch.arange(200) % 20, num_negatives=64).to(dtype)
    names = {
        "embed_student.weight": "embed_s.linear.weight",
        "embed_student.bias": "embed_s.linear.bias",
        "embed_teacher.weight": "embed_t.linear.weight",
        "embed_teacher.bias": "embed_t.linear.bias",
        "student_memory": "memory_v1",
        "teacher_memory": "memory_v2",
    }
    found = {name: golden(f"a.param.{theirs}", dtype) for name, theirs in names.items()}
    method.load_state_dict(method.state_dict() | found)
    return method


@pytest.fixture
def contrasted_with(monkeypatch: pytest.MonkeyPatch):
    """Returns a function that makes a method use these negatives instead of its own draws."""

    def use(method: CRD, contrast: torch.Tensor) -> None:
        monkeypatch.setattr(method, "draw", lambda *_: contrast[:, 1:])

    return use


@pytest.mark.parametrize("precision", ["out", "out64"])
def test_two_steps_equal_the_authors(precision: str, contrasted_with) -> None:
    dtype, tolerance = PRECISIONS[precision]
    method = authors_method(dtype)
    for step, suffix in enumerate(("", "_step2")):
        student = golden("a.s.pooled" if not step else "a.in.s_pooled_step2", dtype).requires_grad_()
        teacher = golden("a.t.pooled" if not step else "a.in.t_pooled_step2", dtype)
        indices = golden(f"a.in.index{suffix}")
        contrasted_with(method, golden(f"a.in.contrast_index{suffix}"))
        method.zero_grad()
        loss = method.losses(*given(student, teacher, indices, step))["crd"]
        loss.backward()
        assert close(loss, golden(f"a.{precision}.loss{suffix}", dtype), tolerance)
        assert close(student.grad, golden(f"a.grad.s_pooled{suffix}", dtype), max(tolerance, 1e-6))
        assert close(student.grad.norm(dim=1), golden(f"a.gradnorm.s_pooled{suffix}", dtype), tolerance)
        if not step:
            for name, embed in (("s", method.embed_student), ("t", method.embed_teacher)):
                assert close(embed.bias.grad, golden(f"a.pgrad.embed_{name}.linear.bias", dtype), tolerance)
                for kind in ("weight", "bias"):
                    expected = golden(f"a.pgrad.embed_{name}norm.linear.{kind}", dtype)
                    assert close(getattr(embed, kind).grad.norm(), expected, tolerance)
        z = torch.stack([golden(f"a.{precision}.Z_v1", dtype), golden(f"a.{precision}.Z_v2", dtype)])
        assert close(method.log_z.exp(), z, max(tolerance, 1e-6))
        for number, memory in ((1, method.student_memory), (2, method.teacher_memory)):
            assert close(memory[indices], golden(f"a.out64.memory_v{number}_rows{suffix}", dtype), max(tolerance, 1e-6))


def given(
    student: torch.Tensor, teacher: torch.Tensor, indices: torch.Tensor | None, step: int = 0
) -> tuple[Batch, Output, Output]:
    logits = torch.zeros(len(student), 2)
    batch = Batch(torch.zeros(len(student), 1), None, indices=indices, step=step)
    return batch, Output(logits, {"pooled": student}), Output(logits, {"pooled": teacher})


def unit(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, dtype=dtype), dim=-1)


def test_is_the_noise_contrastive_formula() -> None:
    student, teacher, memories = unit(3, 5), unit(3, 5), unit(2, 20, 5)
    contrast = torch.randint(20, (3, 5))
    log_z = torch.tensor([3.0, 2.5], dtype=torch.float64)
    found, _ = crd_loss(student, teacher, memories[0], memories[1], contrast, log_z, temperature=0.5)
    expected = torch.zeros(3, dtype=torch.float64)
    noise = 4 / 20
    for anchors, memory, z in ((student, memories[1], log_z[0].exp()), (teacher, memories[0], log_z[1].exp())):
        for row in range(3):
            p = [(anchors[row] @ memory[k] / 0.5).exp() / z for k in contrast[row]]
            expected[row] -= (p[0] / (p[0] + noise + 1e-7)).log()
            expected[row] -= sum((noise / (q + noise + 1e-7)).log() for q in p[1:])
    assert torch.allclose(found, expected, rtol=1e-12)


def test_the_constant_makes_the_first_batchs_mean_probability_that_of_the_noise() -> None:
    student, teacher, memories, contrast = unit(3, 5), unit(3, 5), unit(2, 20, 5), torch.randint(20, (3, 5))
    _, log_z = crd_loss(student, teacher, memories[0], memories[1], contrast)
    scores = (student @ memories[1].T).gather(1, contrast) / 0.07
    assert (scores - log_z[0]).exp().mean() == pytest.approx(1 / 20)
    half = torch.tensor([math.nan, 1.5], dtype=torch.float64)
    _, kept = crd_loss(student, teacher, memories[0], memories[1], contrast, half)
    assert kept[0] == log_z[0]
    assert kept[1] == 1.5


def test_exchanging_student_and_teacher_changes_nothing() -> None:
    student, teacher, memories, contrast = unit(3, 5), unit(3, 5), unit(2, 20, 5), torch.randint(20, (3, 5))
    loss, log_z = crd_loss(student, teacher, memories[0], memories[1], contrast)
    other, _ = crd_loss(teacher, student, memories[1], memories[0], contrast, log_z.flip(0))
    assert torch.allclose(loss, other)


def test_order_of_negatives_changes_nothing() -> None:
    student, teacher, memories, contrast = unit(3, 5), unit(3, 5), unit(2, 20, 5), torch.randint(20, (3, 5))
    moved = torch.cat([contrast[:, :1], contrast[:, 1:].flip(1)], dim=1)
    loss, _ = crd_loss(student, teacher, memories[0], memories[1], contrast)
    assert torch.allclose(loss, crd_loss(student, teacher, memories[0], memories[1], moved)[0])


def test_gradcheck() -> None:
    memories, contrast = unit(2, 10, 4), torch.randint(10, (2, 4))
    log_z = torch.tensor([3.0, 2.0], dtype=torch.float64)
    inputs = unit(2, 4).requires_grad_(), unit(2, 4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s, t: crd_loss(s, t, memories[0], memories[1], contrast, log_z, temperature=0.3)[0], inputs
    )


def test_finite_where_scores_are_extreme() -> None:
    anchor = torch.tensor([[1.0, 0.0]]).requires_grad_()
    memories = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]] * 2)
    loss, _ = crd_loss(anchor, anchor, memories[0], memories[1], torch.tensor([[1, 0, 0]]), temperature=1e-3)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert anchor.grad.isfinite().all()


def test_half_precision_is_computed_in_float32() -> None:
    student, teacher = unit(3, 8).bfloat16(), unit(3, 8).bfloat16()
    memories, contrast = unit(2, 9, 8, dtype=torch.float32), torch.randint(9, (3, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, log_z = crd_loss(student, teacher, memories[0], memories[1], contrast)
    assert found.dtype == log_z.dtype == torch.float32
    assert torch.equal(found, crd_loss(student.float(), teacher.float(), memories[0], memories[1], contrast)[0])


def test_refuses_what_it_cannot_use() -> None:
    labels = torch.arange(8) % 2
    with pytest.raises(ValueError, match="at least one negative"):
        crd_loss(unit(1, 2), unit(1, 2), unit(3, 2), unit(3, 2), torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="temperature is 0"):
        CRD(4, 4, labels, temperature=0)
    with pytest.raises(ValueError, match=r"momentum is 1\.5"):
        CRD(4, 4, labels, momentum=1.5)
    with pytest.raises(ValueError, match="num_negatives is 0"):
        CRD(4, 4, labels, num_negatives=0)
    with pytest.raises(ValueError, match="all 8 training samples are of one class"):
        CRD(4, 4, torch.zeros(8, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"CRD needs Batch\.indices"):
        CRD(4, 4, labels).losses(*given(torch.zeros(2, 4), torch.zeros(2, 4), None))


DRAWS = [draw_negatives, draw_negatives_with_replacement]


@pytest.mark.parametrize("draw", DRAWS)
def test_negatives_are_uniform_over_other_classes(draw) -> None:
    labels = torch.tensor([2, 0, 1, 0, 2, 2, 1, 0, 0, 3])
    indices = torch.tensor([0, 1, 2, 9]).repeat(5000)
    keys = torch.arange(20000) * 7919 + 3
    drawn = draw(labels, indices, keys, 3)
    assert drawn.shape == (20000, 3)
    for row in range(4):
        counts = drawn[row::4].flatten().bincount(minlength=10).double()
        others = labels != labels[indices[row]]
        assert (counts[~others] == 0).all()
        expected = 15000 / others.sum()
        chi2 = ((counts[others] - expected).square() / expected).sum()
        assert chi2 < 25  # the 99.7th percentile or beyond, for 5 to 8 degrees of freedom


@pytest.mark.parametrize("draw", DRAWS)
def test_rows_are_independent(draw) -> None:
    labels = torch.arange(400) // 4
    drawn = draw(labels, torch.zeros(300, dtype=torch.int64), torch.arange(300), 99)
    seen = torch.zeros(300, 400).scatter_(1, drawn, 1.0)
    together = (seen @ seen.T).triu(1).sum() / (300 * 299 / 2)  # samples that two rows share, on average
    kept = seen.sum(1).mean()
    assert together.item() == pytest.approx(kept.item() ** 2 / 396, rel=0.01)
    assert (seen.mean(0)[4:] - kept / 396).abs().max() < 0.13  # 5 standard deviations


def test_without_replacement_no_negative_repeats() -> None:
    labels = torch.arange(50) % 5
    drawn = draw_negatives(labels, torch.arange(6), torch.arange(6), 40)
    assert torch.equal(drawn.sort(1).values, torch.stack([(labels != row % 5).nonzero().flatten() for row in range(6)]))


def test_draws_depend_on_key_step_and_index_only() -> None:
    labels = torch.arange(60) % 3
    method = CRD(4, 4, labels, num_negatives=20)
    seen = []
    original = method.draw
    method.draw = lambda *given: seen.append(original(*given)) or seen[-1]
    pooled = torch.randn(3, 4)
    for step, order in ((0, [5, 6, 7]), (0, [7, 5, 6]), (1, [5, 6, 7])):
        method.losses(*given(pooled, pooled, torch.tensor(order), step))
    assert torch.equal(seen[0], seen[1][[1, 2, 0]])
    assert not torch.equal(seen[0].sort(1).values, seen[2].sort(1).values)
    torch.manual_seed(0)
    first = CRD(4, 4, labels)
    torch.manual_seed(1)
    assert first.key != CRD(4, 4, labels).key


def test_small_sets_are_drawn_from_with_replacement() -> None:
    labels = torch.arange(10) % 2
    assert CRD(4, 4, labels, num_negatives=5).draw is draw_negatives
    method = CRD(4, 4, labels, num_negatives=6)
    assert method.draw is draw_negatives_with_replacement
    assert method.losses(*given(torch.randn(3, 4), torch.randn(3, 4), torch.arange(3)))["crd"].isfinite()


def test_scores_the_memories_as_they_were_and_then_moves_only_the_batch() -> None:
    method = CRD(4, 3, torch.arange(12) % 3, num_negatives=4, momentum=0.25)
    before = method.student_memory.clone(), method.teacher_memory.clone()
    student, teacher = torch.randn(2, 4), torch.randn(2, 3)
    indices = torch.tensor([7, 2])
    loss = method.losses(*given(student, teacher, indices))["crd"]
    loss.backward()  # the memories that backward reads have not been written since
    pairs = zip((method.embed_student(student), method.embed_teacher(teacher)), before, strict=True)
    for memory, (embedding, old) in zip((method.student_memory, method.teacher_memory), pairs, strict=True):
        expected = F.normalize(0.25 * old[indices] + 0.75 * F.normalize(embedding, dim=1), dim=1)
        assert torch.allclose(memory[indices], expected)
        others = [row for row in range(12) if row not in (2, 7)]
        assert torch.equal(memory[others], old[others])


def test_of_an_index_twice_in_a_batch_the_last_is_remembered() -> None:
    method = CRD(4, 4, torch.arange(12) % 3, num_negatives=4)
    single = CRD(4, 4, torch.arange(12) % 3, num_negatives=4)
    single.load_state_dict(method.state_dict())
    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    method.losses(*given(student, teacher, torch.tensor([5, 1, 5])))
    single.losses(*given(student[1:], teacher[1:], torch.tensor([1, 5])))
    assert torch.equal(method.student_memory, single.student_memory)
    assert torch.equal(method.teacher_memory, single.teacher_memory)


def test_continues_bit_for_bit_from_its_state() -> None:
    method, other = (CRD(4, 4, torch.arange(12) % 3, num_negatives=4) for _ in range(2))
    inputs = [given(torch.randn(3, 4), torch.randn(3, 4), torch.randperm(12)[:3], step) for step in range(3)]
    method.losses(*inputs[0])
    other.load_state_dict(method.state_dict())
    assert "labels" not in method.state_dict()
    for step in (1, 2):
        assert torch.equal(method.losses(*inputs[step])["crd"], other.losses(*inputs[step])["crd"])
    for name, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_the_second_view_writes_nothing() -> None:
    method = CRD(4, 4, torch.arange(12) % 3, num_negatives=4)
    batch, student, teacher = given(torch.randn(3, 4), torch.randn(3, 4), torch.arange(3))
    alone = CRD(4, 4, torch.arange(12) % 3, num_negatives=4)
    alone.load_state_dict(method.state_dict())
    alone.losses(batch, student, teacher)
    _, strong_student, strong_teacher = given(torch.randn(3, 4), torch.randn(3, 4), None)
    views = dataclasses.replace(student, strong=strong_student), dataclasses.replace(teacher, strong=strong_teacher)
    EachView(method).losses(dataclasses.replace(batch, strong=batch.images), *views)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, method.state_dict()[name]), name


def test_only_the_teachers_embedding_learns_of_the_teacher() -> None:
    method = CRD(4, 4, torch.arange(12) % 3, num_negatives=4)
    student, teacher = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    method.losses(*given(student, teacher, torch.arange(3)))["crd"].backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.parameters())


def test_takes_one_sample_and_pooled_maps() -> None:
    method = CRD(4, 4, torch.arange(2), num_negatives=1)
    assert method.losses(*given(torch.randn(1, 4, 1, 1), torch.randn(1, 4), torch.arange(1)))["crd"].isfinite()


def test_for_a_pair_of_networks() -> None:
    student, teacher = MODELS["resnet8"](3), MODELS["resnet8x4"](3)
    networks = Network(student, {"pooled": "avgpool"}), Network(teacher, {"pooled": "avgpool"}, frozen=True)
    images, labels = torch.randn(2, 3, 8, 8), torch.tensor([0, 1, 2, 1, 0, 2])
    method = CRD.for_pair(pair_of(*networks, images, num_samples=6, labels=labels), num_negatives=3)
    assert method.embed_student.in_features == 64
    assert method.embed_teacher.in_features == 256
    assert torch.equal(method.labels, labels)
    assert method.prepare(None, list) == []
    losses = method(Batch(images, None, indices=torch.tensor([3, 4])), *networks)
    assert losses["crd"].isfinite()
    with pytest.raises(ValueError, match=r"labels have shape \(5,\): give one for each of the 6 samples"):
        pair_of(*networks, images, num_samples=6, labels=labels[:5])


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([10, 11, 12], "Batch.indices goes from 10 to 12, and CRD was made for 12 samples"),
        ([-1, 0, 1], "Batch.indices goes from -1 to 1, and CRD was made for 12 samples"),
        ([0.0, 1.0, 2.0], r"Batch.indices has shape \(3,\) and is torch.float32: CRD needs positions"),
        ([[0], [1], [2]], r"Batch.indices has shape \(3, 1\) and is torch.int64: CRD needs positions"),
    ],
)
def test_indices_are_positions_in_the_training_set(indices: list, message: str) -> None:
    method = CRD(4, 4, torch.arange(12) % 3, num_negatives=4)
    with pytest.raises(ValueError, match=message):
        method.losses(*given(torch.randn(3, 4), torch.randn(3, 4), torch.tensor(indices)))


def test_for_a_pair_without_labels_all_other_samples_are_negatives() -> None:
    shapes = {"pooled": (4, 1, 1)}
    pair = Pair(torch.nn.Identity(), torch.nn.Identity(), shapes, {"pooled": (6,)}, num_classes=2, num_samples=5)
    method = CRD.for_pair(pair, num_negatives=4)
    assert (method.embed_student.in_features, method.embed_teacher.in_features) == (4, 6)
    assert method.draw(method.labels, torch.arange(5), torch.arange(5), 4).sort(1).values[2].tolist() == [0, 1, 3, 4]
    assert method.prepare(None, list) == [
        "no two training samples share a label: CRD draws negatives from all other samples"
    ]
    with pytest.raises(
        ValueError, match=r'CRD .* the teacher, and Identity has no role "pooled" \(its roles: stage1\)'
    ):
        CRD.for_pair(dataclasses.replace(pair, teacher_shapes={"stage1": (4, 8, 8)}))


@pytest.mark.parametrize(("teacher", "student"), [*CIFAR100_PAIRS, *TINY_IMAGENET_PAIRS, ("any", "other")])
def test_setting(teacher: str, student: str) -> None:
    setting = SETTINGS["crd"](teacher, student)
    crd = setting.losses["crd"]
    assert setting.losses["task"].weight == 1.0
    assert (crd.weight, crd.dim, crd.num_negatives, crd.temperature, crd.momentum) == (0.8, 128, 16384, 0.07, 0.5)
    assert setting.published == ((teacher, student) in CIFAR100_PAIRS)


class NoReadBack(TorchDispatchMode):
    """Refuses what would make the host wait for a device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket.__name__ not in ("_local_scalar_dense", "nonzero", "equal", "unique"), function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("num_negatives", [4, 40])
def test_a_step_reads_nothing_back(num_negatives: int) -> None:
    method = CRD(4, 4, torch.arange(12) % 3, num_negatives=num_negatives)
    inputs = given(torch.randn(3, 4), torch.randn(3, 4), torch.arange(3))
    with NoReadBack():
        method.losses(*inputs)["crd"].backward()
    with pytest.raises(AssertionError), NoReadBack():
        method.log_z.isnan().any().item()
