"""What a weights file says of itself is believed field by field, and never where something is read or written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rankdistill.cli.main import main
from rankdistill.models import MODELS
from rankdistill.weights.header import read_header
from rankdistill.weights.storage import load_weights, save_weights

WHOLE: dict[str, Any] = {
    "rankdistill": "0.1",
    "recipe": "digits.plain",
    "model": "resnet8",
    "class_names": ["a", "b"],
    "image_shape": [3, 8, 8],
    "data": {"name": "digits", "image_size": 8, "num_classes": 2, "random_resized_crop": None, "padding": 1},
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "top1": 97.5,
    "deployed": "simkd",
}


def test_known_fields_come_back_and_others_do_not() -> None:
    other = {"cache": "/anywhere", "root": "/", "download": True, "later": 1}
    text = json.dumps(WHOLE | other | {"data": WHOLE["data"] | other})
    assert read_header(text, Path("file")) == WHOLE
    assert read_header("{}", Path("file")) == {}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": 1}, "model is 1: a name belongs there"),
        ({"model": "x" * 2000}, r"model is 'xxx.*\.\.\.: a name belongs there"),
        ({"class_names": ["a"]}, r"class_names is \['a'\]: 2 to 1,000,000 names belongs there"),
        ({"class_names": "ab"}, "class_names is 'ab'"),
        ({"class_names": ["a", 1]}, "class_names is"),
        ({"mean": [float("nan")] * 3}, r"mean is \[nan"),
        ({"std": [0.0, 1, 1]}, "std is"),
        ({"std": []}, "std is"),
        ({"mean": [True, 0, 0]}, "mean is"),
        ({"image_shape": [3, 8]}, "image_shape is"),
        ({"image_shape": [3, 8, 10**9]}, "image_shape is"),
        ({"top1": 10**400}, "top1 is 1000"),
        ({"top1": -(10**400)}, "top1 is -1000"),
        ({"std": [10**400, 1, 1]}, "std is"),
        ({"model": "a\nb"}, r"model is 'a\\nb': a name belongs there"),
        ({"deployed": "\x1b[2J"}, r"deployed is '\\x1b\[2J'"),
        ({"data": {"name": "\ud800"}}, r"data.name is '\\ud800'"),
        ({"top1": 101}, "top1 is 101: a percentage belongs there"),
        ({"data": []}, r"data is \[\]: an object belongs there"),
        ({"data": {"image_size": "8"}}, "data.image_size is '8': 1 to 4096 pixels belongs there"),
        ({"data": {"image_size": 10**30}}, "data.image_size is 10"),
        ({"data": {"num_classes": 1}}, "data.num_classes is 1"),
        ({"data": {"padding": -1}}, "data.padding is -1"),
        ({"data": {"name": None}}, "data.name is None"),
    ],
)
def test_a_field_of_another_kind_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^the header of file says {named}") as error:
        read_header(json.dumps(WHOLE | change), Path("file"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"top1": ' + "9" * 5000 + "}", "\ufeff{}"])
def test_what_is_no_header_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^the header of .* is not what this program writes: fetch the file again$"):
        read_header(text, tmp_path)
    save_file({"a": torch.ones(2)}, tmp_path / "file.safetensors", metadata={"rankdistill": text})
    with pytest.raises(ValueError, match=r"file.safetensors is not what this program writes"):
        load_weights(tmp_path / "file.safetensors")


def test_a_header_cannot_say_where_evaluate_reads_or_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path, anywhere = tmp_path / "file.safetensors", tmp_path / "anywhere"
    data = {"name": "imagefolder", "cache": str(anywhere), "root": str(anywhere), "download": True}
    save_weights(path, MODELS["resnet8"](2).state_dict(), {"model": "resnet8", "data": data})
    before = sorted(tmp_path.iterdir())
    assert main(["evaluate", str(path)]) == 2
    assert str(anywhere) not in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
