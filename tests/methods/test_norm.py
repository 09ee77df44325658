import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
import torchvision
from contract_methods import random_batch
from jaxtyping import TypeCheckError
from method_pairs import for_networks
from small_networks import Small
from structure_golden import TOLERANCE, close, golden, gradient_is_right, load
from torch import Tensor, nn

from rankdistill import (
    METHODS,
    NORM,
    Batch,
    Network,
    NormalizedCE,
    NormalizedKD,
    Output,
    Sum,
    assemble,
    kd_loss,
    n_to_one_loss,
    normalized_logits,
)
from rankdistill.methods.norm import Expanded, FeatureTransform, feature_factor
from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.settings import SETTINGS
from rankdistill.taps import resume, roles

KINDS = ("plain", "norm", "head", "convolution")


def trained(kind: str, **options: object) -> tuple[NORM, nn.Module, nn.Module]:
    """Return method, plain student, and the adapted one after some steps of batch norm, in eval mode."""
    student = Small(kind)
    method = for_networks("norm", student, Small("plain", (4, 8, 12)), **options)
    adapted = method.adapt(student)
    for layer in adapted.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
    for step in range(3):
        adapted(random_batch(step).images)
    return method, student, adapted.eval()


def golden_networks(dtype: torch.dtype) -> tuple[FeatureTransform, nn.Linear]:
    transform = FeatureTransform(256, int(golden("norm", "a.hp.N")) * 256)
    load(transform.expand, "norm", "a.param.expand")
    load(transform.contract, "norm", "a.param.contract")
    classifier = load(nn.Linear(256, 100), "norm", "a.param.classifier")
    return transform.to(dtype), classifier.to(dtype)


class FromMap(nn.Module):
    """A student whose images are already its last map: what the golden file has of a network."""

    def __init__(self, classifier: nn.Linear) -> None:
        super().__init__()
        self.stage1 = nn.Identity()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        self.fc = classifier
        self.roles = {"stage1": "stage1", "last": "<pool", "pooled": "pool"}

    def segments(self):
        return [("images", self.stage1), ("stage1", nn.Identity()), ("last", self.pool), ("pooled", self.fc)]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.stage1(x)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
class TestGolden:
    @pytest.mark.authors
    def test_feature_loss(self, dtype: torch.dtype) -> None:
        transform, _ = golden_networks(dtype)
        features = golden("inputs", "a.s.pre3").to(dtype).relu().requires_grad_()
        teacher = golden("inputs", "a.t.pre3").to(dtype).relu()
        method = NORM(256, 256, "stage3", "last", copies=4)
        expanded = transform.expand(features)
        losses = {
            epoch: method.losses(
                Batch(features, None, epoch=epoch),
                Output(features, {"expanded": expanded}),
                Output(teacher, {"stage3": teacher}),
            )["norm"]
            for epoch in (6, 51)
        }
        out = "out64" if dtype == torch.float64 else "out"
        assert close(losses[51], golden("norm", f"a.{out}.loss_norm"), TOLERANCE[dtype])
        assert close(losses[6], golden("norm", f"a.{out}.loss_epoch5"), TOLERANCE[dtype])
        losses[51].backward()
        assert gradient_is_right("norm", "s_feat", features.grad, TOLERANCE[dtype])
        for name, parameter in transform.expand.named_parameters():
            norm = golden("norm", f"a.pgrad.expandnorm.{name}")
            assert close(parameter.grad.norm(), norm, TOLERANCE[dtype])
        for name in ("1.weight", "1.bias"):
            expected = golden("norm", f"a.pgrad.expand.{name}")
            assert close(transform.expand.get_parameter(name).grad, expected, TOLERANCE[dtype])

    @pytest.mark.authors
    def test_losses_on_normalised_logits(self, dtype: torch.dtype) -> None:
        transform, classifier = golden_networks(dtype)
        features = golden("inputs", "a.s.pre3").to(dtype).relu().requires_grad_()
        logits = classifier(transform(features).mean(dim=(2, 3)))
        assert close(logits, golden("norm", "a.out64.logits_train"), TOLERANCE[dtype])
        outputs = Output(logits), Output(golden("inputs", "a.t.logits").to(dtype))
        batch = Batch(features, golden("inputs", "target").long())
        out = "out64" if dtype == torch.float64 else "out"
        task = NormalizedCE().losses(batch, *outputs)["task"]
        assert close(task, golden("norm", f"a.{out}.loss_ce_only"), TOLERANCE[dtype])
        kd = NormalizedKD(temperature=4.0).losses(batch, *outputs)["kd"]
        assert close(kd, golden("norm", f"a.{out}.loss_kd_only"), TOLERANCE[dtype])
        kd.backward()
        assert gradient_is_right("norm", "s_feat_kd_only", features.grad, TOLERANCE[dtype])

    @pytest.mark.authors
    def test_merged(self, dtype: torch.dtype) -> None:
        transform, classifier = golden_networks(dtype)
        features = golden("inputs", "a.s.pre3").to(dtype).relu()
        student = Expanded(FromMap(classifier), transform, "last").eval()
        expected = golden("norm", "a.out64.logits_eval")
        assert close(student(features), expected, 1e-6)
        deployed = NORM(256, 256, "stage3", "last", copies=4).deploy(student)
        assert isinstance(deployed, FromMap)
        assert close(deployed(features), expected, 1e-6)


class TestLosses:
    def test_zero_where_every_group_is_the_teachers_map(self) -> None:
        teacher = torch.randn(2, 3, 4, 4)
        assert not n_to_one_loss(teacher.repeat(1, 5, 1, 1), teacher).any()

    def test_is_the_sum_over_groups(self) -> None:
        student, teacher = torch.randn(2, 12, 4, 4), torch.randn(2, 3, 4, 4)
        parts = [n_to_one_loss(group, teacher) for group in student.split(3, dim=1)]
        torch.testing.assert_close(n_to_one_loss(student, teacher), torch.stack(parts).sum(0))

    @pytest.mark.parametrize(("own", "other"), [(2, 4), (2, 6), (3, 7)])
    def test_a_larger_map_of_the_teacher_is_max_pooled(self, own: int, other: int) -> None:
        student, teacher = torch.randn(2, 6, own, own), torch.randn(2, 3, other, other)
        pooled = F.max_pool2d(teacher, other // own)
        torch.testing.assert_close(n_to_one_loss(student, teacher), n_to_one_loss(student, pooled))

    @pytest.mark.parametrize(("own", "other"), [(9, 8), (4, 6)])
    def test_the_larger_map_is_averaged_where_no_multiple_fits(self, own: int, other: int) -> None:
        student, teacher = torch.randn(2, 6, own, own), torch.randn(2, 3, other, other)
        reduced = [F.adaptive_avg_pool2d(x, min(own, other)) for x in (student, teacher)]
        torch.testing.assert_close(n_to_one_loss(student, teacher), n_to_one_loss(*reduced))

    def test_gradcheck(self) -> None:
        student = torch.randn(2, 6, 2, 2, dtype=torch.float64, requires_grad=True)
        teacher = torch.randn(2, 3, 4, 4, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x: n_to_one_loss(x, teacher), student)
        logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(normalized_logits, logits)

    def test_half_precision_is_computed_in_float32(self) -> None:
        student, teacher = torch.randn(2, 6, 2, 2).bfloat16(), torch.randn(2, 3, 2, 2).bfloat16()
        logits = torch.randn(2, 5).bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, normalized = n_to_one_loss(student, teacher), normalized_logits(logits)
        assert torch.equal(loss, n_to_one_loss(student.float(), teacher.float()))
        assert torch.equal(normalized, normalized_logits(logits.float()))

    def test_normalised_logits(self) -> None:
        logits = torch.randn(4, 10, dtype=torch.float64)
        found = normalized_logits(logits)
        assert found.mean(1).abs().max() < 1e-12
        torch.testing.assert_close(
            found.std(1, correction=0), torch.full((4,), 2.5, dtype=torch.float64), rtol=1e-5, atol=0
        )
        torch.testing.assert_close(normalized_logits(30 * logits - 7), found, rtol=1e-5, atol=1e-7)
        assert torch.equal(found.argsort(1), logits.argsort(1))
        assert not normalized_logits(torch.full((2, 5), 1e4)).any()
        assert normalized_logits(torch.tensor([[1e4, -1e4, 0.0]])).isfinite().all()

    def test_methods_are_means_of_functions(self) -> None:
        student, teacher, labels = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([0, 4, 2, 2])
        outputs = Output(student), Output(teacher)
        batch = Batch(torch.zeros(4, 3, 2, 2), labels)
        expected = F.cross_entropy(normalized_logits(student, scale=2.0), labels)
        assert NormalizedCE(scale=2.0).losses(batch, *outputs) == {"task": expected}
        normalized = [normalized_logits(x, scale=2.0) for x in (student, teacher)]
        expected = kd_loss(*normalized, temperature=3.0).mean()
        assert NormalizedKD(temperature=3.0, scale=2.0).losses(batch, *outputs) == {"kd": expected}
        total = Sum(task=(0.1, NormalizedCE()), kd=(0.9, NormalizedKD()))
        assert list(total.losses(batch, *outputs)) == ["task", "kd"]

    def test_only_the_student_learns(self) -> None:
        student, teacher = torch.randn(2, 6, 2, 2, requires_grad=True), torch.randn(2, 3, 2, 2, requires_grad=True)
        n_to_one_loss(student, teacher).sum().backward()
        assert student.grad.abs().sum() > 0
        assert teacher.grad is None

    @pytest.mark.parametrize(
        ("schedule", "expected"),
        [
            ("cifar", {1: 0.1, 10: 0.1, 11: 0.5, 20: 0.5, 21: 1.0, 180: 1.0, 181: 0.5, 210: 0.5, 211: 0.1, 300: 0.1}),
            ("imagenet", {1: 0.1, 5: 0.1, 6: 0.5, 15: 0.5, 16: 0.9, 60: 0.9, 61: 0.5, 80: 0.5, 81: 0.1}),
        ],
    )
    def test_schedule(self, schedule: str, expected: dict[int, float]) -> None:
        assert {epoch: feature_factor(epoch, schedule) for epoch in expected} == expected

    def test_errors(self) -> None:
        with pytest.raises(ValueError, match=r"expanded map has shape \(2, 7, 2, 2\).*N times as many channels"):
            n_to_one_loss(torch.zeros(2, 7, 2, 2), torch.zeros(2, 3, 2, 2))
        with pytest.raises((ValueError, TypeCheckError), match=r"the same samples|Type-check"):
            n_to_one_loss(torch.zeros(2, 6, 2, 2), torch.zeros(3, 3, 2, 2))
        with pytest.raises(ValueError, match="copies is 0"):
            NORM(4, 4, "stage2", "last", copies=0)
        with pytest.raises((ValueError, TypeCheckError), match=r"(?s)schedule.*'tiny'"):
            NORM(4, 4, "stage2", "last", schedule="tiny")
        with pytest.raises((ValueError, TypeCheckError), match=r"(?s)conv_init.*'zeros'"):
            NORM(4, 4, "stage2", "last", conv_init="zeros")
        with pytest.raises(ValueError, match=r"scale is 0\.0"):
            NormalizedKD(scale=0.0)
        with pytest.raises(ValueError, match=r"Batch\.labels, which is None"):
            NormalizedCE().losses(Batch(torch.zeros(1, 3, 2, 2), None), Output(torch.zeros(1, 5)))


class TestStudent:
    @pytest.mark.parametrize("kind", KINDS)
    def test_trained_network(self, kind: str) -> None:
        student = Small(kind).eval()
        before = copy.deepcopy(student.state_dict())
        method = for_networks("norm", student, Small("plain"), copies=2)
        adapted = method.adapt(student).eval()
        torch.testing.assert_close(student.state_dict(), before, rtol=0, atol=0)
        whole = Network(adapted, roles(adapted)).run(random_batch())
        plain = Network(student, roles(student)).run(random_batch())
        assert torch.equal(whole.features["stage2"], plain.features["stage2"])
        assert whole.features["expanded"].shape[1] == 2 * 8
        read = plain.features["stage2" if kind == "norm" else "last"]
        transformed = adapted.transform(read)
        expected = student.end(transformed) if kind == "norm" else transformed
        torch.testing.assert_close(whole.features["last"], expected)
        torch.testing.assert_close(whole.features["pooled"], expected.mean(dim=(2, 3)))

    @pytest.mark.parametrize("kind", KINDS)
    def test_roles_and_segments_agree(self, kind: str) -> None:
        _, _, adapted = trained(kind)
        whole = Network(adapted, roles(adapted)).run(random_batch())
        for border, _ in adapted.segments()[1:]:
            torch.testing.assert_close(resume(adapted, border, whole.features[border]).logits, whole.logits)

    @pytest.mark.parametrize("kind", KINDS)
    def test_deployed_equals_trained(self, kind: str) -> None:
        method, student, adapted = trained(kind)
        before = copy.deepcopy(adapted.state_dict())
        deployed = method.deploy(adapted).eval()
        torch.testing.assert_close(adapted.state_dict(), before, rtol=0, atol=0)
        images = random_batch(9).images
        torch.testing.assert_close(deployed(images), adapted(images))
        torch.testing.assert_close(
            method.deploy(copy.deepcopy(adapted).double())(images.double()),
            copy.deepcopy(adapted).double()(images.double()),
            rtol=1e-10,
            atol=1e-12,
        )
        exported = torch.export.export(deployed, (images,)).module()
        torch.testing.assert_close(exported(images), deployed(images))
        plain = Small(kind) if kind != "norm" else Expanded.rebuild(Small(kind), deployed.state_dict())
        plain.load_state_dict(deployed.state_dict())
        assert torch.equal(plain.eval()(images), deployed(images))
        assert (type(deployed) is type(student)) == (kind != "norm")
        extra = sum(p.numel() for p in deployed.parameters()) - sum(p.numel() for p in student.parameters())
        assert extra == (8 * 9 if kind == "norm" else 0)

    def test_gradient_reaches_every_parameter(self) -> None:
        student, teacher = Small("norm"), Small("plain")
        terms = {"task": (0.1, NormalizedCE()), "norm": (1.0, NORM), "kd": (0.9, NormalizedKD())}
        total, trained, frozen = assemble(terms, student, teacher, random_batch().images, num_samples=12)
        losses = total(random_batch(), trained, frozen)
        assert list(losses) == ["task", "norm", "kd"]
        sum(losses.values()).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.module.parameters())
        assert not total.state_dict()

    @pytest.mark.parametrize("order", list(itertools.permutations(["norm", "catkd"])))
    def test_with_another_method_that_changes_the_student(self, order: tuple[str, str]) -> None:
        student, teacher = Small("plain"), Small("plain")
        terms = {name: (1.0, METHODS[name]) for name in order}
        total, trained, frozen = assemble(terms, student, teacher, random_batch().images, num_samples=12)
        assert set(total(random_batch(), trained, frozen)) == {"norm", "catkd"}
        adapted = trained.module
        deployed = total.deploy(adapted.eval()).eval()
        torch.testing.assert_close(deployed(random_batch().images), adapted(random_batch().images))
        Small("plain").load_state_dict(deployed.state_dict())

    @pytest.mark.parametrize("init", ["kaiming", "default"])
    def test_initial_transform(self, init: str) -> None:
        transform = FeatureTransform(64, 256, init=init)
        expand, contract = (x[0].weight.std().item() for x in (transform.expand, transform.contract))
        expected = ((2 / 256) ** 0.5, (2 / 64) ** 0.5) if init == "kaiming" else ((1 / 192) ** 0.5, (1 / 768) ** 0.5)
        assert (expand, contract) == pytest.approx(expected, rel=0.05)

    def test_a_network_that_cannot_be_changed_is_refused(self) -> None:
        with pytest.raises(
            TypeError, match=r"NORM puts layers between the student's stages, and ResNet has no segments"
        ):
            for_networks("norm", torchvision.models.resnet18(weights=None, num_classes=5), Small("plain"))

    def test_plain_student_is_deployed_as_it_is(self) -> None:
        student = Small("plain")
        assert for_networks("norm", student, Small("plain")).deploy(student) is student


@pytest.mark.parametrize("pair", [*CIFAR100_PAIRS, *TINY_IMAGENET_PAIRS, ("resnet14", "resnet8")])
def test_settings(pair: tuple[str, str]) -> None:
    alone, both = SETTINGS["norm"](*pair), SETTINGS["norm_kd"](*pair)
    assert (alone.losses["task"].method, alone.losses["task"].weight) == ("normalized_ce", 0.1)
    assert (alone.losses["norm"].weight, alone.losses["norm"].copies) == (1.0, 8)
    shuffle = "shufflenet" in pair[1]
    assert alone.losses["norm"].conv_init == ("default" if shuffle else "kaiming")
    assert list(both.losses) == ["task", "norm", "kd"]
    assert both.losses["kd"].method == "normalized_kd"
    assert not alone.published
    assert not both.published
