"""DOT: A Distillation-Oriented Trainer (Zhao, Cui, Song and Liang, ICCV 2023). arXiv:2307.08436.

Task and distillation gradients g and h have a momentum each, less and more inert than the usual mu:

    v <- (mu - delta) v + g + wd theta,   w <- (mu + delta) w + h,   theta <- theta - lr (v + w)

with delta 0.075 on CIFAR-100 and Tiny-ImageNet, 0.09 on ImageNet. Weight decay is the task's. A parameter that a step
gives only one of the two gradients has the momentum mu in that step; if that is the distillation gradient, weight decay
joins it, except in the parameter's first step, as in the authors' code. A buffer starts as the first gradient.

Differs from the authors' code: any number of parameter groups; every loss that is no task loss is distillation, where
the code ignores losses that are not called `loss_kd`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ... import distributed
from ...contract import Batch, Losses, Method
from ...methods.combine import Sum
from ..state import State
from .rule import UpdateRule, ordinary_parameters


class DOTSGD(torch.optim.Optimizer):
    """Stochastic gradient descent with a momentum for task gradients and one for distillation gradients.

    In a step, give `add_distillation` the distillation gradients, leave the task gradients in `.grad`, call `step`.

    State, by parameter: "task_momentum" and "distillation_momentum"; "distillation_gradient" between the two calls.

    Args:
        parameters: tensors or groups, as for torch's optimizers.
        lr: learning rate.
        momentum: mu, the mean of the two.
        delta: half of their difference; with 0 it is SGD on the sum of the gradients.
        weight_decay: added to task gradients.

    Raises:
        ValueError: an option is out of range.

    Example:
        >>> import torch
        >>> from rankdistill import DOTSGD
        >>> weight = torch.zeros(3, requires_grad=True)
        >>> optimizer = DOTSGD([weight], lr=0.05)
        >>> task, distillation = weight.sum(), (weight - 1.0).square().sum()
        >>> optimizer.add_distillation(torch.autograd.grad(distillation, [weight]))
        >>> task.backward()
        >>> optimizer.step()
    """

    def __init__(
        self, parameters: Any, *, lr: float, momentum: float = 0.9, delta: float = 0.075, weight_decay: float = 0.0
    ) -> None:
        if not 0.0 <= delta <= momentum or momentum + delta >= 1.0:
            raise ValueError(
                f"momentum is {momentum} and delta {delta}: momentum - delta must be at least 0, "
                "and momentum + delta less than 1"
            )
        if lr < 0.0 or weight_decay < 0.0:
            raise ValueError(f"lr is {lr} and weight_decay {weight_decay}: they must not be negative")
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "delta": delta, "weight_decay": weight_decay})

    @property
    def parameters(self) -> list[Tensor]:
        """Return all parameters, in the order of the gradients that `add_distillation` takes."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @property
    def distillation_gradients(self) -> list[Tensor]:
        """Return the distillation gradients that wait for `step`, to average over processes, or to unscale.

        With a loss scale, for float16: where one of these or of the gradients in `.grad` is not finite, call
        `zero_grad` in place of `step`; it drops both kinds.
        """
        waiting = (self.state[p].get("distillation_gradient") for p in self.parameters if p in self.state)
        return [gradient for gradient in waiting if gradient is not None]

    @torch.no_grad()
    def add_distillation(self, gradients: Sequence[Tensor | None]) -> None:
        """Keep distillation gradients for `step`, adding to those that wait; None for a parameter that has none."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            if gradient is not None:
                state = self.state[parameter]
                waiting = state.get("distillation_gradient")
                state["distillation_gradient"] = gradient if waiting is None else waiting + gradient

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the task gradients and the distillation gradients."""
        super().zero_grad(set_to_none)
        for state in self.state.values():
            state.pop("distillation_gradient", None)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step down the task gradients in `.grad` and the distillation gradients that were added.

        Raises:
            ValueError: a closure is given: one loss cannot be split.
        """
        if closure is not None:
            raise ValueError("DOTSGD takes no closure: give it the two gradients separately")
        for group in self.param_groups:
            for parameter in group["params"]:
                _step(parameter, self.state, group)


class DOT(UpdateRule):
    """Steps with a momentum each for the gradients of task losses and of all others; works with any method.

    Task losses are those named "task" or "task/...".

    Args:
        delta: half of the difference of the two momenta; 0.075 on CIFAR-100 and Tiny-ImageNet, 0.09 on ImageNet.

    Example:
        >>> import torch
        >>> from rankdistill import KD, MODELS, Batch, CrossEntropy, DOT, State, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (0.1, CrossEntropy()), "kd": (0.9, KD())}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
        >>> rule, options = DOT(), {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": False}
        >>> state = State(student, teacher, method, rule.make_optimizer(student.module, method, lr=0.05, **options))
        >>> losses = rule(state, Batch(torch.randn(8, 3, 32, 32), torch.randint(10, (8,))))  # one step
    """

    descends = False

    def __init__(self, *, delta: float = 0.075) -> None:
        if not 0.0 <= delta < 0.5:
            raise ValueError(f"delta is {delta}: it must be at least 0 and less than 0.5")
        self.delta = delta

    def __call__(self, state: State, batch: Batch) -> Losses:
        """Take one step on a batch; return the losses.

        Raises:
            ValueError: there is no task loss, or no other one.
            TypeError: the optimizer is none of `make_optimizer`.
        """
        optimizer = state.optimizer
        if not isinstance(optimizer, DOTSGD):
            raise TypeError(f"DOT was given the optimizer {type(optimizer).__name__}: make it with DOT.make_optimizer")
        losses = state.losses(batch)
        share = distributed.share(len(batch), batch.images.device)
        task, distillation = (share * objective for objective in split_task(losses))
        optimizer.zero_grad(set_to_none=True)
        optimizer.add_distillation(
            torch.autograd.grad(distillation, optimizer.parameters, retain_graph=True, allow_unused=True)
        )
        torch.autograd.backward(task)
        distributed.average(optimizer.distillation_gradients)
        state.apply_gradients()
        return losses

    def check(self, method: Method) -> None:
        """Raise ValueError if the method has meta-parameters, or is a sum that has not both kinds of losses."""
        super().check(method)
        if isinstance(method, Sum):
            _check_kinds(method.weights)

    def make_optimizer(
        self,
        student: nn.Module,
        method: Method,
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        nesterov: bool,
    ) -> DOTSGD:
        """Return the optimizer with two momenta.

        Raises:
            ValueError: Nesterov's momentum is asked for, or the momenta would be out of range.
        """
        if nesterov:
            raise ValueError("nesterov is True, and DOT's two momenta have no such form: leave it out")
        parameters = ordinary_parameters(student, method)
        return DOTSGD(parameters, lr=lr, momentum=momentum, delta=self.delta, weight_decay=weight_decay)


def split_task(losses: Losses) -> tuple[Tensor, Tensor]:
    """Return the sum of the losses named "task" or "task/...", and the sum of the others.

    Raises:
        ValueError: there is none of one kind.
    """
    _check_kinds(losses)
    task, distillation = ([v for name, v in losses.items() if _is_task(name) is kind] for kind in (True, False))
    return torch.stack(task).sum(), torch.stack(distillation).sum()


def _is_task(name: str) -> bool:
    return name == "task" or name.startswith("task/")


def _check_kinds(names: Collection[str]) -> None:
    if len({_is_task(name) for name in names}) != 2:
        raise ValueError(
            f"DOT separates the loss named task from the others, and the losses are {', '.join(names)}: "
            "it needs both kinds; call the loss on labels task"
        )


def _step(parameter: Tensor, states: Any, group: dict[str, Any]) -> None:
    task = parameter.grad
    distillation = states[parameter].pop("distillation_gradient", None) if parameter in states else None
    if task is None and distillation is None:
        return
    state = states[parameter]
    both = task is not None and distillation is not None
    mu, delta, decay = group["momentum"], group["delta"], group["weight_decay"]
    if task is not None:
        gradient = task.add(parameter, alpha=decay) if decay else task
        _accumulate(state, "task_momentum", gradient, mu - delta if both else mu)
        parameter.add_(state["task_momentum"], alpha=-group["lr"])
    if distillation is not None:
        if task is None and decay and "distillation_momentum" in state:
            distillation = distillation.add(parameter, alpha=decay)
        _accumulate(state, "distillation_momentum", distillation, mu + delta if both else mu)
        parameter.add_(state["distillation_momentum"], alpha=-group["lr"])


def _accumulate(state: dict[str, Tensor], name: str, gradient: Tensor, momentum: float) -> None:
    if name in state:
        state[name].mul_(momentum).add_(gradient)
    else:
        state[name] = gradient.detach().clone()
