"""Safetensors files that are well formed and say odd things: what they say decides no place and takes no memory."""

from __future__ import annotations

import json
import os
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import mutated_json, watch
from safetensors.torch import save as to_safetensors, save_file

from rankdistill.models import MODELS
from rankdistill.runs.evaluate import evaluate_weights
from rankdistill.training.kept_rows import read_rows, write_rows
from rankdistill.weights.durable import digest_path
from rankdistill.weights.reading import read_weights

DIGITS = {
    "rankdistill": "0.1",
    "recipe": "digits.plain",
    "model": "resnet8",
    "class_names": [str(digit) for digit in range(10)],
    "image_shape": [3, 8, 8],
    "data": {"name": "digits", "image_size": 8, "num_classes": 10, "random_resized_crop": None, "padding": 1},
    "mean": [0.3063, 0.3063, 0.3063],
    "std": [0.3766, 0.3766, 0.3766],
    "top1": 97.5,
}


@pytest.fixture
def inputs(pytestconfig: pytest.Config) -> int:
    """As many as there are other inputs, but a quarter in the quick run: what gets through is evaluated."""
    inputs = int(pytestconfig.getoption("fuzz_inputs"))
    return inputs if inputs > 100 else inputs // 4


def table(entries: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def of_type(kind: str, width: int) -> bytes:
    return table({"a": {"dtype": kind, "shape": [4], "data_offsets": [0, 4 * width]}}, bytes(4 * width))


def about(text: str) -> bytes:
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return table({"__metadata__": {"rankdistill": text}, "a": one}, bytes(4))


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (of_type("F8_E4M3", 1), r"its 'a' is torch.float8_e4m3fn; 16 bits or more are needed"),
        (of_type("F8_E5M2", 1), r"its 'a' is torch.float8_e5m2; 16 bits or more are needed"),
        (of_type("C64", 8), "its 'a' is complex"),
        (about("[" + "[]," * 3_000_000 + "[]]"), "the header of .* is not what this program writes"),
        (about('{"a": ' + "[" * 100_000), "the header of .* is not what this program writes"),
        (table({f"{n:x}": EMPTY for n in range(60_000)}), "it has 60,000 tensors"),
        (table({"module." * 100_000 + "a": EMPTY}), "a name of more than 1000 characters"),
        (struct.pack("<Q", 2**25) + bytes(2**25), "its table is too long"),
    ],
)
def test_well_formed_files_that_are_no_network(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert watch(read_weights, [path], refusals=(ValueError,)) == {"refused": 1}
    with pytest.raises(ValueError, match=message):
        read_weights(path)


@pytest.mark.parametrize("head", [b"", b"\x80\x02", b"PK\x03\x04", b"\xfd7zXZ\0", b"\x1f\x8b", b"BZh9", about("{}")])
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_hole_of_gigabytes_is_not_read(head: bytes, name: str, tmp_path: Path) -> None:
    with (tmp_path / name).open("wb") as file:
        file.write(head)
        file.truncate(2**34)
    assert watch(read_weights, [tmp_path / name], refusals=(ValueError,), megabytes=100.0) == {"refused": 1}


def test_a_digest_beside_it_is_made_without_holding_the_file(tmp_path: Path) -> None:
    with (tmp_path / "a.pth").open("wb") as file:
        file.truncate(2**28)
    digest_path(tmp_path / "a.pth").write_text("0" * 64 + "  a.pth\n")
    assert watch(read_weights, [tmp_path / "a.pth"], refusals=(ValueError,), megabytes=100.0) == {"refused": 1}


def test_headers_of_what_is_evaluated(inputs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written beside the file, whatever it says."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    weights, path = MODELS["resnet8"](10).state_dict(), tmp_path / "a.safetensors"

    def reads(turn: int) -> object:
        draw = random.Random(turn)
        text = mutated_json(draw, DIGITS) if turn % 10 else json.dumps(DIGITS)
        path.write_bytes(to_safetensors(weights, metadata={"rankdistill": text.encode("utf-8", "replace").decode()}))
        classes: Any = draw.choice(("same", "by-name"))
        model, data_name = draw.choice(((None, None), ("resnet8", "digits")))
        return evaluate_weights(path, model=model, data_name=data_name, classes=classes)

    counts = watch(reads, range(inputs), refusals=(ValueError, OSError))
    assert counts["read"] > 0
    assert counts["refused"] > 0
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_nothing_waits_for_a_pipe_in_a_teacher_cache(tmp_path: Path) -> None:
    manifest, rows, indices = (tmp_path / name for name in ("manifest.json", "rows.npy", "indices.npy"))
    write_rows(manifest, {rows: np.zeros((6, 1, 4), np.float16), indices: np.arange(6)})
    for path in (rows, indices):
        kept = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        counts = watch(
            lambda _: read_rows(manifest, rows, indices, 6, "float16"), [0], refusals=(OSError,), seconds=5.0
        )
        assert counts == {"refused": 1}
        path.unlink()
        path.write_bytes(kept)
    assert len(read_rows(manifest, rows, indices, 6, "float16")[0]) == 6


def test_two_names_of_one_tensor_are_one(tmp_path: Path) -> None:
    shared = torch.ones(10_000)
    torch.save({"model": {str(n): shared for n in range(20)}}, tmp_path / "a.pth")
    assert len(read_weights(tmp_path / "a.pth")[0]) == 20
    save_file({"a": shared}, tmp_path / "b.safetensors")
    assert len(read_weights(tmp_path / "b.safetensors")[0]) == 1
