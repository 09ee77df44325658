"""What changes while a run trains, and the plain step: down the gradient of the summed losses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from .core import Batch, Losses, Method
from .network import Network

Autocast = Callable[[], AbstractContextManager[Any]]
"""Returns the context in which networks and methods run forward."""


@dataclass
class State:
    """What changes while a run trains, and what a step needs. A checkpoint never holds the teacher.

    Attributes:
        student, teacher, method: what a step runs.
        optimizer: of the student and of the method's ordinary parameters.
        meta_optimizer: of the method's meta-parameters, where the update rule learns them.
        autocast: the context of forward passes.
        epoch, step: how many are done.
    """

    student: Network
    teacher: Network | None
    method: Method
    optimizer: torch.optim.Optimizer
    meta_optimizer: torch.optim.Optimizer | None = None
    autocast: Autocast = nullcontext
    epoch: int = 0
    step: int = 0

    def losses(self, batch: Batch) -> Losses:
        """Return the method's losses on a batch; update rules call this."""
        with self.autocast():
            losses: Losses = self.method(batch, self.student, self.teacher)
        return losses

    def apply_gradients(self) -> None:
        """Let the optimizer step down the gradients that are there."""
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        meta = {} if self.meta_optimizer is None else {"meta_optimizer": self.meta_optimizer.state_dict()}
        return meta | {
            "student": self.student.module.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.student.module.load_state_dict(saved["student"])
        self.method.load_state_dict(saved["method"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.meta_optimizer is not None:
            self.meta_optimizer.load_state_dict(saved["meta_optimizer"])
        self.epoch, self.step = saved["epoch"], saved["step"]


Update = Callable[[State, Batch], Losses]
"""One optimizer step on a batch; returns the losses."""


def descend(state: State, batch: Batch) -> Losses:
    """Take one step down the gradient of the summed losses."""
    losses = state.losses(batch)
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.stack(list(losses.values())).sum()
    torch.autograd.backward(total)
    state.apply_gradients()
    return losses
