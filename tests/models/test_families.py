"""What holds of one family of networks, or of one network of each."""

import math
from collections.abc import Callable
from typing import get_type_hints

import pytest
import torch
from torch import nn

from rankdistill.contract import Batch
from rankdistill.models import MODELS
from rankdistill.models.resnet import ResNet
from rankdistill.models.resnet_imagenet import Bottleneck, ImageNetResNet, PlainBlock
from rankdistill.models.wrn import WideResNet
from rankdistill.network import Network
from rankdistill.taps import resume, roles

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: ResNet(8, (4, 4, 6, 8), 5),
    "plain blocks": lambda: ImageNetResNet(PlainBlock, (1, 1, 1, 1), 5),
    "bottlenecks": lambda: ImageNetResNet(Bottleneck, (1, 1, 1, 2), 5),
    "wrn": lambda: WideResNet(10, 1, 5),
    "vgg": lambda: MODELS["vgg8"](5),
    "mobilenetv2": lambda: MODELS["mobilenetv2"](5),
    "tiny_mobilenetv2": lambda: MODELS["tiny_mobilenetv2"](5),
    "shufflenetv1": lambda: MODELS["shufflenetv1"](5),
    "shufflenetv2": lambda: MODELS["shufflenetv2"](5),
}
FCFD_BORDERS = {
    "resnet": ["stage1", "stage2", "stage3"],
    "plain blocks": ["stage1", "stage2", "stage3", "stage4"],
    "bottlenecks": ["stage1", "stage2", "stage3", "stage4"],
    "wrn": ["stage1", "stage2", "pre3"],
    "vgg": ["pre1", "pre2", "pre3", "pre4"],
    "mobilenetv2": ["pre1", "pre2", "pre3", "prelast"],
    "tiny_mobilenetv2": ["pre1", "pre2", "pre3", "pre4"],
    "shufflenetv1": ["pre1", "pre2", "pre3"],
    "shufflenetv2": ["stage1", "stage2", "last"],
}
"""Where FCFD cuts a network of each family, stage by stage without the stem."""
LAST_IS = {
    "resnet": "stage3",
    "plain blocks": "stage4",
    "bottlenecks": "stage4",
    "vgg": "stage4",
    "tiny_mobilenetv2": "stage4",
    "shufflenetv1": "stage3",
}


@pytest.fixture(params=NETWORKS)
def name(request) -> str:
    return request.param


@pytest.fixture
def module(name) -> nn.Module:
    return NETWORKS[name]().eval()


def features_of(module: nn.Module, size: tuple[int, int] = (32, 32)) -> dict[str, torch.Tensor]:
    images = torch.randn(2, 3, *size, dtype=next(module.parameters()).dtype)
    with torch.no_grad():
        output = Network(module, roles(module)).run(Batch(images, None))
    return {"images": images, **output.features, "logits": output.logits}


def test_there_is_one_of_each_class():
    classes = {get_type_hints(build)["return"] for build in MODELS.values()}
    assert classes == {type(build()) for build in NETWORKS.values()}


def test_every_border_gives_the_rest_of_the_network(module):
    features = features_of(module, (16, 16))
    borders = [role for role, _ in module.segments()]
    assert set(borders) == set(features) - {"logits"}
    for number, role in enumerate(borders[1:], start=1):
        before = features[role].clone()
        tail = resume(module, role, features[role])
        assert torch.equal(tail.logits, features["logits"])
        assert list(tail.features) == borders[number + 1 :]
        assert all(torch.equal(feature, features[later]) for later, feature in tail.features.items())
        assert torch.equal(features[role], before)


def test_no_feature_is_overwritten_in_training(module):
    shapes = Network(module, roles(module)).probe(torch.zeros(2, 3, 16, 16))
    module.train()
    Network(module, roles(module)).run(Batch(torch.randn(2, 3, 16, 16), None)).logits.sum().backward()
    assert shapes["logits"] == (5,)
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("size", [(33, 47), (64, 64)])
def test_pools_the_whole_map(module, size):
    features = features_of(module.double(), size)
    torch.testing.assert_close(features["pooled"], features["last"].mean(dim=(2, 3)))
    assert features["pooled"].ndim == 2
    assert features["logits"].shape == (2, 5)
    assert features["last"].min() == 0  # a ReLU's output, which the classifier's average reads


@pytest.mark.parametrize("name", LAST_IS)
def test_last_is_the_last_stage_where_nothing_follows_it(module, name):
    features = features_of(module, (16, 16))
    assert features["last"] is features[LAST_IS[name]]


@pytest.mark.parametrize("name", ["resnet", "plain blocks", "bottlenecks", "vgg", "shufflenetv1"])
def test_pre_is_what_the_relu_of_the_stage_reads(module):
    features = features_of(module, (16, 16))
    for role in [role for role in features if role.startswith("pre")]:
        assert features[role].min() < 0
        assert torch.equal(features[role].relu(), features[role.replace("pre", "stage")])


def test_wide_resnet_features_are_signed_sums_and_their_norms():
    module = MODELS["wrn_16_1"](5).eval()
    for norm in (module.block2.layer[0].bn1, module.block3.layer[0].bn1, module.bn1):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
    features = features_of(module)
    norms = (module.block2.layer[0].bn1, module.block3.layer[0].bn1, module.bn1)
    for number, norm in enumerate(norms, start=1):
        assert features[f"stage{number}"].min() < 0
        assert torch.equal(norm(features[f"stage{number}"]), features[f"pre{number}"])
    assert features["stem"].min() < 0
    assert torch.equal(features["last"], features["pre3"].relu())


def test_wide_resnet_updates_each_statistic_once_a_step():
    module = MODELS["wrn_16_2"](5).train()
    features_of(module)
    assert {int(m.num_batches_tracked) for m in module.modules() if isinstance(m, nn.BatchNorm2d)} == {1}


def test_shufflenetv2_pre_is_joined_before_relu_and_shuffle():
    features = features_of(MODELS["shufflenetv2"](5).eval())
    for number, half in ((1, 58), (2, 116), (3, 232)):
        passed, worked = features[f"pre{number}"].split(half, dim=1)
        assert passed.min() >= 0 > worked.min()
        stage = torch.stack([passed, worked.relu()], dim=2).flatten(1, 2)
        assert torch.equal(stage, features[f"stage{number}"])


def test_shufflenetv2_passes_what_comes_from_outside_unchanged():
    """Only the worked half has a ReLU: a signed feature that is put in at a border stays signed."""
    module = MODELS["shufflenetv2"](5).eval()
    feature = torch.randn(2, 116, 16, 16)
    assert torch.equal(resume(module, "pre1", feature).features["stage1"][:, ::2], feature[:, :58])


@pytest.mark.parametrize("name", ["mobilenetv2", "tiny_mobilenetv2"])
def test_mobilenetv2_stages_end_without_an_activation(module, name):
    features = features_of(module)
    signed = ("stage1", "stage2", "stage3") + (("stage4",) if name == "mobilenetv2" else ())
    for role in signed:
        assert features[role].min() < 0
        assert features[role] is features[role.replace("stage", "pre")]
    end = "prelast" if name == "mobilenetv2" else "pre4"
    assert features[end].min() < 0
    top = math.inf if name == "mobilenetv2" else 6.0
    assert torch.equal(features[end].clamp(0.0, top), features["last"])


def test_tiny_mobilenetv2_has_relu6():
    module = MODELS["tiny_mobilenetv2"](5).eval()
    feature = torch.full((2, 1280, 3, 3), 10.0)
    assert torch.equal(resume(module, "pre4", feature).features["pooled"], torch.full((2, 1280), 6.0))


def test_fcfd_can_mix_at_its_borders(module, name):
    features = features_of(module, (16, 16))
    borders = FCFD_BORDERS[name]
    for number, border in enumerate(borders, start=1):
        bridged = torch.randn_like(features[border]).requires_grad_()
        mixed = resume(module, border, bridged)
        mixed.logits.square().sum().backward()
        assert bridged.grad.any()
        assert set(borders[number:]) <= mixed.features.keys()


@pytest.mark.parametrize(("height", "side"), [(32, 4), (63, 7), (64, 4), (65, 8), (96, 12)])
def test_vgg_pools_once_more_at_64_rows_only(height, side):
    features = features_of(MODELS["vgg8"](5).eval(), (height, 40))
    assert features["last"].shape[2] == side


def test_vgg_entered_at_8_rows_pools_once_more():
    module = MODELS["vgg8"](5).eval()
    features = features_of(module, (64, 64))
    assert torch.equal(resume(module, "stage3", features["stage3"]).logits, features["logits"])


@pytest.mark.parametrize("depth", [4, 8, 18])
def test_depth_of_wide_resnet(depth):
    with pytest.raises(ValueError, match=rf"depth is {depth}: a wide ResNet has depth 6n \+ 4"):
        WideResNet(depth, 1, 5)


@pytest.mark.parametrize("name", ["resnet8x4", "wrn_16_2", "vgg8", "resnet18", "mobilenetv2"])
def test_convolutions_are_drawn_by_fan_out(name):
    module = MODELS[name](200)
    for key, convolution in module.named_modules():
        if isinstance(convolution, nn.Conv2d) and convolution.weight.numel() > 400:
            fan_out = math.prod(convolution.kernel_size) * convolution.out_channels
            assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.15), key
            assert convolution.bias is None or not convolution.bias.any()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert torch.equal(norm.weight, torch.ones_like(norm.weight))
            assert not norm.bias.any()


@pytest.mark.parametrize("name", ["vgg8", "mobilenetv2"])
def test_small_classifiers(name):
    *_, classifier = (m for m in MODELS[name](200).modules() if isinstance(m, nn.Linear))
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not classifier.bias.any()


def test_wide_resnet_classifier_has_no_bias_at_first():
    assert not MODELS["wrn_16_2"](200).fc.bias.any()


@pytest.mark.parametrize("name", ["shufflenetv1", "shufflenetv2", "tiny_mobilenetv2"])
def test_torchs_own_draws(name):
    """These networks draw uniformly within 1 / sqrt(fan-in), weights and biases, as torch does by itself."""
    for key, layer in MODELS[name](200).named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.numel() > 400:
            bound = math.prod(layer.weight.shape[1:]) ** -0.5
            assert 0.95 * bound < layer.weight.abs().max() <= bound, key
            assert layer.bias is None or layer.bias.abs().max() > 0
