import copy
import inspect
import itertools

import pytest
import torch
import torch.nn.functional as F
import torchvision
from contract_methods import random_batch
from method_pairs import assembled, for_networks
from small_networks import Small, Toy
from structure_golden import TOLERANCE, close, golden, gradient_is_right, names
from torch import nn

from rankdistill import (
    FCFD,
    Batch,
    CrossEntropy,
    EachView,
    Network,
    assemble,
    teacher_space_loss,
)
from rankdistill.methods.fcfd import Path, bridge, candidate_paths, default_borders, draw_paths
from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.settings import SETTINGS

PATHS = {
    "p1": [Path(1, to_teacher=True), Path(2, to_teacher=False)],  # 1100 and 0001
    "p2": [Path(2, to_teacher=True), Path(1, to_teacher=False)],  # 1110 and 0011
}


class Golden:
    """The toy networks, bridges and inputs of case a."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.images = golden("fcfd", "in.image").to(dtype)
        self.student, self.teacher = self._network("student", "s"), self._network("teacher", "t")
        method, *self.networks = assembled(
            "fcfd",
            self.student,
            self.teacher,
            side=self.images.shape[-1],
            temperature=float(golden("fcfd", "a.hp.T")),
            feature_weight=float(golden("fcfd", "a.hp.weight_l2")),
        )
        for place in range(3):
            for side in ("to_teacher", "to_student"):
                bridges = getattr(method, side)
                if place < len(bridges):
                    self._load(bridges[place], f"a.param.bridge{place + 1}.{side}")
        self.method = method.to(dtype)
        self.student.to(dtype)
        self.teacher.to(dtype)

    def _network(self, whose: str, letter: str) -> Toy:
        channels, strides = (golden("fcfd", f"a.hp.{letter}_{what}").tolist() for what in ("channels", "strides"))
        after_relu = bool(golden("fcfd", f"a.hp.{letter}_after_relu"))
        network = Toy(channels, strides, after_relu=after_relu, num_classes=100)
        self._load(network, f"a.param.{whose}")
        return network

    @staticmethod
    def _load(module: nn.Module, prefix: str) -> None:
        state = module.state_dict()
        for key in state:
            if not key.endswith("num_batches_tracked"):
                state[key] = golden("fcfd", f"{prefix}.{key}").to(state[key])
        module.load_state_dict(state)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", PATHS)
class TestGolden:
    @pytest.mark.authors
    def test_losses(self, case: str, dtype: torch.dtype) -> None:
        toy = Golden(dtype)
        outputs = [network.run(Batch(toy.images, None)) for network in toy.networks]
        terms = toy.method.terms(*outputs, toy.student, toy.teacher, PATHS[case])
        tolerance, loose = TOLERANCE[dtype], 1e-6 if dtype == torch.float64 else 1e-3
        out = f"a.{'out64' if dtype == torch.float64 else 'out'}.{case}"
        assert close(terms.features, golden("fcfd", f"{out}.l2_unweighted"), tolerance)
        assert close(terms.student, golden("fcfd", f"{out}.kl_student"), loose)
        assert close(terms.paths, golden("fcfd", f"{out}.kl_mixture"), loose)
        assert close(outputs[0].logits, golden("fcfd", f"a.out64.{case}.logits_student"), tolerance)
        assert close(outputs[1].logits, golden("fcfd", f"a.out64.{case}.logits_teacher"), tolerance)

    @pytest.mark.authors
    def test_weighted_total(self, case: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
        toy = Golden(dtype)
        monkeypatch.setattr("rankdistill.methods.fcfd.draw_paths", lambda *_, **__: PATHS[case])
        out = f"a.{'out64' if dtype == torch.float64 else 'out'}.{case}"
        for epoch, name in ((100, "total"), (10, "total_epoch9")):
            losses = toy.method(Batch(toy.images, None, epoch=epoch), *toy.networks)
            assert close(sum(losses.values()), golden("fcfd", f"{out}.{name}"), TOLERANCE[dtype])

    @pytest.mark.authors
    def test_gradients(self, case: str, dtype: torch.dtype) -> None:
        toy = Golden(dtype)
        student, teacher = (network.run(Batch(toy.images, None)) for network in toy.networks)
        features = {
            name: student.features[name.replace("s_feat", "stage")] for name in ("s_feat1", "s_feat2", "s_feat3")
        }
        features["s_logits"] = student.logits
        for feature in features.values():
            feature.retain_grad()
        terms = toy.method.terms(student, teacher, toy.student, toy.teacher, PATHS[case])
        (toy.method.feature_weight * terms.features + terms.student + terms.paths).backward()
        tolerance = TOLERANCE[dtype]
        for name, feature in features.items():
            assert gradient_is_right("fcfd", f"{case}.{name}", feature.grad, tolerance)
        checked = 0
        for module, role in ((toy.student, "student"), *self._bridges(toy.method)):
            for name, parameter in module.named_parameters():
                full = f"a.pgrad.{case}.{role}.{name}"
                norm = f"a.pgrad.{case}.{role}norm.{name}"
                if norm not in names("fcfd"):
                    assert parameter.grad is None  # a bridge that these paths do not cross
                    continue
                assert close(parameter.grad.norm(), golden("fcfd", norm), tolerance)
                assert full not in names("fcfd") or close(parameter.grad, golden("fcfd", full), tolerance)
                checked += 1
        assert checked >= 26
        assert all(p.grad is None for p in toy.teacher.parameters())

    @pytest.mark.authors
    def test_statistics_afterwards(self, case: str, dtype: torch.dtype) -> None:
        toy = Golden(dtype)
        before = copy.deepcopy(toy.teacher.state_dict())
        outputs = [network.run(Batch(toy.images, None)) for network in toy.networks]
        toy.method.terms(*outputs, toy.student, toy.teacher, PATHS[case])
        for place, norm in enumerate(toy.student.bns):
            for statistic in ("running_mean", "running_var"):
                expected = golden("fcfd", f"a.after.{case}.student_bn{place}_{statistic}")
                assert close(getattr(norm, statistic), expected, 1e-5)
            assert norm.num_batches_tracked == 1
        torch.testing.assert_close(toy.teacher.state_dict(), before, rtol=0, atol=0)  # theirs drifts

    @staticmethod
    def _bridges(method: FCFD) -> list[tuple[nn.Module, str]]:
        return [
            (module, f"bridge{place}.{side}")
            for side in ("to_teacher", "to_student")
            for place, module in enumerate(getattr(method, side), start=1)
        ]


class TestPaths:
    def test_candidates(self) -> None:
        def digits(path: Path, stages: int) -> str:
            first = "1" if path.to_teacher else "0"
            return first * (path.border + 1) + ("0" if path.to_teacher else "1") * (stages - path.border - 1)

        assert {digits(path, 4) for path in candidate_paths(3)} == {"0011", "0001", "1100", "1110"}
        five = {"00111", "00011", "00001", "11000", "11100", "11110"}
        assert {digits(path, 5) for path in candidate_paths(4)} == five

    def test_a_function_of_the_step_alone(self) -> None:
        drawn = []
        for step in range(200):
            torch.manual_seed(step % 3)
            state = torch.get_rng_state()
            drawn.append(draw_paths(step, 3))
            assert torch.equal(torch.get_rng_state(), state)
        assert drawn == [draw_paths(step, 3) for step in range(200)]
        pairs = list(itertools.permutations(candidate_paths(3), 2))
        assert {tuple(paths) for paths in drawn} == set(pairs)

    def test_all_are_equally_likely(self) -> None:
        counts = dict.fromkeys(candidate_paths(4), 0)
        for step in range(3000):
            for path in draw_paths(step, 4):
                counts[path] += 1
        assert all(abs(count - 1000) < 150 for count in counts.values())

    def test_a_step_draws_its_own(self) -> None:
        student = Toy((3, 4, 6, 8), (1, 2, 2, 1), after_relu=False, num_classes=5)
        teacher = Toy((4, 6, 8, 10), (1, 1, 2, 2), after_relu=True, num_classes=5)
        method, *networks = assembled("fcfd", student, teacher)
        batch = random_batch()
        losses = [method(Batch(batch.images, None, step=step), *networks)["paths"] for step in (0, 1, 0)]
        assert losses[0] == losses[2]
        assert draw_paths(0, 3) != draw_paths(1, 3)
        assert losses[0] != losses[1]


class TestBridge:
    @pytest.mark.parametrize(
        ("source", "target", "kinds"),
        [
            ((3, 8, 8), (5, 8, 8), ["Conv2d", "BatchNorm2d"]),
            ((3, 8, 8), (5, 4, 4), ["Conv2d", "BatchNorm2d"]),
            ((3, 4, 4), (5, 8, 8), ["ConvTranspose2d", "BatchNorm2d"]),
            ((3, 33, 33), (5, 64, 64), ["AdaptiveAvgPool2d", "Conv2d", "BatchNorm2d"]),
            ((3, 9, 9), (5, 8, 8), ["AdaptiveAvgPool2d", "Conv2d", "BatchNorm2d"]),
        ],
    )
    @pytest.mark.parametrize("rectified", [True, False])
    def test_shapes(
        self, source: tuple[int, int, int], target: tuple[int, int, int], kinds: list[str], rectified: bool
    ):
        layers = bridge(source, target, rectified=rectified)
        assert layers(torch.randn(2, *source)).shape == (2, *target)
        assert [type(layer).__name__ for layer in layers] == kinds + ["LeakyReLU"] * rectified
        convolution = next(layer for layer in layers if hasattr(layer, "kernel_size"))
        assert (convolution.bias is None) == (source[1] != 2 * target[1] and 2 * source[1] != target[1])

    def test_leaky_only_where_the_target_is_rectified(self) -> None:
        student, teacher = Small("norm"), Small("plain", (4, 6, 10))
        method = for_networks("fcfd", student, teacher)
        assert all(isinstance(layers[-1], nn.LeakyReLU) for layers in method.to_teacher)
        assert all(isinstance(layers[-1], nn.BatchNorm2d) for layers in method.to_student)
        assert len(method.to_student) == len(method.to_teacher) - 1


class TestLoss:
    def test_zero_at_equality(self) -> None:
        teacher = torch.randn(2, 3, 4, 4)
        assert not teacher_space_loss([teacher, teacher], teacher, final=True).any()

    def test_by_hand(self) -> None:
        a, b, teacher = torch.randn(3, 2, 3, 4, 4, dtype=torch.float64)
        expected = F.mse_loss(a, teacher) + F.mse_loss(b, teacher)
        torch.testing.assert_close(teacher_space_loss([a, b], teacher).mean(), expected)
        pooled = [x.relu().mean(dim=(2, 3)) for x in (a, b, teacher)]
        expected = expected + F.mse_loss(pooled[0], pooled[2]) + F.mse_loss(pooled[1], pooled[2])
        torch.testing.assert_close(teacher_space_loss([a, b], teacher, final=True).mean(), expected)

    def test_gradcheck_and_only_features_learn(self) -> None:
        teacher = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
        features = [torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
        assert torch.autograd.gradcheck(lambda a, b: teacher_space_loss([a, b], teacher.detach(), final=True), features)
        teacher_space_loss(features, teacher, final=True).sum().backward()
        assert teacher.grad is None

    def test_half_precision_is_computed_in_float32(self) -> None:
        feature, teacher = torch.randn(2, 2, 3, 4, 4).bfloat16()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = teacher_space_loss([feature], teacher, final=True)
        assert torch.equal(found, teacher_space_loss([feature.float()], teacher.float(), final=True))

    def test_no_features(self) -> None:
        with pytest.raises(ValueError, match="there are no features to compare"):
            teacher_space_loss([], torch.zeros(1, 1, 1, 1))


class TestMethod:
    def networks(self) -> tuple[Toy, Toy]:
        student = Toy((3, 4, 6, 8), (1, 2, 2, 1), after_relu=False, num_classes=5)
        return student, Toy((4, 6, 8, 10), (1, 1, 2, 2), after_relu=True, num_classes=5)

    def test_gradient_reaches_every_parameter_over_some_steps_and_no_teachers(self) -> None:
        student, teacher = self.networks()
        method, *networks = assembled("fcfd", student, teacher)
        before = copy.deepcopy(teacher.state_dict())
        for step in range(8):
            sum(method(random_batch(step), *networks).values()).backward()
        for parameter in (*student.parameters(), *method.parameters()):
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in teacher.parameters())
        torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)
        assert not any(module.training for module in teacher.modules())

    def test_in_a_sum_each_network_runs_once(self) -> None:
        student, teacher = self.networks()
        terms = {"task": (1.0, CrossEntropy()), "fcfd": (1.0, FCFD)}
        total, *networks = assemble(terms, student, teacher, random_batch().images, num_samples=12)
        assert total.teacher_mode == "batch_stats"
        losses = total(random_batch(), *networks)
        assert list(losses) == ["task", "fcfd/features", "fcfd/student", "fcfd/paths"]
        assert student.bns[0].num_batches_tracked == 2  # both views, once each

    def test_warm_up(self) -> None:
        student, teacher = self.networks()
        method, *networks = assembled("fcfd", student, teacher, warmup_epochs=4, feature_weight=2.0)
        batch = random_batch()
        found = [method(Batch(batch.images, None, epoch=epoch), *networks)["features"].item() for epoch in (1, 2, 4, 9)]
        assert found == pytest.approx([found[2] / 4, found[2] / 2, found[2], found[2]], rel=1e-5)

    def test_borders(self) -> None:
        shapes = {"stem": (4, 8, 8), "stage10": (8, 2, 2), "stage2": (6, 4, 4), "last": (12, 2, 2)}
        assert default_borders(shapes) == ("stage2", "last")
        assert default_borders(shapes | {"last": (8, 2, 2)}) == ("stage2", "stage10")
        method = FCFD(shapes, shapes, [], [], student_borders=("stem", "stage2", "stage10"), num_paths=1)
        assert method.student_needs == ("stage2", "stage10")
        assert method.teacher_needs == ("stage2", "last")

    def test_what_does_not_fit_is_refused(self) -> None:
        resnet = torchvision.models.resnet18(weights=None, num_classes=5)
        with pytest.raises(TypeError, match=r"FCFD enters networks between their stages, and ResNet has no segments"):
            for_networks("fcfd", Small("plain"), resnet)
        with pytest.raises(ValueError, match="EachView"):
            EachView(
                FCFD({"stage1": (4, 2, 2), "stage2": (4, 2, 2)}, {"stage1": (4, 2, 2), "stage2": (4, 2, 2)}, [], [])
            )
        one = {"stage1": (4, 8, 8)}
        with pytest.raises(ValueError, match="FCFD needs two or more of each"):
            FCFD(one, one, [], [])
        two = one | {"stage2": (6, 4, 4)}
        with pytest.raises(ValueError, match="EachView"):
            EachView(FCFD(two, two, [], []))
        with pytest.raises(ValueError, match="num_paths is 3: there are 2 paths"):
            FCFD(two, two, [], [], num_paths=3)
        with pytest.raises(ValueError, match=r"the student has no role 'pre2' \(its roles: stage1, stage2\)"):
            FCFD(two, two, [], [], student_borders=("stage1", "pre2"))
        for option in ({"feature_weight": -1.0}, {"path_weight": float("nan")}, {"warmup_epochs": 0}):
            with pytest.raises(ValueError, match=f"{next(iter(option))} is"):
                FCFD(two, two, [], [], **option)

    def test_needs_a_teacher(self) -> None:
        two = {"stage1": (4, 8, 8), "stage2": (6, 4, 4)}
        with pytest.raises(ValueError, match="FCFD reads a teacher, but this run has none"):
            FCFD(two, two, [], [])(random_batch(), Network(Small("plain")), None)


# W, weight of paths, temperature, in the order of CIFAR100_PAIRS; None where the authors have no script
PUBLISHED = (
    (0.02, 1.0, 4.0),
    (5.0, 1.0, 4.0),
    (5.0, 0.2, 4.0),
    (5.0, 1.0, 4.0),
    (5.0, 1.0, 4.0),
    None,
    (5.0, 1.0, 8.0),
    (5.0, 1.0, 4.0),
    (5.0, 1.0, 8.0),
    (5.0, 1.0, 4.0),
    (5.0, 1.0, 8.0),
)


@pytest.mark.parametrize(("pair", "expected"), list(zip(CIFAR100_PAIRS, PUBLISHED, strict=True)))
def test_published_settings(pair: tuple[str, str], expected: tuple[float, float, float] | None) -> None:
    found = SETTINGS["fcfd"](*pair)
    options = found.losses["fcfd"]
    assert (options.feature_weight, options.path_weight, options.temperature) == (expected or (0.02, 1.0, 4.0))
    assert found.published == (expected is not None)
    assert (options.weight, found.losses["task"].weight) == (1.0, 1.0)
    assert found.optim == {"nesterov": True}


@pytest.mark.parametrize("pair", [*TINY_IMAGENET_PAIRS, ("resnet14", "resnet8")])
def test_other_pairs(pair: tuple[str, str]) -> None:
    assert not SETTINGS["fcfd"](*pair).published


def test_borders_of_the_families() -> None:
    def borders(network: str) -> tuple[str, ...] | None:
        return SETTINGS["fcfd"]("resnet32x4", network).losses["fcfd"].student_borders

    assert borders("resnet8x4") is borders("shufflenetv2") is None
    assert borders("vgg8") == ("pre1", "pre2", "pre3", "pre4")
    assert borders("shufflenetv1") == ("pre1", "pre2", "pre3")
    assert borders("wrn_16_2") == ("stage1", "stage2", "pre3")
    assert borders("mobilenetv2") == ("stage1", "stage2", "stage3", "prelast")


def test_every_option_is_documented() -> None:
    for name in inspect.signature(FCFD).parameters:
        assert name in (FCFD.__doc__ or "")
