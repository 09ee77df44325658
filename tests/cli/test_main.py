import dataclasses
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from rankdistill import MODELS
from rankdistill.cli.main import COMMANDS, main
from rankdistill.recipes import RECIPES
from rankdistill.runs.config import Run, in_so_many_epochs
from rankdistill.weights.storage import load_weights, save_weights

QUICK = ["--data.image-size", "8", "--data.num-classes", "3", "--data.num-labels", "30", "--optim.epochs", "2"]


def output(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, with line breaks taken out."""
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("teacher")
    assert main(["train-teacher", "digits", "--model", "resnet14", "--runs", str(runs), *QUICK]) == 0
    return next(runs.glob("digits.teacher/resnet14/*/student.safetensors"))


LIGHT = {
    "help": (["--help"], "usage: rankdistill COMMAND"),
    "version": (["--version"], "rankdistill "),
    "nothing": ([], "usage: rankdistill COMMAND"),
    "wrong command": (["distil"], "did you mean distill?"),
    "list": (["list"], "resnet8x4"),
    "list of a word": (["list", "kendall"], "rkkd"),
    "help of a recipe": (["distill", "cifar100.ra", "--help"], "--losses.ra.weight"),
    "whole help": (["distill", "cifar100.crd", "--help-all"], "--losses.crd.num-negatives"),
    "help of a chain": (["distill", "cifar100.takd", "--help"], "--assistants"),
    "help of a teacher": (["train-teacher", "digits", "--help"], "--model"),
    "recipes": (["distill", "--help"], "tiny_imagenet.METHOD"),
    "evaluate": (["evaluate", "--help"], "--root"),
    "convert": (["convert-checkpoint", "--help"], "student|teacher|ema"),
    "demo": (["demo", "--help"], "--seeds"),
    "wrong recipe": (["distill", "cifar100.raa"], "did you mean cifar100.ra"),
    "wrong option": (["distill", "cifar100.ra", "--losses.ra.epslion", "1"], "did you mean --losses.ra.epsilon?"),
    "wrong value": (["distill", "cifar100.ra", "--epochs", "many"], "a whole number is needed"),
    "wrong model": (["distill", "cifar100.ra", "--student", "resnet9"], "did you mean resnet"),
    "wrong rule": (["distill", "cifar100.ra", "--update", "dott"], "did you mean dot?"),
    "wrong data": (["distill", "cifar100.ra", "--data", "cifra"], "did you mean cifar10 or cifar100?"),
}


@pytest.mark.parametrize("case", LIGHT)
def test_light_answers_import_nothing_heavy(case: str) -> None:
    arguments, answer = LIGHT[case]
    code = (
        f"import sys; from rankdistill.cli.main import main; main({arguments})\n"
        "sys.exit(bool({'torch', 'numpy', 'numba', 'rich', 'lightning_fabric', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert answer in " ".join((done.stdout + done.stderr).split())


def test_a_run_imports_what_it_needs_when_it_is_built() -> None:
    """Neither torch's compiler nor torchvision is needed by runs that use neither."""
    code = (
        "import sys; from rankdistill.cli import fit\n"
        "sys.exit(bool({'lightning_fabric', 'torchvision', 'torch._dynamo'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, rankdistill; sys.exit(bool({'torch', 'numba', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_are_there() -> None:
    import rankdistill

    assert all(getattr(rankdistill, name) is not None for name in rankdistill.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        rankdistill.nothing  # noqa: B018


def test_base_names_need_no_extra() -> None:
    """The operator, the losses, the methods and the networks work where none of the extras is installed."""
    extras = [
        "lightning_fabric",
        "rich",
        "safetensors",
        "sklearn",
        "torchvision",
        "filelock",
        "jinja2",
        "plotly",
        "timm",
    ]
    code = (
        f"import sys\nfor name in {extras}: sys.modules[name] = None\n"
        "import rankdistill, torch\nfor name in rankdistill.__all__: getattr(rankdistill, name)\n"
        "s, t = torch.randn(2, 4, 10)\n"
        "rankdistill.kd_loss(s, t); rankdistill.rank_alignment_loss(s, t, epsilon=0.1)\n"
        "from rankdistill.cli.main import main\nassert main(['list']) == 0\nsys.exit(main(['distill', 'digits.plain']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "pip install 'rankdistill[train]'" in result.stderr


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluat"]) == 2
    assert "unknown command 'evaluat': did you mean evaluate?" in output(capsys)


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert main([command, "--help"]) == 0
        assert f"rankdistill {command}" in output(capsys)


def test_the_cache_is_a_word_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[Run] = []

    def refuse(run: Run, watchers: object) -> None:
        runs.append(run)
        raise ValueError("enough")

    monkeypatch.setattr("rankdistill.cli.fit.build", refuse)
    for words in ([], ["--data.cache", "off"], ["--data.cache", str(tmp_path)]):
        assert main(["distill", "tiny_imagenet.plain", *words]) == 2
    assert [run.data.cache for run in runs] == ["auto", "off", tmp_path]


def test_options_of_methods_are_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "digits.ra", "--help"]) == 0
    short = output(capsys)
    assert "--losses.ra.weight" in short
    assert "--losses.ra.epsilon" not in short
    assert "Ranking alignment on 300 labels." in short
    assert main(["distill", "digits.ra", "--help-all"]) == 0
    shown = output(capsys)
    for flag in (
        "--losses.ra.weight",
        "--losses.ra.epsilon",
        "--losses.ra.distance",
        "--optim.lr",
        "--data.num-labels",
    ):
        assert flag in shown


@pytest.mark.parametrize("recipe", ["digits.plain", "digits.kd", "digits.ra"])
def test_distill_and_evaluate(recipe: str, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [] if recipe == "digits.plain" else ["--teacher", "resnet14", "--teacher-weights", str(teacher)]
    assert main(["distill", recipe, *options, "--student", "resnet8", "--runs", str(tmp_path), *QUICK]) == 0
    weights = next(tmp_path.glob("*/*/*/student.safetensors"))
    result = json.loads((weights.parent / "result.json").read_text())
    assert f"top-1 {result['last']['top1']:.2f} %" in output(capsys)
    assert main(["evaluate", str(weights)]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["top1"] == result["last"]["top1"] == load_weights(weights)[1]["top1"]
    assert (measured["model"], measured["data"]) == ("resnet8", "digits")


def test_a_finished_run_is_not_trained_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["distill", "digits.plain", "--runs", str(tmp_path), *QUICK]
    assert main(command) == 0
    first = output(capsys)
    assert main(command) == 0
    again = output(capsys)
    assert main([*command, "--again"]) == 0
    anew = output(capsys)
    assert "epoch 1/2" in first
    assert "epoch 1/2" not in again
    assert re.search(
        r"^done before, on \d{4}-\d\d-\d\d \d\d:\d\d, and not trained now: top-1 .* pass --again to train", again
    )
    assert "epoch 1/2" in anew
    assert "done before" not in anew


BAD = {
    "data set": (["train-teacher", "digit"], "unknown data set 'digit': did you mean digits?"),
    "data set by option": (["distill", "digits.plain", "--data.name", "cifar"], "unknown data set 'cifar'"),
    "teacher's recipe": (
        ["distill", "digits.teacher"],
        "digits.teacher trains a teacher: type `rankdistill train-teacher digits`",
    ),
    "only dashes": (
        ["distill", "digits.kd", "--"],
        "unknown option --: `rankdistill distill digits.kd --help-all` shows all",
    ),
    "words of list": (["list", "kd", "ra"], "list takes one word, and 'kd ra' was given"),
    "option of list": (["list", "--models"], "list takes one word, and '--models' was given"),
    "recipe": (["distill", "digits.dkd"], "unknown recipe 'digits.dkd': did you mean digits.kd"),
    "model": (["distill", "digits.kd", "--student", "resnet9"], "unknown model 'resnet9': did you mean"),
    "method": (["distill", "digits.kd", "--losses.dkd.weight", "1"], "--losses.kd.weight"),
    "option": (["distill", "digits.kd", "--losses.kd.temprature", "4"], "--losses.kd.temperature"),
    "type": (["distill", "digits.kd", "--optim.epochs", "many"], "'many' was given where a whole number is needed"),
    "zero epochs": (["distill", "digits.plain", "--optim.epochs", "0"], "optim.epochs is 0: it must be at least 1"),
    "negative weight": (
        ["distill", "digits.plain", "--losses.task.weight", "-1"],
        "it must be finite and not negative",
    ),
    "temperature": (
        ["distill", "digits.kd", "--teacher-weights", "none", "--losses.kd.temperature", "0"],
        "temperature is 0.0: it must be positive",
    ),
    "no teacher": (["distill", "digits.kd"], "pass --teacher-weights FILE"),
    "missing teacher": (["distill", "digits.kd", "--teacher-weights", "nowhere"], "there is no file nowhere"),
    "useless milestones": (
        ["distill", "digits.plain", "--optim.milestones", "3"],
        "has no effect under a cosine schedule",
    ),
    "missing folder": (["distill", "tiny_imagenet.plain", "--data.root", "nowhere"], "nowhere"),
    "missing weights": (["evaluate", "nowhere.safetensors"], "there is no file nowhere.safetensors"),
    "useless root": (["distill", "digits.plain", "--data.root", "here"], "leave out root here"),
    "too many classes": (["distill", "digits.plain", "--data.num-classes", "11"], "11 classes of digits"),
    "too few labels": (["distill", "digits.plain", "--data.num-labels", "5"], "5 labelled samples"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[case]
    assert main(arguments) == 2
    assert message in output(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["empty", "one class", "truncated zip"])
def test_bad_data_is_one_sentence_and_leaves_nothing(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    if content == "one class":
        (root / "train" / "n01" / "images").mkdir(parents=True)
        (root / "wnids.txt").write_text("n01\n")
    if content == "truncated zip":
        root = root / "tiny-imagenet-200.zip"
        root.write_bytes(b"PK\x03\x04 and then nothing")
    monkeypatch.chdir(tmp_path)
    assert main(["distill", "tiny_imagenet.plain", "--data.root", str(root)]) == 2
    printed = output(capsys)
    assert printed.startswith("rankdistill: ")
    assert str(root) in printed
    assert not (tmp_path / "runs").exists()


def test_teacher_of_another_architecture(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["distill", "digits.kd", "--teacher", "resnet20", "--teacher-weights", str(teacher), *QUICK]) == 2
    assert "holds a resnet14, not a resnet20: pass --teacher resnet14" in output(capsys)
    assert main(["evaluate", str(teacher), "--model", "resnet20"]) == 2
    assert "is not a resnet20: it lacks 'layer1.2.conv1.weight'" in output(capsys)
    arguments = ["--teacher", "resnet14", "--teacher-weights", str(teacher), "--data.image-size", "8"]
    assert main(["distill", "digits.kd", *arguments]) == 2
    assert re.search(
        r"knows 3 .* not the 10.* of digits: take weights that were made for these classes", output(capsys)
    )
    assert list(tmp_path.iterdir()) == []


def test_others_weights_need_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "foreign.safetensors"
    torch.manual_seed(0)
    save_weights(path, MODELS["resnet8"](10).state_dict(), {})
    assert main(["evaluate", str(path)]) == 2
    assert "does not say its model and data set: pass --model and --data" in output(capsys)
    assert main(["evaluate", str(path), "--model", "resnet8", "--data", "digits"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 500


def test_milestones_of_a_recipe_move_with_the_epochs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["train-teacher", "digits", "--optim.schedule", "multistep", "--runs", str(tmp_path), *QUICK[:-2]]
    assert main([*command, "--epochs", "4", "--optim.milestones", "2", "3"]) == 0
    assert "milestones of the" not in capsys.readouterr().out
    assert main([*command, "--epochs", "4", "--optim.milestones", "2", "4"]) == 2
    assert "optim.milestones is (2, 4), which goes beyond the 4 epochs of the run: give" in output(capsys)


def test_milestones_are_scaled_and_told() -> None:
    usual = RECIPES["cifar100.kd"]()
    longer = dataclasses.replace(usual, optim=dataclasses.replace(usual.optim, epochs=30))
    assert in_so_many_epochs(longer, usual.optim).optim.milestones == (19, 22, 26)
    short = dataclasses.replace(usual, optim=dataclasses.replace(usual.optim, epochs=1))
    assert in_so_many_epochs(short, usual.optim).optim.milestones == ()
    assert in_so_many_epochs(usual, usual.optim) is usual


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_is_printed_once(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "1")
        assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: rankdistill {command} ") or shown.startswith(f"usage: rankdistill {command}\n")
    assert shown.count("usage:") == 1


@pytest.mark.parametrize("folder", [b"\xc3\xbc \xf0\x9f\x99\x82", b"not utf-8: \xff", b"a[/x] [red]", b"two\nlines"])
def test_any_folder_can_be_named(folder: bytes, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rankdistill", "train-teacher", "digits", "--model", "resnet8", *QUICK]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*command, "--runs", folder], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert list((tmp_path / os.fsdecode(folder)).glob("*/*/*/student.safetensors"))


def test_warnings_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def warns(command: str, arguments: list[str]) -> int:
        warnings.warn("two\nlines", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(sys.modules["rankdistill.cli.main"], "_run", warns)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["list"]) == 0
    assert capsys.readouterr().err == "rankdistill: two lines\n"


def test_only_the_first_process_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["distill", "digits.kd", "--elephant"]) == 2
    assert capsys.readouterr() == ("", "")


def test_an_accelerator_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if not there:
            assert main(["distill", "digits.plain", "--accelerator", name]) == 2
            assert f"accelerator is {name}, but torch finds none here: pass --accelerator cpu" in output(capsys)
