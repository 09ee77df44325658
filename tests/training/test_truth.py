"""What a folder has of a run is believed only where it is whole, and only one run writes to it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import Killed, KillsAtStep, assert_same, outcome, small_plan

from rankdistill.training.clock import Clock
from rankdistill.training.lock import Refused, holding
from rankdistill.training.loop import fit
from rankdistill.training.plan import Record
from rankdistill.weights.durable import WriteError, digest_path


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.pt"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "without its digest": lambda path: digest_path(path).unlink(),
    "with an empty digest": lambda path: digest_path(path).write_bytes(b""),
    "with a digest that is none": lambda path: digest_path(path).write_bytes(b"\xff\xfe" * 40),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", list(DAMAGES.values())[:-1], ids=list(DAMAGES)[:-1])
def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    whole = small_plan(tmp_path / "whole")
    fit(whole)
    fit(small_plan(tmp_path / "damaged", epochs=3))
    damage(checkpoints(tmp_path / "damaged")[-1])
    again = small_plan(tmp_path / "damaged")
    assert again.resumed().state.epoch == 2
    again = small_plan(tmp_path / "damaged")
    fit(again)
    assert_same(whole, again)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_where_all_checkpoints_are_damaged_the_run_says_so_and_only_again_starts_anew(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    fit(small_plan(tmp_path, epochs=2))
    for path in checkpoints(tmp_path):
        damage(path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(Refused, match=r"no checkpoint of this run can be used \(.*\): pass --again to train anew$"):
        fit(small_plan(tmp_path, epochs=2))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_foreign_file_among_the_checkpoints_is_left_alone(tmp_path: Path) -> None:
    whole = small_plan(tmp_path / "whole")
    fit(whole)
    fit(small_plan(tmp_path / "visited", epochs=2))
    foreign = tmp_path / "visited" / "checkpoint-best.pt"
    foreign.write_bytes(b"someone else's")
    again = small_plan(tmp_path / "visited")
    fit(again)
    assert_same(whole, again)
    assert foreign.read_bytes() == b"someone else's"
    assert len(checkpoints(tmp_path / "visited")) == 3


def test_a_folder_where_a_checkpoint_goes_is_named(tmp_path: Path) -> None:
    fit(small_plan(tmp_path, epochs=1))
    (tmp_path / "checkpoint-000000006.pt").mkdir()
    with pytest.raises(WriteError, match=r"000006.pt cannot be written .* a folder stands where the file"):
        fit(small_plan(tmp_path, epochs=2))


def test_again_trains_anew_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = small_plan(tmp_path / "whole")
    fit(whole)
    fit(small_plan(tmp_path / "other", epochs=2))
    flip(checkpoints(tmp_path / "other")[-1])
    flip(checkpoints(tmp_path / "other")[-2])
    again = small_plan(tmp_path / "other")
    again.again = True
    fit(again)
    assert_same(whole, again)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-20],
        lambda text: text * 2,
        lambda text: text.replace("lr", "LR"),
        lambda text: text.replace("0.", "9."),
        lambda text: "[1]\nnull\n\x00\n" + text,
    ],
)
def test_metrics_are_rewritten_from_the_checkpoint(tmp_path: Path, change: Callable[[str], str]) -> None:
    whole = small_plan(tmp_path / "whole")
    fit(whole)
    part = small_plan(tmp_path / "part", epochs=2)
    fit(part)
    written = part.metrics.read_text()
    part.metrics.write_text(change(written))
    again = small_plan(tmp_path / "part", epochs=2)
    fit(again)
    assert again.metrics.read_text() == written
    part.metrics.write_text(change(written))
    fit(small_plan(tmp_path / "part"))
    assert_same(whole, small_plan(tmp_path / "part").resumed())


@pytest.mark.parametrize("name", ["result.json", "student.safetensors"])
@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: digest_path(path).unlink()])
def test_a_run_counts_as_done_only_while_its_result_and_its_student_are_whole(
    tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    plan = small_plan(tmp_path, epochs=1)
    assert plan.finished() is None
    result = fit(plan)
    assert plan.finished() == result
    student = plan.weights.read_bytes()
    damage(tmp_path / name)
    assert plan.finished() is None
    timeless = {key: result["last"][key] for key in ("top1", "loss")}
    found = fit(small_plan(tmp_path, epochs=1))  # from the checkpoint, without a step
    assert {key: found["last"][key] for key in ("top1", "loss")} == timeless
    assert plan.weights.read_bytes() == student


def hold(folder: Path, held: multiprocessing.synchronize.Event) -> None:
    with holding(folder):
        held.set()
        time.sleep(600)


def test_a_second_run_in_the_folder_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("spawn")
    held = processes.Event()
    first = processes.Process(target=hold, args=(tmp_path, held), daemon=True)
    first.start()
    assert held.wait(60)
    with pytest.raises(Refused, match=r"^a run is under way in .*: wait for its end, or stop it$"):
        fit(small_plan(tmp_path, epochs=1))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    os.kill(first.pid or 0, signal.SIGKILL)
    first.join()
    fit(small_plan(tmp_path, epochs=1))


def test_what_killed_runs_left_half_written_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-000000003.pt.12345.tmp").write_bytes(b"half")
    fit(small_plan(tmp_path, epochs=1))
    assert [path.name for path in tmp_path.glob(".*")] == [".lock"]


class Full:
    """Lets the disk be full from a step on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        self.monkeypatch, self.left = monkeypatch, step

    def start(self, plan: object) -> None:
        pass

    def note(self, sentence: str) -> None:
        pass

    def step(self, images: int) -> None:
        self.left -= 1
        if self.left == 0:
            self.monkeypatch.setattr("os.fsync", self.fail)

    def epoch(self, record: Record) -> None:
        pass

    def fail(self, file: int) -> None:
        raise OSError(28, "No space left on device")


def test_a_full_disk_names_the_file_and_the_same_command_goes_on_when_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = small_plan(tmp_path / "whole")
    fit(whole)
    full = small_plan(tmp_path / "full")
    full.watchers = [Full(monkeypatch, 5)]
    with pytest.raises(WriteError, match=r"metrics.jsonl cannot be written \(No space left on device\): free some"):
        fit(full)
    monkeypatch.undo()
    assert not list(full.folder.glob(".*.tmp"))
    again = small_plan(tmp_path / "full")
    fit(again)
    assert_same(whole, again)


def test_on_the_command_line_it_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from rankdistill.cli import main; sys.exit(main())"
    )
    options = ["--data.image-size", "8", "--data.num-classes", "3", "--data.num-labels", "30", "--optim.epochs", "1"]
    done = subprocess.run(
        [sys.executable, "-c", program, "train-teacher", "digits", "--model", "resnet20", "--runs", tmp_path, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("rankdistill: ")
    assert "cannot be written (File too large): allow larger files; the same command goes on" in last
    assert "Traceback" not in done.stderr


def test_a_folder_for_runs_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(WriteError, match=r"runs/a cannot be written \(.*\): choose another folder by --runs"):
        fit(small_plan(tmp_path / "runs" / "a", epochs=1))


def test_a_killed_run_has_the_records_of_its_checkpoint(tmp_path: Path) -> None:
    whole = small_plan(tmp_path / "whole")
    fit(whole)
    killed = small_plan(tmp_path / "killed")
    killed.watchers = [KillsAtStep(7)]
    with pytest.raises(Killed):
        fit(killed)
    killed.metrics.unlink()
    again = small_plan(tmp_path / "killed")
    fit(again)
    assert outcome(again)[2] == outcome(whole)[2]


def test_a_phase_within_another_one_stops_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 3.0, 7.0, 100.0, 101.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = Clock()
    with clock("outer"), clock("inner"):
        pass
    with clock("outer"):
        pass
    monkeypatch.undo()
    assert clock.take() == {"outer": 1.0 + 4.0 + 1.5, "inner": 2.0}
    assert clock.take() == {}


def test_phases_of_an_epoch_leave_out_what_was_before_it(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "matched", epochs=1)
    assert plan.state.teacher is not None
    plan.state.teacher.around = lambda: plan.state.clock("teacher")
    with plan.state.clock("teacher"):
        time.sleep(0.2)
    before = time.perf_counter()
    fit(plan)
    assert 0 < plan.records[0]["time"]["teacher"] < time.perf_counter() - before
    assert sum(plan.records[0]["time"].values()) <= plan.records[0]["seconds"]
    assert json.loads(plan.metrics.read_text())["time"]["student"] > 0
