"""Every method under every update rule: which go together, and two steps with a checkpoint between them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cells import CLASSES, Parts, parts_of, prepare, take_step
from checks import assert_method_learns, assert_resumes, assert_student_learns, assert_teacher_untouched

from rankdistill import METHODS, UPDATES
from rankdistill.models.resnet import ResNet
from rankdistill.runs.config import Optim
from rankdistill.runs.options import loss

SIDE = 16
OPTIONS: dict[str, dict[str, int]] = {"bilevel": {"every": 1}}  # so that the second step, too, looks ahead


def assemble_small(name: str, rule: str, *, seed: int) -> Parts:
    """Return a method with its default options on small networks of one family; a taught one beside cross-entropy."""
    torch.manual_seed(1)
    teacher = ResNet(8, (16, 16, 24, 32), CLASSES)
    torch.manual_seed(seed)
    student = ResNet(8, (16, 16, 16, 24), CLASSES)
    losses = {"task": loss("ce"), name: loss(name)} if METHODS[name].reads_teacher else {"task": loss(name)}
    return parts_of(losses, student, teacher, UPDATES[rule](**OPTIONS.get(rule, {})), Optim(), side=SIDE)


def refusal(name: str, rule: str) -> str | None:
    """Return what is said where method and rule do not go together."""
    if rule == "dot" and not METHODS[name].reads_teacher:
        return "it needs both kinds"
    has_meta = bool(METHODS[name].meta)
    if UPDATES[rule].learns_meta == has_meta:
        return None
    return "has meta-parameters, which the update rule" if has_meta else "and no loss has any"


@pytest.mark.parametrize("rule", UPDATES)
@pytest.mark.parametrize("name", METHODS)
def test_resumes_under_the_rule(name: str, rule: str, tmp_path: Path) -> None:
    refused = refusal(name, rule)
    if refused is not None:
        with pytest.raises(ValueError, match=refused):
            take_step(assemble_small(name, rule, seed=0), 0, SIDE)
        return
    parts = assemble_small(name, rule, seed=0)
    assert parts.state.teacher is not None
    before = {key: value.clone() for key, value in parts.state.teacher.module.state_dict().items()}
    prepare(parts, SIDE)
    losses = take_step(parts, 0, SIDE)
    assert all(value.isfinite() for value in losses.values())
    assert_student_learns(parts)
    assert_resumes(parts, assemble_small(name, rule, seed=2), SIDE, tmp_path / "checkpoint.pt")
    assert_method_learns(parts, SIDE)
    assert_teacher_untouched(parts, before)
