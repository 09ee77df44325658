import copy

import pytest
import torch
from contract_methods import random_batch

from rankdistill import Network
from rankdistill.contract import Batch
from rankdistill.models.resnet import ResNet
from rankdistill.taps import select_roles

BATCH = Batch(random_batch().images, None, strong=random_batch().strong)


def small() -> Network:
    module = ResNet(8, (16, 16, 16, 16), 5)
    return Network(module, select_roles(module, ["stage1", "pooled"]))


def test_run_uses_what_is_given_for_logits_features_and_both_views() -> None:
    network, other = small(), small()
    with network.substituted(dict(other.module.named_parameters())):
        found = network.run(BATCH)
    expected = other.run(BATCH)
    assert found.strong is not None
    assert expected.strong is not None
    for left, right in ((found, expected), (found.strong, expected.strong)):
        assert torch.equal(left.logits, right.logits)
        assert all(torch.equal(left.features[role], right.features[role]) for role in ("stage1", "pooled"))


def test_the_module_and_its_statistics_stay_as_they_are() -> None:
    network = small().module.train()
    before = copy.deepcopy(network.state_dict())
    wrapped = Network(network)
    with wrapped.substituted({name: 2.0 * value for name, value in network.named_parameters()}):
        changed = wrapped.run(BATCH).logits
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    assert not torch.equal(changed, wrapped.run(BATCH).logits)
    assert not torch.equal(network.bn1.running_mean, before["bn1.running_mean"])


def test_gradients_flow_into_what_is_given() -> None:
    network = small()
    scale = torch.ones((), requires_grad=True)
    with network.substituted({"fc.weight": scale * network.module.fc.weight.detach()}):
        network.run(BATCH).logits.square().sum().backward()
    assert scale.grad is not None
    assert scale.grad != 0
    assert network.module.fc.weight.grad is None
    assert network.module.conv1.weight.grad is not None


def test_a_pass_that_is_shared_outside_is_not_used_inside() -> None:
    network = small()
    with network.shared_pass():
        plain = network.run(BATCH)
        with network.substituted({"fc.bias": network.module.fc.bias + 1.0}):
            shifted = network.run(BATCH)
        assert network.run(BATCH) is plain
    assert torch.allclose(shifted.logits, plain.logits + 1.0, atol=1e-6)


def test_everything_is_restored_after_an_error() -> None:
    network = small()
    before = network.run(BATCH).logits
    with pytest.raises(RuntimeError), network.substituted({"fc.bias": torch.zeros(7)}):
        network.run(BATCH)
    assert torch.equal(network.run(BATCH).logits, before)


def test_unknown_names() -> None:
    network = small()
    with (
        pytest.raises(ValueError, match=r"ResNet has no parameter 'fc\.wait'"),
        network.substituted({"fc.wait": torch.zeros(1)}),
    ):
        pass
