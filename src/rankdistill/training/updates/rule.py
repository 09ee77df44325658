"""What an update rule is: how a step is made of a method's losses, and which optimizers that takes.

A rule is called by the loop and keeps nothing between steps itself: what it remembers is in the optimizers that it
makes, which a checkpoint holds.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from ...contract import Batch, Losses, Method
from ..state import State
from ..step import descend


class UpdateRule:
    """How a step is made; this one goes down the gradient of the summed losses. Options are keyword-only arguments.

    Attributes:
        learns_meta: whether it learns a method's meta-parameters, which no other rule may leave unlearned.
        every: steps from one held-out batch to the next, for rules that read `Batch.held_out`.
        held_out_per_class: how many images of each class it wants kept out of training; 0 if it reads none.
        held_out_batch: how many of them it wants at once.
        descends: whether its ordinary step is `descend`, which can run a batch in parts and clip gradients.

    Example:
        >>> import torch
        >>> from rankdistill import KD, MODELS, Batch, CrossEntropy, UpdateRule, State, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (0.1, CrossEntropy()), "kd": (0.9, KD())}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
        >>> rule, options = UpdateRule(), {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": False}
        >>> state = State(student, teacher, method, rule.make_optimizer(student.module, method, lr=0.05, **options))
        >>> losses = rule(state, Batch(torch.randn(8, 3, 32, 32), torch.randint(10, (8,))))  # one step
    """

    learns_meta: ClassVar[bool] = False
    every: int = 1
    held_out_per_class: int = 0
    held_out_batch: int = 64
    descends: ClassVar[bool] = True

    def __call__(self, state: State, batch: Batch) -> Losses:
        """Take one step on a batch; return the losses, weighted, as they were before it."""
        return descend(state, batch)

    def check(self, method: Method) -> None:
        """Raise ValueError if the rule and the method do not go together."""
        owners = sorted({type(m).__name__ for m in method.modules() if isinstance(m, Method) and m.meta})
        if self.learns_meta and not owners:
            raise ValueError(
                f"the update rule {type(self).__name__} learns meta-parameters, and no loss has any: "
                "add one that does, such as cald, or leave out the update rule"
            )
        if owners and not self.learns_meta:
            raise ValueError(
                f"{', '.join(owners)} has meta-parameters, which the update rule {type(self).__name__} does not learn: "
                "use the update rule bilevel"
            )

    def make_optimizer(
        self,
        student: nn.Module,
        method: Method,
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        nesterov: bool,
    ) -> torch.optim.Optimizer:
        """Return what updates the student and the method's ordinary parameters: here torch's SGD."""
        parameters = ordinary_parameters(student, method)
        fused = parameters[0].device.type in ("cpu", "cuda")
        optimizer = torch.optim.SGD(
            parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused
        )
        if momentum:  # fused, it fails where a parameter's first gradient comes when others have momenta already
            for parameter in parameters:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer

    def make_meta_optimizer(self, method: Method) -> torch.optim.Optimizer | None:
        """Return what updates the method's meta-parameters, or None if they are not learned."""
        del method
        return None


class Descend(UpdateRule):
    """A step goes down the gradient of the summed losses, by stochastic gradient descent with one momentum.

    Example:
        >>> from rankdistill import MODELS, Descend, KD
        >>> options = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
        >>> optimizer = Descend().make_optimizer(MODELS["resnet8"](10), KD(), **options)
    """


def ordinary_parameters(student: nn.Module, method: Method) -> list[nn.Parameter]:
    """Return the parameters of the student and of the method, without its meta-parameters."""
    meta = {id(parameter) for parameter in method.meta_parameters()}
    return [*student.parameters(), *(p for p in method.parameters() if id(p) not in meta)]
