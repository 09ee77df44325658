"""Class-wise Adaptive Logits Distillation with Meta-Learning (Huang, Chen and Zhou, ICASSP 2025): a reconstruction.

Only the title of this paper was to be had, no text and no code. Everything here is our own reading of the title, to be
reported as such: a temperature and a weight for each class of the labels, learned from held-out images.

    T_c = T_min + (T_max - T_min) sigmoid(a_c),   w_c = K softmax(b)_c
    CALD_b(s, t) = w_y T_y^2 KL(softmax(t / T_y) || softmax(s / T_y))     of a sample with label y

a and b are meta-parameters: the update rule "bilevel" descends on the cross-entropy that the student has on held-out
images after a virtual step. A loop that gives a and b to the student's optimizer learns them on the training loss,
which is another method; the example of the class CALD shows a loop with the update rule. T runs from 1 to 8 and starts
at 4; weights start at 1 and keep the mean 1. Recipes give the method the weight 0.9 and cross-entropy the weight 1.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..contract import Batch, Losses, Method, Output, Pair
from ..numerics import check_choice, checked_labels, full_precision, paired_logits

Mode = Literal["both", "temperature", "weight"]


def cald_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    labels: Int64[Tensor, " batch"],
    *,
    temperatures: Float[Tensor, " classes"],
    weights: Float[Tensor, " classes"],
) -> Float[Tensor, " batch"]:
    """Return w_y T_y^2 times the KL divergence at the temperature of the sample's class y, per sample, in nats.

    Args:
        student: logits, [B, K]. Half precision is computed in float32.
        teacher: logits, [B, K]; no gradient flows into them.
        labels: [B], which temperature and weight a sample has.
        temperatures: [K], positive; gradients flow into them, through the factor T^2 too.
        weights: [K]; gradients flow into them.

    Zero where the two rows differ by a constant. With equal temperatures and weights of 1 it is `kd_loss`.

    Raises:
        ValueError: shapes do not fit together.

    Example:
        >>> import torch
        >>> from rankdistill import cald_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> labels = torch.randint(100, (4,))
        >>> temperatures, weights = torch.full((100,), 4.0), torch.ones(100)
        >>> cald_loss(student, teacher, labels, temperatures=temperatures, weights=weights).shape
        torch.Size([4])
    """
    student, teacher = paired_logits(student, teacher)
    num_classes = student.shape[1]
    if len(temperatures) != num_classes or len(weights) != num_classes:
        raise ValueError(
            f"there are {len(temperatures)} temperatures and {len(weights)} weights for {num_classes} classes: "
            "give one for each class"
        )
    with full_precision(student):
        temperature = temperatures[labels].unsqueeze(1)  # [B, 1]
        log_student = F.log_softmax(student / temperature, dim=1)
        log_teacher = F.log_softmax(teacher / temperature, dim=1)
        divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)
        return weights[labels] * temperature.squeeze(1).square() * divergence


def class_temperatures(
    logits: Float[Tensor, " classes"], *, minimum: float = 1.0, maximum: float = 8.0
) -> Float[Tensor, " classes"]:
    """Return a temperature between `minimum` and `maximum` for each class: the sigmoid of its logit, scaled.

    Example:
        >>> import torch
        >>> from rankdistill import class_temperatures
        >>> class_temperatures(torch.zeros(3))
        tensor([4.5000, 4.5000, 4.5000])
    """
    return minimum + (maximum - minimum) * torch.sigmoid(logits)


def class_weights(logits: Float[Tensor, " classes"]) -> Float[Tensor, " classes"]:
    """Return a positive weight for each class, of mean 1: the softmax of the logits times their number.

    Example:
        >>> import torch
        >>> from rankdistill import class_weights
        >>> class_weights(torch.zeros(3)).shape
        torch.Size([3])
    """
    return len(logits) * F.softmax(logits, dim=0)


class CALD(Method):
    """KD with a temperature and a weight for each class, which are learned on held-out images; in nats.

    It is a reconstruction from the paper's title. Its state is the logits of the temperatures and the logits of the
    weights, [K] each.

    These logits are meta-parameters. Do not give them to the student's optimizer: on the training loss, the weights
    only move to the classes that are easy already. The update rule `Bilevel` learns them from images that are kept out
    of training, and its `make_optimizer` leaves them out of the student's, as the example shows.

    Args:
        num_classes: K, the number of classes.
        mode: what is learned: "temperature", "weight" or "both"; the other one stays as it starts.
        temperature: the temperature of every class at the start.
        min_temperature: the smallest temperature that a class may have, at least 0.
        max_temperature: the largest temperature that a class may have.

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

    reads_logits_once = True
    meta: tuple[str, ...] = ("temperature_logits", "weight_logits")  # an instance has those that its mode learns

    temperature_logits: Tensor
    weight_logits: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        mode: Mode = "both",
        temperature: float = 4.0,
        min_temperature: float = 1.0,
        max_temperature: float = 8.0,
    ) -> None:
        super().__init__()
        check_choice("mode", mode, get_args(Mode))
        if not 0.0 <= min_temperature < temperature < max_temperature < float("inf"):
            raise ValueError(
                f"min_temperature is {min_temperature}, temperature {temperature}, max_temperature {max_temperature}: "
                "they must ascend, from at least 0"
            )
        self.min_temperature, self.max_temperature = min_temperature, max_temperature
        start = math.log((temperature - min_temperature) / (max_temperature - temperature))
        logits = {"temperature_logits": torch.full((num_classes,), start), "weight_logits": torch.zeros(num_classes)}
        fixed = {"both": "", "temperature": "weight_logits", "weight": "temperature_logits"}[mode]
        self.meta = tuple(name for name in logits if name != fixed)
        for name, value in logits.items():
            if name == fixed:
                self.register_buffer(name, value)
            else:
                self.register_parameter(name, nn.Parameter(value))

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> CALD:
        """Return the method for the pair's number of classes."""
        return cls(pair.num_classes, **options)

    @property
    def temperatures(self) -> Tensor:
        """Return the temperature of each class, [K]."""
        return class_temperatures(self.temperature_logits, minimum=self.min_temperature, maximum=self.max_temperature)

    @property
    def weights(self) -> Tensor:
        """Return the weight of each class, [K]."""
        return class_weights(self.weight_logits)

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"cald": mean loss}."""
        if batch.labels is None or batch.labels.ndim != 1:
            found = "None" if batch.labels is None else f"of shape {tuple(batch.labels.shape)}"
            raise ValueError(
                f"CALD needs the class of each sample, and Batch.labels is {found}: leave out label mixing"
            )
        labels = checked_labels(batch.labels, student.logits.shape[1], "CALD")
        loss = cald_loss(student.logits, teacher.logits, labels, temperatures=self.temperatures, weights=self.weights)
        return {"cald": loss.mean()}
