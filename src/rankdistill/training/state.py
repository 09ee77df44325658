"""What changes while a run trains, and the plain step: down the gradient of the summed losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from .. import distributed
from ..contract import Batch, Losses, Method
from ..network import Network, Teacher
from .clock import Clock

FIRST_STEPS = 20
"""So many steps at the start of a run have the norms of their gradients kept."""

Autocast = Callable[[], AbstractContextManager[Any]]
"""Returns the context in which networks and methods run forward."""


class NonFiniteLoss(FloatingPointError):
    """A loss is NaN or infinite."""


class OutOfMemory(MemoryError):
    """A step does not fit in memory."""


@dataclass
class State:
    """What changes while a run trains, and what a step needs. A checkpoint never holds the teacher.

    Attributes:
        student, teacher, method: what a step runs.
        optimizer: of the student and of the method's ordinary parameters.
        meta_optimizer: of the method's meta-parameters, where the update rule learns them.
        autocast: the context of forward passes.
        clip_norm: gradients are scaled to at most this norm; None leaves them.
        accumulate: a batch is run in so many parts, one after the other, to save memory.
        average: the exponential moving average of the student, which is evaluated and saved in its place.
        clock: times the phases of a step.
        epoch, step: how many are done.
        sums, count, seconds: losses times samples, samples and seconds of the epoch that is under way.
        gradient_norm: of the last step of an epoch.
        first_norms: [n], of the gradients of the first steps of the run, before they are clipped, on the device.

    Example:
        >>> import torch
        >>> from rankdistill import KD, MODELS, Batch, CrossEntropy, Descend, State, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (0.1, CrossEntropy()), "kd": (0.9, KD())}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
        >>> rule, options = Descend(), {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": False}
        >>> state = State(student, teacher, method, rule.make_optimizer(student.module, method, lr=0.05, **options))
        >>> losses = rule(state, Batch(torch.randn(8, 3, 32, 32), torch.randint(10, (8,))))  # one step
    """

    student: Network
    teacher: Teacher | None
    method: Method
    optimizer: torch.optim.Optimizer
    meta_optimizer: torch.optim.Optimizer | None = None
    autocast: Autocast = nullcontext
    clip_norm: float | None = None
    accumulate: int = 1
    average: AveragedModel | None = None
    clock: Clock = field(default_factory=Clock)
    epoch: int = 0
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0
    seconds: float = 0.0
    gradient_norm: float | None = None
    first_norms: Tensor | None = None

    def losses(self, batch: Batch) -> Losses:
        """Return the method's losses on a batch; update rules call this.

        Raises:
            NonFiniteLoss: one is not finite; told here on the CPU, at the end of the epoch where asking would wait.
        """
        with self.autocast():
            losses: Losses = self.method(batch, self.student, self.teacher)
        if batch.images.is_cpu:
            bad = [name for name, value in losses.items() if not math.isfinite(value.item())]
            if bad:
                where = "" if batch.indices is None else f" (training samples {_listed(batch.indices)})"
                raise NonFiniteLoss(
                    f"the loss {', '.join(bad)} is not finite in epoch {batch.epoch}, step {batch.step}{where}"
                )
        return losses

    def apply_gradients(self) -> None:
        """Average the gradients over the processes, clip them, and let the optimizer step."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        distributed.reduce_gradients(parameters)
        if self.clip_norm is not None or self.step < FIRST_STEPS:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            if self.clip_norm is not None:
                nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
            if self.step < FIRST_STEPS:
                self._remember(norm)
        with self.clock("update"):
            self.optimizer.step()

    def _remember(self, norm: Tensor) -> None:
        if self.first_norms is None:
            self.first_norms = norm.new_zeros(FIRST_STEPS)
        self.first_norms[self.step] = norm.detach()

    def measure_gradients(self) -> None:
        """Keep the norm of the gradients that are there; None if the update rule leaves none. Waits for the device."""
        gradients = [p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.gradient_norm = nn.utils.get_total_norm(gradients).item() if gradients else None

    def trained(self) -> nn.Module:
        """Return what is evaluated and saved: the student, or its moving average, as the method deploys it."""
        return self.method.deploy(self.student.module if self.average is None else self.average.module)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; every process calls this, since each has sums of its own."""
        device = next(self.student.module.parameters()).device
        saved: dict[str, Any] = {
            "student": self.student.module.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "sums": {name: distributed.gather(value.reshape(1)) for name, value in self.sums.items()},
            "count": distributed.gather(torch.tensor([self.count], device=device)),
            "seconds": self.seconds,
            "gradient_norm": self.gradient_norm,
            "first_norms": self.first_norms,
        }
        if self.meta_optimizer is not None:
            saved["meta_optimizer"] = self.meta_optimizer.state_dict()
        if self.average is not None:
            saved["average"] = self.average.state_dict()
        return saved

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.student.module.load_state_dict(saved["student"])
        self.method.load_state_dict(saved["method"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.meta_optimizer is not None:
            self.meta_optimizer.load_state_dict(saved["meta_optimizer"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        device = next(self.student.module.parameters()).device
        rank = distributed.rank()
        self.sums = {name: value[rank].to(device) for name, value in saved["sums"].items()}
        self.count = int(saved["count"][rank])
        for name in ("epoch", "step", "seconds", "gradient_norm"):
            setattr(self, name, saved[name])
        norms = saved["first_norms"]
        self.first_norms = None if norms is None else norms.to(device)


def _listed(indices: Tensor, num: int = 8) -> str:
    shown = ", ".join(map(str, indices[:num].tolist()))
    return f"{shown} and {len(indices) - num} more" if len(indices) > num else shown
