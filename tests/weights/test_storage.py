import hashlib
import os
from pathlib import Path

import pytest
import torch

from rankdistill.weights import durable as files, storage


def test_weights_come_back_with_their_metadata(tmp_path: Path) -> None:
    weights = {"a": torch.randn(3, 4), "n": torch.tensor(7)}
    storage.save_weights(tmp_path / "deep" / "w.safetensors", weights, {"model": "resnet8"})
    loaded, header = storage.load_weights(tmp_path / "deep" / "w.safetensors")
    assert header == {"model": "resnet8"}
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    about = {name: name for name in "abcdefgh"}
    for name in "12":
        storage.save_weights(tmp_path / name, {"a": torch.ones(2), "b": torch.ones(3)}, about)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_digest_is_what_sha256sum_reads(tmp_path: Path) -> None:
    files.write_with_digest(tmp_path / "f", b"content")
    digest, name = (tmp_path / "f.sha256").read_text().split()
    assert (digest, name) == (hashlib.sha256(b"content").hexdigest(), "f")


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    storage.save_weights(path, {"a": torch.ones(64)}, {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.safetensors is damaged .* copy it again"):
        storage.load_weights(path)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(ValueError, match="is not a readable safetensors file"):
        storage.load_weights(tmp_path / "w")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        storage.load_weights(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    files.write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_state_comes_back_without_pickled_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, ("true",)

    storage.save_state(tmp_path / "good", {"step": 3, "nested": {"t": torch.arange(3)}})
    state = storage.load_state(tmp_path / "good")
    assert state["step"] == 3
    assert torch.equal(state["nested"]["t"], torch.arange(3))
    storage.save_state(tmp_path / "evil", {"payload": Evil()})
    with pytest.raises(Exception, match="evil is no checkpoint of this program"):
        storage.load_state(tmp_path / "evil")


def test_digest_of_weights_sees_names_values_shapes_and_types() -> None:
    base = {"a": torch.ones(2, 3), "b": torch.zeros(1)}
    others = [
        {"c": torch.ones(2, 3), "b": torch.zeros(1)},
        {"a": torch.ones(3, 2), "b": torch.zeros(1)},
        {"a": torch.ones(2, 3, dtype=torch.float64), "b": torch.zeros(1)},
        {"a": torch.full((2, 3), 1.5), "b": torch.zeros(1)},
    ]
    digests = {storage.digest_of(weights) for weights in (base, *others)}
    assert len(digests) == 5
    assert storage.digest_of(dict(reversed(base.items()))) == storage.digest_of(base)
