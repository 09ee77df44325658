"""Every method of METHODS between two small networks, put together in one and the same way, and batches for it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rankdistill import METHODS, Batch, Losses, Method, Network, Output, assemble
from rankdistill.assembly import pair_of
from rankdistill.models.resnet import ResNet
from rankdistill.taps import roles

CLASSES = 5
SAMPLES = 12
SIDE = 16

BY_OUTPUTS = [name for name, kind in METHODS.items() if kind.forward is Method.forward]
"""The methods whose losses are a function of what the networks say of a batch."""


def small_student(num_classes: int = CLASSES) -> ResNet:
    return ResNet(8, (16, 16, 16, 24), num_classes)


def small_teacher(num_classes: int = CLASSES) -> ResNet:
    return ResNet(8, (16, 16, 24, 32), num_classes)


def assembled(
    name: str, student: nn.Module | None = None, teacher: nn.Module | None = None, *, side: int = SIDE, **options: Any
) -> tuple[Any, Network, Network]:
    """Return a method, and the networks: small ones of ours where none are given."""
    labels = torch.arange(SAMPLES) % CLASSES
    student, teacher = student or small_student(), teacher or small_teacher()
    terms = {name: (1.0, functools.partial(METHODS[name].for_pair, **options))}
    images = torch.zeros(2, 3, side, side)
    whole, trained, frozen = assemble(terms, student, teacher, images, num_samples=SAMPLES, labels=labels)
    method = whole.methods[name]
    assert isinstance(method, Method)
    assert frozen is not None
    return method, trained, frozen


def for_networks(name: str, student: nn.Module, teacher: nn.Module, *, side: int = SIDE, **options: Any) -> Any:
    """Return a method for two networks, which stay as they are: neither adapted nor frozen."""
    probes = [Network(module, roles(module)) for module in (student, teacher)]
    pair = pair_of(*probes, torch.zeros(2, 3, side, side), num_samples=SAMPLES)
    for probe in probes:
        probe.close()
    return METHODS[name].for_pair(pair, **options)


def batch_of(step: int = 0, *, size: int = 6, side: int = SIDE, views: int = 2) -> Batch:
    """Return the batch of a step: views of random images, labels, positions in the training set."""
    generator = torch.Generator().manual_seed(step)
    weak, strong = torch.randn(2, size, 3, side, side, generator=generator)
    indices = torch.randperm(SAMPLES, generator=generator)[:size]
    return Batch(weak, indices % CLASSES, indices=indices, strong=strong if views == 2 else None, step=step)


def given(name: str) -> tuple[Method, Batch, Output, Output]:
    """Return a method, a batch of four, and what student and teacher say of it, without gradients."""
    method, *others = _given(name)
    return copy.deepcopy(method), *others


@functools.cache
def _given(name: str) -> tuple[Method, Batch, Output, Output]:
    torch.manual_seed(0)
    method, student, teacher = assembled(name)
    method.prepare(teacher, lambda: [batch_of(1)])
    batch = batch_of(size=4)
    with torch.no_grad():
        return method, batch, student.run(batch), teacher.run(batch)


def each(output: Output, change: Callable[[Tensor], Tensor]) -> Output:
    """Return the outputs with every tensor changed, one after the other in the order of `leaves`."""
    logits = change(output.logits)
    features = {role: change(feature) for role, feature in output.features.items()}
    strong = None if output.strong is None else each(output.strong, change)
    return Output(logits, features, strong)


def leaves(output: Output) -> list[Tensor]:
    """Return every tensor of the outputs."""
    strong = [] if output.strong is None else leaves(output.strong)
    return [output.logits, *output.features.values(), *strong]


def variables(output: Output) -> Output:
    """Return copies of every tensor that gather gradients."""
    return each(output, lambda value: value.detach().clone().requires_grad_())


def total(losses: Losses) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def reads_features(name: str) -> bool:
    _, _, student, teacher = given(name)
    return bool(student.features or teacher.features)


ON_LOGITS = [name for name in BY_OUTPUTS if METHODS[name].reads_teacher and not reads_features(name)]
"""The methods that compare logits, and nothing else of the networks."""
