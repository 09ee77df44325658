"""What holds for every method on features and relations: on our networks, on others', and in every precision."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from rankdistill import METHODS, Batch, EachView, Losses, Method, Network, pair_of, roles, select_roles
from rankdistill.methods.at import at_loss
from rankdistill.methods.cc import cc_loss
from rankdistill.methods.fitnets import fitnets_loss
from rankdistill.methods.ickd import ickd_loss
from rankdistill.methods.kdsvd import kdsvd_loss
from rankdistill.methods.nst import nst_loss
from rankdistill.methods.pkt import pkt_loss
from rankdistill.methods.rkd import rkd_angle_loss, rkd_distance_loss
from rankdistill.methods.sp import sp_loss
from rankdistill.methods.vid import vid_loss
from rankdistill.models.resnet import ResNet
from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.settings import SETTINGS

NAMES = ("at", "cc", "fitnets", "ickd", "kdsvd", "nst", "pkt", "rkd", "sp", "vid")
ON_MAPS = ("at", "fitnets", "ickd", "kdsvd", "nst", "vid")


def small(*widths: int) -> ResNet:
    return ResNet(8, widths, 5)


def batch(size: int = 6, side: int = 16, *, views: int = 1) -> Batch:
    strong = torch.randn(size, 3, side, side) if views == 2 else None
    return Batch(torch.randn(size, 3, side, side), torch.randint(5, (size,)), strong=strong)


def assemble(name: str, student: nn.Module, teacher: nn.Module, side: int = 16) -> tuple[Method, Network, Network]:
    probes = Network(student, roles(student)), Network(teacher, roles(teacher))
    pair = pair_of(*probes, torch.zeros(2, 3, side, side), num_samples=10)
    for probe in probes:
        probe.close()
    method = METHODS[name].for_pair(pair)
    taps = select_roles(student, method.student_needs), select_roles(teacher, method.teacher_needs)
    return method, Network(student, taps[0]), Network(teacher, taps[1], frozen=True)


def total(losses: Losses) -> Tensor:
    return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_student_and_every_parameter_of_the_method(name: str) -> None:
    method, student, teacher = assemble(name, small(8, 8, 12, 16), small(8, 12, 16, 24))
    before = {key: value.clone() for key, value in teacher.module.state_dict().items()}
    loss = total(method(batch(), student, teacher))
    loss.backward()
    assert loss.isfinite()
    assert student.module.conv1.weight.grad.any()
    assert all(parameter.grad is not None for parameter in method.parameters())
    assert all(parameter.grad is None for parameter in teacher.module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.module.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_going_on_from_a_state_dict_is_bit_equal(name: str) -> None:
    method, student, teacher = assemble(name, small(8, 8, 12, 16), small(8, 12, 16, 24))
    fresh = METHODS[name].for_pair(
        pair_of(
            Network(student.module, roles(student.module)),
            Network(teacher.module, roles(teacher.module)),
            torch.zeros(2, 3, 16, 16),
            num_samples=10,
        )
    )
    first, second = batch(), batch()
    total(method(first, student, teacher)).backward()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter -= 0.01 * parameter.grad
    fresh.load_state_dict(copy.deepcopy(method.state_dict()))
    assert torch.equal(total(fresh(second, student, teacher)), total(method(second, student, teacher)))


@pytest.mark.parametrize("name", NAMES)
def test_two_views_are_summed_and_the_second_leaves_no_trace(name: str) -> None:
    method, student, teacher = assemble(name, small(8, 8, 12, 16), small(8, 12, 16, 24))
    once = copy.deepcopy(method)
    both = batch(views=2)
    outputs = student.run(both), teacher.run(both)
    losses = EachView(method).losses(both, *outputs)
    weak = once.losses(both, *outputs)
    assert all(torch.equal(a, b) for a, b in zip(method.buffers(), once.buffers(), strict=True))
    strong = once.losses(both, outputs[0].strong, outputs[1].strong)
    assert torch.allclose(total(losses), total(weak) + total(strong))


@pytest.mark.parametrize("name", NAMES)
def test_under_autocast_the_loss_is_in_float32(name: str) -> None:
    method, student, teacher = assemble(name, small(8, 8, 12, 16), small(8, 12, 16, 24))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method(batch(), student, teacher)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    total(losses).backward()
    assert student.module.conv1.weight.grad.isfinite().all()


def _kdsvd(student: Tensor, teacher: Tensor) -> Tensor:
    return kdsvd_loss([student, student.mT], [teacher, teacher.mT])


def _vid(student: Tensor, teacher: Tensor) -> Tensor:
    return vid_loss(student, teacher, torch.tensor([0.5, 1.0, 2.0]))


FUNCTIONS: dict[Callable[..., Tensor], tuple[int, ...]] = {
    at_loss: (4, 3, 4, 4),
    fitnets_loss: (4, 3, 4, 4),
    ickd_loss: (4, 3, 4, 4),
    _kdsvd: (4, 3, 4, 4),
    nst_loss: (4, 3, 4, 4),
    _vid: (4, 3, 4, 4),
    sp_loss: (4, 3, 4, 4),
    cc_loss: (4, 6),
    pkt_loss: (4, 6),
    rkd_angle_loss: (4, 6),
    rkd_distance_loss: (4, 6),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_half_precision_is_computed_in_float32(function: Callable[..., Tensor]) -> None:
    student, teacher = (torch.randn(FUNCTIONS[function]).bfloat16() for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = function(student, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, function(student.float(), teacher.float()))


@pytest.mark.parametrize("function", [function for function in FUNCTIONS if function is not cc_loss])
def test_no_gradient_reaches_the_teacher(function: Callable[..., Tensor]) -> None:
    student, teacher = (torch.randn(FUNCTIONS[function], requires_grad=True) for _ in range(2))
    function(student, teacher).sum().backward()
    assert student.grad.any()
    assert teacher.grad is None


@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f not in (cc_loss, fitnets_loss, _vid)])
def test_features_of_any_scale_are_finite(function: Callable[..., Tensor]) -> None:
    for scale in (1e-6, 1e4):
        student = (scale * torch.randn(FUNCTIONS[function])).requires_grad_()
        loss = function(student, torch.randn(FUNCTIONS[function]))
        loss.sum().backward()
        assert loss.isfinite().all()
        assert student.grad.isfinite().all()


SIDE = 64
FOREIGN: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: timm.create_model("resnet18", num_classes=5),
    "mobilenetv3": lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
    "convnext": lambda: timm.create_model("convnext_atto", num_classes=5),
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", img_size=SIDE, depth=4, num_classes=5),
    "swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=SIDE, window_size=2, embed_dim=24, depths=(1,) * 4, num_classes=5
    ),
    "torchvision mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=5),
    "torchvision vit": lambda: torchvision.models.VisionTransformer(SIDE, 16, 2, 2, 32, 64, num_classes=5),
}


@pytest.mark.parametrize(
    ("student_name", "teacher_name"),
    [
        ("torchvision mobilenet_v2", "convnext"),
        ("mobilenetv3", "vit"),
        ("resnet18", "swin"),
        ("vit", "resnet18"),
    ],
)
def test_networks_that_are_not_ours(student_name: str, teacher_name: str) -> None:
    student, teacher = FOREIGN[student_name](), FOREIGN[teacher_name]()
    networks = Network(student, roles(student)), Network(teacher, roles(teacher), frozen=True)
    images = batch(4, SIDE)
    pair = pair_of(*networks, images.images, num_samples=10)
    outputs = [network.run(images) for network in networks]
    stem = next(iter(student.parameters()))
    for name in NAMES:
        loss = total(METHODS[name].for_pair(pair).losses(images, *outputs))
        (gradient,) = torch.autograd.grad(loss, stem, retain_graph=True)
        assert loss.isfinite(), name
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


def test_a_teacher_without_stages_is_refused_where_they_are_needed() -> None:
    student, teacher = small(8, 8, 12, 16), FOREIGN["torchvision vit"]()
    for name in NAMES:
        if name in ON_MAPS and name != "ickd":
            with pytest.raises(ValueError, match=r"VisionTransformer has no stages .its roles: stem, last, pooled"):
                assemble(name, student, teacher, SIDE)
        else:
            method, *networks = assemble(name, student, teacher, SIDE)
            assert total(method(batch(3, SIDE), *networks)).isfinite()


PUBLISHED: dict[str, tuple[float, dict[str, object]]] = {
    "fitnets": (100.0, {"hint_stage": 2}),
    "at": (1000.0, {"power": 2.0}),
    "vid": (1.0, {"initial_variance": 5.0, "eps": 1e-5}),
    "sp": (3000.0, {}),
    "rkd": (1.0, {"distance_weight": 25.0, "angle_weight": 50.0}),
    "pkt": (30000.0, {}),
    "nst": (50.0, {}),
    "kdsvd": (1.0, {"num_vectors": 1, "form": "channels"}),
    "cc": (0.02, {"dim": 128}),
    "ickd": (2.5, {}),
}


@pytest.mark.parametrize("pair", [*CIFAR100_PAIRS, *TINY_IMAGENET_PAIRS, ("elsewhere", "unknown")])
@pytest.mark.parametrize("name", PUBLISHED)
def test_settings(name: str, pair: tuple[str, str]) -> None:
    setting = SETTINGS[name](*pair)
    weight, options = PUBLISHED[name]
    if (name, pair) == ("fitnets", TINY_IMAGENET_PAIRS[0]):
        options = {"hint_stage": 4}  # no regressor leads from 17x17 to 32x32
    assert list(setting.losses) == ["task", name]
    assert setting.losses["task"].weight == 1.0
    found = setting.losses[name]
    assert (found.method, found.weight) == (name, weight)
    assert {option: getattr(found, option) for option in options} == options
    of_one_family = CIFAR100_PAIRS[:6]
    known = {"ickd": of_one_family, "kdsvd": [p for p in of_one_family if p != ("wrn_40_2", "wrn_40_1")]}
    assert setting.published == (pair in known.get(name, CIFAR100_PAIRS))
    assert setting.published != setting.source.endswith("not published for this pair")
