import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from method_pairs import assembled

from rankdistill import Batch, Output, ReviewKD, hierarchical_context_loss
from rankdistill.contract import Pair
from rankdistill.methods.reviewkd import Fusion
from rankdistill.models import MODELS
from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.settings import SETTINGS

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "feature"
PRECISIONS = {"out": (torch.float32, 1e-4), "out64": (torch.float64, 1e-6)}
NAMES = {"reduce.0": "conv1.0", "reduce.1": "conv1.1", "expand.0": "conv2.0", "expand.1": "conv2.1"}
NAMES |= {"attend": "att_conv.0"}

# Channels and heights of stages, and the pooled dimension, on CIFAR-100.
SHAPES = {
    "resnet20": ([(16, 32), (32, 16), (64, 8)], 64),
    "resnet8x4": ([(64, 32), (128, 16), (256, 8)], 256),
    "wrn_40_2": ([(32, 32), (64, 16), (128, 8)], 128),
    "wrn_40_1": ([(16, 32), (32, 16), (64, 8)], 64),
    "vgg13": ([(128, 16), (256, 8), (512, 4), (512, 4)], 512),
    "resnet50": ([(256, 32), (512, 16), (1024, 8), (2048, 4)], 2048),
    "mobilenetv2": ([(12, 16), (16, 8), (48, 4), (160, 2)], 1280),
    "shufflenetv1": ([(240, 16), (480, 8), (960, 4)], 960),
    "shufflenetv2": ([(116, 16), (232, 8), (464, 4)], 1024),
}
SHAPES |= dict.fromkeys(("resnet32", "resnet56", "resnet110"), SHAPES["resnet20"])
SHAPES |= {"resnet32x4": SHAPES["resnet8x4"], "wrn_16_2": SHAPES["wrn_40_2"], "vgg8": SHAPES["vgg13"]}


def pair_named(teacher: str, student: str) -> Pair:
    def shapes(name: str, *kinds: str) -> dict[str, tuple[int, ...]]:
        stages, pooled = SHAPES[name]
        maps = {f"{kind}{n}": (c, h, h) for kind in kinds for n, (c, h) in enumerate(stages, 1)}
        return {"stem": (16, 32, 32)} | maps | {"pooled": (pooled,), "logits": (100,)}

    nothing = torch.nn.Identity()
    return Pair(nothing, nothing, shapes(student, "stage"), shapes(teacher, "stage", "pre"), 100, 50_000)


def features_of(shapes: dict[str, tuple[int, ...]], size: int = 2) -> Output:
    return Output(torch.zeros(size, 1), {role: torch.randn(size, *shape) for role, shape in shapes.items()})


def batch_in(epoch: int) -> Batch:
    return Batch(torch.zeros(2, 1), None, epoch=epoch)


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    return bool((found.detach() - expected).abs().max() <= tolerance * expected.abs().max())


@pytest.mark.parametrize("precision", ["out", "out64"])
@pytest.mark.authors
def test_equals_the_authors(precision: str) -> None:
    dtype, tolerance = PRECISIONS[precision]
    saved, inputs = np.load(SHARED / "reviewkd.npz"), np.load(SHARED / "inputs.npz")

    def golden(name: str) -> torch.Tensor:
        return torch.from_numpy(np.asarray(saved[name])).to(dtype)

    def given(name: str) -> torch.Tensor:
        return torch.from_numpy(inputs[name]).to(dtype)

    student = {f"stage{n}": given(f"a.s.pre{n}").relu().requires_grad_() for n in (1, 2, 3)}
    student["pooled"] = given("a.s.pooled").requires_grad_()
    teacher = {f"pre{n}": given(f"a.t.pre{n}") for n in (1, 2, 3)} | {"pooled": given("a.t.pooled")}
    method = ReviewKD(*({role: x.shape[1] for role, x in features.items()} for features in (student, teacher)))
    found = {
        f"fusions.{level}.{mine}.{name}": f"a.param.abf{level}.{theirs}.{name}"
        for level in range(4)
        for mine, theirs in NAMES.items()
        for name in ("weight", "bias", "running_mean", "running_var")
        if f"a.param.abf{level}.{theirs}.{name}" in saved
    }
    method.load_state_dict(method.state_dict() | {mine: golden(theirs) for mine, theirs in found.items()})
    assert len([name for name in method.state_dict() if "num_batches" not in name]) == len(found)
    method.to(dtype)

    outputs: dict[int, torch.Tensor] = {}
    for level, fusion in enumerate(method.fusions):
        fusion.register_forward_hook(lambda *call, level=3 - level: outputs.update({level: call[-1][0]}))
    logits = torch.zeros(4, 1)
    loss = 5.0 * method.losses(batch_in(epoch=10), Output(logits, student), Output(logits, teacher))["reviewkd"]
    loss.backward()
    assert close(loss, golden(f"a.{precision}.loss_epoch10"), tolerance)
    for level, role in enumerate(("pre1", "pre2", "pre3", "pooled")):
        target = teacher[role].reshape(*teacher[role].shape[:2], *outputs[level].shape[2:])
        of_level = hierarchical_context_loss(outputs[level], target).mean()
        assert close(of_level, golden(f"a.{precision}.hcl_level{level}"), tolerance)
        assert close(outputs[level].square().sum(), golden(f"a.out64.student_out{level}_sqsum"), tolerance)
        feature = student[role.replace("pre", "stage")].grad
        theirs = role.replace("pre", "s_feat").replace("pooled", "s_pooled")
        assert close(feature.flatten(1).norm(dim=1), golden(f"a.gradnorm.{theirs}"), tolerance)
        whole = f"a.grad.{theirs}" in saved
        expected = golden(f"a.grad.{theirs}" if whole else f"a.grad0.{theirs}")
        assert close(feature if whole else feature[0], expected, tolerance)
    for mine, parameter in method.named_parameters():
        theirs = found[mine].removeprefix("a.param.abf")
        level, name = theirs.split(".", 1)
        assert close(parameter.grad.norm(), golden(f"a.pgrad.abf{level}norm.{name}"), tolerance), mine
        if f"a.pgrad.abf{theirs}" in saved:
            assert close(parameter.grad, golden(f"a.pgrad.abf{theirs}"), tolerance), mine


@pytest.mark.parametrize(
    ("height", "weights"),
    [
        (8, {8: 1.0, 4: 0.5, 2: 0.25, 1: 0.125}),
        (5, {5: 1.0, 4: 0.5, 2: 0.25, 1: 0.125}),
        (4, {4: 1.0, 2: 0.5, 1: 0.25}),
        (2, {2: 1.0, 1: 0.5}),
        (1, {1: 1.0}),
    ],
)
def test_context_loss_is_a_weighted_mean_of_squared_errors(height: int, weights: dict[int, float]) -> None:
    student, teacher = torch.randn(2, 3, 3, height, height, dtype=torch.float64)
    expected = sum(
        weight * F.mse_loss(*(F.adaptive_avg_pool2d(x, size) for x in (student, teacher)))
        for size, weight in weights.items()
    ) / sum(weights.values())
    found = hierarchical_context_loss(student, teacher)
    assert found.shape == (3,)
    assert torch.allclose(found.mean(), expected, rtol=1e-12)


def test_context_loss_is_zero_at_equality_and_a_square_under_scaling() -> None:
    student, teacher = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64)
    assert torch.equal(hierarchical_context_loss(student, student), torch.zeros(3, dtype=torch.float64))
    scaled = hierarchical_context_loss(3 * student, 3 * teacher)
    assert torch.allclose(scaled, 9 * hierarchical_context_loss(student, teacher))


def test_context_loss_permuted_channels() -> None:
    student, teacher = torch.randn(2, 3, 4, 8, 8)
    order = torch.tensor([2, 0, 3, 1])
    found = hierarchical_context_loss(student[:, order], teacher[:, order])
    assert torch.allclose(found, hierarchical_context_loss(student, teacher))


def test_context_loss_gradcheck() -> None:
    student, teacher = torch.randn(2, 2, 3, 5, 5, dtype=torch.float64)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: hierarchical_context_loss(s, teacher), student)


def test_half_precision_is_computed_in_float32() -> None:
    student, teacher = torch.randn(2, 2, 3, 8, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = hierarchical_context_loss(student, teacher)
    assert found.dtype == torch.float32
    assert torch.equal(found, hierarchical_context_loss(student.float(), teacher.float()))


def test_fusion_weighs_each_position_by_attention() -> None:
    fusion = Fusion(3, 2, 5, deepest=False).eval()
    feature, passed = torch.randn(1, 3, 4, 4), torch.randn(1, 2, 2, 2)
    torch.nn.init.zeros_(fusion.attend.weight)
    fusion.attend.bias.data = torch.tensor([30.0, -30.0])  # all of this level, nothing of the one below
    output, fused = fusion(feature, passed, torch.Size((8, 8)))
    assert output.shape == (1, 5, 8, 8)
    assert torch.allclose(fused, fusion.reduce(feature).repeat_interleave(2, 2).repeat_interleave(2, 3))
    fusion.attend.bias.data = torch.tensor([-30.0, 30.0])
    _, fused = fusion(feature, passed, torch.Size((4, 4)))
    assert torch.allclose(fused, passed.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-6)


# (channels in, channels out), from the shallowest, and the width of what is passed.
EXPECTED = {
    ("resnet56", "resnet20"): ([16, 32, 64, 64], [16, 32, 64, 64], 64),
    ("resnet110", "resnet32"): ([16, 32, 64, 64], [16, 32, 64, 64], 64),
    ("resnet32x4", "resnet8x4"): ([64, 128, 256, 256], [64, 128, 256, 256], 256),
    ("wrn_40_2", "wrn_16_2"): ([32, 64, 128, 128], [32, 64, 128, 128], 128),
    ("wrn_40_2", "wrn_40_1"): ([16, 32, 64, 64], [32, 64, 128, 128], 64),
    ("vgg13", "vgg8"): ([128, 256, 512, 512, 512], [128, 256, 512, 512, 512], 512),
    ("vgg13", "mobilenetv2"): ([12, 16, 48, 160, 1280], [128, 256, 512, 512, 512], 512),
    ("resnet50", "mobilenetv2"): ([12, 16, 48, 160, 1280], [256, 512, 1024, 2048, 2048], 512),
    ("wrn_40_2", "shufflenetv1"): ([240, 480, 960, 960], [32, 64, 128, 128], 512),
    ("resnet32x4", "shufflenetv1"): ([240, 480, 960, 960], [64, 128, 256, 256], 512),
    ("resnet32x4", "shufflenetv2"): ([116, 232, 464, 1024], [64, 128, 256, 256], 512),
}


@pytest.mark.parametrize(("teacher", "student"), CIFAR100_PAIRS)
def test_shapes_of_every_pair(teacher: str, student: str) -> None:
    method = ReviewKD.for_pair(pair_named(teacher, student))
    into, out, mid = EXPECTED[teacher, student]
    assert [fusion.reduce[0].in_channels for fusion in method.fusions] == into[::-1]
    assert [fusion.expand[0].out_channels for fusion in method.fusions] == out[::-1]
    assert {fusion.reduce[0].out_channels for fusion in method.fusions} == {mid}
    assert method.student_needs == (*(f"stage{n}" for n in range(1, len(into))), "pooled")
    assert method.teacher_needs == (*(f"pre{n}" for n in range(1, len(into))), "pooled")
    assert method.prepare(None, list) == []


@pytest.mark.parametrize(
    ("teacher", "student"),
    [("wrn_40_2", "wrn_40_1"), ("vgg13", "mobilenetv2"), ("wrn_40_2", "shufflenetv1"), ("resnet32x4", "resnet8x4")],
)
def test_runs_on_shapes_of_a_pair(teacher: str, student: str) -> None:
    pair = pair_named(teacher, student)
    method = ReviewKD.for_pair(pair, max_mid_channels=8)
    of_student, of_teacher = features_of(pair.student_shapes), features_of(pair.teacher_shapes)
    of_student.features["stage1"].requires_grad_()
    of_teacher.features["pre1"].requires_grad_()
    loss = method.losses(batch_in(epoch=1), of_student, of_teacher)["reviewkd"]
    loss.backward()
    assert loss.isfinite()
    assert of_student.features["stage1"].grad is not None
    assert of_teacher.features["pre1"].grad is None
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_warms_up_linearly_from_epoch_one() -> None:
    pair = pair_named("resnet56", "resnet20")
    method = ReviewKD.for_pair(pair, warmup_epochs=10).eval()
    of_student, of_teacher = features_of(pair.student_shapes), features_of(pair.teacher_shapes)
    found = [method.losses(batch_in(epoch), of_student, of_teacher)["reviewkd"] for epoch in (1, 5, 10, 11)]
    assert torch.allclose(torch.stack(found) / found[2], torch.tensor([0.1, 0.5, 1.0, 1.0]))


def test_levels_are_aligned_from_the_deepest() -> None:
    method = ReviewKD.for_pair(pair_named("resnet50", "resnet8x4"))
    assert method.student_needs == ("stage1", "stage2", "stage3", "pooled")
    assert method.teacher_needs == ("pre2", "pre3", "pre4", "pooled")
    sentence = "the student has 3 stages and the teacher 4: ReviewKD uses the last 3 of each"
    assert method.prepare(None, list) == [sentence]
    deeper = ReviewKD.for_pair(pair_named("resnet32x4", "mobilenetv2"))
    assert deeper.student_needs == ("stage2", "stage3", "stage4", "pooled")
    assert deeper.teacher_needs == ("pre1", "pre2", "pre3", "pooled")


def test_convolutions_start_uniform_within_the_bound_of_unit_gain() -> None:
    fusion = Fusion(64, 32, 48, deepest=True)
    for weight, inputs in ((fusion.reduce[0].weight, 64), (fusion.expand[0].weight, 9 * 32)):
        assert weight.abs().max().item() == pytest.approx((3 / inputs) ** 0.5, rel=0.01)


def test_for_networks_of_torchvision() -> None:
    torchvision = pytest.importorskip("torchvision.models")
    student, teacher = MODELS["resnet8"](3), torchvision.resnet18(num_classes=3)
    method, *networks = assembled("reviewkd", student, teacher, side=32)
    assert method(Batch(torch.randn(2, 3, 32, 32), None), *networks)["reviewkd"].isfinite()
    assert method.prepare(None, list)[1] == (
        "no features before the last activation of the teacher's stage2, stage3, stage4 are known: "
        "ReviewKD reads what these stages give"
    )


def test_refuses_what_it_cannot_use() -> None:
    pair = pair_named("resnet56", "resnet20")
    with pytest.raises(
        ValueError, match=r"the teacher of ReviewKD has no stages \[B, C, H, W\] \(its roles: last, pooled\)"
    ):
        ReviewKD.for_pair(dataclasses.replace(pair, teacher_shapes={"last": (197, 8), "pooled": (8,)}))
    with pytest.raises(ValueError, match=r'the student, .* has no role "pooled" \(its roles: stage1\)'):
        ReviewKD.for_pair(dataclasses.replace(pair, student_shapes={"stage1": (8, 4, 4)}))
    with pytest.raises(ValueError, match="warmup_epochs 0: both must be at least 1"):
        ReviewKD.for_pair(pair, warmup_epochs=0)
    with pytest.raises(ValueError, match=r"levels are \['pooled'\], the teacher's \[\]: give equally many"):
        ReviewKD({"pooled": 4}, {})


PUBLISHED = {
    ("resnet56", "resnet20"): (0.6, 0.1),
    ("resnet110", "resnet32"): (1.0, 0.1),
    ("resnet32x4", "resnet8x4"): (5.0, 0.1),
    ("wrn_40_2", "wrn_16_2"): (5.0, 0.1),
    ("wrn_40_2", "wrn_40_1"): (5.0, 0.1),
    ("wrn_40_2", "shufflenetv1"): (5.0, 0.02),
    ("resnet32x4", "shufflenetv1"): (5.0, 0.02),
    ("resnet32x4", "shufflenetv2"): (8.0, 0.02),
}


@pytest.mark.parametrize(("teacher", "student"), [*CIFAR100_PAIRS, *TINY_IMAGENET_PAIRS, ("any", "other")])
def test_setting(teacher: str, student: str) -> None:
    setting = SETTINGS["reviewkd"](teacher, student)
    assert setting.losses["task"].weight == 1.0
    assert setting.losses["reviewkd"].warmup_epochs == 20
    assert setting.published == ((teacher, student) in PUBLISHED)
    if setting.published:
        assert (setting.losses["reviewkd"].weight, setting.optim["lr"]) == PUBLISHED[teacher, student]
        assert setting.optim["batch_size"] == 128
        assert setting.optim["nesterov"]
