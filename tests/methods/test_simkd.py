import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from contract_methods import random_batch
from jaxtyping import TypeCheckError
from method_pairs import assembled, for_networks
from small_networks import Small
from structure_golden import TOLERANCE, close, golden, gradient_is_right, load
from torch import nn

from rankdistill import Batch, Network, Output, SimKD, projected_feature_loss, select_roles
from rankdistill.methods.simkd import Reusing, projector
from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.settings import SETTINGS
from rankdistill.taps import resume, roles

KINDS = ("plain", "norm", "head", "convolution")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.authors
def test_golden(dtype: torch.dtype) -> None:
    project = load(projector(256, 256, factor=int(golden("simkd", "a.hp.factor"))), "simkd", "a.param.transfer").to(
        dtype
    )
    classifier = load(nn.Linear(256, 100), "simkd", "a.param.t_classifier").to(dtype)
    features = golden("inputs", "a.s.pre3").to(dtype).relu().requires_grad_()
    teacher = golden("inputs", "a.t.pre3").to(dtype).relu()
    projected = project(features)
    loss = projected_feature_loss(projected, teacher).mean()
    loss.backward()
    tolerance = TOLERANCE[dtype]
    assert close(loss, golden("simkd", "a.out64.loss" if dtype == torch.float64 else "a.out.loss"), tolerance)
    assert close(classifier(projected.mean(dim=(2, 3))), golden("simkd", "a.out64.logits_train"), tolerance)
    assert gradient_is_right("simkd", "s_feat3", features.grad, tolerance)
    for name, parameter in project.named_parameters():
        assert close(parameter.grad.norm(), golden("simkd", f"a.pgrad.transfernorm.{name}"), tolerance)
        if parameter.ndim == 1:
            assert close(parameter.grad, golden("simkd", f"a.pgrad.transfer.{name}"), tolerance)


class TestLoss:
    def test_zero_at_equality(self) -> None:
        maps = torch.randn(2, 3, 4, 4)
        assert not projected_feature_loss(maps, maps).any()

    def test_a_larger_map_of_the_teacher_is_averaged(self) -> None:
        student, teacher = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 4, 4)
        expected = F.mse_loss(student, F.avg_pool2d(teacher, 2))
        torch.testing.assert_close(projected_feature_loss(student, teacher).mean(), expected)

    def test_gradcheck_and_only_the_student_learns(self) -> None:
        student = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
        teacher = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: projected_feature_loss(x, teacher.detach()), student)
        projected_feature_loss(student, teacher).sum().backward()
        assert teacher.grad is None

    def test_half_precision_is_computed_in_float32(self) -> None:
        student, teacher = torch.randn(2, 3, 2, 2).bfloat16(), torch.randn(2, 3, 4, 4).bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = projected_feature_loss(student, teacher)
        assert torch.equal(found, projected_feature_loss(student.float(), teacher.float()))

    def test_errors(self) -> None:
        with pytest.raises((ValueError, TypeCheckError), match=r"has SimKD\.adapt changed the student|Type-check"):
            projected_feature_loss(torch.zeros(2, 3, 2, 2), torch.zeros(2, 4, 2, 2))
        for factor in (0, 13):
            with pytest.raises(ValueError, match=f"factor is {factor}: it must be from 1 to 12"):
                SimKD("stage2", (4, 2, 2), (12, 2, 2), torch.zeros(5, 12), None, factor=factor)


class TestStudent:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("teacher", KINDS)
    def test_is_the_student_up_to_its_last_stage_and_the_teachers_classifier(self, kind: str, teacher: str) -> None:
        student, other = Small(kind).eval(), Small(teacher, (4, 6, 10))
        before = copy.deepcopy(student.state_dict())
        adapted = for_networks("simkd", student, other).adapt(student).eval()
        torch.testing.assert_close(student.state_dict(), before, rtol=0, atol=0)
        batch = random_batch()
        stage = Network(student, {"stage2": "stage2"}).run(batch).features["stage2"]
        pooled = adapted.projector(stage).mean(dim=(2, 3))
        layer = list(other.modules())[-1]
        expected = F.linear(pooled, layer.weight.flatten(1), layer.bias)
        whole = Network(adapted, roles(adapted)).run(batch)
        torch.testing.assert_close(whole.logits, expected)
        torch.testing.assert_close(whole.features["pooled"], pooled)
        for border, _ in adapted.segments()[1:]:
            torch.testing.assert_close(resume(adapted, border, whole.features[border]).logits, whole.logits)

    @pytest.mark.parametrize("kind", KINDS)
    def test_has_nothing_that_is_not_used(self, kind: str) -> None:
        student, teacher = Small(kind), Small("plain", (4, 6, 10))
        method, trained, frozen = assembled("simkd", student, teacher)
        adapted = trained.module
        losses = method(random_batch(), trained, frozen)
        assert list(losses) == ["simkd"]
        losses["simkd"].backward()
        # A linear layer or a convolution before batch norm has no gradient from its scale, but some from its direction.
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapted.parameters())
        assert not any("classifier" in name or ".end" in name for name, _ in adapted.named_parameters())
        assert not method.state_dict()

    @pytest.mark.parametrize("kind", KINDS)
    def test_deployed_is_rebuilt_from_its_weights(self, kind: str) -> None:
        student, teacher = Small(kind, (4, 6, 9)), Small("plain", (4, 6, 10))
        method = for_networks("simkd", student, teacher, factor=3)
        adapted = method.adapt(student).eval()
        deployed = method.deploy(adapted)
        images = random_batch().images
        rebuilt = Reusing.rebuild(Small(kind, (4, 6, 9)), deployed.state_dict()).eval()
        rebuilt.load_state_dict(deployed.state_dict())
        assert torch.equal(rebuilt(images), deployed(images))
        exported = torch.export.export(deployed, (images,)).module()
        torch.testing.assert_close(exported(images), deployed(images))

    def test_teacher_without_bias(self) -> None:
        student, teacher = Small("plain"), Small("plain")
        teacher.classifier[0] = nn.Linear(8, 5, bias=False)
        adapted = for_networks("simkd", student, teacher).adapt(student).eval()
        rebuilt = Reusing.rebuild(Small("plain"), adapted.state_dict())
        rebuilt.load_state_dict(adapted.state_dict())
        assert torch.equal(rebuilt.eval()(random_batch().images), adapted(random_batch().images))

    def test_a_larger_map_of_the_student_is_averaged_to_the_teachers_size(self) -> None:
        student, teacher = Small("plain"), Small("plain")
        teacher.stage1[0].stride = (2, 2)
        method = for_networks("simkd", student, teacher)
        adapted = method.adapt(student)
        assert (method.student_shape[1:], method.teacher_shape[1:]) == ((8, 8), (4, 4))
        network = Network(adapted, select_roles(adapted, ["last", "stage2"]))
        features = network.run(random_batch()).features
        assert features["stage2"].shape[2:] == (8, 8)
        assert features["last"].shape[2:] == (4, 4)
        adapted.eval()
        features = network.run(random_batch()).features
        torch.testing.assert_close(features["last"], adapted.projector(F.avg_pool2d(features["stage2"], 2)))

    def test_the_classifier_does_not_learn(self) -> None:
        student, teacher = Small("plain"), Small("plain")
        adapted = for_networks("simkd", student, teacher).adapt(student)
        adapted(random_batch().images).sum().backward()
        assert not adapted.classifier_weight.requires_grad
        assert torch.equal(adapted.classifier_weight, teacher.classifier[0].weight)
        assert torch.equal(adapted.classifier_bias, teacher.classifier[0].bias)

    def test_a_teacher_of_torchvision(self) -> None:
        teacher = torchvision.models.resnet18(weights=None, num_classes=5)
        student = Small("plain")
        method, trained, frozen = assembled("simkd", student, teacher)
        assert method.prepare(frozen, lambda: [random_batch()]) == []
        assert trained.module.projector[6].out_channels == 512

    def test_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"SimKD cuts the student after its last stage, and ResNet has no segments"):
            for_networks("simkd", torchvision.models.resnet18(weights=None, num_classes=5), Small("plain"))
        teacher = Small("plain")
        teacher.pool.append(nn.LayerNorm(8))
        method, _, frozen = assembled("simkd", Small("plain"), teacher)
        with pytest.raises(ValueError, match=r"the teacher's logits differ by .* SimKD needs a teacher that has only"):
            method.prepare(frozen, lambda: [random_batch()])

    def test_method_is_the_mean_of_the_function(self) -> None:
        student, teacher = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
        method = SimKD("stage2", (4, 2, 2), (3, 2, 2), torch.zeros(5, 3), None)
        outputs = [Output(torch.zeros(2, 5), {"last": x}) for x in (student, teacher)]
        losses = method.losses(Batch(student, None), *outputs)
        assert losses == {"simkd": projected_feature_loss(student, teacher).mean()}


@pytest.mark.parametrize("pair", CIFAR100_PAIRS)
def test_published_settings(pair: tuple[str, str]) -> None:
    found = SETTINGS["simkd"](*pair)
    assert list(found.losses) == ["simkd"]
    assert (found.losses["simkd"].weight, found.losses["simkd"].factor) == (1.0, 2)
    assert found.published


@pytest.mark.parametrize("pair", [*TINY_IMAGENET_PAIRS, ("resnet14", "resnet8")])
def test_other_pairs(pair: tuple[str, str]) -> None:
    found = SETTINGS["simkd"](*pair)
    assert list(found.losses) == ["simkd"]
    assert not found.published
