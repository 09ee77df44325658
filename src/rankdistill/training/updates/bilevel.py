"""Bilevel steps: a method's meta-parameters descend on held-out images, through a virtual step of the student.

With the summed losses L(theta, a) of a training batch, the student's weights theta, meta-parameters a, the current
learning rate eta, and the cross-entropy H on a batch of held-out images, every few steps first

    theta' = theta - eta grad_theta L(theta, a),   a <- Adam(a, grad_a H(theta'))

and then, in each step, theta descends on L(theta, a) as usual. As in DARTS (Liu et al., ICLR 2019) the gradient of H
can be had through the whole graph ("exact"), or cheaper, as -eta (grad_a L(theta + e g) - grad_a L(theta - e g)) / 2e
with g = grad H(theta') and e = 0.01 / |g| ("finite_difference"), or with a virtual step of the last linear layer
alone ("last_layer"). Batch norms use the statistics of the batch; their running statistics are not touched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.random import fork_rng

from ... import distributed
from ...contract import Batch, Losses, Method, state_held
from ...numerics import at_least_float32, full_precision
from ..state import State
from ..step import descend
from .rule import UpdateRule

LookAhead = Literal["exact", "finite_difference", "last_layer"]


class Bilevel(UpdateRule):
    """Steps that first improve a method's meta-parameters on held-out images, by a look ahead.

    Args:
        every: the number of steps from one update of the meta-parameters to the next; the first step has one.
        lr: the learning rate of the meta-parameters, by Adam, without weight decay.
        look_ahead: how the gradient is found: "exact", "finite_difference" or "last_layer".
        held_out_per_class: the number of images of each class that are kept out of training.
        held_out_batch: the number of these images that an update looks at.

    Example:
        >>> import dataclasses
        >>> import torch
        >>> from rankdistill import CALD, MODELS, Batch, Bilevel, CrossEntropy, State, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "cald": (0.9, CALD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
        >>> rule, options = Bilevel(), {"momentum": 0.9, "weight_decay": 5e-4, "nesterov": False}
        >>> optimizer = rule.make_optimizer(student.module, method, lr=0.05, **options)
        >>> state = State(student, teacher, method, optimizer, rule.make_meta_optimizer(method))
        >>> training, held_out = (Batch(torch.randn(8, 3, 32, 32), torch.randint(10, (8,))) for _ in range(2))
        >>> losses = rule(state, dataclasses.replace(training, held_out=held_out, step=0))  # one step
    """

    learns_meta = True

    def __init__(
        self,
        *,
        every: int = 10,
        lr: float = 1e-2,
        look_ahead: LookAhead = "exact",
        held_out_per_class: int = 10,
        held_out_batch: int = 64,
    ) -> None:
        counts = {"every": every, "held_out_per_class": held_out_per_class, "held_out_batch": held_out_batch}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        if not 0.0 < lr < float("inf"):
            raise ValueError(f"lr is {lr}: it must be positive and finite")
        if look_ahead not in get_args(LookAhead):
            raise ValueError(f'look_ahead is {look_ahead!r}: it must be "exact", "finite_difference" or "last_layer"')
        self.every, self.lr = every, lr
        self.look_ahead: LookAhead = look_ahead
        self.held_out_per_class, self.held_out_batch = held_out_per_class, held_out_batch

    def __call__(self, state: State, batch: Batch) -> Losses:
        """Update the meta-parameters if it is their turn, then take one ordinary step; return its losses.

        Raises:
            ValueError: it is their turn and the batch has no held-out images, or the method no meta-parameters.
        """
        if batch.step % self.every:
            return descend(state, batch)
        if state.meta_optimizer is None:
            raise ValueError("the state has no meta_optimizer: make it with Bilevel.make_meta_optimizer")
        with nullcontext() if state.teacher is None else state.teacher.shared_pass():
            if state.teacher is not None:
                with state.autocast():
                    state.teacher.run(batch)
            self._learn(state, batch, state.meta_optimizer)
            return descend(state, batch)

    def make_meta_optimizer(self, method: Method) -> torch.optim.Optimizer:
        """Return Adam over the method's meta-parameters.

        Raises:
            ValueError: it has none.
        """
        self.check(method)
        return torch.optim.Adam(method.meta_parameters(), lr=self.lr)

    def _learn(self, state: State, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
        gradients = meta_gradients(state, batch, look_ahead=self.look_ahead)
        distributed.average(gradients)
        for parameter, gradient in zip(state.method.meta_parameters(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def meta_gradients(state: State, batch: Batch, *, look_ahead: LookAhead = "exact") -> list[Tensor]:
    """Return the gradient of the held-out cross-entropy after a virtual step, for each meta-parameter of the method.

    Student, method, their buffers and gradients, and the random state stay as they are. The virtual step is plain
    gradient descent with the learning rate of the optimizer's first group, without weight decay.

    Args:
        state: networks, method, optimizer.
        batch: with a labelled batch in `held_out`.
        look_ahead: "exact", through the whole graph of the virtual step, which is kept in memory;
            "finite_difference", in full precision, with two more passes over the training batch; "last_layer", with a
            virtual step of the last linear layer only, at the cost of two forward passes.

    Raises:
        ValueError: there are no held-out images or labels, or no linear layer.

    Example:
        >>> import dataclasses
        >>> import torch
        >>> from rankdistill import CALD, MODELS, Batch, CrossEntropy, State, assemble, meta_gradients
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "cald": (0.9, CALD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
        >>> state = State(student, teacher, method, torch.optim.SGD(student.module.parameters(), lr=0.05))
        >>> training, held_out = (Batch(torch.randn(8, 3, 32, 32), torch.randint(10, (8,))) for _ in range(2))
        >>> gradients = meta_gradients(state, dataclasses.replace(training, held_out=held_out))
    """
    if batch.held_out is None or batch.held_out.labels is None:
        raise ValueError(
            "a bilevel update needs Batch.held_out with labels, which is None: keep images out of training, "
            "with held_out_per_class of the update rule"
        )
    look = _LOOKS[look_ahead]
    with state_held(state.method):
        return look(_LookAhead(state, batch, batch.held_out, batch.held_out.labels))


class _LookAhead:
    """The two objectives of one step as functions of the student's weights."""

    def __init__(self, state: State, batch: Batch, held_out: Batch, labels: Tensor) -> None:
        self.state, self.batch, self.held_out, self.labels = state, batch, held_out, labels
        self.meta = state.method.meta_parameters()
        self.rate: float = state.optimizer.param_groups[0]["lr"]
        parameters = state.student.module.named_parameters()
        self.weights: dict[str, Tensor] = {name: p for name, p in parameters if p.requires_grad}

    def inner(self, weights: dict[str, Tensor]) -> Tensor:
        """Return the summed losses of the training batch."""
        with self._same_draws(), self.state.student.substituted(weights):
            return torch.stack(list(self.state.losses(self.batch).values())).sum()

    def outer(self, weights: dict[str, Tensor]) -> Tensor:
        """Return the cross-entropy of the held-out batch."""
        with self._same_draws(), self.state.student.substituted(weights), self.state.autocast():
            logits = self.state.student.run(self.held_out).logits
        with full_precision(logits):
            return F.cross_entropy(at_least_float32(logits), self.labels)

    def _same_draws(self) -> AbstractContextManager[None]:
        """Each objective sees the random numbers (of dropout, say) that the step itself will see."""
        device = self.batch.images.device
        return fork_rng([device] if device.type != "cpu" else [], device_type=device.type)

    def stepped(self, weights: dict[str, Tensor], gradients: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return weights after a virtual step."""
        moved = zip(weights.items(), gradients, strict=True)
        return {name: value - self.rate * gradient for (name, value), gradient in moved}

    def meta_gradient(self, value: Tensor) -> list[Tensor]:
        """Return the gradient of a value for the meta-parameters."""
        return _gradients(value, self.meta)


def _exact(ahead: _LookAhead) -> list[Tensor]:
    weights = ahead.weights
    gradients = _gradients(ahead.inner(weights), weights.values(), create_graph=True)
    return ahead.meta_gradient(ahead.outer(ahead.stepped(weights, gradients)))


def _finite_difference(ahead: _LookAhead) -> list[Tensor]:
    ahead.state = dataclasses.replace(ahead.state, autocast=nullcontext)  # a small difference would drown in bf16
    weights = {name: value.detach() for name, value in ahead.weights.items()}
    leaves = _leaves(weights)
    gradients = _gradients(ahead.inner(leaves), leaves.values())
    moved = _leaves(ahead.stepped(weights, gradients))
    outer = _gradients(ahead.outer(moved), moved.values())
    norm = torch.stack([gradient.square().sum() for gradient in outer]).sum().sqrt()
    size = 0.01 / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    sides = []
    for sign in (1.0, -1.0):
        shifted = zip(weights.items(), outer, strict=True)
        nearby = {name: value + sign * size * gradient for (name, value), gradient in shifted}
        sides.append(ahead.meta_gradient(ahead.inner(nearby)))
    return [-ahead.rate * (above - below) / (2.0 * size) for above, below in zip(*sides, strict=True)]


def _last_layer(ahead: _LookAhead) -> list[Tensor]:
    module = ahead.state.student.module
    linear = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]
    if not linear:
        raise ValueError(
            f'look_ahead is "last_layer", and {type(module).__name__} has no linear layer: '
            'use "exact" or "finite_difference"'
        )
    prefix = f"{linear[-1]}." if linear[-1] else ""
    fixed = {name: value.detach() for name, value in ahead.weights.items()}
    head = {name: value for name, value in ahead.weights.items() if name.startswith(prefix)}
    gradients = _gradients(ahead.inner(fixed | head), head.values(), create_graph=True)
    return ahead.meta_gradient(ahead.outer(fixed | ahead.stepped(head, gradients)))


_LOOKS: dict[LookAhead, Callable[[_LookAhead], list[Tensor]]] = {
    "exact": _exact,
    "finite_difference": _finite_difference,
    "last_layer": _last_layer,
}


def _gradients(value: Tensor, inputs: Iterable[Tensor], *, create_graph: bool = False) -> list[Tensor]:
    """Return the gradient of a scalar for each input, zero for those that it does not depend on."""
    found = torch.autograd.grad(
        value, list(inputs), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return list(found)


def _leaves(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().requires_grad_() for name, value in weights.items()}
