"""A run that was stopped at any step and started again ends with the bits of one that was not."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contract_methods import CONTRACT_METHODS
from small_runs import Killed, KillsAtStep, assert_same, small_plan

from rankdistill.training.loop import fit
from rankdistill.training.plan import TIMES, Plan
from rankdistill.training.signals import Interrupted, Stop


def in_bf16(plan: Plan) -> Plan:
    plan.state.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    return plan


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", [None, *CONTRACT_METHODS])
def test_killed_at_any_step(tmp_path: Path, name: str | None, precision: str, pytestconfig: pytest.Config) -> None:
    """At every step if the whole matrix is asked for, at two that are drawn by lot otherwise."""

    def plan(folder: str) -> Plan:
        made = dataclasses.replace(small_plan(tmp_path / folder, name, epochs=3), checkpoint_steps=2)
        return in_bf16(made) if precision == "bf16" else made

    whole = plan("whole")
    fit(whole)
    draw = random.Random(f"{name}{precision}")
    steps = range(1, 9)
    for kill in steps if pytestconfig.getoption("whole_matrix") else sorted(draw.sample(steps, 2)):
        killed = plan(f"killed{kill}")
        killed.watchers = [KillsAtStep(kill)]
        with pytest.raises(Killed):
            fit(killed)
        resumed = plan(f"killed{kill}")
        fit(resumed)
        assert_same(whole, resumed)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", ["none", *CONTRACT_METHODS])
def test_killed_on_two_processes(tmp_path: Path, name: str, precision: str, pytestconfig: pytest.Config) -> None:
    whole = pytestconfig.getoption("whole_matrix")
    if not whole and (name, precision) != ("widened", "bf16"):
        pytest.skip("one cell of the matrix is enough here; make test-matrix runs all")
    worker = Path(__file__).parents[1] / "resume_worker.py"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(worker)]
    environment = os.environ | {"PYTHONPATH": str(worker.parent)}

    def run(folder: str, step: int) -> bytes | None:
        command = [*torchrun, str(tmp_path / folder), name, precision, str(step)]
        done = subprocess.run(command, check=False, capture_output=True, env=environment)
        assert (done.returncode == 0) == (step == 0), done.stderr.decode()[-2000:]
        weights = tmp_path / folder / "student.safetensors"
        return weights.read_bytes() if weights.exists() else None

    undisturbed = run("whole", 0)
    for step in (1, 4, 5, 8) if whole else (5,):
        assert run(f"killed{step}", step) is None
        assert run(f"killed{step}", 0) == undisturbed
        lines = [
            (tmp_path / folder / "metrics.jsonl").read_text().splitlines() for folder in ("whole", f"killed{step}")
        ]
        records = [[{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in part] for part in lines]
        assert records[0] == records[1]


def test_a_signal_saves_after_the_step_it_came_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = small_plan(tmp_path / "whole")
    fit(whole)
    asked = iter([0, 0, 0, 0, 143])
    monkeypatch.setattr(Stop, "asked", lambda self: next(asked))
    stopped = small_plan(tmp_path / "stopped")
    with pytest.raises(Interrupted, match="saved after step 5; the same command goes on") as caught:
        fit(stopped)
    assert caught.value.code == 143
    monkeypatch.undo()
    resumed = small_plan(tmp_path / "stopped")
    assert resumed.resumed().state.step == 5
    fit(resumed)
    assert_same(whole, resumed)


def test_stopped_at_the_last_step_of_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = small_plan(tmp_path / "whole")
    fit(whole)
    asked = iter([0, 0, 75])
    monkeypatch.setattr(Stop, "asked", lambda self: next(asked))
    with pytest.raises(Interrupted):
        fit(small_plan(tmp_path / "stopped"))
    monkeypatch.undo()
    resumed = small_plan(tmp_path / "stopped")
    fit(resumed)
    assert [json.loads(line)["epoch"] for line in resumed.metrics.read_text().splitlines()] == [1, 2, 3, 4]
    assert_same(whole, resumed)


def test_moving_average_is_resumed_and_saved(tmp_path: Path) -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    def plan(folder: str) -> Plan:
        made = dataclasses.replace(small_plan(tmp_path / folder), checkpoint_steps=2)
        student = made.state.student.module
        made.state.average = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
        return made

    whole = plan("whole")
    fit(whole)
    killed = plan("killed")
    killed.watchers = [KillsAtStep(5)]
    with pytest.raises(Killed):
        fit(killed)
    resumed = plan("killed")
    fit(resumed)
    assert_same(whole, resumed)
    plain = small_plan(tmp_path / "plain")
    fit(plain)
    assert plain.weights.read_bytes() != whole.weights.read_bytes()
    assert all(
        torch.equal(a, b)
        for a, b in zip(plain.state.student.module.parameters(), whole.state.student.module.parameters(), strict=True)
    )
