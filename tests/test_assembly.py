"""Every method on every kind of pair: fitted, run and differentiated, or refused for the reason that the page gives."""

import functools
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from rankdistill import CRD, KD, METHODS, MODELS, Batch, CrossEntropy, assemble

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
    }
    method, student, _ = assemble(terms, *ours(), example(32), num_samples=SAMPLES, labels=LABELS)
    assert method.weights == {"task": 1.0, "kd": 0.5, "crd": 0.8}
    assert method.methods["task"] is terms["task"][1]
    assert method.methods["crd"].student_memory.shape == (SAMPLES, 7)
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


def test_networks_that_are_none() -> None:
    student, _ = ours()
    with pytest.raises(TypeError, match=r"a network is a NoneType: give an nn\.Module"):
        assemble({"kd": (1.0, KD)}, None, student, example(32), num_samples=1)
    with pytest.raises(ValueError, match="student and teacher are one module"):
        assemble({"kd": (1.0, KD)}, student, student, example(32), num_samples=1)
    with pytest.raises(ValueError, match="a term of kd reads a teacher, but this run has none"):
        assemble({"kd": (1.0, KD)}, student, None, example(32), num_samples=1)


def test_float64_networks_get_float64_methods() -> None:
    student, teacher = (module.double() for module in ours())
    terms = {"crd": (0.8, CRD)}
    method, trained, frozen = assemble(
        terms, student, teacher, example(32).double(), num_samples=SAMPLES, labels=LABELS
    )
    batch = Batch(torch.randn(4, 3, 32, 32, dtype=torch.float64), LABELS[:4], indices=torch.arange(4))
    assert method(batch, trained, frozen)["crd"].dtype == torch.float64


def test_labels_must_be_one_for_each_sample() -> None:
    with pytest.raises(ValueError, match=r"labels have shape \(50,\): give one for each of the 49 samples"):
        assemble({"kd": (1.0, KD)}, *ours(), example(32), num_samples=49, labels=LABELS)
