"""Update rules in whole runs: built from a configuration, killed, resumed."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from rankdistill import UPDATES
from rankdistill.runs.build import build
from rankdistill.runs.config import Data, Optim, Run, describe
from rankdistill.runs.options import loss, update_rule
from rankdistill.training.loop import fit
from rankdistill.training.plan import Plan, Record

RULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dot": ({"rule": "dot", "delta": 0.05}, {"task": loss("ce", 0.1), "kd": loss("kd", 0.9)}),
    **{
        f"bilevel {form}": (
            {"rule": "bilevel", "every": 3, "look_ahead": form, "held_out_per_class": 5, "held_out_batch": 8},
            {"task": loss("ce"), "cald": loss("cald", 0.9)},
        )
        for form in ("exact", "finite_difference", "last_layer")
    },
}


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


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = build(small_run(tmp_path_factory.mktemp("teacher"), student="resnet14", epochs=1))
    fit(plan)
    return plan.weights


def small_run(folder: Path, *, student: str = "resnet8", epochs: int = 2, **changes: Any) -> Run:
    data = Data(name="digits", image_size=8, num_classes=3, num_labels=60, padding=1, flip=False)
    optim = Optim(epochs=epochs, schedule="cosine", milestones=(), batch_size=12)
    run = Run("test.run", student, None, {"task": loss("ce")}, data, optim, runs=folder, threads=1, evaluate_every=2)
    return dataclasses.replace(run, **changes)


def ruled_run(folder: Path, name: str, teacher: Path) -> Run:
    options, losses = RULES[name]
    return small_run(folder, losses=losses, update=update_rule(**options), teacher="resnet14", teacher_weights=teacher)


def flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for each in value.values() for tensor in flat(each)]
    return [tensor for each in value for tensor in flat(each)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", RULES)
def test_a_resumed_run_is_bit_equal_in_weights_and_in_every_state(name: str, teacher: Path, tmp_path: Path) -> None:
    whole = build(ruled_run(tmp_path / "whole", name, teacher))
    fit(whole)
    killed = build(ruled_run(tmp_path / "killed", name, teacher), [KillsAfter(1)])
    with pytest.raises(Killed):
        fit(killed)
    resumed = build(ruled_run(tmp_path / "killed", name, teacher))
    fit(resumed)
    assert whole.weights.read_bytes() == resumed.weights.read_bytes()
    left, right = (flat(plan.state.state_dict()) for plan in (whole, resumed))
    assert len(left) == len(right) > 2 * len(list(whole.state.student.module.parameters()))
    assert all(torch.equal(*pair) for pair in zip(left, right, strict=True))
    losses = [[json.loads(line)["loss"] for line in plan.metrics.read_text().splitlines()] for plan in (whole, resumed)]
    assert losses[0] == losses[1]


def test_bilevel_checkpoints_hold_adams_moments_and_the_meta_parameters(teacher: Path, tmp_path: Path) -> None:
    plan = build(ruled_run(tmp_path, "bilevel exact", teacher))
    fit(plan)
    saved = plan.state.state_dict()
    assert saved["meta_optimizer"]["state"][0]["step"] == 3  # of 8 steps, every third
    assert saved["meta_optimizer"]["state"][0]["exp_avg"].any()
    learned = saved["method"]["methods.cald.temperature_logits"]
    assert learned.std() > 0


def test_bilevel_images_are_kept_out_of_training(teacher: Path, tmp_path: Path) -> None:
    plan = build(ruled_run(tmp_path, "bilevel exact", teacher))
    assert plan.loader.num_samples == 60 - 3 * 5
    batches = list(plan.loader.epoch(1))
    held_out = [batch.held_out for batch in batches if batch.held_out is not None]
    assert [len(batch) for batch in held_out] == [8, 8]
    trained = torch.cat([batch.images.flatten(1) for batch in batches])
    assert torch.cdist(torch.cat([b.images.flatten(1) for b in held_out]), trained).min() > 0


def test_rule_and_losses_that_do_not_go_together(teacher: Path, tmp_path: Path) -> None:
    run = ruled_run(tmp_path, "dot", teacher)
    with pytest.raises(ValueError, match="Bilevel learns meta-parameters, and no loss has any"):
        build(dataclasses.replace(run, update=update_rule("bilevel", held_out_per_class=2)))
    with pytest.raises(ValueError, match="CALD has meta-parameters, which the update rule DOT does not learn"):
        build(dataclasses.replace(run, losses={"task": loss("ce"), "cald": loss("cald")}))
    with pytest.raises(ValueError, match="nesterov is True"):
        build(dataclasses.replace(run, optim=dataclasses.replace(run.optim, nesterov=True)))
    with pytest.raises(ValueError, match="60 of 60 samples are to be held out"):
        build(dataclasses.replace(run, update=update_rule("bilevel", held_out_per_class=20)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", UPDATES)
def test_every_rule_has_options_that_pickle_and_are_part_of_the_identity(name: str, tmp_path: Path) -> None:
    run = small_run(tmp_path, update=update_rule(name))
    assert pickle.loads(pickle.dumps(run)) == run
    assert describe(run)["update"]["rule"] == run.update.rule == name
    UPDATES[name](**dataclasses.asdict(run.update))


def test_options_of_a_rule_are_part_of_the_identity(tmp_path: Path) -> None:
    one, other = (small_run(tmp_path, update=update_rule("dot", delta=delta)) for delta in (0.05, 0.075))
    assert describe(one) != describe(other)
    with pytest.raises(ValueError, match="unknown update rule 'bilevell': did you mean bilevel"):
        update_rule("bilevell")
