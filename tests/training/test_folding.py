"""A frozen network whose batch norms are merged says what it said before, and nothing is merged that must not be."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rankdistill import MODELS, Batch, Network, roles
from rankdistill.training.folding import fold_batch_norms


def lived(module: nn.Module) -> nn.Module:
    """Give batch norms statistics and parameters of their own."""
    for child in module.modules():
        if isinstance(child, _BatchNorm) and child.running_mean is not None and child.running_var is not None:
            child.running_mean.normal_(0.0, 0.1)
            child.running_var.uniform_(0.5, 1.5)
            if child.affine:
                nn.init.uniform_(child.weight, 0.5, 1.5)
                nn.init.normal_(child.bias, 0.0, 0.1)
    return module


def norms(module: nn.Module) -> int:
    return sum(isinstance(child, _BatchNorm) for child in module.modules())


@pytest.mark.parametrize("name", MODELS)
def test_every_network_says_what_it_said(name: str) -> None:
    torch.manual_seed(0)
    module = lived(MODELS[name](10)).double()
    before = Network(copy.deepcopy(module), roles(module), frozen=True)
    network = Network(module, roles(module), frozen=True)
    count = norms(module)
    folded = fold_batch_norms(network, torch.randn(2, 3, 32, 32).double())
    assert folded == count - norms(module)
    # A wide residual network normalises before the layer that would take the batch norm in, but for one in a block.
    assert folded == count if not name.startswith("wrn") else count // 3 < folded < count
    batch = Batch(torch.randn(3, 3, 32, 32).double(), None)
    expected, found = before.run(batch), network.run(batch)
    assert torch.allclose(found.logits, expected.logits, rtol=1e-9, atol=1e-9)
    assert found.features.keys() == expected.features.keys()
    for role, feature in expected.features.items():
        assert torch.allclose(found.features[role], feature, rtol=1e-9, atol=1e-9), role


class Small(nn.Module):
    """Two convolutions with a batch norm each; `forward` is given."""

    def __init__(self, forward: Callable[[Small, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1, bias=False)
        self.norm, self.other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)
        self.given = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.given(self, x).mean((2, 3)))


WAYS: dict[str, tuple[Callable[[Small, Tensor], Tensor], int]] = {
    "in a row": (lambda m, x: m.other(m.two(m.norm(m.one(x)).relu())), 2),
    "an output with two readers": (lambda m, x: m.norm(y := m.one(x)) + y, 0),
    "a batch norm first": (lambda m, x: m.two(m.norm(m.one(x)).relu().add(1)), 1),
    "a layer used twice": (lambda m, x: m.two(m.norm(m.two(m.other(m.one(x))))), 1),
    "a batch norm used twice": (lambda m, x: m.norm(m.two(m.norm(m.one(x)))), 0),
    "an output that is changed in between": (lambda m, x: m.norm(m.one(x).mul_(2.0)), 0),
    "an output that goes through something": (lambda m, x: m.norm(m.one(x).relu()), 0),
}


@pytest.mark.parametrize("way", WAYS)
def test_only_what_reads_a_whole_output_alone_is_merged(way: str) -> None:
    forward, expected = WAYS[way]
    torch.manual_seed(0)
    module = lived(Small(forward))
    network = Network(module, {"two": "two"} if way == "in a row" else {}, frozen=True)
    x = torch.randn(2, 3, 8, 8)
    before, state = network.run(Batch(x, None)), copy.deepcopy(module.state_dict())
    folded = fold_batch_norms(network, x)
    assert folded == (1 if way == "in a row" else expected)  # there a tap reads the second convolution itself
    after = network.run(Batch(x, None))
    assert torch.allclose(before.logits, after.logits, rtol=1e-4, atol=1e-5)
    if not folded:
        assert module.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("options", [{"frozen": False}, {"frozen": True, "mode": "batch_stats"}])
def test_networks_that_train_or_use_the_batchs_statistics_are_left_alone(options: dict[str, object]) -> None:
    module = lived(MODELS["resnet8"](10))
    count = norms(module)
    assert fold_batch_norms(Network(module, **options), torch.randn(2, 3, 32, 32)) == 0  # type: ignore[arg-type]
    assert norms(module) == count


def test_batch_norms_without_parameters_or_statistics_are_left_alone() -> None:
    forward = WAYS["in a row"][0]
    module = Small(forward)
    module.norm, module.other = nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False)
    assert fold_batch_norms(Network(module, frozen=True), torch.randn(2, 3, 8, 8)) == 0
