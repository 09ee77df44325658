import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_checkpoints import ACCURACY, LAYOUTS, mdistiller_training, save, write
from torch import nn

from rankdistill.cli.main import main
from rankdistill.data import DATASETS
from rankdistill.data.dataset import DataSet
from rankdistill.models import MODELS
from rankdistill.runs.evaluate import evaluate_weights
from rankdistill.weights.durable import digest_path, write_with_digest
from rankdistill.weights.foreign import PUBLISHED, Published
from rankdistill.weights.reading import read_weights
from rankdistill.weights.storage import digest_of, load_weights, save_weights

DIGITS = {"model": "resnet8", "data_name": "digits"}


@pytest.fixture(scope="module", autouse=True)
def _few_digits() -> Iterator[None]:
    """Every seventh test image: the same questions, answered sooner."""
    everything = DATASETS["digits"]

    def few(root: Path | None = None, **options: Any) -> DataSet:
        data = everything(root, **options)
        return dataclasses.replace(data, test=data.test.subset(torch.arange(0, len(data.test), 7)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "digits", few)
        yield


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """resnet8 with statistics of its own, so that each buffer matters."""
    torch.manual_seed(1)
    module = MODELS["resnet8"](10).train()
    for _ in range(2):
        module(2 * torch.rand(16, 3, 32, 32))
    return module.eval()


@pytest.fixture(scope="module")
def ours(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ours") / "weights.safetensors"
    save_weights(path, network.state_dict(), {})
    return path


@pytest.fixture(scope="module")
def measured(ours: Path) -> dict[str, str | int | float]:
    return evaluate_weights(ours, **DIGITS)


@pytest.fixture
def foreign(network: nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "ckpt_epoch_240.pth"
    write("RepDistiller", path, network)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_accuracy_is_that_of_the_same_weights_saved_by_us(
    layout: str, network: nn.Module, ours: Path, measured: dict[str, str | int | float], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    write(layout, path, network)
    assert evaluate_weights(path, **DIGITS) == measured
    if layout != "PyTorch 0.4.0":  # counters of steps are not in there, and change no output
        assert digest_of(read_weights(path)[0]) == digest_of(load_weights(ours)[0])


class TestReadWeights:
    def test_safetensors_by_content(self, ours: Path, tmp_path: Path) -> None:
        path = tmp_path / "weights"
        path.write_bytes(ours.read_bytes())
        assert digest_of(read_weights(path)[0]) == digest_of(load_weights(ours)[0])

    def test_others_checkpoint_is_compared_with_its_digest(self, foreign: Path) -> None:
        write_with_digest(foreign, foreign.read_bytes())
        assert read_weights(foreign)[1] == {}
        digest_path(foreign).write_text("0" * 64)
        with pytest.raises(ValueError, match=r"ckpt_epoch_240\.pth is damaged"):
            read_weights(foreign)

    @pytest.mark.parametrize("name", ["nothing", "nothing.pth", "nothing.safetensors"])
    def test_no_file(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=f"there is no file .*{name}"):
            read_weights(tmp_path / name)


class TestCommand:
    def test_with_images(self, foreign: Path, measured, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["convert-checkpoint", str(foreign), "--model", "resnet8", "--data", "digits"]) == 0
        printed = capsys.readouterr()
        new = foreign.with_name("ckpt_epoch_240.safetensors")
        assert json.loads(printed.out) == {"file": str(new), "stated": ACCURACY, **measured}
        assert printed.err == ""
        header = load_weights(new)[1]
        assert header["converted_from"] == "ckpt_epoch_240.pth"
        assert header["top1"] == measured["top1"]
        assert len(header["class_names"]) == 10
        assert digest_path(new).is_file()
        assert evaluate_weights(new) == measured

    def test_without_images(self, foreign: Path, ours: Path, capsys: pytest.CaptureFixture[str]) -> None:
        new = foreign.with_name("new.safetensors")
        assert main(["convert-checkpoint", str(foreign), "--model", "resnet8", "--out", str(new)]) == 0
        assert json.loads(capsys.readouterr().out) == {"file": str(new), "model": "resnet8", "stated": ACCURACY}
        weights, header = load_weights(new)
        assert header["model"] == "resnet8"
        assert "data" not in header
        assert digest_of(weights) == digest_of(load_weights(ours)[0])

    @pytest.mark.parametrize("model", ["wrn_16_1", "vgg8", "mobilenetv2", "tiny_mobilenetv2", "shufflenetv2"])
    def test_number_of_classes_is_the_files(self, model: str, tmp_path: Path) -> None:
        save(tmp_path / "ti_res18", {"model": MODELS[model](7).state_dict()})
        assert main(["convert-checkpoint", str(tmp_path / "ti_res18"), "--model", model]) == 0
        weights, _ = load_weights(tmp_path / "ti_res18.safetensors")
        assert len(weights[list(MODELS[model](2).state_dict())[-1]]) == 7

    def test_same_weights_same_bytes(self, network: nn.Module, tmp_path: Path) -> None:
        for layout in ("ReviewKD", "mdistiller training, NumPy 1, old format"):
            folder = tmp_path / layout
            folder.mkdir()
            write(layout, folder / "best", network)
            assert main(["convert-checkpoint", str(folder / "best"), "--model", "resnet8"]) == 0
        first, second = sorted(tmp_path.glob("*/best.safetensors"))
        assert first.read_bytes() == second.read_bytes()

    def test_teacher_of_a_training_file(self, network: nn.Module, tmp_path: Path) -> None:
        content = mdistiller_training(MODELS["resnet8"](10))
        teacher = {f"module.teacher.{key}": value for key, value in network.state_dict().items()}
        others = {key: value for key, value in content["model"].items() if not key.startswith("module.teacher.")}
        save(tmp_path / "best", content | {"model": others | teacher})
        command = ["convert-checkpoint", str(tmp_path / "best"), "--model", "resnet8", "--subtree", "teacher"]
        assert main(command) == 0
        assert digest_of(load_weights(tmp_path / "best.safetensors")[0]) == digest_of(network.state_dict())

    @pytest.mark.parametrize("command", ["convert-checkpoint", "evaluate"])
    @pytest.mark.parametrize(("difference", "told"), [(0.19, False), (0.21, True), (-5.0, True)])
    def test_accuracy_that_is_not_the_published_one(
        self, command: str, difference: float, told: bool, foreign: Path, measured, monkeypatch, capsys
    ) -> None:
        published = Published("resnet8_vanilla/ckpt_epoch_240.pth", measured["top1"] + difference)
        monkeypatch.setitem(PUBLISHED, ("digits", "resnet8"), published)
        assert main([command, str(foreign), "--model", "resnet8", "--data", "digits"]) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["published"] == published.top1
        sentence = (
            f"top-1 is {measured['top1']:.2f} %, that of the published resnet8 (resnet8_vanilla/ckpt_epoch_240.pth)"
        )
        assert (sentence in printed.err) == told

    def test_our_own_teachers_are_not_compared(self, network: nn.Module, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setitem(PUBLISHED, ("digits", "resnet8"), Published("file", 99.0))
        path = tmp_path / "student.safetensors"
        save_weights(path, network.state_dict(), {"recipe": "digits.teacher"})
        assert "published" not in evaluate_weights(path, **DIGITS)


class Malice:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("broken_in",)


REFUSED = {
    "model": (["--model", "resnet9"], "unknown model 'resnet9': did you mean"),
    "other architecture": (["--model", "resnet14"], "is not a resnet14: it lacks 'layer1.1.conv1.weight'"),
    "other family": (["--model", "vgg8"], "is not a vgg8: it lacks 'block0.0.weight'"),
    "data set": (["--model", "resnet8", "--data", "digit"], "unknown data set 'digit': did you mean digits?"),
    "root alone": (["--model", "resnet8", "--root", "here"], "root is here, but no data set is named: pass --data"),
    "useless root": (["--model", "resnet8", "--data", "digits", "--root", "here"], "leave out root here"),
    "subtree": (["--model", "resnet8", "--subtree", "teacher"], "there is no teacher to take out of it"),
    "its own name": (["--model", "resnet8", "--out", "file.pth"], "file.pth is there already: name another file"),
    "no model": ([], "--model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_leave_nothing(case: str, network: nn.Module, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write("RepDistiller", Path("file.pth"), network)
    before = Path("file.pth").read_bytes()
    options, message = REFUSED[case]
    assert main(["convert-checkpoint", "file.pth", *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert os.listdir() == ["file.pth"]
    assert Path("file.pth").read_bytes() == before


def test_data_of_other_classes(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("file.pth"), MODELS["resnet8"](7).state_dict())
    assert main(["convert-checkpoint", "file.pth", "--model", "resnet8", "--data", "digits"]) == 2
    assert "its 'fc.weight' has shape (7, 64), not (10, 64)" in capsys.readouterr().err
    assert os.listdir() == ["file.pth"]


def test_safetensors_need_no_conversion(ours: Path, capsys) -> None:
    assert main(["convert-checkpoint", str(ours), "--model", "resnet8", "--out", f"{ours}.new"]) == 2
    assert "is a safetensors file already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["convert-checkpoint", "file", "--model", "resnet8"],
        ["evaluate", "file", "--model", "resnet8", "--data", "digits"],
        ["distill", "digits.kd", "--teacher", "resnet8", "--teacher-weights", "file"],
    ],
)
def test_no_command_runs_what_is_in_a_file(command: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("file"), {"model": {}, "hook": Malice()})
    assert main(command) == 2
    assert "file was not opened: it asks for 'posix.mkdir' to be called" in capsys.readouterr().err
    assert os.listdir() == ["file"]


def test_distilling_from_others_teacher_is_distilling_from_the_same_weights(
    foreign: Path, ours: Path, tmp_path: Path, capsys
) -> None:
    quick = [
        "--data.image-size",
        "8",
        "--data.num-labels",
        "20",
        "--optim.epochs",
        "1",
        "--runs",
        str(tmp_path / "runs"),
    ]
    command = ["distill", "digits.kd", "--teacher", "resnet8", "--student", "resnet8", *quick, "--teacher-weights"]
    assert main([*command, str(ours)]) == 0
    capsys.readouterr()
    assert main([*command, str(foreign)]) == 0
    assert "done before" in capsys.readouterr().out  # it is the run of the same teacher, which is finished
    assert len(list((tmp_path / "runs").glob("*/*/*"))) == 1
