"""A run's folder is named by all that its result depends on: pixels and outside code as well."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image, ImageOps
from torch import nn

from rankdistill.cli.main import main
from rankdistill.methods import METHODS
from rankdistill.models import MODELS
from rankdistill.runs.outside import digest_of_outside

QUICK = ["--data.image-size", "8", "--optim.epochs", "1", "--threads", "1"]


def images(root: Path) -> list[Path]:
    made = []
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            for number in range(8):
                path = root / part / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (30 * number, 255 if label == "cat" else 0, 90)).save(path)
                made.append(path)
    return made


@pytest.mark.parametrize("cache", ["off", "kept"])
def test_other_pixels_are_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: str) -> None:
    paths = images(tmp_path / "images")
    place = "off" if cache == "off" else str(tmp_path / "cache")
    command = ["distill", "digits.plain", "--data.name", "imagefolder", "--data.root", str(tmp_path / "images"), *QUICK]
    command += ["--data.num-labels", "16", "--data.cache", place, "--runs", str(tmp_path / "runs")]
    assert main(command) == 0
    assert main(command) == 0
    assert "done before" in capsys.readouterr().out
    for path in paths:
        ImageOps.invert(Image.open(path)).save(path)
    assert main(command) == 0
    assert "done before" not in capsys.readouterr().out
    assert len(list((tmp_path / "runs").glob("*/*/*/result.json"))) == 2


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder whose modules can be imported; they are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def imported(folder: Path, name: str, source: str) -> ModuleType:
    (folder / f"{name}.py").write_text(source)
    importlib.invalidate_caches()
    sys.modules.pop(name, None)
    return importlib.import_module(name)


LOSS = """
from rankdistill.methods.kd import KD
import my_factor

class Mine(KD):
    def losses(self, batch, student, teacher):
        return {name: my_factor.FACTOR * value for name, value in super().losses(batch, student, teacher).items()}
"""


def test_another_source_of_a_method_or_of_what_it_imports_is_other_code(outside: Path) -> None:
    imported(outside, "my_factor", "FACTOR = 1.0\n")
    first = digest_of_outside([imported(outside, "my_loss", LOSS).Mine])
    assert first.keys() == {"my_factor", "my_loss"}
    assert first == digest_of_outside([imported(outside, "my_loss", LOSS).Mine])
    second = digest_of_outside([imported(outside, "my_loss", LOSS + "# longer\n").Mine])
    assert (second["my_loss"] != first["my_loss"], second["my_factor"] == first["my_factor"]) == (True, True)
    imported(outside, "my_factor", "FACTOR = 100.0\n")
    third = digest_of_outside([functools.partial(imported(outside, "my_loss", LOSS).Mine, temperature=2.0)])
    assert (third["my_loss"] == first["my_loss"], third["my_factor"] != first["my_factor"]) == (True, True)


def test_what_is_installed_counts_by_its_own_file_and_this_package_by_its_version(outside: Path) -> None:
    assert digest_of_outside([*METHODS.values(), *MODELS.values(), functools.partial(MODELS["resnet8"], 3)]) == {}
    mine = imported(outside, "my_net", "from torch import nn\ndef net(num_classes): return nn.Linear(3, num_classes)\n")
    assert digest_of_outside([functools.partial(MODELS["resnet8"], mine.net)]).keys() == {"my_net"}
    assert digest_of_outside([nn.Linear]).keys() == {"torch.nn.modules.linear"}


def test_code_without_a_file_is_never_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("typed_in")
    exec("def net(num_classes): ...", vars(module))
    monkeypatch.setitem(sys.modules, "typed_in", module)
    module.net.__module__ = "typed_in"
    assert digest_of_outside([module.net]) != digest_of_outside([module.net])


def test_another_network_of_the_same_name_is_not_told_the_old_result(
    outside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def source(comment: str) -> str:
        return (
            f"from rankdistill.models.resnet import ResNet\ndef net(k): return ResNet(8, (16,) * 4, k)\n# {comment}\n"
        )

    command = ["distill", "digits.plain", "--student", "mine", "--runs", str(tmp_path / "runs"), *QUICK]
    command += ["--data.num-classes", "3", "--data.num-labels", "30"]
    for comment, before in (("one", False), ("one", True), ("another", False)):
        monkeypatch.setitem(MODELS, "mine", imported(outside, "my_student", source(comment)).net)
        assert main(command) == 0
        assert ("done before" in capsys.readouterr().out) == before
