import copy
import dataclasses
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from contract_methods import (
    CONTRACT_METHODS,
    Bank,
    BatchStatistics,
    BothViews,
    MixedPath,
    NoisyTeacher,
    Widened,
    random_batch,
)
from torch import Tensor, nn

from rankdistill.assembly import assemble
from rankdistill.contract import Batch, Losses, Method, Output
from rankdistill.methods.ce import CrossEntropy
from rankdistill.methods.combine import EachView, Sum
from rankdistill.models.resnet import ResNet
from rankdistill.network import Network
from rankdistill.numerics import at_least_float32, full_precision, paired_logits

STUDENT_WIDTHS = (8, 8, 12, 16)
TEACHER_WIDTHS = (8, 12, 16, 24)
BEYOND_THE_TAP = {"matched": ("layer3", "fc"), "mixed_path": ("layer3", "fc"), "bank": ("fc",)}
"""Parameters of the student that a contract method cannot reach."""


def small(widths: tuple[int, int, int, int] = STUDENT_WIDTHS) -> ResNet:
    return ResNet(8, widths, 5)


def assembled(name: str, *, seed: int = 0) -> tuple[Method, Network, Network]:
    """Return a contract method and its two networks."""
    torch.manual_seed(seed)
    terms, images = {name: (1.0, CONTRACT_METHODS[name])}, torch.zeros(2, 3, 16, 16)
    whole, student, teacher = assemble(terms, small(), small(TEACHER_WIDTHS), images, num_samples=12)
    return whole.methods[name], student, teacher


def train(method: Method, student: Network, teacher: Network, steps: range) -> list[Tensor]:
    """Take plain gradient steps of 0.01; return the objective before each."""
    parameters = [*student.module.parameters(), *method.parameters()]
    objectives = []
    for step in steps:
        objective = sum(method(random_batch(step), student, teacher).values())
        objectives.append(objective.detach())
        gradients = torch.autograd.grad(objective, parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter -= 0.01 * gradient
    return objectives


def count_calls(module: nn.Module) -> list[int]:
    """Return a list that grows by one entry, the batch size, at each call of the module."""
    calls: list[int] = []
    module.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    return calls


def outputs(*, classes: int = 5) -> tuple[Output, Output]:
    """Return student and teacher outputs of random logits with two views."""
    views = [Output(torch.randn(6, classes)) for _ in range(4)]
    return dataclasses.replace(views[0], strong=views[1]), dataclasses.replace(views[2], strong=views[3])


class Constant(Method):
    """Returns the given losses, whatever the outputs."""

    reads_teacher = False

    def __init__(self, **values: float) -> None:
        super().__init__()
        self.values = values

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        return {name: torch.tensor(value) for name, value in self.values.items()}


class TestBatch:
    def test_to_moves_every_tensor_and_keeps_the_rest(self):
        batch = dataclasses.replace(random_batch(), held_out=random_batch(1), epoch=3, step=7)
        moved = batch.to("meta")
        for tensor in (moved.images, moved.labels, moved.indices, moved.strong, moved.held_out.images):
            assert tensor.device.type == "meta"
        assert (moved.epoch, moved.step) == (3, 7)
        assert batch.images.device.type == "cpu"

    def test_to_leaves_what_is_absent_absent(self):
        moved = Batch(torch.zeros(2, 3, 8, 8), None).to("meta")
        assert (moved.labels, moved.indices, moved.strong, moved.held_out) == (None, None, None, None)

    def test_length_is_the_number_of_images(self):
        assert len(random_batch(size=4)) == 4

    def test_nothing_can_be_reassigned(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            random_batch().step = 1


class TestCrossEntropy:
    def test_classes(self):
        batch, (student, _) = random_batch(), outputs()
        log_p = student.logits - student.logits.logsumexp(dim=1, keepdim=True)
        by_hand = -log_p[torch.arange(6), batch.labels].mean()
        torch.testing.assert_close(CrossEntropy().losses(batch, student), {"task": by_hand})

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_distributions(self, dtype):
        mixed = torch.rand(6, 5).softmax(dim=1).to(dtype)
        student, _ = outputs()
        batch = dataclasses.replace(random_batch(), labels=mixed)
        by_hand = -(mixed.float() * student.logits.log_softmax(dim=1)).sum(dim=1).mean()
        loss = CrossEntropy().losses(batch, student)["task"]
        torch.testing.assert_close(loss, by_hand, check_dtype=False)

    def test_label_smoothing_is_torchs(self):
        batch, (student, _) = random_batch(), outputs()
        expected = F.cross_entropy(student.logits, batch.labels, label_smoothing=0.1)
        assert CrossEntropy(label_smoothing=0.1).losses(batch, student)["task"] == expected
        assert CrossEntropy().losses(batch, student)["task"] != expected

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, dtype):
        batch, (student, _) = random_batch(), outputs()
        half = Output(student.logits.to(dtype))
        with torch.autocast("cpu", torch.bfloat16):
            loss = CrossEntropy().losses(batch, half)["task"]
        assert loss.dtype == torch.float32
        assert loss == F.cross_entropy(half.logits.float(), batch.labels)

    def test_unlabelled_batch(self):
        student, _ = outputs()
        with pytest.raises(ValueError, match=r"needs Batch\.labels, which is None"):
            CrossEntropy().losses(Batch(torch.zeros(6, 3, 16, 16), None), student)

    @pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
    def test_label_smoothing_out_of_range(self, value):
        with pytest.raises(ValueError, match=f"label_smoothing is {value}"):
            CrossEntropy(label_smoothing=value)

    def test_runs_without_a_teacher(self):
        batch, network = random_batch(), Network(small())
        losses = CrossEntropy()(batch, network, None)
        assert losses["task"] == F.cross_entropy(network.run(batch).logits, batch.labels)


class TestPrecision:
    def test_at_least_float32(self):
        widened = {dtype: at_least_float32(torch.ones(1, dtype=dtype)).dtype for dtype in (torch.half, torch.bfloat16)}
        assert set(widened.values()) == {torch.float32}
        for dtype in (torch.float32, torch.float64):
            tensor = torch.ones(1, dtype=dtype)
            assert at_least_float32(tensor) is tensor

    def test_full_precision_leaves_autocast(self):
        matrix = torch.randn(3, 3)
        with torch.autocast("cpu", torch.bfloat16):
            assert (matrix @ matrix).dtype == torch.bfloat16
            with full_precision(matrix):
                assert (matrix @ matrix).dtype == torch.float32

    def test_paired_logits(self):
        student = torch.randn(2, 3, dtype=torch.bfloat16, requires_grad=True)
        teacher = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
        pair = paired_logits(student, teacher)
        assert [logits.dtype for logits in pair] == [torch.float32, torch.float64]
        assert [logits.requires_grad for logits in pair] == [True, False]

    @pytest.mark.parametrize(("student", "teacher"), [((2, 3), (2, 4)), ((2, 3), (1, 3)), ((3,), (3,))])
    def test_paired_logits_of_other_shapes(self, student, teacher):
        with pytest.raises(ValueError, match="logits of the same samples and classes"):
            paired_logits(torch.zeros(student), torch.zeros(teacher))


class TestMethod:
    def test_neither_losses_nor_forward(self):
        class Empty(Method):
            pass

        with pytest.raises(NotImplementedError, match="Empty overrides neither losses nor forward"):
            Empty().losses(random_batch(), *outputs())

    def test_missing_teacher(self):
        with pytest.raises(ValueError, match="NoisyTeacher reads a teacher, but this run has none"):
            NoisyTeacher()(random_batch(), Network(small()), None)

    def test_defaults_change_nothing(self):
        student = small()
        assert NoisyTeacher().adapt(student) is student
        assert NoisyTeacher().deploy(student) is student

    @pytest.mark.parametrize("name", CONTRACT_METHODS)
    def test_gradients_reach_student_and_method_but_no_teacher(self, name):
        method, student, teacher = assembled(name)
        sum(method(random_batch(), student, teacher).values()).backward()
        trained = {
            key: parameter
            for key, parameter in student.module.named_parameters()
            if not key.startswith(BEYOND_THE_TAP.get(name, ()))
        }
        for key, parameter in [*trained.items(), *method.named_parameters()]:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().max() > 0, key
        assert all(parameter.grad is None for parameter in teacher.module.parameters())

    @pytest.mark.parametrize("name", CONTRACT_METHODS)
    def test_teacher_is_equal_before_and_after_training(self, name):
        method, student, teacher = assembled(name)
        before = copy.deepcopy(teacher.module.state_dict())
        train(method, student, teacher, range(3))
        torch.testing.assert_close(teacher.module.state_dict(), before, rtol=0, atol=0)

    @pytest.mark.parametrize("name", CONTRACT_METHODS)
    def test_reloaded_run_continues_bit_for_bit(self, name):
        method, student, teacher = assembled(name)
        train(method, student, teacher, range(2))
        saved = copy.deepcopy((student.module.state_dict(), method.state_dict(), teacher.module.state_dict()))
        expected = train(method, student, teacher, range(2, 5))

        method, student, teacher = assembled(name, seed=1)
        for module, state in zip((student.module, method, teacher.module), saved, strict=True):
            module.load_state_dict(state)
        assert train(method, student, teacher, range(2, 5)) == expected

    @pytest.mark.parametrize("name", CONTRACT_METHODS)
    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda method: pickle.loads(pickle.dumps(method))])
    def test_a_copy_is_independent_and_equal(self, name, duplicate):
        method, student, teacher = assembled(name)
        train(method, student, teacher, range(2))
        other = duplicate(method)
        before = copy.deepcopy(other.state_dict())
        losses = method(random_batch(2), student, teacher)
        torch.testing.assert_close(other.state_dict(), before, rtol=0, atol=0)
        torch.testing.assert_close(other(random_batch(2), student, teacher), losses, rtol=0, atol=0)

    @pytest.mark.parametrize(
        ("name", "keys"),
        [
            ("matched", ["bridge.weight", "bridge.bias"]),
            ("widened", []),
            ("bank", ["bank", "num_writes", "embed.weight", "embed.bias"]),
            ("both_views", []),
            ("noisy_teacher", []),
            ("batch_statistics", []),
        ],
    )
    def test_state_dict_is_the_methods_state_and_nothing_else(self, name, keys):
        method, _, _ = assembled(name)
        assert list(method.state_dict()) == keys
        assert list(Sum(task=(1.0, CrossEntropy()), own=(1.0, method)).state_dict()) == [
            f"methods.own.{k}" for k in keys
        ]
        if method.views == 1:
            assert list(EachView(method).state_dict()) == [f"method.{key}" for key in keys]


class TestOptionalPoints:
    def test_widened_student_is_deployed_merged(self):
        method, student, teacher = assembled("widened")
        train(method, student, teacher, range(2))
        network = student.module.double().eval()
        before = copy.deepcopy(network.state_dict())
        deployed = method.deploy(network)
        images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
        torch.testing.assert_close(deployed(images), network(images), rtol=1e-12, atol=1e-12)
        assert {key: value.shape for key, value in deployed.state_dict().items()} == {
            key: value.shape for key, value in small().state_dict().items()
        }
        torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)

    def test_mixed_path_reaches_the_student_only_below_the_border(self):
        method, student, teacher = assembled("mixed_path")
        method(random_batch(), student, teacher)["mixed"].backward()
        reached = {name for name, p in student.module.named_parameters() if p.grad is not None}
        assert reached == {n for n, _ in student.module.named_parameters() if not n.startswith(("layer3", "fc"))}

    def test_batch_statistics_are_the_batchs(self):
        method, student, teacher = assembled("batch_statistics")
        batch = random_batch()
        on_running = method(batch, student, Network(teacher.module, frozen=True))
        on_batch = method(batch, student, teacher)
        expected = copy.deepcopy(teacher.module).train()(batch.images)
        torch.testing.assert_close(teacher.run(batch).logits, expected)
        assert on_batch["logits"] != on_running["logits"]

    def test_noise_is_a_function_of_the_step(self):
        batch, (student, teacher) = random_batch(), outputs()
        method = NoisyTeacher()
        losses = [method.losses(dataclasses.replace(batch, step=step), student, teacher)["noisy"] for step in (4, 5, 4)]
        assert losses[0] == losses[2]
        assert losses[0] != losses[1]

    def test_bank_is_written_every_step(self):
        method, student, teacher = assembled("bank")
        first, second = random_batch(0), random_batch(1)
        method(first, student, teacher)
        method(second, student, teacher)
        both = teacher.run(first).features["pooled"], teacher.run(second).features["pooled"]
        expected = torch.zeros_like(method.bank)
        for batch, pooled in zip((first, second), both, strict=True):
            expected[batch.indices] = (expected[batch.indices] + pooled) / 2
        torch.testing.assert_close(method.bank, expected)
        assert method.num_writes == 2


class TestSum:
    def test_weights_and_names(self):
        total = Sum(
            task=(2.0, Constant(task=1.0)),
            crd=(0.5, Constant(student=3.0, teacher=5.0)),
            off=(0, Constant(x=7.0)),
        )
        losses = total.losses(random_batch(), *outputs())
        assert losses == {"task": 2.0, "crd/student": 1.5, "crd/teacher": 2.5, "off/x": 0.0}

    def test_nested(self):
        inner = Sum(task=(2.0, Constant(task=1.0)), kd=(3.0, Constant(kd=1.0, extra=1.0)))
        losses = Sum(outer=(0.5, inner)).losses(random_batch(), *outputs())
        assert losses == {"outer/task": 1.0, "outer/kd": 1.5, "outer/kd/extra": 1.5}

    @pytest.mark.parametrize("num_views", [1, 2])
    def test_terms_share_one_pass_per_view(self, num_views):
        method, student, teacher = assembled("mixed_path")
        batch = random_batch() if num_views == 2 else dataclasses.replace(random_batch(), strong=None)
        inner = Sum(task=(1.0, CrossEntropy()), stats=(1.0, BatchStatistics()))
        total = Sum(task=(1.0, CrossEntropy()), mixed=(1.0, method), inner=(1.0, inner))
        calls = count_calls(student.module), count_calls(teacher.module)
        for step in (1, 2):
            total(batch, student, teacher)
            assert [len(sizes) for sizes in calls] == [step * num_views, step * num_views]
            assert student.module.bn1.num_batches_tracked == step * num_views

    def test_pass_is_shared_although_a_term_also_runs_another_batch(self):
        class Flipped(NoisyTeacher):
            def forward(self, batch, student, teacher):
                return super().forward(dataclasses.replace(batch, images=batch.images.flip(3)), student, teacher)

        _, student, teacher = assembled("both_views")
        batch = dataclasses.replace(random_batch(), strong=None)
        calls = count_calls(student.module)
        Sum(a=(1.0, NoisyTeacher()), b=(1.0, Flipped()), c=(1.0, NoisyTeacher()))(batch, student, teacher)
        assert len(calls) == 2

    def test_next_call_runs_again_also_after_an_error(self):
        class Failing(Constant):
            def losses(self, batch, student, teacher):
                raise ArithmeticError

        student, batch = Network(small()), random_batch()
        calls = count_calls(student.module)
        with pytest.raises(ArithmeticError):
            Sum(task=(1.0, CrossEntropy()), bad=(1.0, Failing()))(batch, student, None)
        calls.clear()
        student.run(batch)
        student.run(batch)
        assert len(calls) == 4

    def test_is_the_weighted_sum_of_its_terms(self):
        method, student, teacher = assembled("bank")
        batch = random_batch()
        total = Sum(task=(1.0, CrossEntropy()), bank=(0.25, method), noisy=(3.0, NoisyTeacher()))(
            batch, student, teacher
        )
        fresh, _, _ = assembled("bank")
        assert total == {
            "task": CrossEntropy()(batch, student, None)["task"],
            "bank": 0.25 * fresh(batch, student, teacher)["bank"],
            "noisy": 3.0 * NoisyTeacher()(batch, student, teacher)["noisy"],
        }

    def test_needs_are_united(self):
        total = Sum(
            task=(1.0, CrossEntropy()),
            bank=(1.0, Bank(16, 24, 12)),
            wide=(1.0, Widened(16, 24)),
            views=(1.0, BothViews()),
        )
        assert total.student_needs == ("pooled", "widened")
        assert total.teacher_needs == ("pooled",)
        assert total.views == 2
        assert total.reads_teacher
        assert total.teacher_mode == "eval"

    def test_needs_of_a_sum_without_a_teacher(self):
        total = Sum(task=(1.0, CrossEntropy()))
        assert (total.student_needs, total.teacher_needs, total.views) == ((), (), 1)
        assert not total.reads_teacher

    def test_teacher_mode_is_that_of_the_terms_which_read_it(self):
        assert Sum(task=(1.0, CrossEntropy()), stats=(1.0, BatchStatistics())).teacher_mode == "batch_stats"

    def test_two_teacher_modes(self):
        with pytest.raises(ValueError, match=r"two modes: \{'kd': 'eval', 'ofd': 'batch_stats'\}"):
            Sum(kd=(1.0, NoisyTeacher()), ofd=(1.0, BatchStatistics()))

    @pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
    def test_bad_weight(self, weight):
        with pytest.raises(ValueError, match=f"the weight of 'kd' is {weight}: it must be finite and not negative"):
            Sum(task=(1.0, CrossEntropy()), kd=(weight, NoisyTeacher()))

    def test_no_terms(self):
        with pytest.raises(ValueError, match="Sum has no terms"):
            Sum()

    def test_missing_teacher_names_the_readers(self):
        total = Sum(task=(1.0, CrossEntropy()), kd=(1.0, NoisyTeacher()), crd=(1.0, Bank(16, 24, 12)))
        with pytest.raises(ValueError, match="a teacher is read by kd, crd, but this run has none"):
            total(random_batch(), Network(small()), None)

    def test_without_a_teacher_where_none_is_read(self):
        student, batch = Network(small()), random_batch()
        losses = Sum(task=(2.0, CrossEntropy()))(batch, student, None)
        assert losses == {"task": 2.0 * CrossEntropy()(batch, student, None)["task"]}

    def test_adapts_in_order_and_deploys_in_reverse(self):
        class Wrapping(Constant):
            def adapt(self, student):
                return nn.Sequential(student, nn.Flatten())

            def deploy(self, student):
                return student[0]

        class Marking(Constant):
            def adapt(self, student):
                return nn.Sequential(student, nn.Identity())

            def deploy(self, student):
                assert isinstance(student[1], nn.Identity)
                return student[0]

        student = small()
        total = Sum(first=(1.0, Wrapping()), second=(1.0, Marking()))
        adapted = total.adapt(student)
        assert isinstance(adapted[1], nn.Identity)
        assert isinstance(adapted[0][1], nn.Flatten)
        assert total.deploy(adapted) is student


class TestPrepareAndObserve:
    class Watching(Constant):
        """Counts the batches that it is shown beforehand; observes how many."""

        observes = True
        num_seen = 0

        def prepare(self, teacher, batches):
            self.num_seen = len(list(batches()))
            return [f"{self.values} saw {self.num_seen}"]

        def observe(self, batch, student, teacher):
            return {"seen": self.num_seen}

    def test_nothing_by_default(self):
        assert NoisyTeacher().prepare(None, list) == []
        assert NoisyTeacher().observe(random_batch(), *outputs()) == {}
        assert not NoisyTeacher().observes

    def test_sum_asks_every_term(self):
        inner = Sum(b=(1.0, EachView(self.Watching(b=2.0))))
        total = Sum(task=(1.0, CrossEntropy()), a=(1.0, self.Watching(a=1.0)), inner=(1.0, inner))
        sentences = total.prepare(None, lambda: [random_batch(step) for step in range(3)])
        assert sentences == ["{'a': 1.0} saw 3", "{'b': 2.0} saw 3"]
        assert total.observes
        assert total.observe(random_batch(), *outputs()) == {"a/seen": 3, "inner/b/seen": 3}

    def test_sum_without_an_observing_term(self):
        total = Sum(task=(1.0, CrossEntropy()), noisy=(1.0, NoisyTeacher()))
        assert not total.observes
        assert not EachView(total).observes


class TestEachView:
    def test_sums_the_views(self):
        batch, (student, teacher) = random_batch(), outputs()
        losses = EachView(NoisyTeacher())(batch, _Fixed(student), _Fixed(teacher))
        weak = NoisyTeacher().losses(batch, student, teacher)["noisy"]
        strong = NoisyTeacher().losses(batch, student.strong, teacher.strong)["noisy"]
        assert losses == {"noisy": weak + strong}
        assert weak != strong

    def test_composes_with_a_method_of_two_views(self):
        batch, (student, teacher) = random_batch(), outputs()
        total = Sum(task=(0.5, EachView(CrossEntropy())), both=(1.0, BothViews()))
        losses = total.losses(batch, student, teacher)
        one_view = [F.cross_entropy(view.logits, batch.labels) for view in (student, student.strong)]
        assert list(losses) == ["task", "both/same", "both/across"]
        assert losses["task"] == 0.5 * (one_view[0] + one_view[1])

    def test_second_view_is_a_batch_of_its_own(self):
        seen = []

        class Spy(Constant):
            def losses(self, batch, student, teacher):
                seen.append(batch)
                return {}

        batch = random_batch(3)
        student, _ = outputs()
        EachView(Spy()).losses(batch, student, None)
        assert seen[0] is batch
        assert seen[1].images is batch.strong
        assert seen[1].strong is None
        assert seen[1].labels is batch.labels
        assert (seen[1].indices is batch.indices, seen[1].step) == (True, 3)

    @pytest.mark.parametrize("wrap", [EachView, lambda method: EachView(Sum(bank=(1.0, method)))])
    def test_only_the_weak_view_writes_state(self, wrap):
        method, student, teacher = assembled("bank")
        batch = random_batch()
        wrap(method)(batch, student, teacher)
        assert method.num_writes == 1
        expected = teacher.run(batch).features["pooled"] / 2
        torch.testing.assert_close(method.bank[batch.indices], expected)
        assert method.updates_state

    def test_state_is_free_again_after_an_error(self):
        class Failing(Constant):
            def losses(self, batch, student, teacher):
                if batch.strong is None:
                    raise ArithmeticError
                return {}

        method = Failing()
        student, teacher = outputs()
        with pytest.raises(ArithmeticError):
            EachView(method).losses(random_batch(), student, teacher)
        assert method.updates_state

    def test_takes_over_what_the_method_declares(self):
        method = EachView(Widened(16, 24))
        assert (method.student_needs, method.teacher_needs, method.views) == (("widened",), ("pooled",), 2)
        assert method.reads_teacher
        assert not EachView(CrossEntropy()).reads_teacher
        assert EachView(BatchStatistics()).teacher_mode == "batch_stats"
        student = small()
        adapted = method.adapt(student)
        assert isinstance(adapted.fc, nn.Sequential)
        assert isinstance(method.deploy(adapted).fc, nn.Linear)

    @pytest.mark.parametrize("wrap", [lambda method: method, lambda method: Sum(x=(1.0, method))])
    def test_refuses_a_method_of_two_views(self, wrap):
        with pytest.raises(ValueError, match="reads 2 views by itself: use it without EachView"):
            EachView(wrap(BothViews()))

    @pytest.mark.parametrize("wrap", [lambda method: method, lambda method: Sum(x=(1.0, method))])
    def test_refuses_a_method_that_runs_the_networks(self, wrap):
        with pytest.raises(ValueError, match="MixedPath runs the networks itself"):
            EachView(wrap(MixedPath(12, 16)))

    def test_missing_second_view(self):
        batch, (student, teacher) = dataclasses.replace(random_batch(), strong=None), outputs()
        with pytest.raises(ValueError, match=r"needs Batch\.strong, the second view, which is None"):
            EachView(NoisyTeacher()).losses(batch, student, teacher)


class _Fixed:
    """In the place of a network: says the same of every batch."""

    def __init__(self, output: Output) -> None:
        self.output = output

    def run(self, batch: Batch) -> Output:
        return self.output
