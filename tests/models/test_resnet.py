import hashlib
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rankdistill.core import Batch
from rankdistill.models import MODELS, resnet
from rankdistill.models.resnet import ResNet
from rankdistill.network import Network, roles

RESNETS = {name: build for name, build in MODELS.items() if build.__module__ == resnet.__name__}
GOLDEN = Path(__file__).parents[1] / "golden" / "models"
SIZES = json.loads((GOLDEN / "resnet.json").read_text())
TAPS = ("stem", "stage1", "stage2", "stage3")
BEFORE_THE_RELU = ("stem", "pre1", "pre2", "pre3")  # there is none of the stem: the authors' list repeats it
Golden = dict[str, np.ndarray]


def filled(module: nn.Module) -> nn.Module:
    """Fill every tensor from a generator seeded with the CRC-32 of its name, by the golden files' rule."""
    own = module.state_dict()
    for name, tensor in own.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        owner, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            tensor.zero_()
        elif leaf == "running_var" or (leaf == "weight" and f"{owner}.running_var" in own):
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)
        else:
            if leaf == "weight":
                scale = math.prod(tensor.shape[1:]) ** -0.5
            else:
                scale = 0.1 if f"{owner}.running_var" in own else 0.05
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * scale)
    return module


def golden_images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def assert_near(value: Tensor, golden: np.ndarray, *, tolerance: float) -> None:
    """Compare to a tolerance relative to the largest golden value."""
    difference = (value.double() - torch.as_tensor(golden)).abs().max().item()
    assert difference <= tolerance * np.abs(golden).max()


@pytest.fixture(params=["resnet20", "resnet56", "resnet8x4", "resnet32x4"])
def name(request) -> str:
    return request.param


@pytest.fixture
def golden(name) -> Golden:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


class TestGolden:
    def test_filling(self, name, golden):
        state = filled(RESNETS[name](100).double()).state_dict()
        floating = [tensor for tensor in state.values() if tensor.is_floating_point()]
        assert len(state) == golden["n_keys"]
        assert_near(sum(tensor.sum() for tensor in floating), golden["param_sum"], tolerance=1e-12)
        assert_near(sum(tensor.square().sum() for tensor in floating), golden["param_sqsum"], tolerance=1e-12)
        assert_near(golden_images().flatten()[:16], golden["input_first16"], tolerance=0)
        assert_near(golden_images().sum(), golden["input_sum"], tolerance=1e-12)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
    def test_evaluation(self, name, golden, dtype, tolerance):
        module = filled(RESNETS[name](100).to(dtype)).eval()
        with torch.no_grad():
            output = Network(module, roles(module)).run(Batch(golden_images().to(dtype), None))
        assert_near(output.logits, golden["logits"], tolerance=tolerance)
        assert_near(output.features["pooled"], golden["pooled"], tolerance=tolerance)
        for kind, taps in (("feats", TAPS), ("preact", BEFORE_THE_RELU)):
            for number, role in enumerate(taps):
                feature = output.features[role]
                assert feature.shape == tuple(golden[f"{kind}_{number}_shape"])
                assert_near(feature.mean(), golden[f"{kind}_{number}_mean"], tolerance=tolerance)
                assert_near(feature.std(correction=0), golden[f"{kind}_{number}_std"], tolerance=tolerance)
                assert_near(feature.flatten()[:16], golden[f"{kind}_{number}_first16"], tolerance=tolerance)
                assert_near(feature.flatten()[-16:], golden[f"{kind}_{number}_last16"], tolerance=tolerance)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
    def test_training(self, name, golden, dtype, tolerance):
        module = filled(RESNETS[name](100).to(dtype)).train()
        with torch.no_grad():
            logits = module(golden_images().to(dtype))
        assert_near(logits, golden["train_logits"], tolerance=tolerance)
        buffers = dict(module.named_buffers())
        for statistic in ("running_mean", "running_var"):
            sums = [tensor.sum() for key, tensor in buffers.items() if key.endswith(statistic)]
            assert_near(torch.stack(sums), golden[f"train_{statistic}_sum"], tolerance=tolerance)
        tracked = [tensor.item() for key, tensor in buffers.items() if key.endswith("num_batches_tracked")]
        assert tracked == golden["train_num_batches_tracked"].tolist()


def on_meta(name: str, num_classes: int = 100) -> nn.Module:
    with torch.device("meta"):
        return RESNETS[name](num_classes)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


class TestSizes:
    @pytest.mark.parametrize("name", SIZES)
    def test_state_dict_has_the_published_names_shapes_and_order(self, name):
        shapes = shapes_of(on_meta(name))
        lines = "".join(f"{key} {'x'.join(map(str, shape))}\n" for key, shape in shapes.items())
        assert len(shapes) == SIZES[name]["num_entries"]
        assert hashlib.sha256(lines.encode()).hexdigest() == SIZES[name]["sha256"]

    @pytest.mark.parametrize("name", [name for name in SIZES if "macs" in SIZES[name]])
    def test_parameters_operations_and_taps(self, name):
        module = on_meta(name)
        with FlopCounterMode(display=False) as counter:
            shapes = Network(module, roles(module)).probe(torch.empty(1, 3, 32, 32, device="meta"))
        assert sum(parameter.numel() for parameter in module.parameters()) == SIZES[name]["params"]
        assert counter.get_total_flops() == 2 * SIZES[name]["macs"]
        assert [list(shapes[role]) for role in TAPS] == SIZES[name]["feats"]
        assert [list(shapes[role]) for role in BEFORE_THE_RELU] == SIZES[name]["preact_feats"]
        assert list(shapes["pooled"]) == SIZES[name]["pooled"]

    def test_every_resnet_has_published_sizes_or_is_between_two_that_have(self):
        assert RESNETS.keys() - SIZES.keys() == {"resnet14x4", "resnet20x4"}
        chain = ("resnet8x4", "resnet14x4", "resnet20x4", "resnet32x4")
        published = shapes_of(on_meta("resnet32x4"))
        for name, blocks in zip(chain, (1, 2, 3, 5), strict=True):
            first_blocks = {
                key: shape
                for key, shape in published.items()
                if not key.startswith("layer") or int(key.split(".")[1]) < blocks
            }
            assert shapes_of(on_meta(name)) == first_blocks

    @pytest.mark.parametrize("name", [name for name in RESNETS if "parameters" in RESNETS[name].__doc__])
    def test_docstring_says_the_number_of_parameters(self, name):
        count = sum(parameter.numel() for parameter in on_meta(name).parameters())
        assert f" {count:,} parameters at 100 classes" in RESNETS[name].__doc__

    @pytest.mark.parametrize("name", RESNETS)
    def test_number_of_classes(self, name):
        assert on_meta(name, 7).fc.weight.shape[0] == 7


class TestResNet:
    @pytest.mark.parametrize(("height", "width"), [(8, 8), (33, 40), (64, 64)])
    def test_pools_the_whole_map(self, height, width):
        module = RESNETS["resnet8"](5).eval()
        output = Network(module, roles(module)).run(Batch(torch.randn(2, 3, height, width), None))
        assert output.features["last"].shape == (2, 64, math.ceil(height / 4), math.ceil(width / 4))
        torch.testing.assert_close(output.features["pooled"], output.features["last"].mean(dim=(2, 3)))
        assert output.logits.shape == (2, 5)

    def test_other_images(self):
        assert ResNet(8, (4, 4, 6, 8), 5, in_channels=1)(torch.zeros(2, 1, 8, 8)).shape == (2, 5)

    @pytest.mark.parametrize("depth", [2, 7, 18])
    def test_depth(self, depth):
        with pytest.raises(ValueError, match=rf"depth is {depth}: a CIFAR ResNet has depth 6n \+ 2"):
            ResNet(depth, (4, 4, 6, 8), 5)

    def test_initialisation_is_kaiming_fan_out(self):
        module = RESNETS["resnet8x4"](5)
        for key, tensor in module.state_dict().items():
            if tensor.ndim == 4:
                fan_out = tensor.shape[0] * tensor.shape[2] * tensor.shape[3]
                assert tensor.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1), key
        assert torch.equal(module.layer3[0].bn2.weight, torch.ones(256))
