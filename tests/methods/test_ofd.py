import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from method_pairs import assembled
from torch import nn

from rankdistill import OFD, Batch, Network, Output, margin_distance, negative_margin, pair_of, roles
from rankdistill.methods.ofd import _norm_before
from rankdistill.models import MODELS
from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.settings import SETTINGS

MARGINS = np.load(Path(__file__).parents[1] / "golden" / "ofd.npz")
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "feature"
PRECISIONS = {"out": (torch.float32, 1e-4), "out64": (torch.float64, 1e-6)}

# The batch norm before the last ReLU of each stage.
NORMS = {
    "resnet20": ["layer1.2.bn2", "layer2.2.bn2", "layer3.2.bn2"],
    "resnet56": ["layer1.8.bn2", "layer2.8.bn2", "layer3.8.bn2"],
    "resnet8x4": ["layer1.0.bn2", "layer2.0.bn2", "layer3.0.bn2"],
    "resnet32x4": ["layer1.4.bn2", "layer2.4.bn2", "layer3.4.bn2"],
    "wrn_16_2": ["block2.layer.0.bn1", "block3.layer.0.bn1", "bn1"],
    "wrn_40_1": ["block2.layer.0.bn1", "block3.layer.0.bn1", "bn1"],
    "wrn_40_2": ["block2.layer.0.bn1", "block3.layer.0.bn1", "bn1"],
    "vgg8": ["block1.1", "block2.1", "block3.1", "block4.1"],
    "vgg13": ["block1.4", "block2.4", "block3.4", "block4.4"],
    "resnet50": ["layer1.2.bn3", "layer2.3.bn3", "layer3.5.bn3", "layer4.2.bn3"],
    "shufflenetv1": ["layer1.3.bn3", "layer2.7.bn3", "layer3.3.bn3"],
    "tiny_resnet18": ["layer1.1.bn2", "layer2.1.bn2", "layer3.1.bn2", "layer4.1.bn2"],
}


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    return bool((found.detach() - expected).abs().max() <= tolerance * expected.abs().max())


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_margins_equal_the_authors(stage: int) -> None:
    weight, bias = (torch.from_numpy(MARGINS[f"in.t_bn{stage}.{name}"]).float() for name in ("weight", "bias"))
    found = negative_margin(weight, bias)
    assert found.dtype == torch.float32
    assert close(found, torch.from_numpy(MARGINS[f"out.margin{stage}"]), 1e-6)


@pytest.mark.parametrize("precision", ["out", "out64"])
@pytest.mark.authors
def test_equals_the_authors(precision: str) -> None:
    dtype, tolerance = PRECISIONS[precision]
    saved, inputs = np.load(SHARED / "ofd.npz"), np.load(SHARED / "inputs.npz")

    def golden(name: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(saved[name])).to(dtype)

    roles_of_both = [f"pre{n}" for n in (1, 2, 3)]
    student = {role: torch.from_numpy(inputs[f"a.s.{role}"]).to(dtype).requires_grad_() for role in roles_of_both}
    teacher = {role: torch.from_numpy(inputs[f"a.t.{role}"]).to(dtype) for role in roles_of_both}
    margins = {f"pre{n}": negative_margin(golden(f"in.t_bn{n}.weight"), golden(f"in.t_bn{n}.bias")) for n in (1, 2, 3)}
    method = OFD({role: feature.shape[1] for role, feature in student.items()}, margins).to(dtype)
    found = {
        f"connectors.{n - 1}.{name}": golden(f"a.param.connector{n}.{name}")
        for n in (1, 2, 3)
        for name in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    }
    method.load_state_dict(method.state_dict() | found)
    logits = torch.zeros(4, 1)
    loss = 0.001 * method.losses(Batch(logits, None), Output(logits, student), Output(logits, teacher))["ofd"]
    loss.backward()
    assert close(loss, golden(f"a.{precision}.loss"), tolerance)
    for role, feature in student.items():
        assert close(feature.grad.flatten(1).norm(dim=1), golden(f"a.gradnorm.s_{role}"), tolerance)
        whole = f"a.grad.s_{role}" in saved
        expected = golden(f"a.grad.s_{role}" if whole else f"a.grad0.s_{role}")
        assert close(feature.grad if whole else feature.grad[0], expected, tolerance)


def test_margin_is_the_mean_of_the_negative_half() -> None:
    weight, bias = torch.tensor([0.5, -2.0, 1.0]), torch.tensor([0.3, -1.0, 0.0])
    values = weight.abs().double() * torch.randn(400_000, 3, dtype=torch.float64) + bias
    expected = torch.stack([column[column < 0].mean() for column in values.T])
    found = negative_margin(weight, bias)
    assert torch.allclose(found.double(), expected, rtol=0.01)
    assert found[2] == pytest.approx(-math.sqrt(2.0 / math.pi))


def test_margin_at_its_edges() -> None:
    weight = torch.tensor([1.0, 0.0, 0.0, 0.0, 1e-3, 1.0])
    bias = torch.tensor([4.0, 1.0, -1.0, 0.0, -5.0, -100.0])
    found = negative_margin(weight, bias)
    assert torch.allclose(found, torch.tensor([-3.0, 0.0, -1.0, 0.0, -5.0, -100.0]))


def test_margin_scales_with_weight_and_bias() -> None:
    weight, bias = torch.rand(50) + 0.1, torch.randn(50)
    assert torch.allclose(negative_margin(4 * weight, 4 * bias), 4 * negative_margin(weight, bias))
    assert torch.equal(negative_margin(-weight, bias), negative_margin(weight, bias))


def test_distance_in_its_three_cases() -> None:
    margin = torch.tensor([-1.0])
    cases = [  # student, teacher, squared distance
        (0.5, 2.0, 2.25),  # a positive teacher counts on either side
        (3.0, 2.0, 1.0),
        (0.0, -0.5, 0.25),  # between margin and zero: only if the student is above the teacher
        (-0.7, -0.5, 0.0),
        (0.0, -5.0, 1.0),  # below the margin: only if the student is above the margin
        (-2.0, -5.0, 0.0),
    ]
    for student, teacher, expected in cases:
        found = margin_distance(torch.full((1, 1, 1, 1), student), torch.full((1, 1, 1, 1), teacher), margin)
        assert found.item() == pytest.approx(expected), (student, teacher)


def test_distance_pools_the_teacher_and_sums_within_a_sample() -> None:
    student, teacher = torch.randn(3, 4, 2, 2, dtype=torch.float64), torch.rand(3, 4, 4, 6, dtype=torch.float64)
    pooled = teacher.unflatten(2, (2, 2)).unflatten(4, (2, 3)).mean((3, 5))
    found = margin_distance(student, teacher, torch.full((4,), -1.0))
    assert torch.allclose(found, (student - pooled).square().sum((1, 2, 3)))


def test_distance_is_zero_at_the_target() -> None:
    teacher, margin = torch.randn(2, 3, 4, 4), -torch.rand(3)
    target = torch.maximum(teacher, margin[:, None, None])
    assert torch.equal(margin_distance(target, teacher, margin), torch.zeros(2))


def test_distance_gradcheck() -> None:
    student, teacher = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    student.requires_grad_()
    margin = -torch.rand(3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: margin_distance(s, teacher, margin), student)


def test_half_precision_is_computed_in_float32() -> None:
    student, teacher = torch.randn(2, 2, 3, 8, 8).bfloat16()
    margin = -torch.rand(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = margin_distance(student, teacher, margin)
    assert found.dtype == torch.float32
    assert torch.equal(found, margin_distance(student.float(), teacher.float(), margin))


def with_random_norms(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return network


def test_for_a_pair_of_networks() -> None:
    teacher, student = with_random_norms(MODELS["resnet32x4"](5)), MODELS["resnet8"](5)
    method, *networks = assembled("ofd", student, teacher)
    assert method.student_needs == method.teacher_needs == ("pre1", "pre2", "pre3")
    assert method.prepare(None, list) == []
    norm = teacher.get_submodule("layer2.4.bn2")
    assert torch.equal(method.margin1, negative_margin(norm.weight, norm.bias))
    assert "margin2" in method.state_dict()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    batch = Batch(torch.randn(2, 3, 16, 16), None)
    plain = Network(teacher, networks[1].taps, frozen=True).run(batch).features["pre3"]
    assert not torch.allclose(networks[1].run(batch).features["pre3"], plain)  # statistics of the batch
    losses = method(batch, *networks)
    losses["ofd"].backward()
    assert losses["ofd"].isfinite()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_deeper_stages_weigh_twice_as_much_each() -> None:
    method = OFD({"pre1": 2, "pre2": 2}, {"pre1": torch.full((2,), -1.0), "pre2": torch.full((2,), -1.0)})
    for connect in method.connectors:
        nn.init.zeros_(connect[0].weight)  # so that what is compared is zero
    features = {"pre1": torch.ones(3, 2, 4, 4), "pre2": torch.ones(3, 2, 2, 2)}
    output = Output(torch.zeros(3, 1), features)
    loss = method.losses(Batch(output.logits, None), output, output)["ofd"]
    assert loss.item() == pytest.approx(0.5 * 2 * 16 + 1.0 * 2 * 4)


@pytest.mark.parametrize("name", [name for name in NORMS if name in MODELS])
def test_finds_the_batch_norm_before_each_stages_last_relu(name: str) -> None:
    network = MODELS[name](10)
    for number, expected in enumerate(NORMS[name], start=1):
        norm = network.get_submodule(expected)
        assert _norm_before(network, f"pre{number}", norm.num_features) is norm


def test_takes_no_shortcut_for_the_batch_norm_of_a_stage() -> None:
    torchvision = pytest.importorskip("torchvision.models.resnet")
    network = torchvision.ResNet(torchvision.BasicBlock, [1, 1, 1, 1])
    assert _norm_before(network, "pre2", 128) is network.layer2[0].bn2


def test_connectors_start_as_the_authors() -> None:
    method = OFD({"pre1": 100}, {"pre1": torch.full((200,), -1.0)})
    assert method.connectors[0][0].weight.std().item() == pytest.approx(0.1, rel=0.03)  # sqrt(2 / 200)
    assert method.connectors[0][0].bias is None


def test_for_a_torchvision_teacher_whose_activations_are_tapped() -> None:
    torchvision = pytest.importorskip("torchvision.models")
    teacher = with_random_norms(torchvision.resnet18(num_classes=5))
    with pytest.raises(ValueError, match=r"OFD reads pre1, .* \(its roles: .*, last, pooled\): declare it, module"):
        assembled("ofd", MODELS["resnet8"](5), teacher)
    for module in teacher.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    teacher.roles = roles(teacher) | {f"pre{n}": f"<layer{n}.1.relu@last" for n in range(1, 5)}
    method, *networks = assembled("ofd", MODELS["resnet8"](5), teacher, side=32)
    assert method.teacher_needs == ("pre2", "pre3", "pre4")
    for margin, name in ((method.margin0, "layer2.1.bn2"), (method.margin2, "layer4.1.bn2")):
        norm = teacher.get_submodule(name)
        assert torch.equal(margin, negative_margin(norm.weight, norm.bias))
    assert method.prepare(None, list) == ["the student has 3 stages and the teacher 4: OFD uses the last 3 of each"]
    assert method(Batch(torch.randn(2, 3, 32, 32), None), *networks)["ofd"].isfinite()


def test_a_student_without_pre_activation_roles_is_read_at_its_stages() -> None:
    torchvision = pytest.importorskip("torchvision.models")
    method, *networks = assembled("ofd", torchvision.mobilenet_v2(num_classes=5), MODELS["resnet8"](5), side=32)
    assert method.student_needs == ("stage3", "stage4", "stage5")
    assert method(Batch(torch.randn(2, 3, 32, 32), None), *networks)["ofd"].isfinite()


def test_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ValueError, match=r"roles are \['pre1'\], the teacher's \[\]: give equally many"):
        OFD({"pre1": 4}, {})
    student, teacher = MODELS["resnet8"](5), MODELS["resnet8"](5)
    networks = Network(student, roles(student)), Network(teacher, roles(teacher), frozen=True)
    pair = pair_of(*networks, torch.randn(2, 3, 8, 8), num_samples=2)
    with pytest.raises(ValueError, match=r"the student of OFD has no stages \[B, C, H, W\] \(its roles: pooled\)"):
        OFD.for_pair(dataclasses.replace(pair, student_shapes={"pooled": (8,)}))
    unknown = nn.Sequential(nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16))
    with pytest.raises(ValueError, match="no batch norm of 16 channels is known before 'pre1' of Sequential"):
        OFD.for_pair(dataclasses.replace(pair, teacher=unknown))


@pytest.mark.parametrize(("teacher", "student"), [*CIFAR100_PAIRS, *TINY_IMAGENET_PAIRS, ("any", "other")])
def test_setting(teacher: str, student: str) -> None:
    setting = SETTINGS["ofd"](teacher, student)
    assert setting.losses["task"].weight == 1.0
    assert setting.losses["ofd"].weight == 0.001
    assert setting.published == ((teacher, student) == ("resnet32x4", "resnet8x4"))
