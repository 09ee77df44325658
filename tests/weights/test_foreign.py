import argparse
import contextlib
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_checkpoints import LAYOUTS, mdistiller_training, save, save_as_before_1_6, without_counters, write
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from rankdistill.models import MODELS
from rankdistill.models.resnet import ResNet
from rankdistill.weights.foreign import PUBLISHED, difference_from_published, load_into, read_checkpoint
from rankdistill.weights.reading import read_weights


def trained() -> ResNet:
    """A small network with nothing at its initial value, counters of batch norms included."""
    module = ResNet(8, (4, 4, 6, 8), 5).train()
    for _ in range(3):
        module(torch.randn(4, 3, 8, 8))
    return module


class TestLayouts:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_weights_are_read_as_they_are(self, layout, tmp_path):
        module = trained()
        write(layout, tmp_path / "file", module)
        checkpoint = read_checkpoint(tmp_path / "file")
        expected = module.state_dict()
        if layout == "PyTorch 0.4.0":
            expected = {key: value if value.ndim else value * 0 for key, value in expected.items()}
        assert list(checkpoint.weights) == list(expected)
        for key, value in expected.items():
            assert checkpoint.weights[key].dtype == value.dtype
            assert torch.equal(checkpoint.weights[key], value)
        assert checkpoint.accuracy == LAYOUTS[layout][2]
        load_into(ResNet(8, (4, 4, 6, 8), 5), checkpoint.weights, name="resnet8", source="file")

    def test_counters_count_from_zero_where_the_file_has_none(self, tmp_path):
        save(tmp_path / "file", without_counters(trained()))
        weights = read_checkpoint(tmp_path / "file").weights
        counters = [value for key, value in weights.items() if key.endswith("num_batches_tracked")]
        assert len(counters) == 9
        assert all(value.dtype == torch.int64 and value.shape == () and value == 0 for value in counters)

    def test_teacher_of_a_training_file(self, tmp_path):
        content = mdistiller_training(trained())
        save(tmp_path / "file", content)
        checkpoint = read_checkpoint(tmp_path / "file", subtree="teacher")
        teacher = {key: value for key, value in content["model"].items() if key.startswith("module.teacher.")}
        assert {f"module.teacher.{key}" for key in checkpoint.weights} == set(teacher)
        assert checkpoint.accuracy is None  # the file's is the student's

    def test_student_that_is_parallel_itself(self, tmp_path):
        module = trained()
        save(tmp_path / "file", {"model": {f"student.module.{k}": v for k, v in module.state_dict().items()}})
        assert list(read_checkpoint(tmp_path / "file").weights) == list(module.state_dict())

    @pytest.mark.parametrize("accuracy", [79.42, 79, torch.tensor(79.42), np.float32(79.42), np.int64(79)])
    def test_stated_accuracy(self, accuracy, tmp_path):
        save(tmp_path / "file", {"model": trained().state_dict(), "accuracy": accuracy})
        assert read_checkpoint(tmp_path / "file").accuracy == pytest.approx(float(accuracy))

    @pytest.mark.parametrize("accuracy", ["79.42", torch.ones(2), None])
    def test_something_else_called_accuracy(self, accuracy, tmp_path):
        save(tmp_path / "file", {"model": trained().state_dict(), "accuracy": accuracy})
        assert read_checkpoint(tmp_path / "file").accuracy is None

    @pytest.mark.parametrize("name", ["wrn_16_1", "vgg8", "mobilenetv2", "shufflenetv2", "tiny_mobilenetv2"])
    def test_every_family_from_before_counters(self, name, tmp_path):
        module = MODELS[name](5)
        save_as_before_1_6(tmp_path / "file", without_counters(module))
        weights = read_checkpoint(tmp_path / "file").weights
        assert list(weights) == list(module.state_dict())
        load_into(MODELS[name](5), weights, name=name, source="file")


class Malice:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class TestRefusals:
    @pytest.mark.parametrize("put", [save, save_as_before_1_6])
    @pytest.mark.parametrize(
        ("function", "called"),
        [(os.mkdir, "mkdir"), (eval, "eval"), (nn.Linear, "torch.nn.modules.linear.Linear")],
    )
    def test_code(self, put, function, called, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        arguments = {"mkdir": ("broken_in",), "eval": ("open('broken_in', 'w')",)}.get(called, (2, 2))
        put(Path("file"), {"model": trained().state_dict(), "extra": Malice(function, *arguments)})
        with pytest.raises(ValueError, match=rf"file was not opened: it asks for '\S*{called}' to be called") as caught:
            read_checkpoint(Path("file"))
        assert "state_dict() alone" in str(caught.value)
        assert os.listdir() == ["file"]

    def test_code_without_torchs_wrapping(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("file").write_bytes(pickle.dumps(Malice(os.mkdir, "broken_in"), protocol=2))
        with pytest.raises(ValueError, match=r"was not opened: it asks for '\S*mkdir'|not a readable checkpoint"):
            read_checkpoint(Path("file"))
        assert os.listdir() == ["file"]

    def test_state_hidden_in_harmless_values(self, tmp_path):
        """A Namespace may be there, but what it holds is under the same rule."""
        options = argparse.Namespace(hook=Malice(os.mkdir, str(tmp_path / "broken_in")))
        save(tmp_path / "file", {"opt": options, "model": trained().state_dict()})
        with pytest.raises(ValueError, match="was not opened"):
            read_checkpoint(tmp_path / "file")
        assert not (tmp_path / "broken_in").exists()

    def test_whole_network(self, tmp_path):
        save(tmp_path / "file", trained())
        with pytest.raises(ValueError, match=r"it asks for 'rankdistill\.models\.resnet\.ResNet'"):
            read_checkpoint(tmp_path / "file")

    def test_nothing_stays_allowed(self, tmp_path):
        before = torch.serialization.get_safe_globals()
        save(tmp_path / "file", {"opt": argparse.Namespace(), "model": trained().state_dict()})
        read_checkpoint(tmp_path / "file")
        assert set(torch.serialization.get_safe_globals()) == set(before)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "file", weights_only=True)

    def test_what_the_user_allowed_stays_allowed(self, tmp_path):
        save(tmp_path / "file", {"opt": argparse.Namespace(), "model": trained().state_dict()})
        with torch.serialization.safe_globals([argparse.Namespace]):
            read_checkpoint(tmp_path / "file")
            assert argparse.Namespace in torch.serialization.get_safe_globals()

    @pytest.mark.parametrize("mode", ["w", "w:gz"])
    def test_tar_archive(self, mode, tmp_path):
        path = tmp_path / "cifar_teachers.tar"
        save(tmp_path / "ckpt_epoch_240.pth", trained().state_dict())
        with tarfile.open(path, mode) as archive:
            archive.add(tmp_path / "ckpt_epoch_240.pth", "resnet8_vanilla/ckpt_epoch_240.pth")
        with pytest.raises(ValueError, match=r"cifar_teachers\.tar is a tar archive, not a checkpoint: extract it"):
            read_checkpoint(path)

    def test_zip_archive(self, tmp_path):
        path = tmp_path / "cifar_ckpts.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("resnet8_vanilla/ckpt_epoch_240.pth", b"")
        with pytest.raises(ValueError, match=r"cifar_ckpts\.zip is a zip archive, not a checkpoint: extract it"):
            read_checkpoint(path)

    @pytest.mark.parametrize("content", [b"", b"epoch,top1\n1,2\n", b"PK\x03\x04 and then nothing", b"\x80\x02}q\x00."])
    def test_something_else(self, content, tmp_path):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match=r"file is not a readable checkpoint \(\w+\): .* fetch it again"):
            read_checkpoint(tmp_path / "file")

    @pytest.mark.parametrize("legacy", [False, True])
    def test_damaged(self, legacy, tmp_path):
        """A truncated file, or one with other bytes in it, is refused or read; nothing else happens."""
        buffer = io.BytesIO()
        torch.save(trained().state_dict(), buffer, _use_new_zipfile_serialization=not legacy)
        whole = buffer.getvalue()
        generator = np.random.default_rng(0)
        for size in range(0, len(whole), len(whole) // 10):
            (tmp_path / "file").write_bytes(whole[:size])
            with pytest.raises(ValueError, match=r"not a readable checkpoint|was not opened|archive"):
                read_checkpoint(tmp_path / "file")
        for _ in range(40):
            damaged = bytearray(whole)
            damaged[generator.integers(min(len(whole), 4000))] = generator.integers(256)
            (tmp_path / "file").write_bytes(damaged)
            with contextlib.suppress(ValueError):
                read_checkpoint(tmp_path / "file")

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing: check the path"):
            read_checkpoint(tmp_path / "nothing")

    @pytest.mark.parametrize(
        ("content", "holds"),
        [
            ({"epoch": 3, "model": {"lr": 0.1}}, "the keys epoch, model"),
            ({"model": {0: torch.ones(1)}}, "the keys model"),
            ({}, "nothing"),
            (torch.ones(3), "a Tensor"),
            ([torch.ones(3)], "a list"),
        ],
    )
    def test_no_weights(self, content, holds, tmp_path):
        save(tmp_path / "file", content)
        with pytest.raises(
            ValueError, match=f"file holds {holds}: weights are looked for under model, state_dict, net"
        ):
            read_checkpoint(tmp_path / "file")

    def test_names_with_and_without_prefix(self, tmp_path):
        save(tmp_path / "file", {"module.fc.bias": torch.ones(2), "fc.bias": torch.ones(2)})
        with pytest.raises(ValueError, match=r"some names both with and without 'module\.'"):
            read_checkpoint(tmp_path / "file")

    def test_no_such_subtree(self, tmp_path):
        save(tmp_path / "one", trained().state_dict())
        with pytest.raises(ValueError, match=r"holds one network, .*: there is no teacher to take out of it"):
            read_checkpoint(tmp_path / "one", subtree="teacher")
        save(tmp_path / "two", {"student.fc.bias": torch.ones(2)})
        with pytest.raises(ValueError, match="holds a student: there is no teacher to take out of it"):
            read_checkpoint(tmp_path / "two", subtree="teacher")


class TestPublished:
    def test_are_networks_of_ours(self):
        assert {model for _, model in PUBLISHED} <= MODELS.keys()
        assert PUBLISHED["cifar100", "resnet32x4"].top1 == 79.42

    @pytest.mark.parametrize("top1", [79.42, 79.22, 79.62])
    def test_near(self, top1):
        assert difference_from_published("cifar100", "resnet32x4", top1) is None

    @pytest.mark.parametrize("top1", [79.21, 79.63, 1.0])
    def test_far(self, top1):
        sentence = difference_from_published("cifar100", "resnet32x4", top1)
        assert f"top-1 is {top1:.2f} %" in sentence
        assert "resnet32x4_vanilla/ckpt_epoch_240.pth) is 79.42 %" in sentence

    def test_unknown(self):
        assert difference_from_published("digits", "resnet32x4", 1.0) is None


class TestWrappedAndAveraged:
    """What torch.compile, AveragedModel and training programs put around a network's names."""

    @pytest.mark.parametrize(
        "prefix",
        ["_orig_mod.", "module.", "model.", "net.", "module._orig_mod.", "_orig_mod.module.", "model.net.module."],
    )
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_prefixes_and_counters_go(self, tmp_path: Path, prefix: str, suffix: str) -> None:
        plain = MODELS["resnet8"](10).state_dict()
        saved = {prefix + name: value.contiguous() for name, value in plain.items()}
        saved |= {prefix + "total_ops": torch.zeros(1), prefix + "layer1.total_params": torch.zeros(1)}
        path = tmp_path / f"weights{suffix}"
        if suffix == ".pth":
            torch.save({"model_state_dict": saved, "epoch": 3}, path)
        else:
            save_file(saved, path)
        weights, header = read_weights(path)
        assert header == {}
        assert weights.keys() == plain.keys()
        assert all(torch.equal(weights[name], value) for name, value in plain.items())

    def test_averaged_model(self, tmp_path: Path) -> None:
        network = MODELS["resnet8"](10)
        torch.save(AveragedModel(network).state_dict(), tmp_path / "average.pth")
        assert read_checkpoint(tmp_path / "average.pth").weights.keys() == network.state_dict().keys()

    def test_an_average_alone_is_taken_and_one_beside_the_weights_when_asked_for(self, tmp_path: Path) -> None:
        raw, average = MODELS["resnet8"](10).state_dict(), MODELS["resnet8"](10).state_dict()
        torch.save({"state_dict_ema": average}, tmp_path / "alone.pth")
        torch.save({"state_dict": raw, "state_dict_ema": average}, tmp_path / "both.pth")
        alone = read_checkpoint(tmp_path / "alone.pth")
        both = read_checkpoint(tmp_path / "both.pth")
        asked = read_checkpoint(tmp_path / "both.pth", subtree="ema")
        name = "layer1.0.conv1.weight"
        assert [(found.taken, found.left) for found in (alone, both, asked)] == [
            ("state_dict_ema", ""),
            ("state_dict", "state_dict_ema"),
            ("state_dict_ema", ""),
        ]
        assert torch.equal(both.weights[name], raw[name])
        assert torch.equal(alone.weights[name], average[name])
        assert torch.equal(asked.weights[name], average[name])

    def test_no_average_to_take(self, tmp_path: Path) -> None:
        torch.save(MODELS["resnet8"](10).state_dict(), tmp_path / "raw.pth")
        with pytest.raises(ValueError, match="weights are looked for under state_dict_ema"):
            read_checkpoint(tmp_path / "raw.pth", subtree="ema")

    @pytest.mark.parametrize(("bad", "message"), [(float("nan"), "NaN or infinite"), (1j, "is complex")])
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_weights_that_are_no_numbers(self, tmp_path: Path, bad: complex, message: str, suffix: str) -> None:
        saved = MODELS["resnet8"](10).state_dict() | {"fc.bias": torch.full((10,), bad)}
        path = tmp_path / f"weights{suffix}"
        if suffix == ".pth":
            torch.save(saved, path)
        else:
            save_file(saved, path)
        with pytest.raises(ValueError, match=rf"{message}.*fc\.bias|fc\.bias.*{message}"):
            read_weights(path)
