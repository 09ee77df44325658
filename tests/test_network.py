import collections
import copy
import dataclasses
import gc

import pytest
import timm
import torch
import torchvision
from contract_methods import random_batch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rankdistill.assembly import pair_of
from rankdistill.contract import Batch
from rankdistill.known_roles import TORCHVISION
from rankdistill.models import MODELS
from rankdistill.models.resnet import ResNet
from rankdistill.network import Network, batch_statistics
from rankdistill.taps import resume, roles, select_roles

WEAK = Batch(random_batch().images, None)
BOTH = Batch(random_batch().images, None, strong=random_batch().strong)
OUR_ROLES = ("stem", "pre1", "stage1", "pre2", "stage2", "pre3", "stage3", "last", "pooled")


def small(widths: tuple[int, int, int, int] = (4, 4, 6, 8)) -> ResNet:
    return ResNet(14, widths, 5)


class Chain(nn.Module):
    """Images to logits by way of named modules, for taps that go wrong."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        for name, module in self.named_children():
            if name != "classifier":
                x = module(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


class TestTaps:
    def test_output_and_input(self):
        module = Chain(conv=nn.Conv2d(3, 4, 3), act=nn.ReLU())
        output = Network(module, {"stage1": "act", "pre1": "<act", "images": "<"}).run(WEAK)
        pre = module.conv(WEAK.images)
        assert torch.equal(output.features["pre1"], pre)
        assert torch.equal(output.features["stage1"], pre.relu())
        assert output.features["images"] is WEAK.images
        assert torch.equal(output.logits, module(WEAK.images))

    def test_input_given_by_name(self):
        class Named(Chain):
            def forward(self, x):
                return self.classifier(self.act(input=self.conv(x)))

        module = Named(conv=nn.Conv2d(3, 4, 3), act=nn.ReLU())
        output = Network(module, {"pre1": "<act"}).run(WEAK)
        assert torch.equal(output.features["pre1"], module.conv(WEAK.images))

    def test_misspelt(self):
        with pytest.raises(
            ValueError, match=r"'stage2' taps 'layr2', which ResNet does not have: the nearest are .*layer2"
        ):
            Network(small(), {"stage2": "layr2"})

    def test_nothing_like_it(self):
        module = Chain(conv=nn.Conv2d(3, 4, 3))
        with pytest.raises(ValueError, match="'stage2' taps 'XYZ', which Chain does not have: it has conv, classifier"):
            Network(module, {"stage2": "XYZ"})

    def test_did_not_run(self):
        module = Chain(conv=nn.Conv2d(3, 4, 3))
        module.classifier.unused = nn.Identity()
        module.classifier.forward = lambda x: x.mean(dim=(2, 3))
        network = Network(module, {"stage1": "conv", "pooled": "classifier.unused"})
        with pytest.raises(RuntimeError, match=r"tap 'classifier\.unused' of role 'pooled' did not run"):
            network.run(WEAK)

    def test_ran_twice(self):
        shared = nn.ReLU()
        module = Chain(a=nn.Conv2d(3, 4, 3), act=shared, b=nn.Conv2d(4, 4, 3))
        module.b.register_forward_hook(lambda _, __, output: shared(output))
        network = Network(module, {"stage1": "act"})
        with pytest.raises(RuntimeError, match=r"tap 'act' of role 'stage1' ran twice in one pass.*write 'act@last'"):
            network.run(WEAK)
        network.close()
        last = Network(module, {"stage1": "act@last", "pre1": "<act@last"})
        assert last.probe(WEAK.images)["stage1"] == (4, 12, 12)
        output = last.run(WEAK)
        assert torch.equal(output.features["stage1"], module.features(WEAK.images))
        assert torch.equal(output.features["pre1"].relu(), output.features["stage1"])

    def test_not_a_tensor(self):
        class Two(nn.Module):
            def forward(self, x):
                return x, x

        module = nn.Sequential(Two())
        with pytest.raises(TypeError, match="tap '0' of role 'stage1' gives a tuple of 2, not a tensor"):
            Network(module, {"stage1": "0"}).run(WEAK)

    def test_records_only_inside_run(self):
        module = small()
        network = Network(module, {"stage1": "layer1"})
        features = network.run(WEAK).features
        kept = features["stage1"]
        module(BOTH.strong)
        assert features["stage1"] is kept
        network.close()
        with pytest.raises(RuntimeError, match="did not run"):
            network.run(WEAK)

    def test_adds_nothing_to_the_state_dict(self):
        module = small()
        before = list(module.state_dict())
        Network(module, roles(module), frozen=True).run(WEAK)
        assert list(module.state_dict()) == before

    def test_each_view_has_its_own_pass(self):
        module = small()
        output = Network(module, {"stage1": "layer1"}).run(BOTH)
        assert module.bn1.num_batches_tracked == 2
        reference = copy.deepcopy(module)
        assert torch.equal(output.logits, reference(BOTH.images))
        assert torch.equal(output.strong.logits, reference(BOTH.strong))
        assert not torch.equal(output.features["stage1"], output.strong.features["stage1"])
        assert output.strong.strong is None
        assert Network(module).run(WEAK).strong is None


class TestProbe:
    def test_shapes(self):
        module = small()
        shapes = Network(module, roles(module)).probe(torch.zeros(2, 3, 16, 16))
        assert shapes == {
            "stem": (4, 16, 16),
            "pre1": (4, 16, 16),
            "stage1": (4, 16, 16),
            "pre2": (6, 8, 8),
            "stage2": (6, 8, 8),
            "pre3": (8, 4, 4),
            "stage3": (8, 4, 4),
            "last": (8, 4, 4),
            "pooled": (8,),
            "logits": (5,),
        }

    @pytest.mark.parametrize("taps", [{"pre4": "layer4.1.bn2"}, {"stage1": "layer1.0", "pre4": "layer4.1.bn2"}])
    def test_residual_sum_in_place(self, taps):
        network = Network(torchvision.models.resnet18(weights=None), taps)
        message = r"feature 'pre4' \(tap 'layer4\.1\.bn2'\) is overwritten in place by a later layer"
        with pytest.raises(RuntimeError, match=message):
            network.probe(torch.zeros(1, 3, 32, 32))

    @pytest.mark.parametrize("tap", ["norm", "<act"])
    def test_relu_in_place(self, tap):
        module = Chain(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), act=nn.ReLU(inplace=True))
        network = Network(module, {"pre1": tap})
        with pytest.raises(RuntimeError, match=f"feature 'pre1' .tap '{tap}'. is overwritten in place"):
            network.probe(WEAK.images)
        module.act.inplace = False
        assert network.probe(WEAK.images)["pre1"] == (4, 14, 14)

    def test_dropout_in_place_overwrites_only_what_trains(self):
        module = Chain(conv=nn.Conv2d(3, 4, 3), drop=nn.Dropout(0.5, inplace=True))
        with pytest.raises(RuntimeError, match=r"feature 'stage1' .* is overwritten in place"):
            Network(module, {"stage1": "conv"}).probe(WEAK.images)
        assert Network(module, {"stage1": "conv"}, frozen=True).probe(WEAK.images)["stage1"] == (4, 14, 14)

    def test_leaves_modes_buffers_gradients_and_random_state(self):
        module = Chain(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), drop=nn.Dropout(0.5), act=nn.ReLU())
        module(WEAK.images)
        module.norm.eval()
        state = copy.deepcopy(module.state_dict())
        modes = [m.training for m in module.modules()]
        random_state = torch.get_rng_state()
        Network(module, {"stage1": "act"}).probe(WEAK.images)
        torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0)
        assert [m.training for m in module.modules()] == modes
        assert torch.equal(torch.get_rng_state(), random_state)
        assert all(p.grad is None and p.requires_grad for p in module.parameters())

    def test_leaves_modes_after_an_error(self):
        module = Chain(conv=nn.Conv2d(3, 4, 3), act=nn.ReLU(inplace=True))
        with pytest.raises(RuntimeError, match="overwritten"):
            Network(module, {"pre1": "conv"}).probe(WEAK.images)
        assert all(m.training for m in module.modules())

    def test_run_is_not_checked_for_overwriting(self):
        module = Chain(conv=nn.Conv2d(3, 4, 3), act=nn.ReLU(inplace=True))
        assert Network(module, {"pre1": "conv"}).run(WEAK).features["pre1"].min() == 0

    def test_pair(self):
        student, teacher = small(), small((4, 6, 8, 12))
        networks = Network(student, select_roles(student, ["stage2"])), Network(teacher, {"last": "<avgpool"})
        pair = pair_of(*networks, WEAK.images, num_samples=7)
        assert (pair.student, pair.teacher) == (student, teacher)
        assert pair.student_shapes == {"stage2": (6, 8, 8), "logits": (5,)}
        assert pair.teacher_shapes == {"last": (12, 4, 4), "logits": (5,)}
        assert (pair.num_classes, pair.num_samples) == (5, 7)

    def test_pair_without_a_teacher(self):
        pair = pair_of(Network(small()), None, WEAK.images, num_samples=7)
        assert (pair.teacher, pair.teacher_shapes) == (None, {})


class ModelOutput(collections.OrderedDict):
    """As Hugging Face's: a mapping that also takes an index."""

    def __getitem__(self, key):
        return super().__getitem__(key) if isinstance(key, str) else list(self.values())[key]


class Returning(nn.Module):
    def __init__(self, make) -> None:
        super().__init__()
        self.make = make
        self.fc = nn.Linear(3, 5)

    def forward(self, x):
        return self.make(self.fc(x.mean(dim=(2, 3))), x)


class TestLogits:
    @pytest.mark.parametrize(
        ("make", "where"),
        [
            (lambda logits, x: (x, logits), 1),
            (lambda logits, x: [logits, x], 0),
            (lambda logits, x: [x, logits], -1),
            (lambda logits, x: {"aux": x, "logits": logits}, "logits"),
            (lambda logits, x: ModelOutput(loss=x, logits=logits), "logits"),
            (lambda logits, x: ModelOutput(loss=x, logits=logits), 1),
            (lambda logits, x: logits, None),
            (lambda logits, x: logits, 0),  # Inception gives a tuple in training and a tensor in evaluation
        ],
    )
    def test_found(self, make, where):
        module = Returning(make)
        output = Network(module, {"pooled": "<fc"}, logits=where).run(WEAK)
        assert torch.equal(output.logits, module.fc(output.features["pooled"]))

    @pytest.mark.parametrize(
        ("make", "described"),
        [
            (lambda logits, x: (x, logits), "a tuple of 2"),
            (lambda logits, x: [x], "a list of 1"),
            (lambda logits, x: {"aux": x, "logits": logits}, "a dict with keys 'aux', 'logits'"),
            (lambda logits, x: ModelOutput(loss=x, logits=logits), "a ModelOutput with keys 'loss', 'logits'"),
            (lambda logits, x: None, "a NoneType"),
        ],
    )
    def test_not_said_where(self, make, described):
        message = rf"the network returned {described}, not a tensor of logits: .*logits=index or key"
        with pytest.raises(TypeError, match=message):
            Network(Returning(make)).run(WEAK)

    @pytest.mark.parametrize(
        ("make", "where"),
        [
            (lambda logits, x: (x, logits), 2),
            (lambda logits, x: (x, logits), "logits"),
            (lambda logits, x: {"y": logits}, "logits"),
            (lambda logits, x: {"y": logits}, 0),
        ],
    )
    def test_not_there(self, make, where):
        with pytest.raises(TypeError, match=f"logits={where!r} is not in the network's output, a (tuple|dict)"):
            Network(Returning(make), logits=where).run(WEAK)

    def test_not_two_dimensions(self):
        with pytest.raises(ValueError, match=r"logits have shape \(6, 3, 16, 16\): \[batch, classes\] is needed"):
            Network(Returning(lambda logits, x: (x, logits)), logits=0).run(WEAK)


class TestFrozen:
    def test_freezes(self):
        module = small()
        images = BOTH.images.clone().requires_grad_()
        output = Network(module, roles(module), frozen=True).run(dataclasses.replace(BOTH, images=images))
        assert not any(m.training for m in module.modules())
        assert not any(p.requires_grad for p in module.parameters())
        for view in (output, output.strong):
            assert not any(tensor.requires_grad for tensor in (view.logits, *view.features.values()))

    def test_not_frozen_keeps_the_graph(self):
        module = small()
        output = Network(module, {"stage1": "layer1"}).run(WEAK)
        assert output.features["stage1"].requires_grad
        assert all(p.requires_grad for p in module.parameters())

    @pytest.mark.parametrize("part", ["", "layer2.0.bn1"])
    def test_train_mode(self, part):
        module = small()
        network = Network(module, frozen=True)
        module.get_submodule(part).train()
        with pytest.raises(RuntimeError, match=r"frozen network is in train mode: something called train\(\) on it"):
            network.run(WEAK)

    def test_thawed_parameter(self):
        module = small()
        network = Network(module, frozen=True)
        module.fc.bias.requires_grad_(True)
        with pytest.raises(RuntimeError, match="frozen network has parameters that require gradients"):
            network.run(WEAK)

    @pytest.mark.parametrize("mode", ["eval", "batch_stats"])
    def test_runs_change_no_buffer(self, mode):
        module = small()
        network = Network(module, roles(module), frozen=True, mode=mode)
        before = copy.deepcopy(module.state_dict())
        for step in range(3):
            network.run(random_batch(step))
        torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)

    def test_batch_statistics_mode(self):
        module = small()
        expected = copy.deepcopy(module).train()(WEAK.images)
        on_batch = Network(module, frozen=True, mode="batch_stats").run(WEAK).logits
        on_running = Network(module, frozen=True).run(WEAK).logits
        assert torch.equal(on_batch, expected)
        assert not torch.allclose(on_batch, on_running, rtol=0.1)

    def test_gradient_goes_through_a_frozen_tail_to_its_input_only(self):
        module = small()
        network = Network(module, {"stage2": "layer2"}, frozen=True, mode="batch_stats")
        feature = network.run(WEAK).features["stage2"].clone().requires_grad_()
        before = copy.deepcopy(module.state_dict())
        with batch_statistics(module):
            resume(module, "stage2", feature).logits.square().sum().backward()
        assert feature.grad.abs().max() > 0
        assert all(p.grad is None for p in module.parameters())
        torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


class TestBatchStatistics:
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize(
        "make",
        [
            small,
            lambda: timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=5),
        ],
        ids=["ours", "timm, with batch norms of its own"],
    )
    def test_of_the_batch_and_nothing_written(self, make, training):
        module = make().train(training)
        expected = copy.deepcopy(module).train()(WEAK.images)
        before = copy.deepcopy(module.state_dict())
        with batch_statistics(module):
            assert torch.equal(module(WEAK.images), expected)
        torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)

    def test_other_layers_keep_their_mode(self):
        module = Chain(conv=nn.Conv2d(3, 4, 3), drop=nn.Dropout(0.5), norm=nn.BatchNorm2d(4)).eval()
        with batch_statistics(module):
            assert torch.equal(module(WEAK.images), module(WEAK.images))

    def test_restored_after_an_error(self):
        module = small()
        module.layer1.eval()
        modes = [m.training for m in module.modules()]
        with pytest.raises(ArithmeticError), batch_statistics(module):
            raise ArithmeticError
        assert [m.training for m in module.modules()] == modes
        assert all(m.track_running_stats for m in module.modules() if isinstance(m, nn.BatchNorm2d))

    def test_norm_without_running_statistics_is_left_alone(self):
        norm = nn.BatchNorm2d(3, track_running_stats=False)
        with batch_statistics(norm):
            assert not norm.track_running_stats
        assert not norm.track_running_stats


class TestSharedPass:
    def test_once_per_batch_and_not_beyond(self):
        module = small()
        network = Network(module)
        with network.shared_pass():
            first = network.run(WEAK)
            other = network.run(BOTH)
            with network.shared_pass():
                assert network.run(WEAK) is first
            assert network.run(WEAK) is first
            assert network.run(BOTH) is other
        assert module.bn1.num_batches_tracked == 3
        assert network.run(WEAK) is not first


class TestResume:
    @pytest.mark.parametrize("name", ["resnet8", "resnet20", "resnet8x4"])
    @pytest.mark.parametrize("role", OUR_ROLES)
    def test_equals_the_whole_pass(self, name, role):
        module = MODELS[name](5).double().eval()
        whole = Network(module, roles(module)).run(Batch(WEAK.images.double(), None))
        tail = resume(module, role, whole.features[role])
        assert torch.equal(tail.logits, whole.logits)
        assert tuple(tail.features) == OUR_ROLES[OUR_ROLES.index(role) + 1 :]
        for later_role, feature in tail.features.items():
            assert torch.equal(feature, whole.features[later_role])

    def test_leaves_the_feature_as_it_was(self):
        module = small()
        for role, feature in Network(module, roles(module)).run(WEAK).features.items():
            before = feature.clone()
            resume(module, role, feature)
            assert torch.equal(feature, before)

    def test_taps_do_not_record(self):
        module = small()
        network = Network(module, roles(module))
        features = dict(network.run(WEAK).features)
        resume(module, "stem", BOTH.images.mean(dim=1, keepdim=True).expand(-1, 4, -1, -1))
        assert network.run(WEAK).features.keys() == features.keys()

    @pytest.mark.parametrize("role", ["images", "logits", "stage4", "pre4", "prestem", "layer2"])
    def test_no_such_border(self, role):
        message = (
            f"ResNet cannot be entered at '{role}': its borders are "
            "stem, pre1, stage1, pre2, stage2, pre3, stage3, last, pooled"
        )
        with pytest.raises(ValueError, match=message):
            resume(small(), role, WEAK.images)

    def test_network_without_segments(self):
        with pytest.raises(TypeError, match=r"Sequential cannot be entered at 'stage1': it has no segments\(\)"):
            resume(nn.Sequential(), "stage1", WEAK.images)


def torchvision_networks() -> dict[str, nn.Module]:
    """Return a small network of every torchvision family whose roles are known."""
    tv = torchvision.models
    block = tv.convnext.CNBlockConfig
    return {
        "resnet18": tv.resnet18(num_classes=5),
        "mobilenet_v2": tv.mobilenet_v2(num_classes=5),
        "efficientnet_b0": tv.efficientnet_b0(num_classes=5),
        "efficientnet_v2_s": tv.efficientnet_v2_s(num_classes=5),
        "shufflenet_v2": tv.shufflenet_v2_x0_5(num_classes=5),
        "convnext": tv.ConvNeXt(
            [block(8, 12, 1), block(12, 16, 1), block(16, 20, 1), block(20, None, 1)], num_classes=5
        ),
        "regnet": tv.regnet_y_400mf(num_classes=5),
        "swin": tv.SwinTransformer([4, 4], 8, [1, 1, 2, 1], [1, 2, 4, 8], [4, 4], num_classes=5),
        "vit": tv.VisionTransformer(64, 32, 2, 2, 16, 32, num_classes=5),
        "maxvit": tv.MaxVit((64, 64), 8, 2, [8, 8, 16, 16], [1, 1, 1, 1], 8, 0.0, num_classes=5),
        "densenet": tv.DenseNet(4, (1, 1, 1, 1), 8, num_classes=5),
        "googlenet": tv.GoogLeNet(num_classes=5, aux_logits=False, init_weights=False),
        "inception_v3": tv.Inception3(num_classes=5, aux_logits=False, init_weights=False),
        "mnasnet": tv.mnasnet0_5(num_classes=5),
        "alexnet": tv.alexnet(num_classes=5),
        "vgg11_bn": tv.vgg11_bn(num_classes=5),
        "squeezenet1_0": tv.squeezenet1_0(num_classes=5),
        "squeezenet1_1": tv.squeezenet1_1(num_classes=5),
        "mobilenet_v3_small": tv.mobilenet_v3_small(num_classes=5),
        "mobilenet_v3_large": tv.mobilenet_v3_large(num_classes=5),
    }


STAGES = {
    "resnet18": [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)],
    "mobilenet_v2": [(16, 32, 32), (24, 16, 16), (32, 8, 8), (96, 4, 4), (320, 2, 2)],
    "efficientnet_b0": [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)],
    "efficientnet_v2_s": [(24, 32, 32), (48, 16, 16), (64, 8, 8), (160, 4, 4), (256, 2, 2)],
    "shufflenet_v2": [(48, 8, 8), (96, 4, 4), (192, 2, 2)],
    "convnext": [(8, 16, 16), (12, 8, 8), (16, 4, 4), (20, 2, 2)],
    "regnet": [(48, 16, 16), (104, 8, 8), (208, 4, 4), (440, 2, 2)],
    "swin": [(16, 16, 8), (8, 8, 16), (4, 4, 32), (2, 2, 64)],
    "vit": [],
    "maxvit": [(8, 16, 16), (8, 8, 8), (16, 4, 4), (16, 2, 2)],
    "densenet": [(12, 16, 16), (10, 8, 8), (9, 4, 4), (8, 2, 2)],
    "googlenet": [(192, 16, 16), (480, 8, 8), (832, 4, 4), (1024, 2, 2)],
    "inception_v3": [(192, 20, 20), (288, 9, 9), (768, 4, 4), (2048, 1, 1)],
    "mnasnet": [(8, 32, 32), (16, 16, 16), (24, 8, 8), (48, 4, 4), (160, 2, 2)],
    "alexnet": [(192, 7, 7), (256, 3, 3)],
    "vgg11_bn": [(64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4)],
    "squeezenet1_0": [(256, 14, 14), (512, 7, 7), (512, 3, 3)],
    "squeezenet1_1": [(128, 15, 15), (256, 7, 7), (512, 3, 3)],
    "mobilenet_v3_small": [(16, 16, 16), (24, 8, 8), (48, 4, 4), (96, 2, 2)],
    "mobilenet_v3_large": [(16, 32, 32), (24, 16, 16), (40, 8, 8), (112, 4, 4), (160, 2, 2)],
    "timm resnet18": [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)],
    "timm vit": [(17, 192)] * 12,
    "timm convnext": [(40, 16, 16), (80, 8, 8), (160, 4, 4), (320, 2, 2)],
    "timm mobilenetv3": [(8, 16, 16), (16, 8, 8), (24, 4, 4), (288, 2, 2)],
}
"""Shapes of stage1, stage2, ... on images of `side_of`; Swin has its channels last."""


def side_of(name: str) -> int:
    return 96 if name == "inception_v3" else 64  # its maps shrink by more


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    timms = {
        "timm resnet18": timm.create_model("resnet18", num_classes=5),
        "timm vit": timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=64),
        "timm convnext": timm.create_model("convnext_atto", num_classes=5),
        "timm mobilenetv3": timm.create_model("mobilenetv3_small_050", num_classes=5),
    }
    return torchvision_networks() | timms


class TestRoles:
    def test_every_torchvision_family_is_tried(self):
        assert {type(module).__name__ for module in torchvision_networks().values()} == set(TORCHVISION)

    @pytest.mark.parametrize("name", STAGES)
    def test_all_are_captured(self, networks, name):
        module = networks[name]
        side = side_of(name)
        shapes = Network(module, roles(module)).probe(torch.zeros(2, 3, side, side))
        assert shapes.keys() - {"logits"} == roles(module).keys()
        assert [shape for role, shape in shapes.items() if role.startswith("stage")] == STAGES[name]

    @pytest.mark.parametrize("name", [name for name in STAGES if "squeezenet" not in name])  # it has no linear layer
    def test_pooled_is_what_the_last_linear_layer_reads(self, networks, name):
        module, side = networks[name].eval(), side_of(name)
        output = Network(module, select_roles(module, ["pooled"])).run(Batch(torch.randn(2, 3, side, side), None))
        *_, linear = (m for m in module.modules() if isinstance(m, nn.Linear))
        torch.testing.assert_close(linear(output.features["pooled"]), output.logits)

    @pytest.mark.parametrize(
        "name", ["resnet18", "efficientnet_b0", "shufflenet_v2", "regnet", "swin", "timm resnet18"]
    )
    def test_pooled_is_the_average_of_last(self, networks, name):
        module = networks[name].eval()
        output = Network(module, select_roles(module, ["last", "pooled"])).run(Batch(torch.randn(2, 3, 64, 64), None))
        torch.testing.assert_close(output.features["last"].mean(dim=(2, 3)), output.features["pooled"])

    @pytest.mark.parametrize("wrap", [lambda m: torch.compile(m, backend="eager"), nn.DataParallel])
    def test_of_a_wrapped_network(self, wrap):
        module = small().eval()
        wrapped = wrap(module)
        found = Network(wrapped, roles(wrapped)).run(WEAK).features
        expected = Network(module, roles(module)).run(WEAK).features
        assert tuple(found) == tuple(expected)
        assert all(torch.equal(found[role], value) for role, value in expected.items())

    def test_ours(self):
        module = small()
        features = Network(module, roles(module)).run(WEAK).features
        assert tuple(roles(module)) == ("stem", "stage1", "stage2", "stage3", "pre1", "pre2", "pre3", "last", "pooled")
        for number in (1, 2, 3):
            assert features[f"pre{number}"].min() < 0
            assert torch.equal(features[f"pre{number}"].relu(), features[f"stage{number}"])
        assert features["last"] is features["stage3"]
        torch.testing.assert_close(features["last"].mean(dim=(2, 3)), features["pooled"])

    def test_are_a_copy(self):
        module = small()
        roles(module).clear()
        assert roles(module)

    def test_unknown_network(self):
        assert roles(nn.Sequential(nn.Flatten())) == {}

    @pytest.mark.parametrize(
        ("declared", "message"),
        [
            (["layer1"], r"the roles of Linear are a list: give a mapping, module\.roles = "),
            ({"stage1": 1}, "the role 'stage1' of Linear has the tap 1: give both as strings"),
            ({1: "layer1"}, "the role 1 of Linear has the tap 'layer1': give both as strings"),
        ],
    )
    def test_declared_roles_are_names_of_submodules(self, declared, message):
        module = nn.Linear(2, 2)
        module.roles = declared
        with pytest.raises(TypeError, match=message):
            roles(module)
        if isinstance(declared, dict):
            with pytest.raises(TypeError, match=message):
                Network(module, declared)

    def test_select(self):
        assert select_roles(small(), ("stage2", "pooled")) == {"stage2": "layer2", "pooled": "avgpool"}

    def test_select_what_is_not_there(self):
        message = (
            r"ResNet has no role 'stage4' \(its roles: stem, stage1, .*, pooled\): "
            r'declare it, module\.roles = roles\(module\) \| \{"stage4": "name\.of\.a\.submodule"\}'
        )
        with pytest.raises(ValueError, match=message):
            select_roles(small(), ["stage1", "stage4"])

    def test_select_from_an_unknown_network(self):
        with pytest.raises(
            ValueError, match=r"no role 'pooled' \(its roles: none\): declare it, module\.roles = \{\"pooled\""
        ):
            select_roles(nn.Sequential(), ["pooled"])


class TestCopies:
    def test_a_copy_reads_the_features_of_its_own_module(self):
        network = Network(small(), {"pooled": "<fc"})
        twin = copy.deepcopy(network)
        with torch.no_grad():
            twin.module.fc.weight.zero_()
            for parameter in twin.module.layer3.parameters():
                parameter.zero_()
        changed = twin.run(WEAK)
        assert changed.features["pooled"].abs().max() == 0.0
        assert network.run(WEAK).features["pooled"].abs().max() > 0.0

    def test_a_copied_teacher_is_frozen(self):
        twin = copy.deepcopy(Network(small(), frozen=True, mode="batch_stats"))
        assert (twin.frozen, twin.mode) == (True, "batch_stats")
        assert not twin.run(WEAK).logits.requires_grad

    def test_a_copy_of_the_module_reads_for_nobody(self):
        module = small()
        network = Network(module, {"pooled": "<fc", "stem": "relu@last"})
        twin = copy.deepcopy(module)
        module.register_forward_hook(lambda *_: (twin(WEAK.images + 1.0), None)[1])
        alone = Network(copy.deepcopy(twin), {"pooled": "<fc"})
        assert torch.equal(network.run(WEAK).features["pooled"], alone.run(WEAK).features["pooled"])

    def test_a_tapped_module_can_be_saved(self, tmp_path):
        module = small().eval()
        expected = Network(module, roles(module)).run(WEAK).logits
        torch.save(module, tmp_path / "module.pt")
        saved = torch.load(tmp_path / "module.pt", weights_only=False)
        assert torch.equal(saved(WEAK.images), expected)
        assert torch.equal(Network(saved, {"pooled": "<fc"}).run(WEAK).logits, expected)

    def test_a_network_can_be_saved(self, tmp_path):
        network = Network(small(), {"pooled": "<fc"}, frozen=True)
        torch.save(network, tmp_path / "network.pt")
        saved = torch.load(tmp_path / "network.pt", weights_only=False)
        assert saved.frozen
        expected, found = network.run(WEAK), saved.run(WEAK)
        assert torch.equal(found.logits, expected.logits)
        assert torch.equal(found.features["pooled"], expected.features["pooled"])

    def test_hooks_go_with_their_network(self):
        module = small()
        network = Network(module, roles(module))
        assert any(m._forward_hooks for m in module.modules())
        del network
        gc.collect()
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


class Checkpointed(nn.Module):
    """Runs its body again in the backward pass instead of keeping what it computed."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())
        self.reentrant = reentrant

    def forward(self, images):
        return self.head(checkpoint(self.body, self.stem(images), use_reentrant=self.reentrant).mean((2, 3)))


class TestCheckpointing:
    def test_a_feature_without_a_gradient_is_refused(self):
        network = Network(Checkpointed(reentrant=True), {"middle": "body.0"})
        with pytest.raises(RuntimeError, match=r"'middle' ran without recording a graph.* use_reentrant=False"):
            network.run(WEAK)

    def test_a_feature_inside_the_other_kind_has_the_gradient(self):
        module = Checkpointed(reentrant=False)
        output = Network(module, {"middle": "body.0"}).run(WEAK)
        output.features["middle"].square().mean().backward()
        kept = copy.deepcopy(module)
        kept.zero_grad()
        kept.body[0](kept.stem(WEAK.images)).square().mean().backward()
        torch.testing.assert_close(module.stem.weight.grad, kept.stem.weight.grad)


class TestCompile:
    @pytest.mark.parametrize("mode", [None, "batch_stats"])
    def test_hooks_are_in_the_one_graph(self, mode):
        module = small()
        frozen = {"frozen": True, "mode": mode} if mode else {}
        network = Network(module, roles(module), **frozen)
        expected = network.run(BOTH)
        module.compile(fullgraph=True, backend="eager")
        for _ in range(2):
            output = network.run(BOTH)
            for got, wanted in ((output, expected), (output.strong, expected.strong)):
                torch.testing.assert_close(got.logits, wanted.logits)
                torch.testing.assert_close(got.features, wanted.features)
        torch.compiler.reset()


@pytest.mark.filterwarnings("default")
def test_a_compiled_network_gives_the_same_logits_and_features() -> None:
    """By the compiler's front end alone; what the back end makes of it is torch's business."""
    module = MODELS["resnet8"](7).eval()
    plain = Network(module, select_roles(module, ["stage2", "pooled"]))
    batch = Batch(torch.randn(4, 3, 16, 16), None)
    expected = plain.run(batch)
    plain.compile(backend="eager")
    found = plain.run(batch)
    assert torch.equal(found.logits, expected.logits)
    assert found.features.keys() == expected.features.keys()
    assert all(torch.equal(found.features[role], value) for role, value in expected.features.items())
