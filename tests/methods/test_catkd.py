import copy

import pytest
import torch
import torchvision
from contract_methods import random_batch
from jaxtyping import TypeCheckError
from method_pairs import assembled, for_networks
from small_networks import Small
from structure_golden import TOLERANCE, close, golden, gradient_is_right
from torch import Tensor, nn

from rankdistill import CATKD, KD, Batch, Network, Sum, cam_transfer_loss, class_activation_maps, select_roles
from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.settings import SETTINGS
from rankdistill.taps import resume, roles

KINDS = ("plain", "norm", "head", "convolution")


def networks(kind: str) -> tuple[nn.Module, nn.Module]:
    return Small(kind), Small("plain", (4, 8, 12))


class TestGolden:
    @pytest.mark.parametrize("variant", ["raw", "norm", "bin"])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    @pytest.mark.authors
    def test_loss_and_gradients(self, dtype: torch.dtype, variant: str) -> None:
        features = golden("catkd", "a.in.s_feat").to(dtype).requires_grad_()
        own, other = (golden("catkd", f"a.param.{who}_classifier").to(dtype) for who in "st")
        maps = class_activation_maps(features, own)
        maps.retain_grad()
        target = class_activation_maps(golden("catkd", "a.in.t_feat").to(dtype), other)
        hp = {
            name: golden("catkd", f"a.hp.{variant}.{name}").item() for name in ("resolution", "normalize", "binarize")
        }
        loss = cam_transfer_loss(
            maps,
            target,
            resolution=int(hp["resolution"]),
            normalize=bool(hp["normalize"]),
            binarize=bool(hp["binarize"]),
        ).mean() * golden("catkd", f"a.hp.{variant}.weight")
        loss.backward()
        out = "out64" if dtype == torch.float64 else "out"
        assert close(loss, golden("catkd", f"a.{out}.loss_{variant}"), TOLERANCE[dtype])
        assert gradient_is_right("catkd", f"s_feat_{variant}", features.grad, TOLERANCE[dtype])
        assert gradient_is_right("catkd", f"cam_s_{variant}", maps.grad, TOLERANCE[dtype])
        assert close(target, golden("catkd", "a.out64.t_cam"), 1e-6)
        assert close(maps.mean(dim=(2, 3)), golden("catkd", "a.out64.s_logits"), 1e-6)


class TestLoss:
    def test_zero_at_equality(self) -> None:
        maps = torch.randn(3, 5, 4, 4)
        assert not cam_transfer_loss(maps, maps).any()
        scaled = cam_transfer_loss(maps.double(), 7 * maps.double())
        assert scaled.abs().max() < 1e-25
        assert cam_transfer_loss(maps, 7 * maps, normalize=False).min() > 0

    def test_resolution_one_without_norm_is_on_logits(self) -> None:
        student, teacher = torch.randn(2, 3, 5, 4, 4, dtype=torch.float64)
        loss = cam_transfer_loss(student, teacher, resolution=1, normalize=False)
        logits = (student - teacher).mean(dim=(2, 3))
        torch.testing.assert_close(loss, logits.square().mean(dim=1))

    def test_maps_of_other_sizes(self) -> None:
        student, teacher = torch.randn(3, 5, 2, 2), torch.randn(3, 5, 8, 8)
        reduced = teacher.reshape(3, 5, 2, 4, 2, 4).mean(dim=(3, 5))
        torch.testing.assert_close(cam_transfer_loss(student, teacher), cam_transfer_loss(student, reduced))

    def test_maps_of_zeros_pass_no_gradient(self) -> None:
        maps = torch.zeros(2, 3, 4, 4, requires_grad=True)
        cam_transfer_loss(maps, torch.randn(2, 3, 4, 4)).sum().backward()
        assert not maps.grad.any()

    @pytest.mark.parametrize("options", [{}, {"normalize": False}, {"binarize": True, "resolution": 3}])
    def test_gradcheck(self, options: dict[str, object]) -> None:
        features = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
        weight = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
        teacher = torch.randn(2, 5, 4, 4, dtype=torch.float64)

        def loss(features: Tensor, weight: Tensor) -> Tensor:
            return cam_transfer_loss(class_activation_maps(features, weight), teacher, **options)

        assert torch.autograd.gradcheck(loss, (features, weight))

    def test_half_precision_is_computed_in_float32(self) -> None:
        features, weight, teacher = torch.randn(2, 3, 4, 4), torch.randn(5, 3), torch.randn(2, 5, 4, 4)
        half = [x.bfloat16() for x in (features, weight, teacher)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = cam_transfer_loss(class_activation_maps(half[0], half[1]), half[2])
        full = [x.float() for x in half]
        assert found.dtype == torch.float32
        assert torch.equal(found, cam_transfer_loss(class_activation_maps(full[0], full[1]), full[2]))

    def test_only_the_student_learns(self) -> None:
        student, teacher = (torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2))
        cam_transfer_loss(student, teacher).sum().backward()
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None

    def test_errors(self) -> None:
        maps = torch.zeros(2, 3, 4, 4)
        with pytest.raises((ValueError, TypeCheckError), match=r"maps of the same samples|Type-check error"):
            cam_transfer_loss(maps, torch.zeros(2, 4, 4, 4))
        with pytest.raises(ValueError, match="resolution is 0"):
            CATKD(torch.zeros(5, 3), resolution=0)
        with pytest.raises((ValueError, TypeCheckError), match=r"(?s)head_init.*'other'"):
            CATKD(torch.zeros(5, 3), head_init="other")


class TestStudent:
    @pytest.mark.parametrize("kind", KINDS)
    def test_maps_average_to_the_logits(self, kind: str) -> None:
        student, teacher = networks(kind)
        method = for_networks("catkd", student, teacher)
        before = copy.deepcopy(student.state_dict())
        adapted = method.adapt(student).eval()
        torch.testing.assert_close(student.state_dict(), before, rtol=0, atol=0)
        output = Network(adapted, select_roles(adapted, method.student_needs)).run(random_batch())
        maps = class_activation_maps(output.features["last"], output.features["classifier"])
        torch.testing.assert_close(maps.mean(dim=(2, 3)), output.logits)

    @pytest.mark.parametrize("kind", KINDS)
    def test_deployed_is_the_plain_network(self, kind: str) -> None:
        student, teacher = networks(kind)
        method = for_networks("catkd", student, teacher)
        adapted = method.adapt(student).eval()
        deployed = method.deploy(adapted).eval()
        images = random_batch().images
        torch.testing.assert_close(deployed(images), adapted(images))
        assert not list(deployed.state_dict().values())[-1].any()
        plain = Small(kind).eval()
        plain.load_state_dict(deployed.state_dict())
        assert torch.equal(plain(images), deployed(images))
        assert deployed.roles == student.roles
        exported = torch.export.export(deployed, (images,)).module()
        torch.testing.assert_close(exported(images), deployed(images))

    def test_other_methods_find_their_roles(self) -> None:
        student, teacher = networks("plain")
        method = Sum(kd=(1.0, KD()), catkd=(1.0, for_networks("catkd", student, teacher)))
        adapted = method.adapt(student).eval()
        assert adapted.roles.items() > student.roles.items()
        network = Network(adapted, roles(adapted))
        whole = network.run(random_batch())
        for role in ("stem", "stage1", "stage2", "last", "pooled"):
            torch.testing.assert_close(resume(adapted, role, whole.features[role]).logits, whole.logits)
        losses = method(random_batch(), network, Network(teacher, roles(teacher), frozen=True))
        assert list(losses) == ["kd", "catkd"]

    def test_gradient_reaches_every_parameter_of_the_student(self) -> None:
        student, teacher = networks("head")
        method, trained, frozen = assembled("catkd", student, teacher)
        method(random_batch(), trained, frozen)["catkd"].backward()
        assert all(p.grad.abs().sum() > 0 for p in trained.module.parameters())
        assert not list(method.parameters())
        assert list(method.state_dict()) == ["teacher_classifier"]

    @pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"])
    def test_networks_of_torchvision(self, name: str) -> None:
        student = getattr(torchvision.models, name)(weights=None, num_classes=5)
        method = for_networks("catkd", student, Small("plain"))
        adapted = method.adapt(student).eval()
        output = Network(adapted, select_roles(adapted, method.student_needs)).run(random_batch())
        maps = class_activation_maps(output.features["last"], output.features["classifier"])
        torch.testing.assert_close(maps.mean(dim=(2, 3)), output.logits, rtol=1e-4, atol=1e-5)
        deployed = method.deploy(adapted)
        student.load_state_dict(deployed.state_dict())

    @pytest.mark.parametrize(("init", "expected"), [("kaiming", 0.2**0.5), ("default", (1 / 900) ** 0.5)])
    def test_new_classifier(self, init: str, expected: float) -> None:
        layer = CATKD(torch.zeros(10, 300), head_init=init).adapt(nn.Sequential(nn.Linear(300, 10)))
        assert layer[0].weight.std().item() == pytest.approx(expected, rel=0.1)

    def test_a_teacher_whose_classifier_reads_something_else_is_refused(self) -> None:
        student, teacher = networks("plain")
        teacher.roles = teacher.roles | {"last": "stage2"}
        teacher.end = nn.LeakyReLU(-1.0)  # still as many channels, but not what is averaged
        teacher.stage2[2] = nn.Identity()
        method = for_networks("catkd", student, teacher)
        frozen = Network(teacher, select_roles(teacher, ["last"]), frozen=True)
        with pytest.raises(ValueError, match=r"the teacher's logits differ by .* from its classifier on the average"):
            method.prepare(frozen, lambda: [random_batch()])
        good = networks("norm")[0]
        frozen = Network(good, select_roles(good, ["last"]), frozen=True)
        assert for_networks("catkd", student, good).prepare(frozen, lambda: [random_batch()]) == []

    def test_a_classifier_that_is_not_linear_is_refused(self) -> None:
        student, teacher = networks("plain")
        student.classifier = nn.Sequential(nn.Linear(8, 5), nn.BatchNorm1d(5))
        with pytest.raises(
            ValueError, match=r"the last layer of Small is 'classifier\.1', a BatchNorm1d: a classifier"
        ):
            for_networks("catkd", student, teacher)
        student.classifier = nn.Sequential(nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 5))
        with pytest.raises(
            ValueError, match=r"classifier 'classifier\.2' has shape \(5, 7\), its map `last` 8 channels"
        ):
            for_networks("catkd", student, teacher)

    def test_method_is_the_mean_of_the_function(self) -> None:
        student, teacher = networks("plain")
        method = for_networks("catkd", student, teacher, resolution=4, normalize=False)
        adapted = method.adapt(student)
        output = Network(adapted, select_roles(adapted, method.student_needs)).run(random_batch())
        other = Network(teacher, {"last": "<pool"}, frozen=True).run(random_batch())
        maps = class_activation_maps(output.features["last"], adapted.classifier[0].weight)
        target = class_activation_maps(other.features["last"], teacher.classifier[0].weight)
        expected = cam_transfer_loss(maps, target, resolution=4, normalize=False).mean()
        assert method.losses(Batch(random_batch().images, None), output, other) == {"catkd": expected}


# beta, r, normalise of the authors' configurations, in the order of CIFAR100_PAIRS
PUBLISHED = (
    (0.7, 2, False),
    (15.0, 2, False),
    (12.0, 2, False),
    (1.5, 2, False),
    (4.5, 2, False),
    (1.8, 2, False),
    (600.0, 4, True),
    (15.0, 2, True),
    (40.0, 2, True),
    (80.0, 4, True),
    (600.0, 4, True),
)


@pytest.mark.parametrize(("pair", "expected"), list(zip(CIFAR100_PAIRS, PUBLISHED, strict=True)))
def test_published_settings(pair: tuple[str, str], expected: tuple[float, int, bool]) -> None:
    found = SETTINGS["catkd"](*pair)
    options = found.losses["catkd"]
    assert (options.weight, options.resolution, options.normalize) == expected
    assert options.head_init == ("default" if pair[1] in ("vgg8", "shufflenetv1", "shufflenetv2") else "kaiming")
    assert found.losses["task"].weight == 1.0
    assert found.published


@pytest.mark.parametrize("pair", [*TINY_IMAGENET_PAIRS, ("resnet14", "resnet8")])
def test_other_pairs(pair: tuple[str, str]) -> None:
    found = SETTINGS["catkd"](*pair)
    assert not found.published
    assert found.losses["catkd"].method == "catkd"
