import dataclasses
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from contract_methods import CONTRACT_METHODS, Widened, random_batch
from small_runs import CLASSES, SAMPLES, outcome, small_plan
from torch import nn

from rankdistill import Batch, CrossEntropy, Losses, Method, Network, Output, Sum
from rankdistill.training.evaluate import evaluate
from rankdistill.training.loop import _step_seed, fit, train_epoch
from rankdistill.training.plan import Plan, Record
from rankdistill.training.step import descend
from rankdistill.weights.storage import load_weights


class Killed(Exception):
    pass


class KillsAfter:
    def __init__(self, epoch: int) -> None:
        self.last = epoch

    def start(self, plan: Plan) -> None:
        pass

    def note(self, sentence: str) -> None:
        pass

    def step(self, images: int) -> None:
        pass

    def epoch(self, record: Record) -> None:
        if record["epoch"] == self.last:
            raise Killed


class Calibrated(Method):
    """Remembers the spread of the teacher's logits, found before the first step, and logs the distance from it."""

    observes = True

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spread", torch.zeros(()))
        self.images_seen = 0

    def prepare(self, teacher: Network | None, batches: Callable[[], Iterable[Batch]]) -> list[str]:
        assert teacher is not None
        seen = list(batches())
        self.images_seen = sum(len(batch) for batch in seen)
        self.spread.copy_(torch.cat([teacher.run(batch).logits for batch in seen]).std())
        return ["calibrated"]

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        return {"spread": (student.logits.std() - self.spread).square()}

    def observe(self, batch: Batch, student: Output, teacher: Output) -> dict[str, float]:
        return {"distance": float(student.logits.std() - self.spread)}


class Listener:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def start(self, plan: Plan) -> None:
        self.heard.append("start")

    def note(self, sentence: str) -> None:
        self.heard.append(sentence)

    def step(self, images: int) -> None:
        pass

    def epoch(self, record: Record) -> None:
        self.heard.append(f"epoch {record['epoch']}")


def calibrated_plan(folder: Path, *, epochs: int) -> Plan:
    plan = small_plan(folder, epochs=epochs)
    plan.state.method = Sum(task=(1.0, CrossEntropy()), cal=(0.1, Calibrated()))
    plan.watchers = [Listener()]
    return plan


def test_a_method_prepares_once_and_is_observed_every_epoch(tmp_path: Path) -> None:
    whole = calibrated_plan(tmp_path / "whole", epochs=2)
    fit(whole)
    first = calibrated_plan(tmp_path / "two", epochs=1)
    fit(first)
    second = calibrated_plan(tmp_path / "two", epochs=2)
    fit(second)
    assert first.watchers[0].heard == ["start", "calibrated", "epoch 1"]
    assert second.watchers[0].heard == ["start", "epoch 2"]
    assert first.state.method.methods["cal"].images_seen == SAMPLES
    assert [record["observed"].keys() for record in second.records] == [{"cal/distance"}] * 2
    assert whole.weights.read_bytes() == second.weights.read_bytes()
    assert outcome(whole)[2] == outcome(second)[2]


@pytest.mark.parametrize("name", [None, *CONTRACT_METHODS])
def test_resumed_run_is_bit_equal(tmp_path: Path, name: str | None) -> None:
    whole = small_plan(tmp_path / "whole", name)
    fit(whole)
    killed = small_plan(tmp_path / "killed", name)
    killed.watchers = [KillsAfter(2)]
    with pytest.raises(Killed):
        fit(killed)
    resumed = small_plan(tmp_path / "killed", name)
    fit(resumed)
    for left, right in zip(outcome(whole)[:2], outcome(resumed)[:2], strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    assert outcome(whole)[2] == outcome(resumed)[2]
    assert whole.weights.read_bytes() == resumed.weights.read_bytes()


def test_sigkill_between_epochs_and_again(tmp_path: Path) -> None:
    """A real kill of a real process through the command line, against a run that was left alone."""
    options = ["digits", "--model", "resnet8", "--data.image-size", "8", "--data.num-labels", "100"]
    options += ["--optim.epochs", "12", "--optim.schedule", "multistep", "--optim.milestones", "6"]
    command = [sys.executable, "-m", "rankdistill", "train-teacher", *options, "--runs"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("killed/**/checkpoint-000000004.pt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("killed/**/student.safetensors")), "the run ended before it could be killed"
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    whole, killed = (next(tmp_path.glob(f"{name}/**/student.safetensors")).read_bytes() for name in ("whole", "killed"))
    assert whole == killed


def test_metrics_written_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, epochs=2)
    fit(plan)
    with plan.metrics.open("a") as file:
        file.write('{"epoch": 3, "loss": {}}\n{"epo')
    again = small_plan(tmp_path, epochs=3)
    fit(again)
    assert [record["epoch"] for record in outcome(again)[2]] == [1, 2, 3]
    assert outcome(again)[2][2]["loss"]


def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    whole = small_plan(tmp_path / "whole")
    fit(whole)
    plan = small_plan(tmp_path / "damaged", epochs=3)
    fit(plan)
    newest = sorted(plan.folder.glob("checkpoint-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    again = small_plan(tmp_path / "damaged")
    assert again.resumed().state.epoch == 2
    fit(again)
    assert again.weights.read_bytes() == whole.weights.read_bytes()


def test_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    fit(plan)
    names = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert names == [f"checkpoint-{n:09d}.pt{end}" for n in (9, 12) for end in ("", ".sha256")]


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    fit(small_plan(tmp_path, epochs=1))
    other = small_plan(tmp_path, epochs=2)
    other.identity = {"config": "other"}
    with pytest.raises(ValueError, match=r"was made with .* use another folder"):
        fit(other)


def test_teacher_is_the_same_after_training(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "mixed_path")
    assert plan.state.teacher is not None
    before = {key: value.clone() for key, value in plan.state.teacher.module.state_dict().items()}
    fit(plan)
    after = plan.state.teacher.module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_checkpoint_holds_no_teacher(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "bank", epochs=1)
    fit(plan)
    saved = torch.load(tmp_path / "checkpoint-000000003.pt", weights_only=True)
    progress = {"epoch", "step", "sums", "count", "seconds", "gradient_norm", "first_norms", "records"}
    assert saved.keys() == {"student", "method", "optimizer", "identity"} | progress
    assert saved["student"].keys() == plan.state.student.module.state_dict().keys()


def test_descend_is_one_sgd_step_on_the_sum(tmp_path: Path) -> None:
    plan, twin = small_plan(tmp_path / "a", "matched"), small_plan(tmp_path / "b", "matched")
    batch = random_batch(size=6, num_classes=CLASSES, num_samples=SAMPLES)
    descend(plan.state, batch)
    state = twin.state
    sum(state.method(batch, state.student, state.teacher).values()).backward()
    state.optimizer.step()
    for left, right in zip(plan.state.method.parameters(), state.method.parameters(), strict=True):
        assert torch.equal(left, right)
    for left, right in zip(plan.state.student.module.parameters(), state.student.module.parameters(), strict=True):
        assert torch.equal(left, right)


def test_losses_are_means_over_samples(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, lr=1e-30)
    means = train_epoch(plan, 1)
    twin = small_plan(tmp_path, lr=1e-30)
    twin.state.student.module.train()
    expected = 0.0
    for batch in twin.loader.epoch(1):
        logits = twin.state.student.module(batch.images)
        expected += nn.functional.cross_entropy(logits, batch.labels, reduction="sum").item()
    assert means["task"] == pytest.approx(expected / SAMPLES, rel=1e-5)
    assert plan.state.step == len(plan.loader) == 3


def test_infinite_loss_stops_the_run_and_is_named(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, lr=1e30)
    with pytest.raises(FloatingPointError, match="the loss task is not finite in epoch"):
        fit(plan)
    assert not plan.weights.exists()


def test_learning_rate_of_each_epoch(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    fit(plan)
    assert [record["lr"] for record in plan.records] == pytest.approx([0.05, 0.05, 0.005, 0.005])


def test_result_has_last_and_best(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    result = fit(plan)
    assert result["last"]["epoch"] == 4
    assert result["best"]["top1"] == max(record["top1"] for record in plan.records)
    assert result["seconds"] == pytest.approx(sum(record["seconds"] for record in plan.records))
    assert json.loads((tmp_path / "result.json").read_text()) == result


def test_evaluation_and_checkpoints_every_few_epochs(tmp_path: Path) -> None:
    plan = dataclasses.replace(small_plan(tmp_path, epochs=5), evaluate_every=2, checkpoint_every=3)
    fit(plan)
    assert [record["epoch"] for record in plan.records if "top1" in record] == [2, 4, 5]
    assert [path.name for path in sorted(tmp_path.glob("*.pt"))] == [
        "checkpoint-000000009.pt",
        "checkpoint-000000015.pt",
    ]


def test_deployed_student_is_what_is_saved_and_evaluated(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "widened", epochs=1)
    result = fit(plan)
    method = plan.state.method.methods["kd"]
    assert isinstance(method, Widened)
    deployed = method.deploy(plan.state.student.module)
    assert evaluate(deployed, plan.test())["top1"] == result["last"]["top1"]
    saved = load_weights(plan.weights)[0]
    assert saved.keys() == deployed.state_dict().keys()


class Constant(nn.Module):
    """Logits that are the image's first pixels, so that accuracy can be worked out by hand."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


def test_accuracy_counts_each_sample_once() -> None:
    logits = torch.eye(8)[:, :, None, None]
    batches = [Batch(logits[:5], torch.tensor([0, 1, 2, 0, 7])), Batch(logits[5:8], torch.tensor([5, 1, 0]))]
    accuracy = evaluate(Constant(), batches)
    assert accuracy["top1"] == pytest.approx(100 * 4 / 8)
    ties = torch.stack([row.flatten().topk(5).indices for row in logits])
    labels = torch.tensor([0, 1, 2, 0, 7, 5, 1, 0])
    assert accuracy["top5"] == pytest.approx(100 * float((ties == labels[:, None]).any(1).float().mean()))


def test_no_top5_with_few_classes() -> None:
    assert evaluate(Constant(), [Batch(torch.eye(3)[:, :, None, None], torch.arange(3))]) == {"top1": 100.0}


def test_step_seeds_differ() -> None:
    seeds = {_step_seed(seed, step) for seed in range(20) for step in range(200)}
    assert len(seeds) == 4000
    assert all(0 <= seed < 2**63 and math.isfinite(seed) for seed in seeds)
