"""A teacher fits its data, or is refused by a sentence that names both."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rankdistill.cli.main import main
from rankdistill.methods.simkd import Reusing
from rankdistill.models import MODELS
from rankdistill.recipes import RECIPES
from rankdistill.runs.build import build
from rankdistill.runs.config import Run
from rankdistill.runs.evaluate import evaluate_weights
from rankdistill.weights.storage import load_weights, save_weights

NAMES = ("bee", "cow", "dog")
HEADER: dict[str, Any] = {
    "model": "resnet8",
    "class_names": list(NAMES),
    "image_shape": [3, 16, 16],
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in NAMES:
            (root / part / name).mkdir(parents=True)
            for number in range(4):
                pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root


def teacher_file(folder: Path, num_classes: int = 3, **changes: Any) -> Path:
    torch.manual_seed(1)
    path = folder / "teacher.safetensors"
    header = {name: value for name, value in (HEADER | changes).items() if value is not None}
    save_weights(path, MODELS["resnet8"](num_classes).state_dict(), header)
    return path


def run_of(images: Path, weights: Path, **changes: Any) -> Run:
    run = RECIPES["digits.kd"](teacher="resnet8", student="resnet8")
    data = dataclasses.replace(run.data, name="imagefolder", root=images, image_size=16, num_labels=None, cache="off")
    folder = weights.parent / "runs"
    return dataclasses.replace(run, data=data, teacher_weights=weights, runs=folder, accelerator="cpu", **changes)


@pytest.mark.parametrize(
    ("num_classes", "changes", "message"),
    [
        (
            3,
            {"class_names": ["ant", "bee", "cow"]},
            r"knows 3 classes, 'ant', 'bee', 'cow', not the 3, .* of imagefolder",
        ),
        (
            3,
            {"class_names": ["cow", "bee", "dog"]},
            r"in another order \(0 is 'cow', not 'bee'\).* --teacher-classes by-n",
        ),
        (
            5,
            {"class_names": ["a", "bee", "b", "cow", "dog"]},
            r"knows 5 .* pass --teacher-classes by-name to take them",
        ),
        (
            3,
            {"image_shape": [3, 32, 32]},
            r"for images of 3 x 32 x 32, this run has 3 x 16 x 16: pass --data.image-size 32",
        ),
        (
            3,
            {"mean": [0.5, 0.5, 0.5]},
            r"for images with mean 0.5, 0.5, 0.5, imagefolder has 0.485, 0.456, 0.406: take",
        ),
        (3, {"std": [0.3, 0.224, 0.225]}, "for images with std 0.3, 0.224, 0.225, imagefolder has 0.229"),
        (3, {"mean": [0.5], "std": [0.5]}, "for images with mean 0.5, imagefolder has"),
        (5, {"class_names": None}, r"'fc.weight' has shape \(5, 64\), not \(3, 64\)"),
    ],
)
def test_a_teacher_of_other_data_is_refused(
    images: Path, tmp_path: Path, num_classes: int, changes: dict[str, Any], message: str
) -> None:
    weights = teacher_file(tmp_path, num_classes, **changes)
    with pytest.raises(ValueError, match=message):
        build(run_of(images, weights))
    assert not (tmp_path / "runs").exists()


def test_classes_are_taken_by_their_names(images: Path, tmp_path: Path) -> None:
    names = ["dog", "ant", "bee", "cow"]
    weights = teacher_file(tmp_path, 4, class_names=names)
    plan = build(run_of(images, weights, teacher_classes="by-name"))
    assert plan.state.teacher is not None
    whole = MODELS["resnet8"](4).eval()
    whole.load_state_dict(load_weights(weights)[0])
    batch = next(iter(plan.test()))
    with torch.no_grad():
        expected = whole(batch.images)[:, [2, 3, 0]]
        assert torch.allclose(plan.state.teacher.module(batch.images), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["dog", "ant", "bee"],
            r"has no class 'cow': its classes cannot be chosen by name \(1 of imagefolder missing\)",
        ),
        (["dog", "bee", "bee"], "has no class 'cow'|has two classes of one name"),
        (None, "does not name its classes: they cannot be chosen by name; leave out --teacher-classes"),
    ],
)
def test_classes_that_cannot_be_taken_by_name(
    images: Path, tmp_path: Path, names: list[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(run_of(images, teacher_file(tmp_path, class_names=names), teacher_classes="by-name"))


def test_another_choice_of_the_same_classes_is_another_run(images: Path, tmp_path: Path) -> None:
    same = build(run_of(images, teacher_file(tmp_path)))
    named = build(run_of(images, teacher_file(tmp_path), teacher_classes="by-name"))
    assert same.folder == named.folder  # the teacher is the same


def test_evaluate_compares_classes_and_takes_them_by_name(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = teacher_file(tmp_path, class_names=["dog", "cow", "bee"], data={"name": "imagefolder", "image_size": 16})
    command = ["evaluate", str(weights), "--root", str(images)]
    assert main(command) == 2
    assert "knows the classes in another order (0 is 'dog', not 'bee')" in capsys.readouterr().err
    assert main([*command, "--classes", "by-name"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 12


def test_evaluate_takes_classes_of_deployed_students_by_name(tmp_path: Path) -> None:
    """Their classifier is no layer of the plain network."""
    plain, names = MODELS["resnet8"](10), [str(9 - digit) for digit in range(10)]
    torch.manual_seed(0)
    student = Reusing.rebuild(plain, simkd_weights(plain, 10))
    header = HEADER | {"class_names": names, "data": {"name": "digits", "image_size": 8, "num_classes": 10}}
    header |= {"image_shape": [3, 8, 8], "mean": [0.3063] * 3, "std": [0.3766] * 3, "deployed": "simkd"}
    save_weights(tmp_path / "a.safetensors", student.state_dict(), header)
    with pytest.raises(ValueError, match=r"another order \(0 is '9', not '0'\)"):
        evaluate_weights(tmp_path / "a.safetensors")
    weights = student.state_dict()
    weights |= {name: weights[name].flip(0) for name in ("classifier_weight", "classifier_bias")}
    save_weights(tmp_path / "b.safetensors", weights, header | {"class_names": names[::-1]})
    by_name = evaluate_weights(tmp_path / "a.safetensors", classes="by-name")
    assert by_name == evaluate_weights(tmp_path / "b.safetensors")
    assert 0.0 < float(by_name["top1"]) < 100.0


def simkd_weights(plain: torch.nn.Module, num_classes: int) -> dict[str, torch.Tensor]:
    """What `Reusing.rebuild` reads."""
    channels = plain.state_dict()["fc.weight"].shape[1]
    return {
        "projector.0.weight": torch.empty(16, channels, 1, 1),
        "projector.6.weight": torch.empty(32, 16, 1, 1),
        "teacher_size": torch.tensor([2, 2]),
        "classifier_weight": torch.randn(num_classes, 32),
        "classifier_bias": torch.randn(num_classes),
    }


@pytest.mark.parametrize(
    "change",
    [
        {"teacher_size": torch.tensor([2.0, float("nan")])},
        {"teacher_size": torch.tensor([-1, 0])},
        {"teacher_size": torch.ones(3)},
        {"projector.6.weight": torch.ones(())},
        {"projector.0.weight": torch.ones(0, 64, 1, 1)},
        {"projector.0.weight": torch.ones(1, 7, 1, 1)},
        {"projector.6.weight": torch.ones(100_000, 1)},
        {"classifier_weight": torch.ones(10, 5)},
        {"classifier_weight": torch.ones(3, 32), "classifier_bias": torch.ones(3)},
        {"classifier_bias": torch.ones(10, 10, 10)},
    ],
)
def test_what_is_no_deployed_student_is_refused(tmp_path: Path, change: dict[str, torch.Tensor]) -> None:
    plain = MODELS["resnet8"](10)
    weights = Reusing.rebuild(plain, simkd_weights(plain, 10)).state_dict() | change
    header = {"model": "resnet8", "deployed": "simkd", "data": {"name": "digits", "image_size": 8}}
    save_weights(tmp_path / "a.safetensors", {name: value.contiguous() for name, value in weights.items()}, header)
    with pytest.raises(ValueError, match=r"a\.safetensors (holds no|holds a|is not this|is not a|has NaN)"):
        evaluate_weights(tmp_path / "a.safetensors")


def test_what_a_run_writes_fits_the_run_that_it_teaches(images: Path, tmp_path: Path) -> None:
    options = ["--data.root", str(images), "--data.image-size", "16", "--data.cache", "off", "--epochs", "1"]
    options += ["--runs", str(tmp_path)]
    command = ["train-teacher", "digits", "--data", "imagefolder", "--model", "resnet8", *options]
    assert main(command) == 0
    weights = next(tmp_path.glob("digits.teacher/*/*/student.safetensors"))
    assert load_weights(weights)[1]["image_shape"] == [3, 16, 16]
    student = ["--teacher", "resnet8", "--teacher-weights", str(weights), "--data.num-labels", "6"]
    assert main(["distill", "digits.kd", "--data", "imagefolder", *student, *options]) == 0


def test_a_teacher_that_guesses_is_told_loudly(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "others.safetensors"
    save_weights(weights, MODELS["resnet8"](10).state_dict(), {})
    quick = ["--data.image-size", "8", "--epochs", "1", "--runs", str(tmp_path / "runs")]
    networks = ["--teacher", "resnet8", "--student", "resnet8", "--teacher-weights", str(weights)]
    assert main(["distill", "digits.kd", *networks, *quick]) == 0
    assert "WARNING: the teacher's top-1 is" in " ".join(capsys.readouterr().out.split())
