"""Every setting on every pair of networks: two steps, a checkpoint between them, deployment.

`make test` runs the quick part of the matrix, `make test-matrix` all of it; `-k resnet56` runs a slice.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cells import (
    CLASSES,
    Cell,
    assemble_cell,
    prepare,
    quick_matrix,
    quick_students,
    take_step,
    teacher_of,
    training_batch,
    whole_matrix,
    whole_students,
)
from checks import (
    assert_deploys,
    assert_exports,
    assert_method_learns,
    assert_resumes,
    assert_student_learns,
    assert_teacher_untouched,
)

from rankdistill.models import MODELS
from rankdistill.recipes.by_pair import CIFAR100_PAIRS
from rankdistill.recipes.settings import SETTINGS


def test_cell(cell: Cell, tmp_path: Path) -> None:
    teacher = teacher_of(cell)
    before = {} if teacher is None else {key: value.clone() for key, value in teacher.state_dict().items()}
    parts = assemble_cell(cell, teacher, seed=0)
    prepare(parts, cell.side)
    losses = take_step(parts, 0, cell.side)
    assert losses
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    assert_student_learns(parts)
    assert_resumes(parts, assemble_cell(cell, teacher, seed=2), cell.side, tmp_path / "checkpoint.pt")
    assert_method_learns(parts, cell.side)
    assert_teacher_untouched(parts, before)
    assert_deploys(parts, cell.student, training_batch(2, cell.side).images[:2], tmp_path / "student.safetensors")


def test_a_plain_student_exports(student: str) -> None:
    side = Cell("plain", "", student).side
    assert_exports(MODELS[student](CLASSES).eval(), training_batch(2, side).images[:2])


def test_the_quick_part_has_each_setting_and_each_pair_twice() -> None:
    quick = quick_matrix()
    assert len(set(quick)) == len(quick)
    assert set(quick) < set(whole_matrix())
    assert set(quick_students()) < set(whole_students())
    settings = Counter(cell.setting for cell in quick)
    pairs = Counter((cell.teacher, cell.student) for cell in quick)
    assert settings == dict.fromkeys(SETTINGS, 2)
    assert pairs.keys() == set(CIFAR100_PAIRS)
    assert min(pairs.values()) >= 2
