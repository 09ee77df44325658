import functools
import hashlib
import re

import pytest
import torch
from golden_networks import SIZES
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rankdistill.models import MODELS
from rankdistill.network import Network
from rankdistill.taps import roles

MEASURED = [name for name in SIZES if "params" in SIZES[name]]
NO_SIZES = {"resnet14x4", "resnet20x4", "wrn_28_2"}
DOCUMENTED = re.compile(r" ([\d,]+) parameters at (\d+) classes")


@functools.cache
def on_meta(name: str, num_classes: int | None = None) -> nn.Module:
    with torch.device("meta"):
        return MODELS[name](num_classes or SIZES.get(name, {"num_classes": 100})["num_classes"])


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def test_all_eighteen_networks_are_measured():
    assert len(MEASURED) == 18


def test_every_network_has_published_names_or_is_between_two_that_have():
    assert MODELS.keys() - SIZES.keys() == NO_SIZES
    assert SIZES.keys() <= MODELS.keys()


@pytest.mark.parametrize("name", SIZES)
def test_state_dict_has_the_published_names_shapes_and_order(name):
    shapes = shapes_of(on_meta(name))
    lines = "".join(f"{key} {'x'.join(map(str, shape))}\n" for key, shape in shapes.items())
    assert len(shapes) == SIZES[name]["num_entries"]
    assert hashlib.sha256(lines.encode()).hexdigest() == SIZES[name]["sha256"]


@pytest.mark.parametrize(
    ("prefix", "chain"),
    [
        ("layer", {"resnet8x4": 1, "resnet14x4": 2, "resnet20x4": 3, "resnet32x4": 5}),
        ("block", {"wrn_16_2": 2, "wrn_28_2": 4, "wrn_40_2": 6}),
    ],
)
def test_networks_in_between_have_the_first_blocks_of_the_deeper_one(prefix, chain):
    deepest = shapes_of(on_meta(list(chain)[-1]))
    for name, blocks in chain.items():
        first_blocks = {
            key: shape
            for key, shape in deepest.items()
            if not key.startswith(prefix) or int(re.search(r"\.(\d+)\.", key)[1]) < blocks
        }
        assert shapes_of(on_meta(name, 100)) == first_blocks


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", MEASURED)
def test_parameters_operations_and_taps(name, size):
    module, published = on_meta(name), SIZES[name]
    with FlopCounterMode(display=False) as counter:
        shapes = Network(module, roles(module)).probe(torch.empty(1, 3, size, size, device="meta"))
    assert sum(parameter.numel() for parameter in module.parameters()) == published["params"]
    assert counter.get_total_flops() == 2 * published["macs"][str(size)]
    assert shapes["pooled"] == (published["pooled"],)
    taps = ["stem", *(f"stage{number}" for number in range(1, len(published["feats"])))]
    assert [list(shapes[role]) for role in taps] == resized(name, published["feats"], size)
    if published["preact_feats"]:
        befores = [role.replace("stage", "pre") for role in taps]
        assert [list(shapes[role]) for role in befores] == resized(name, published["preact_feats"], size)


def resized(name: str, taps: list[list[int]], size: int) -> list[list[int]]:
    if size == SIZES[name]["size"]:
        return taps
    if name == "tiny_mobilenetv2":  # the stem's padding adds 2 pixels at any size
        return [[channels, side, side] for (channels, _, _), side in zip(taps, (34, 17, 9, 5, 5), strict=True)]
    factor = size / SIZES[name]["size"]
    taps = [[channels, int(height * factor), int(width * factor)] for channels, height, width in taps]
    if name.startswith("vgg"):  # one pool more at 64 pixels
        taps[-1] = [512, 4, 4]
    return taps


@pytest.mark.parametrize("name", MODELS)
def test_docstring_says_the_number_of_parameters(name):
    said = DOCUMENTED.search(MODELS[name].__doc__)
    if said is None:
        assert name not in MEASURED
        return
    count = sum(parameter.numel() for parameter in on_meta(name, int(said[2])).parameters())
    assert f"{count:,}" == said[1]


@pytest.mark.parametrize("name", MODELS)
def test_number_of_classes(name):
    few, many = shapes_of(on_meta(name)), shapes_of(on_meta(name, 7))
    assert few.keys() == many.keys()
    *_, weight, bias = many
    assert {key for key in few if few[key] != many[key]} == {weight, bias}
    assert many[bias] == (7,)
