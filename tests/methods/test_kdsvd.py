import itertools

import pytest
import torch
from feature_golden import BATCH, DTYPES, check_gradient, features, golden, relative_error
from loss_properties import half_precision
from torch import nn

from rankdistill import KDSVD, Output, StageMap, StagePair, kdsvd_loss

ROLES = ("stage1", "stage2", "stage3")
GRADIENT = {torch.float64: 1e-6, torch.float32: 1e-3}


def maps(*shapes: tuple[int, int, int], batch: int = 2, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.randn(batch, *shape, dtype=dtype) for shape in shapes]


@pytest.mark.authors
@pytest.mark.parametrize("num_vectors", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_repdistillers_loss_and_gradient(dtype: torch.dtype, num_vectors: int) -> None:
    student, teacher = features(dtype, *ROLES)
    loss = kdsvd_loss(student, teacher, num_vectors=num_vectors).mean()
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-3}[dtype]
    assert relative_error(loss, golden("kdsvd", f"a.out64.rep_loss_k{num_vectors}")) < tolerance
    if num_vectors == 1:
        loss.backward()
        for number, feature in enumerate(student, 1):
            check_gradient("kdsvd", f"rep_s_feat{number}", feature, GRADIENT[dtype])


@pytest.mark.authors
@pytest.mark.parametrize("num_vectors", [1, 2])
def test_equals_mdistillers_loss_and_gradient(num_vectors: int) -> None:
    student, teacher = features(torch.float32, *ROLES)
    loss = kdsvd_loss(student, teacher, num_vectors=num_vectors, form="columns").mean()
    assert relative_error(loss, golden("kdsvd", f"a.out.md_loss_k{num_vectors}")) < 1e-3
    if num_vectors == 1:
        loss.backward()
        for number, feature in enumerate(student, 1):
            check_gradient("kdsvd", f"md_s_feat{number}", feature, 1e-3)


# More positions than channels, fewer, as many; a map of one position has one vector.
@pytest.mark.parametrize("form", ["channels", "columns"])
@pytest.mark.parametrize("shapes", [((3, 3, 3), (4, 2, 5)), ((9, 2, 3), (7, 2, 2)), ((4, 2, 2), (5, 1, 1))])
def test_gradcheck(shapes: tuple[tuple[int, int, int], ...], form: str) -> None:
    student, teacher = maps(*shapes), maps(*shapes)
    for feature in student:
        feature.requires_grad_()
    assert torch.autograd.gradcheck(lambda *s: kdsvd_loss(s, teacher, form=form), student)


def test_gradcheck_of_several_vectors() -> None:
    student, teacher = maps((5, 3, 3), (4, 3, 3)), maps((5, 3, 3), (4, 3, 3))
    for feature in student:
        feature.requires_grad_()
    assert torch.autograd.gradcheck(lambda *s: kdsvd_loss(s, teacher, num_vectors=3), student)


def test_zero_where_maps_are_equal_or_positions_permuted_and_does_not_depend_on_the_signs_of_vectors() -> None:
    teacher = maps((4, 3, 3), (5, 2, 2), (6, 2, 2))
    student = [2 * x.flatten(2)[:, :, torch.randperm(x[0, 0].numel())].unflatten(2, (-1, 1)) for x in teacher]
    assert kdsvd_loss(student, teacher).max() < 1e-24
    other = maps((4, 3, 3), (5, 2, 2), (6, 2, 2))
    assert torch.allclose(kdsvd_loss([-x for x in other], teacher), kdsvd_loss(other, teacher))


def test_the_students_vector_is_the_nearest_of_its_first_four() -> None:
    basis = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    strengths = torch.tensor([6.0, 5, 4, 3, 2, 1], dtype=torch.float64)[:, None]

    def feature(order: list[int]) -> torch.Tensor:
        """Return a map of six channels whose n-th singular vector is vector order[n] of the basis."""
        return (strengths * basis[order]).T.reshape(1, 6, 2, 3)

    teacher = [feature([0, 1, 2, 3, 4, 5])] * 2
    near = kdsvd_loss([feature([3, 2, 1, 0, 4, 5])] * 2, teacher)  # the teacher's first is the student's fourth
    far = kdsvd_loss([feature([4, 3, 2, 1, 0, 5])] * 2, teacher)  # and its fifth
    assert near < 1e-24
    assert far > 1e-3


@pytest.mark.parametrize("form", ["channels", "columns"])
def test_maps_of_low_rank_have_bounded_gradients(form: str) -> None:
    zeros = torch.zeros(2, 4, 3, 3)
    one = torch.randn(2, 4, 1, 1) * torch.randn(2, 1, 3, 3)
    dead = torch.randn(2, 4, 3, 3)
    dead[:, 1:] = 0
    identity = torch.eye(4).reshape(1, 4, 2, 2).expand(2, 4, 2, 2)  # all singular values of form "channels" coincide
    teacher = maps((4, 3, 3), (4, 3, 3), dtype=torch.float32)
    for first, second in itertools.product((zeros, one, dead, identity), repeat=2):
        student = [first.clone().requires_grad_(), second.clone().requires_grad_()]
        loss = kdsvd_loss(student, teacher, form=form)
        loss.sum().backward()
        assert loss.isfinite().all()
        assert all(feature.grad.abs().max() < 100 for feature in student)  # false for NaN


def test_only_a_sample_that_is_not_finite_gives_nan() -> None:
    student, teacher = maps((3, 2, 2), (4, 2, 2), batch=4), maps((3, 2, 2), (4, 2, 2), batch=4)
    expected = kdsvd_loss(student, teacher)
    student[0][1, 0, 0, 0] = torch.nan
    teacher[1][2, 0, 0, 0] = torch.inf
    found = kdsvd_loss(student, teacher)
    assert found.isnan().tolist() == [False, True, True, False]
    assert torch.allclose(found[[0, 3]], expected[[0, 3]])


def stages(widths: list[tuple[int, int]]) -> list[StagePair]:
    pairs = enumerate(widths, 1)
    return [StagePair(StageMap(f"stage{n}", (s, 4, 4)), StageMap(f"stage{n}", (t, 4, 4))) for n, (s, t) in pairs]


def outputs(widths: list[tuple[int, int]]) -> list[Output]:
    return [
        Output(torch.zeros(2, 5), {f"stage{n}": torch.randn(2, pair[who], 4, 4) for n, pair in enumerate(widths, 1)})
        for who in (0, 1)
    ]


def test_a_student_of_another_width_is_taken_to_the_teachers() -> None:
    widths = [(3, 5), (4, 4)]
    method = KDSVD(stages(widths))
    assert [type(embed) for embed in method.embed] == [nn.Conv2d, nn.Identity]
    student, teacher = outputs(widths)
    loss = method.losses(BATCH, student, teacher)["kdsvd"]
    embedded = [method.embed[0](student.features["stage1"]), student.features["stage2"]]
    assert torch.equal(loss, kdsvd_loss(embedded, list(teacher.features.values())).mean())
    loss.backward()
    assert method.embed[0].weight.grad.any()
    assert not list(KDSVD(stages(widths), form="columns").parameters())


def test_refusals() -> None:
    with pytest.raises(ValueError, match="num_vectors is 0: it must be at least 1"):
        KDSVD(stages([(3, 3)] * 2), num_vectors=0)
    with pytest.raises(ValueError, match="KDSVD has 1 stages: it relates consecutive stages"):
        KDSVD(stages([(3, 3)]))
    with pytest.raises(ValueError, match="KDSVD has 2 maps of the student and 1 of the teacher"):
        kdsvd_loss(maps((3, 2, 2), (3, 2, 2)), maps((3, 2, 2)))
    with pytest.raises(ValueError, match="the student's map has 3 channels, the teacher's 4"):
        kdsvd_loss(maps((3, 2, 2), (3, 2, 2)), maps((4, 2, 2), (4, 2, 2)))
    with pytest.raises(ValueError, match="num_vectors is 5: a map of the teacher has only 4 singular vectors"):
        kdsvd_loss(maps((6, 2, 2), (6, 2, 2)), maps((6, 2, 2), (6, 2, 2)), num_vectors=5)


def test_half_precision_is_computed_in_float32() -> None:
    half_precision(lambda student, teacher: kdsvd_loss([student, student.mT], [teacher, teacher.mT]), (4, 3, 4, 4))
