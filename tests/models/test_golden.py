import copy

import numpy as np
import pytest
import torch
from golden_networks import FOLDER, SIZES, Golden, assert_near, filled, golden_images
from torch import Tensor, nn

from rankdistill.contract import Batch
from rankdistill.models import MODELS
from rankdistill.network import Network
from rankdistill.taps import roles


@pytest.fixture(params=sorted(path.stem for path in FOLDER.glob("*.npz")), scope="module")
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def golden(name) -> Golden:
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def images(name) -> Tensor:
    return golden_images(SIZES[name]["size"])


@pytest.fixture(scope="module")
def module(name) -> nn.Module:
    return filled(MODELS[name](SIZES[name]["num_classes"]).double()).eval()


def test_filling(module, images, golden):
    state = module.state_dict()
    floating = [tensor for tensor in state.values() if tensor.is_floating_point()]
    assert len(state) == golden["n_keys"]
    assert_near(sum(tensor.sum() for tensor in floating), golden["param_sum"], tolerance=1e-11)
    assert_near(sum(tensor.square().sum() for tensor in floating), golden["param_sqsum"], tolerance=1e-12)
    assert_near(images.flatten()[:16], golden["input_first16"], tolerance=0)
    assert_near(images.sum(), golden["input_sum"], tolerance=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_evaluation(module, images, golden, dtype, tolerance):
    copied = copy.deepcopy(module).to(dtype)
    with torch.no_grad():
        output = Network(copied, roles(copied)).run(Batch(images.to(dtype), None))
    assert_near(output.logits, golden["logits"], tolerance=tolerance)
    assert_near(output.features["pooled"], golden["pooled"], tolerance=tolerance)
    taps = ["stem", *(f"stage{n}" for n in range(1, 5) if f"stage{n}" in output.features)]
    kinds = {"feats": taps}
    if "preact_0_shape" in golden:  # there is none of the stem: the authors' list repeats it
        kinds["preact"] = [tap.replace("stage", "pre") for tap in taps]
    for kind, features in kinds.items():
        assert f"{kind}_{len(features)}_shape" not in golden
        for number, role in enumerate(features):
            feature = output.features[role]
            assert feature.shape == tuple(golden[f"{kind}_{number}_shape"])
            # A mean is a sum that cancels, and most of 16 values may be zero: the feature's spread is the measure.
            scale = golden[f"{kind}_{number}_std"].item()
            found = {
                "mean": feature.mean(),
                "std": feature.std(correction=0),
                "first16": feature.flatten()[:16],
                "last16": feature.flatten()[-16:],
            }
            for key, value in found.items():
                assert_near(value, golden[f"{kind}_{number}_{key}"], tolerance=tolerance, scale=scale)


def test_training(module, images, golden):
    copied = copy.deepcopy(module).train()
    with torch.no_grad():
        logits = Network(copied, roles(copied)).run(Batch(images, None)).logits
    assert_near(logits, golden["train_logits"], tolerance=1e-9)
    tracked = [buffer.item() for key, buffer in copied.named_buffers() if key.endswith("num_batches_tracked")]
    assert set(tracked) == {1}
    filling, sums = running_sums(module), running_sums(copied)
    for statistic, golden_sum in (("running_mean", "train_running_mean_sum"), ("running_var", "train_running_var_sum")):
        once = updated_once(filling[statistic], golden[golden_sum], golden["train_num_batches_tracked"])
        assert_near(sums[statistic], once, tolerance=1e-9)


def running_sums(module: nn.Module) -> dict[str, Tensor]:
    return {
        statistic: torch.stack([b.sum() for key, b in module.named_buffers() if key.endswith(statistic)])
        for statistic in ("running_mean", "running_var")
    }


def updated_once(before: Tensor, golden: np.ndarray, updates: np.ndarray) -> np.ndarray:
    """The golden sums as they are after one update, where the authors' wide ResNets made two of the same batch."""
    momentum = 0.1
    kept = (1 - momentum) ** updates
    batch = (golden - kept * before.double().numpy()) / (1 - kept)
    return (1 - momentum) * before.double().numpy() + momentum * batch
