"""What a step does beside descending: parts of a batch, clipping, guards, phases."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from contract_methods import random_batch
from small_runs import CLASSES, SAMPLES, small_plan
from torch import nn

from rankdistill import MODELS, CrossEntropy, ReviewKD, Sum, assemble
from rankdistill.contract import Batch
from rankdistill.training.loop import fit
from rankdistill.training.plan import Plan, Record
from rankdistill.training.state import NonFiniteLoss, OutOfMemory, State
from rankdistill.training.step import descend


def a_batch(size: int = 6) -> Batch:
    return random_batch(size=size, num_classes=CLASSES, num_samples=SAMPLES)


def test_chunks_are_the_batch_in_parts() -> None:
    batch = a_batch(7)
    parts = batch.chunks(3)
    assert [len(part) for part in parts] == [3, 2, 2]
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    assert torch.equal(torch.cat([part.indices for part in parts]), batch.indices)
    assert {part.step for part in parts} == {batch.step}
    assert batch.chunks(1) == [batch]
    for size, num, sizes in ((9, 32, [3, 2, 2, 2]), (2, 5, [2]), (3, 2, [3]), (1, 4, [1]), (8, 3, [3, 3, 2])):
        assert [len(part) for part in a_batch(size).chunks(num)] == sizes


def test_a_small_last_batch_is_not_cut_into_single_samples() -> None:
    """ReviewKD has batch norms over maps of 1 x 1, which need two samples."""
    student, teacher = MODELS["resnet8"](10), MODELS["resnet14"](10)
    losses = {"reviewkd": (1.0, ReviewKD.for_pair)}
    method, trained, frozen = assemble(losses, student, teacher, torch.zeros(2, 3, 32, 32), num_samples=73)
    parameters = [*trained.module.parameters(), *method.parameters()]
    state = State(trained, frozen, method, torch.optim.SGD(parameters, lr=0.0), accumulate=32)
    trained.module.train()
    for size in (9, 2):
        batch = Batch(torch.randn(size, 3, 32, 32), torch.arange(size), torch.arange(size))
        assert torch.isfinite(descend(state, batch)["reviewkd"])


def test_accumulated_gradient_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    """In eval mode, where batch norm does not see the parts."""
    states = [small_plan(tmp_path / str(parts)).state for parts in (1, 3)]
    for state, parts in zip(states, (1, 3), strict=True):
        state.accumulate = parts
        state.student.module.double().eval()
        batch = dataclasses.replace(a_batch(7), strong=None)
        batch = dataclasses.replace(batch, images=batch.images.double())
        losses = descend(state, batch)
        state.losses_seen = losses["task"].item()  # type: ignore[attr-defined]
    assert states[0].losses_seen == pytest.approx(states[1].losses_seen, rel=1e-12)  # type: ignore[attr-defined]
    for a, b in zip(states[0].student.module.parameters(), states[1].student.module.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    state = small_plan(tmp_path).state
    state.clip_norm = 1e-3
    descend(state, a_batch())
    gradients = [p.grad for p in state.student.module.parameters() if p.grad is not None]
    assert nn.utils.get_total_norm(gradients).item() == pytest.approx(1e-3, rel=1e-4)


def test_infinite_loss_names_loss_step_and_samples_and_saves(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    taken = 0

    def update(state: State, batch: Batch) -> dict[str, torch.Tensor]:
        nonlocal taken
        taken += 1
        if taken == 5:
            with torch.no_grad():
                state.student.module.fc.bias[0] = torch.nan
        return descend(state, batch)

    plan.update = update
    with pytest.raises(
        NonFiniteLoss, match=r"loss task is not finite in epoch 2, step 4 \(training samples \d+, .*saved"
    ):
        fit(plan)
    resumed = small_plan(tmp_path).resumed()
    assert resumed.state.step == 4


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried"),
    ],
)
def test_out_of_memory_says_sizes_and_what_to_change(tmp_path: Path, error: Exception) -> None:
    plan = small_plan(tmp_path)

    def update(state: State, batch: Batch) -> dict[str, torch.Tensor]:
        raise error

    plan.update = update
    with pytest.raises(
        OutOfMemory, match=r"batch of 8 x 3 x 16 x 16 does not fit .*optim.batch_size.*optim.accumulate.*saved"
    ):
        fit(plan)
    assert list(tmp_path.glob("checkpoint-*.pt"))


def test_other_errors_pass(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)

    def update(state: State, batch: Batch) -> dict[str, torch.Tensor]:
        raise RuntimeError("something else")

    plan.update = update
    with pytest.raises(RuntimeError, match="something else"):
        fit(plan)


def test_a_teacher_that_changes_is_found_out(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "matched", epochs=1)

    def update(state: State, batch: Batch) -> dict[str, torch.Tensor]:
        assert state.teacher is not None
        state.teacher.module.bn1.running_mean.add_(1e-6)
        return descend(state, batch)

    plan.update = update
    with pytest.raises(RuntimeError, match="the teacher's weights or buffers changed"):
        fit(plan)


def test_records_say_where_the_time_went_and_how_the_teacher_does(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "matched", epochs=1)
    assert plan.state.teacher is not None
    plan.state.teacher.around = lambda: plan.state.clock("teacher")
    fit(plan)
    (record,) = plan.records
    assert record["time"].keys() == {"data", "teacher", "student", "update"}
    assert all(seconds > 0 for seconds in record["time"].values())
    assert sum(record["time"].values()) <= record["seconds"]
    assert record["gradient_norm"] > 0
    assert 0 <= record["teacher_top1"] <= 100


class Hears:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, plan: Plan) -> None:
        pass

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def step(self, images: int) -> None:
        pass

    def epoch(self, record: Record) -> None:
        pass


@pytest.mark.parametrize(
    ("weight", "clip_norm", "told"), [(1.0, None, False), (100.0, None, True), (100.0, 5.0, False)]
)
def test_gradients_that_start_steeply_are_told_once(
    tmp_path: Path, weight: float, clip_norm: float | None, told: bool
) -> None:
    plan = small_plan(tmp_path, epochs=2, lr=1e-4)
    plan.state.method = Sum(task=(weight, CrossEntropy()))
    plan.state.clip_norm = clip_norm
    plan.watchers = [hears := Hears()]
    seen: list[float] = []

    def update(state: State, batch: Batch) -> dict[str, torch.Tensor]:
        losses = descend(state, batch)
        if clip_norm is None:
            norms = [p.grad.norm() for p in state.student.module.parameters() if p.grad is not None]
            seen.append(float(torch.stack(norms).norm()))
        return losses

    plan.update = update
    fit(plan)
    first, second = plan.records
    assert (first["first_gradient_norm"] > 25) == (weight == 100.0)
    assert "first_gradient_norm" not in second
    if clip_norm is None:
        assert first["first_gradient_norm"] == pytest.approx(max(seen[: len(plan.loader)]), rel=1e-5)
    else:
        assert first["gradient_norm"] <= clip_norm + 1e-4
    assert [note for note in hears.notes if "--optim.clip-norm 5" in note] == hears.notes
    assert len(hears.notes) == told
    weights = torch.cat([p.detach().flatten() for p in plan.state.student.module.parameters()])
    assert second["weight_norm"] == pytest.approx(float(weights.norm()), rel=1e-5)
