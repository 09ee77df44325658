"""What must hold of any run, whatever its networks, method and update rule."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from cells import CLASSES, Parts, take_step
from torch import Tensor, nn

from rankdistill.methods import DEPLOYED
from rankdistill.models import MODELS
from rankdistill.weights.foreign import load_into
from rankdistill.weights.storage import load_state, load_weights, save_state, save_weights

MOST_STEPS = 30


def assert_student_learns(parts: Parts) -> None:
    """After the first step, without weight decay: the optimizers remember a gradient for every parameter."""
    assert _untaught(parts, parts.state.student.module) == []


def assert_method_learns(parts: Parts, side: int) -> None:
    """After some steps the same holds of the method. It may draw which of its parameters a step uses.

    Args:
        parts: after two steps; they take more while a parameter is left.
        side: pixels of an image's side.
    """
    for step in range(2, MOST_STEPS):
        if not _untaught(parts, parts.state.method):
            break
        take_step(parts, step, side)
    assert _untaught(parts, parts.state.method) == []


def _untaught(parts: Parts, module: nn.Module) -> list[str]:
    """Return the names of the parameters for which no optimizer remembers a gradient."""
    optimizers = [parts.state.optimizer, parts.state.meta_optimizer]
    remembered = {p: values for optimizer in optimizers if optimizer for p, values in optimizer.state.items()}
    return [
        name
        for name, parameter in module.named_parameters()
        if not any(
            torch.as_tensor(value).any() for value in remembered.get(parameter, {}).values() if value is not None
        )
    ]


def assert_teacher_untouched(parts: Parts, before: Mapping[str, Tensor]) -> None:
    if parts.state.teacher is None:
        return
    teacher = parts.state.teacher.module
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert_equal(teacher.state_dict(), before)
    assert not any(module.training for module in teacher.modules())


def assert_resumes(whole: Parts, again: Parts, side: int, path: Path) -> None:
    """The second step of a run equals that of a run that was built anew and loaded its checkpoint, bit by bit.

    Args:
        whole: after one step.
        again: of other initial values, as it was built.
        side: pixels of an image's side.
        path: where the checkpoint goes.
    """
    save_state(path, whole.state.state_dict())
    losses = take_step(whole, 1, side)
    again.state.load_state_dict(load_state(path))
    assert_equal(take_step(again, 1, side), losses)
    left, right = (parts.state.state_dict() for parts in (whole, again))
    assert_equal(right["student"], left["student"])
    assert_equal(right["method"], left["method"])
    for name in ("optimizer", "meta_optimizer"):
        found, expected = (saved[name]["state"] if name in saved else {} for saved in (right, left))
        assert list(found) == list(expected)
        for key, remembered in expected.items():
            assert_equal(found[key], remembered)


def assert_deploys(parts: Parts, name: str, images: Tensor, path: Path) -> None:
    """What is deployed says what the trained student says, leaves it as it is, and can be saved, rebuilt, exported.

    Args:
        parts: after some steps.
        name: the student's, in MODELS.
        images: to compare logits on.
        path: where the weights go.
    """
    student = parts.state.student.module
    before = {key: value.clone() for key, value in student.state_dict().items()}
    deployed = parts.state.trained().eval()
    assert_equal(student.state_dict(), before)
    with torch.no_grad():
        logits = deployed(images)
        scale = logits.abs().max().item()
        torch.testing.assert_close(student.eval()(images), logits, rtol=0, atol=1e-5 * scale)
        _save(deployed, path)
        assert torch.equal(_rebuilt(name, path).eval()(images), logits)
    if repr(deployed) != parts.plain:  # else it exports if the plain network does
        assert_exports(deployed, images)


def assert_exports(module: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        logits = module(images)
        exported = torch.export.export(module, (images,)).module()
        torch.testing.assert_close(exported(images), logits, rtol=0, atol=1e-5 * logits.abs().max().item())


def assert_equal(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert list(found) == list(expected)
    assert [key for key in expected if not _same(found[key], expected[key])] == []


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, Tensor):
        return isinstance(found, Tensor) and torch.equal(found, expected)
    return type(found) is type(expected) and bool(found == expected)


def _save(deployed: nn.Module, path: Path) -> None:
    header = {"deployed": deployed.deployed_as} if hasattr(deployed, "deployed_as") else {}
    save_weights(path, deployed.state_dict(), header)


def _rebuilt(name: str, path: Path) -> nn.Module:
    """Return the network that `rankdistill evaluate` makes of a file."""
    weights, header = load_weights(path)
    module = MODELS[name](CLASSES)
    if "deployed" in header:
        module = DEPLOYED[header["deployed"]].rebuild(module, weights)
    load_into(module, weights, name=name, source=str(path))
    return module
