"""What a run gives is found again in the other programs' own readers."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from small_runs import small_plan

from rankdistill.cli.main import main
from rankdistill.training.loggers import LOGGERS, Profile, flattened
from rankdistill.training.loop import fit
from rankdistill.training.plan import Plan, Record
from rankdistill.training.signals import EXIT_CODES, Interrupted


def logged(folder: Path, name: str, epochs: int = 2) -> Plan:
    plan = small_plan(folder, epochs=epochs)
    plan.watchers = [LOGGERS[name]()]
    fit(plan)
    return plan


def test_numbers_of_a_record_by_name() -> None:
    record = {"epoch": 2, "loss": {"task": 1.5, "ra": {"x": 2}}, "name": "no number"}
    assert dict(flattened(record)) == {"epoch": 2.0, "loss/task": 1.5, "loss/ra/x": 2.0}


def test_tensorboard_has_every_number_of_every_epoch_also_after_going_on(tmp_path: Path) -> None:
    logged(tmp_path, "tensorboard", epochs=1)
    plan = logged(tmp_path, "tensorboard", epochs=3)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name in ("loss/task", "top1", "lr", "gradient_norm", "time/data", "images_per_second", "teacher_top1"):
        found = {event.step: event.value for event in events.Scalars(name)}
        expected = {record["epoch"]: dict(flattened(record))[name] for record in plan.records}
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("default")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs the extra: pip install 'rankdistill[log]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    plan = logged(tmp_path, "wandb")
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert file.stat().st_size > 0
    assert b"loss/task" in file.read_bytes()
    assert len(plan.records) == 2


@pytest.mark.filterwarnings("default")
def test_mlflow_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra: pip install 'rankdistill[log]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    plan = logged(tmp_path / "run", "mlflow")
    (file,) = tmp_path.glob("mlruns/*/*/metrics/loss/task")
    values = [float(line.split()[1]) for line in file.read_text().splitlines()]
    assert values == pytest.approx([record["loss"]["task"] for record in plan.records])


@pytest.mark.filterwarnings("default")
def test_profile_is_a_trace(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, epochs=4)
    plan.watchers = [Profile()]
    fit(plan)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert any("conv" in event.get("name", "") for event in events)
    assert not list(tmp_path.glob(".trace*"))


class Signals:
    """Sends a signal to its own process after some steps."""

    def __init__(self, number: signal.Signals, steps: int) -> None:
        self.number, self.left = number, steps

    def start(self, plan: Plan) -> None:
        pass

    def note(self, sentence: str) -> None:
        pass

    def step(self, images: int) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)

    def epoch(self, record: Record) -> None:
        pass


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", EXIT_CODES)
def test_a_signal_saves_at_the_end_of_the_step(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    plan = small_plan(tmp_path)
    plan.watchers = [Signals(number, 5)]
    with pytest.raises(Interrupted) as caught:
        fit(plan)
    assert caught.value.code == {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129, "SIGUSR1": 75}[number.name]
    assert small_plan(tmp_path).resumed().state.step == 5
    assert signal.getsignal(number) is before


def test_a_logger_without_its_package_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    assert main(["distill", "digits.plain", "--loggers", "wandb"]) == 2
    message = "loggers has wandb, whose package is not installed: pip install 'rankdistill[log]', or leave it out"
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
