"""Every method on every kind of pair: fitted, run and differentiated, or refused for the reason that the page gives."""

import functools
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from method_pairs import ON_LOGITS
from torch import nn

from rankdistill import (
    CRD,
    KD,
    METHODS,
    MODELS,
    Batch,
    CrossEntropy,
    EachView,
    Losses,
    Method,
    Output,
    assemble,
    kd_loss,
)

CLASSES, SAMPLES, SIDE = 10, 50, 64
LABELS = torch.arange(SAMPLES) % CLASSES
DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def ours() -> tuple[nn.Module, nn.Module]:
    return MODELS["resnet8"](CLASSES), MODELS["resnet14"](CLASSES)


def example(side: int = SIDE) -> torch.Tensor:
    return torch.zeros(2, 3, side, side)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("pair", ["ours", "torchvision resnet18 -> resnet18", "timm resnet18 -> mobilenetv3_small_050"])
def test_a_step(generate: ModuleType, pair: str, name: str) -> None:
    student, teacher = ours() if pair == "ours" else generate.foreign_pairs()[pair]()
    terms = {name: (1.0, METHODS[name])}
    if f"| {pair} | [`{name}`](#" in (DOCS / "methods.md").read_text():  # which is what the code says, by its own test
        with pytest.raises((TypeError, ValueError)):
            assemble(terms, student, teacher, example(), num_samples=SAMPLES, labels=LABELS)
        return
    method, trained, frozen = assemble(terms, student, teacher, example(), num_samples=SAMPLES, labels=LABELS)
    images = [torch.randn(4, 3, SIDE, SIDE) for _ in range(2)]
    batch = Batch(images[0], LABELS[:4], indices=torch.arange(4), strong=images[1])
    trained.module.train()
    method.prepare(frozen, lambda: [batch])
    losses = method(batch, trained, frozen)
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(value) for value in losses.values())
    gradients = [p.grad for p in trained.module.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert frozen is not None
    assert not any(p.requires_grad or p.grad is not None for p in frozen.module.parameters())


def test_terms_are_methods_classes_or_functions_of_the_pair() -> None:
    terms = {
        "task": (1.0, CrossEntropy()),
        "kd": (0.5, KD),
        "crd": (0.8, functools.partial(CRD.for_pair, dim=7, num_negatives=3)),
        "same": (0.8, functools.partial(CRD, dim=7, num_negatives=3)),
        "hot": (0.5, functools.partial(KD, temperature=8.0)),
    }
    method, student, _ = assemble(terms, *ours(), example(32), num_samples=SAMPLES, labels=LABELS)
    assert method.weights == {"task": 1.0, "kd": 0.5, "crd": 0.8, "same": 0.8, "hot": 0.5}
    assert method.methods["hot"].temperature == 8.0
    assert method.methods["task"] is terms["task"][1]
    assert method.methods["crd"].student_memory.shape == method.methods["same"].student_memory.shape == (SAMPLES, 7)
    assert tuple(student.taps) == ("pooled",)


def test_without_a_teacher() -> None:
    student, _ = ours()
    method, trained, teacher = assemble({"task": (1.0, CrossEntropy())}, student, None, example(32), num_samples=1)
    assert teacher is None
    assert trained.module is student
    assert method(Batch(torch.randn(4, 3, 32, 32), LABELS[:4]), trained, teacher)["task"].requires_grad


def test_a_network_may_declare_its_roles() -> None:
    student = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    student.append(nn.Linear(16, CLASSES))
    terms = {"at": (1.0, METHODS["at"])}
    with pytest.raises(ValueError, match="Sequential has no stages"):
        assemble(terms, student, ours()[1], example(32), num_samples=1)
    student.roles = {"stage1": "1"}
    _, trained, _ = assemble(terms, student, ours()[1], example(32), num_samples=1)
    assert trained.taps == {"stage1": "1"}


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"kd": "kd"}, "the term 'kd' is 'kd': give"),
        ({"kd": (KD, 1.0)}, r"the term 'kd' is .*: give \(weight, method\)"),
        ({"kd": (1.0,)}, "the term 'kd' is"),
    ],
)
def test_a_term_is_a_weight_and_a_method(terms: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        assemble(terms, *ours(), example(32), num_samples=1)


def test_a_function_that_makes_no_method() -> None:
    with pytest.raises(TypeError, match="the term 'kd' makes a NoneType of the pair: it must make a Method"):
        assemble({"kd": (1.0, lambda pair: None)}, *ours(), example(32), num_samples=1)


def test_networks_that_are_none() -> None:
    student, _ = ours()
    with pytest.raises(TypeError, match=r"a network is a NoneType: give an nn\.Module"):
        assemble({"kd": (1.0, KD)}, None, student, example(32), num_samples=1)
    with pytest.raises(ValueError, match="student and teacher are one module"):
        assemble({"kd": (1.0, KD)}, student, student, example(32), num_samples=1)


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.reads_teacher])
def test_a_teacher_that_is_none(name: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ reads a teacher, but this run has none: give it one"):
        assemble({name: (1.0, METHODS[name])}, ours()[0], None, example(32), num_samples=SAMPLES, labels=LABELS)


COMPARE_CLASSES = {"catkd", "fcfd", "simkd", *ON_LOGITS}


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if kind.reads_teacher])
def test_a_teacher_of_other_classes(name: str) -> None:
    student, teacher = MODELS["resnet8"](CLASSES), MODELS["resnet14"](CLASSES + 2)
    terms = {name: (1.0, METHODS[name])}
    if name in COMPARE_CLASSES:
        with pytest.raises(ValueError, match=f"the student has {CLASSES} classes and the teacher {CLASSES + 2}: "):
            assemble(terms, student, teacher, example(32), num_samples=SAMPLES, labels=LABELS)
        return
    method, *networks = assemble(terms, student, teacher, example(32), num_samples=SAMPLES, labels=LABELS)
    batch = Batch(torch.randn(4, 3, 32, 32), LABELS[:4], indices=torch.arange(4))
    assert torch.stack(list(method(batch, *networks).values())).isfinite().all()


class _Part(Method):
    """Compares the student with the first of a teacher's classes."""

    any_classes = True

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        num_classes = student.logits.shape[1]
        return {"part": kd_loss(student.logits, teacher.logits[:, :num_classes]).mean()}


def test_a_method_may_know_what_to_do_with_other_classes() -> None:
    networks = MODELS["resnet8"](CLASSES), MODELS["resnet14"](2 * CLASSES)
    terms = {"part": (1.0, _Part), "both": (1.0, lambda _: EachView(_Part()))}
    method, *networks = assemble(terms, *networks, example(32), num_samples=SAMPLES)
    weak, strong = torch.randn(2, 4, 3, 32, 32)
    assert len(method(Batch(weak, None, strong=strong), *networks)) == 2


def test_float64_networks_get_float64_methods() -> None:
    student, teacher = (module.double() for module in ours())
    terms = {"crd": (0.8, CRD)}
    method, trained, frozen = assemble(
        terms, student, teacher, example(32).double(), num_samples=SAMPLES, labels=LABELS
    )
    batch = Batch(torch.randn(4, 3, 32, 32, dtype=torch.float64), LABELS[:4], indices=torch.arange(4))
    assert method(batch, trained, frozen)["crd"].dtype == torch.float64


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_networks_train_or_are_refused(name: str) -> None:
    """Layers of a method stay in float32, and so cannot read features in half precision outside of autocast."""
    terms = {name: (1.0, METHODS[name])}
    method, *_ = assemble(terms, *ours(), example(32), num_samples=SAMPLES, labels=LABELS)
    networks = [module.bfloat16() for module in ours()]
    images = example(32).bfloat16()
    if any(not isinstance(m, Method) and list(m.parameters(recurse=False)) for m in method.modules()):
        with pytest.raises(ValueError, match=f"the images are in torch.bfloat16, and {name} has layers of its own"):
            assemble(terms, *networks, images, num_samples=SAMPLES, labels=LABELS)
        return
    method, *networks = assemble(terms, *networks, images, num_samples=SAMPLES, labels=LABELS)
    views = torch.randn(2, 4, 3, 32, 32, dtype=torch.bfloat16)
    losses = method(Batch(views[0], LABELS[:4], indices=torch.arange(4), strong=views[1]), *networks)
    assert {value.dtype for value in losses.values()} == {torch.float32}


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_networks_in_another_precision_than_the_images(who: str) -> None:
    student, teacher = ours()
    (student if who == "student" else teacher).double()
    message = f"the {who} is in torch.float64 on cpu, the images in torch.float32 on cpu: give both the same"
    with pytest.raises(ValueError, match=message):
        assemble({"kd": (1.0, KD)}, student, teacher, example(32), num_samples=SAMPLES)


def test_an_error_of_the_network_itself_stays_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 4 channels"):
        assemble({"kd": (1.0, KD)}, *ours(), torch.zeros(2, 4, 32, 32), num_samples=SAMPLES)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[1:], r"labels have shape \(49,\): give one for each of the 50 samples"),
        (LABELS.float(), "labels are torch.float32: give the class of each sample as an integer"),
        (LABELS.tolist(), r"labels are a list: give a tensor, such as torch\.tensor\(dataset\.targets\)"),
    ],
)
def test_labels_are_one_integer_for_each_sample(labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assemble({"kd": (1.0, KD)}, *ours(), example(32), num_samples=SAMPLES, labels=labels)


def test_labels_of_any_integer_type() -> None:
    method, *_ = assemble({"crd": (1.0, CRD)}, *ours(), example(32), num_samples=SAMPLES, labels=LABELS.int())
    assert method.methods["crd"].labels.dtype == torch.int64


@pytest.mark.parametrize("name", ["", "a.b", "forward", "training", "type"])
def test_a_name_that_no_term_can_have(name: str) -> None:
    with pytest.raises(ValueError, match=f"a term is called '{name}', and no submodule can have that name"):
        assemble({name: (1.0, KD)}, *ours(), example(32), num_samples=SAMPLES)


def test_names_of_terms_are_free_otherwise() -> None:
    method, *_ = assemble({"self": (1.0, KD), "my kd/2": (1.0, KD)}, *ours(), example(32), num_samples=SAMPLES)
    assert list(method.weights) == ["self", "my kd/2"]
    with pytest.raises(TypeError, match="a term is called 3: its name must be a string"):
        assemble({3: (1.0, KD)}, *ours(), example(32), num_samples=SAMPLES)


@pytest.mark.usefixtures("unchecked")
def test_the_networks_themselves_in_place_of_what_assemble_returns() -> None:
    student, teacher = ours()
    method, trained, frozen = assemble({"kd": (1.0, KD)}, student, teacher, example(32), num_samples=SAMPLES)
    batch = Batch(torch.randn(4, 3, 32, 32), LABELS[:4])
    for who, networks in (("student", (student, teacher)), ("teacher", (trained, teacher))):
        for called in (method, method.methods["kd"]):
            with pytest.raises(TypeError, match=f"the {who} is a ResNet: give the Network that `assemble` returned"):
                called(batch, *networks)
    with pytest.raises(TypeError, match=r"the batch is a tuple: give Batch\(images, labels\)"):
        method((batch.images, batch.labels), trained, frozen)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("norm", "simkd"), "SimKD changes the student, and another method has done so already"),
        (("simkd", "norm"), "NORM changes the student, and another method has done so already"),
        (("catkd", "simkd"), "SimKD takes away the student's classifier, which CAT-KD reads"),
    ],
)
def test_methods_that_change_the_student_in_ways_that_exclude_each_other(names: tuple[str, ...], message: str) -> None:
    terms = {name: (1.0, METHODS[name]) for name in names}
    with pytest.raises(ValueError, match=message):
        assemble(terms, *ours(), example(32), num_samples=SAMPLES)


class _Tuple(nn.Module):
    """Returns more than logits while it trains, as torchvision's GoogLeNet and Inception do."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MODELS["resnet8"](CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        logits = self.network(images)
        return (logits, logits[:, :3]) if self.training else logits


def test_networks_that_return_more_than_logits() -> None:
    batch = Batch(torch.randn(4, 3, 32, 32), LABELS[:4])
    method, student, teacher = assemble({"kd": (1.0, KD)}, _Tuple(), _Tuple(), example(32), num_samples=1)
    with pytest.raises(TypeError, match=r"a tuple of 2, not a tensor .* assemble\(\.\.\., logits=index or key\)"):
        method(batch, student, teacher)
    method, student, teacher = assemble({"kd": (1.0, KD)}, _Tuple(), _Tuple(), example(32), num_samples=1, logits=0)
    assert student.run(batch).logits.shape == (4, CLASSES)
    assert method(batch, student, teacher)["kd"].isfinite()
