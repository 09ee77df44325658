"""Two processes on gloo against one: same weights with shared batch norms, each its own statistics without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import distributed_worker
import pytest
import torch
from distributed_worker import SIZES, STEPS, a_batch, a_state

from rankdistill import distributed
from rankdistill.training.evaluate import evaluate
from rankdistill.training.step import descend

WORKER = Path(__file__).parents[1] / "distributed_worker.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("two")
    kinds = ["sync64", "sync32", "local64"]
    subprocess.run([*TORCHRUN, str(WORKER), ",".join(kinds), str(folder), "gloo"], check=True, capture_output=True)
    return {kind: [torch.load(folder / f"{kind}-2-{rank}.pt") for rank in range(2)] for kind in kinds}


def one_process(dtype: torch.dtype) -> Any:
    state = a_state(dtype, sync=False)
    state.student.module.train()
    for step in range(STEPS):
        descend(state, a_batch(step, dtype))
    return state


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"), [("sync64", torch.float64, 1e-9), ("sync32", torch.float32, 1e-4)]
)
def test_shared_batch_norm_equals_one_process(
    two: dict[str, list[dict[str, Any]]], kind: str, dtype: torch.dtype, tolerance: float
) -> None:
    state = one_process(dtype)
    for left, right in zip(state.student.module.parameters(), two[kind][0]["weights"], strict=True):
        torch.testing.assert_close(left.detach(), right, rtol=0, atol=tolerance * float(left.detach().abs().max()))
    for left, right in zip(state.student.module.buffers(), two[kind][0]["buffers"], strict=True):
        torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


def test_local_statistics_equal_halves_that_are_normalised_apart(two: dict[str, list[dict[str, Any]]]) -> None:
    state = a_state(torch.float64, sync=False)
    state.student.module.train()
    for step in range(STEPS):
        batch = a_batch(step, torch.float64)
        state.optimizer.zero_grad()
        for half in batch.chunks(2):
            (state.losses(half)["task"] * len(half) / len(batch)).backward()
        state.optimizer.step()
    for left, right in zip(state.student.module.parameters(), two["local64"][0]["weights"], strict=True):
        torch.testing.assert_close(left.detach(), right, rtol=0, atol=1e-9)
    assert 7 in SIZES


@pytest.mark.parametrize("kind", ["sync64", "sync32", "local64"])
def test_processes_agree(two: dict[str, list[dict[str, Any]]], kind: str) -> None:
    first, second = two[kind]
    for name in ("weights", "shared_buffers"):
        assert all(torch.equal(a, b) for a, b in zip(first[name], second[name], strict=True))
    assert first["accuracy"] == second["accuracy"]
    assert first["flag"] == second["flag"] == 75
    assert all(torch.equal(a, b) for a, b in zip(first["memories"], second["memories"], strict=True))
    assert first["memories"][2].isfinite().all()
    assert first["shared_state"] == second["shared_state"] == 5
    expected = torch.tensor([[0], [1], [2], [10], [11], [12], [13]])
    assert torch.equal(first["gathered"], expected)
    assert torch.equal(second["gathered"], expected)
    differ = any(not torch.equal(a, b) for a, b in zip(first["buffers"], second["buffers"], strict=True))
    assert differ == kind.startswith("local")


def test_accuracy_counts_each_sample_once(two: dict[str, list[dict[str, Any]]]) -> None:
    state = one_process(torch.float64)
    batches = [a_batch(100 + step, torch.float64) for step in range(4)]
    for buffer, shared in zip(state.student.module.buffers(), two["sync64"][0]["shared_buffers"], strict=True):
        buffer.copy_(shared)
    assert evaluate(state.student.module, batches) == two["sync64"][0]["accuracy"]


def test_memories_are_those_of_one_process(two: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    distributed_worker.main("local64", tmp_path)
    alone = torch.load(tmp_path / "local64-1-0.pt")["memories"]
    for left, right in zip(alone[:2], two["local64"][0]["memories"][:2], strict=True):
        torch.testing.assert_close(left, right)


def test_one_process_needs_no_group() -> None:
    rows = torch.arange(6.0).view(3, 2)
    assert (distributed.world_size(), distributed.rank(), distributed.any_of(143)) == (1, 0, 143)
    assert distributed.share(5, torch.device("cpu")) == 1.0
    assert distributed.gather(rows) is rows
    assert torch.equal(distributed.total(rows), rows)


def test_command_line_on_two_processes_and_killed(tmp_path: Path) -> None:
    """Fabric starts the second process; both end with the same files as an undisturbed run."""
    options = ["digits", "--model", "resnet8", "--data.image-size", "8", "--data.num-labels", "100", "--threads", "1"]
    options += ["--optim.epochs", "2", "--devices", "2", "--sync-bn", "--accelerator", "cpu", "--checkpoint-steps", "1"]
    command = [sys.executable, "-m", "rankdistill", "train-teacher", *options, "--runs"]
    whole = tmp_path / "whole"
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    (metrics,) = whole.glob("**/metrics.jsonl")
    assert [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()] == [1, 2]
    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(killed.glob("**/checkpoint-000000003.pt")):
        pass
    process.kill()
    process.wait()
    subprocess.run([*command, str(killed)], check=True, capture_output=True)
    weights = [next(folder.glob("**/student.safetensors")).read_bytes() for folder in (whole, killed)]
    assert weights[0] == weights[1]
