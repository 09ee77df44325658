"""Every reader of weights, checkpoints and teacher caches on inputs that are nearly right.

Digests are left out or made anew where there are any, so that inputs reach what is behind them.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_checkpoints import LAYOUTS, mdistiller_training, save_as_before_1_6, write
from fuzzing import mutated, mutated_json, odd_integer, watch
from safetensors.torch import save as to_safetensors

from rankdistill.models.resnet import ResNet
from rankdistill.training.kept_rows import read_rows, write_rows
from rankdistill.weights.durable import digest_path
from rankdistill.weights.reading import read_weights
from rankdistill.weights.storage import load_state, load_weights

HEADER = {
    "model": "resnet8",
    "class_names": ["a", "b", "c"],
    "image_shape": [3, 8, 8],
    "data": {"name": "digits", "image_size": 8, "num_classes": 3, "padding": 1},
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "top1": 97.5,
}


@pytest.fixture
def inputs(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("fuzz_inputs"))


def network() -> ResNet:
    torch.manual_seed(0)
    return ResNet(8, (2, 2, 2, 2), 3)


def fuzzed(
    folder: Path, name: str, contents: Callable[[int], bytes], read: Callable[[Path], object], inputs: int
) -> Counter[str]:
    """Give a reader the file that each number stands for."""
    path = folder / name

    def reads(number: int) -> object:
        path.write_bytes(contents(number))
        return read(path)

    return watch(reads, range(inputs), refusals=(ValueError, OSError))


def both(counts: Counter[str]) -> None:
    """Some inputs must get through and some must not, or the fuzz shows nothing."""
    assert counts["read"] > 0
    assert counts["refused"] > 0


def test_safetensors_with_bytes_changed(inputs: int, tmp_path: Path) -> None:
    whole = to_safetensors(network().state_dict(), metadata={"rankdistill": json.dumps(HEADER)})
    both(fuzzed(tmp_path, "a.safetensors", lambda n: mutated(random.Random(n), whole), read_weights, inputs))


def test_safetensors_with_an_odd_table(inputs: int, tmp_path: Path) -> None:
    """The table of names, types, shapes and places, with a length that fits it."""
    whole = to_safetensors(network().state_dict(), metadata={"rankdistill": json.dumps(HEADER)})
    length = struct.unpack("<Q", whole[:8])[0]
    table, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]

    def content(number: int) -> bytes:
        draw = random.Random(number)
        if number % 10 == 0:  # nothing odd in it, but an order of its own
            text = json.dumps(dict(draw.sample(list(table.items()), len(table))))
        else:
            text = mutated_json(draw, table)
        made = text.encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(made)) + made + data

    both(fuzzed(tmp_path, "a.safetensors", content, read_weights, inputs))


def test_headers_of_weights(inputs: int, tmp_path: Path) -> None:
    weights = {"a": torch.ones(2)}

    def content(number: int) -> bytes:
        draw = random.Random(number)
        text = json.dumps(HEADER) if number % 10 == 0 else mutated_json(draw, HEADER)
        return to_safetensors(weights, metadata={"rankdistill": text.encode("utf-8", "replace").decode()})

    both(fuzzed(tmp_path, "a.safetensors", content, load_weights, inputs))


@pytest.mark.parametrize("layout", list(LAYOUTS)[:3])
def test_checkpoints_of_others_with_bytes_changed(inputs: int, tmp_path: Path, layout: str) -> None:
    write(layout, tmp_path / "whole", network())
    whole = (tmp_path / "whole").read_bytes()
    both(fuzzed(tmp_path, "a.pth", lambda n: mutated(random.Random(n), whole), read_weights, inputs))


def pickles(number: int, archive: bytes) -> bytes:
    """Return a checkpoint whose pickle is changed, with the checksums that zip files have."""
    draw = random.Random(number)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(made, "w") as new:
        for member in old.infolist():
            content = old.read(member)
            if member.filename.endswith("data.pkl") and number % 10:
                content = mutated(draw, content)
            packed = zipfile.ZIP_DEFLATED if number % 50 == 49 else zipfile.ZIP_STORED
            new.writestr(member.filename, content, compress_type=packed)
    return made.getvalue()


def test_pickles_in_whole_archives(inputs: int, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(mdistiller_training(network()), buffer)
    archive = buffer.getvalue()
    both(fuzzed(tmp_path, "a.pth", lambda number: pickles(number, archive), read_weights, inputs))


def test_pickles_of_before_zip(inputs: int, tmp_path: Path) -> None:
    save_as_before_1_6(tmp_path / "whole", {"model": network().state_dict()})
    whole = (tmp_path / "whole").read_bytes()

    def content(number: int) -> bytes:
        draw = random.Random(number)
        if number % 3:
            return mutated(draw, whole)
        changed = bytearray(whole)
        place, width = draw.randrange(len(changed) - 8), draw.choice((4, 8))
        changed[place : place + width] = odd_integer(draw, width, len(whole))
        return bytes(changed)

    both(fuzzed(tmp_path, "a.pth", content, read_weights, inputs))


def test_checkpoints_of_our_own_with_a_digest_that_fits(inputs: int, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"identity": {"config": "c"}, "records": [{"epoch": 1}], "student": network().state_dict()}, buffer)
    archive = buffer.getvalue()

    def content(number: int) -> bytes:
        made = pickles(number, archive)
        digest_path(tmp_path / "a.pt").write_text(f"{hashlib.sha256(made).hexdigest()}  a.pt\n")
        return made

    both(fuzzed(tmp_path, "a.pt", content, load_state, inputs))


def test_digests(inputs: int, tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    line = f"{hashlib.sha256(whole).hexdigest()}  a.pt\n".encode()

    def content(number: int) -> bytes:
        digest_path(tmp_path / "a.pt").write_bytes(line if number % 10 == 0 else mutated(random.Random(number), line))
        return whole

    both(fuzzed(tmp_path, "a.pt", content, load_state, inputs))


def test_teacher_caches(inputs: int, tmp_path: Path) -> None:
    """Manifests, logits and places, each with digests that fit."""
    rows = np.random.default_rng(0).normal(size=(6, 1, 4)).astype(np.float16)
    paths = [tmp_path / name for name in ("manifest.json", "rows.npy", "indices.npy")]
    write_rows(paths[0], {paths[1]: rows, paths[2]: np.arange(6)})
    manifest, *whole = (path.read_bytes() for path in paths)

    def reads(number: int) -> object:
        draw = random.Random(number)
        contents = list(whole)
        if number % 4 in (1, 2):
            contents[number % 4 - 1] = mutated(draw, whole[number % 4 - 1])
        for path, content in zip(paths[1:], contents, strict=True):
            path.write_bytes(content)
        digests = {path.name: hashlib.sha256(c).hexdigest() for path, c in zip(paths[1:], contents, strict=True)}
        text = json.dumps({"sha256": digests})
        if number % 4 == 3:
            text = mutated_json(draw, json.loads(manifest))
        paths[0].write_bytes(text.encode("utf-8", "surrogatepass"))
        return read_rows(*paths, num_samples=6, dtype="float16")

    both(watch(reads, range(inputs), refusals=(ValueError, OSError)))


def test_sizes_that_are_only_declared_take_no_memory(tmp_path: Path) -> None:
    huge = torch.zeros(1).expand(10**9)
    torch.save({"model": {"fc.bias": huge, "fc.weight": torch.ones(2, 2)}}, tmp_path / "expanded.pth")
    zeros = tmp_path / "packed.pth"
    with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data.pkl", "w") as member:
        for _ in range(600):
            member.write(bytes(2**20))
    assert zeros.stat().st_size < 2**20
    counts = watch(read_weights, [tmp_path / "expanded.pth", zeros], refusals=(ValueError,), megabytes=100.0)
    assert counts == {"refused": 2}
    with pytest.raises(ValueError, match=r"'fc.bias' says it has 1,000,000,000 entries, in 4 bytes"):
        read_weights(tmp_path / "expanded.pth")
