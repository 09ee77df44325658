"""Runs of methods that change the student or run it themselves: what they save is what they evaluated.

`evaluate` reads it.
"""

from pathlib import Path

import pytest
import torch

from rankdistill.cli.flags import flags_of, parse
from rankdistill.contract import Method
from rankdistill.methods import DEPLOYED, METHODS
from rankdistill.models import MODELS
from rankdistill.recipes.settings import SETTINGS
from rankdistill.runs.build import build
from rankdistill.runs.config import Data, Optim, Run
from rankdistill.runs.evaluate import evaluate_weights
from rankdistill.runs.options import options_of
from rankdistill.training.loop import fit
from rankdistill.weights.storage import load_weights, save_weights

SMALL_PAIR = ("resnet14", "resnet8")


def changes_the_student(kind: type[Method]) -> bool:
    return kind.adapt is not Method.adapt or kind.deploy is not Method.deploy or kind.forward is not Method.forward


CHANGING = [
    name
    for name, setting in SETTINGS.items()
    if any(changes_the_student(METHODS[options.method]) for options in setting(*SMALL_PAIR).losses.values())
]


def small_run(folder: Path, method: str, **changes: object) -> Run:
    torch.manual_seed(0)
    weights = folder / "teacher.safetensors"
    save_weights(weights, MODELS["resnet14"](3).state_dict(), {"model": "resnet14"})
    return Run(
        recipe="digits.test",
        student="resnet8",
        teacher="resnet14",
        teacher_weights=weights,
        losses=dict(SETTINGS[method](*SMALL_PAIR).losses),
        data=Data(name="digits", image_size=8, num_classes=3, num_labels=30, padding=1, flip=False),
        optim=Optim(epochs=2, batch_size=10, milestones=(1,)),
        threads=1,
        runs=folder,
        **changes,
    )


@pytest.mark.parametrize("method", CHANGING)
def test_saved_student_has_the_accuracy_of_the_run(method: str, tmp_path: Path) -> None:
    plan = build(small_run(tmp_path, method))
    result = fit(plan)
    weights, header = load_weights(plan.weights)
    assert (header.get("deployed") == "simkd") == (method == "simkd")
    assert header.get("deployed") in (None, *DEPLOYED)
    again = evaluate_weights(plan.weights)
    assert again["top1"] == pytest.approx(result["last"]["top1"])
    if "deployed" not in header:
        MODELS["resnet8"](3).load_state_dict(weights)


def test_a_run_that_is_continued_ends_the_same(tmp_path: Path) -> None:
    whole = build(small_run(tmp_path / "whole", "simkd"))
    fit(whole)
    halves = build(small_run(tmp_path / "halves", "simkd"))
    halves.epochs = 1
    fit(halves)
    rest = build(small_run(tmp_path / "halves", "simkd"))
    fit(rest)
    assert rest.weights.read_bytes() == whole.weights.read_bytes()


def test_a_student_with_other_layers_is_no_plain_teacher(tmp_path: Path) -> None:
    run = small_run(tmp_path, "catkd")
    save_weights(run.teacher_weights, {}, {"model": "resnet14", "deployed": "simkd"})
    with pytest.raises(ValueError, match=r"holds a resnet14 as simkd deploys it, .*: pass the weights of a plain"):
        build(run)


def test_borders_can_be_given_on_the_command_line() -> None:
    usual = options_of("fcfd")()
    options = parse(usual, flags_of(usual), ["--student-borders", "pre1", "pre2", "--num-paths", "1"], hint="help")
    assert (options.student_borders, options.teacher_borders, options.num_paths) == (("pre1", "pre2"), None, 1)
