"""Knowledge Distillation Based on Logit Ranking Alignment (Lu, Zhang, Cheng, Wang, Peng and Li, ICIC 2025).

    r(x) = projection of -x / epsilon on the permutahedron of (C, ..., 1): soft ranks, 1 for the largest logit
    RA(s, t) = (1 / C) sum_i (r(s)_i - r(t)_i)^2                                                        (eq. 11)

or, in Table 4, (1 / C) sum_i |r(s)_i - r(t)_i|, or 1 - Spearman's rho. Recipes add cross-entropy; the weight of RA is
5 on CIFAR-100 and 10 on Tiny-ImageNet, and epsilon is 1.

Where the logits of a sample span at most epsilon C / 2, soft ranks are linear and RA is the mean squared difference of
centred logits, over epsilon^2. At epsilon 1 and with 100 classes that is nearly everywhere: RA ranks only at a smaller
epsilon, which `rankdistill.softrank.separating_epsilon` finds.

Differs from the authors' code: there is none to compare with. The paper does not define Spearman's rho further; here it
is Pearson's correlation of the soft ranks, since 1 - 6 sum d^2 / (C (C^2 - 1)) is eq. 11 with another weight.

The file is long because epsilon has a schedule, and can be measured on the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ..contract import Batch, Losses, Method, Output, Runs
from ..numerics import at_least_float32, check_choice, paired_logits
from ..softrank import Regularization, rank_regime, separating_epsilon
from ..softrank.functions import (
    centred_soft_rank,
    check_epsilon,
    check_regularization,
    squared_rank_distance,
)

Distance = Literal["l2", "l1", "spearman"]
Units = Literal["rank", "logit"]
EpsilonSchedule = Literal["constant", "linear", "geometric"]


def rank_alignment_loss(
    student: Float[Tensor, "batch classes"],
    teacher: Float[Tensor, "batch classes"],
    *,
    epsilon: float = 1.0,
    distance: Distance = "l2",
    regularization: Regularization = "l2",
    units: Units = "rank",
) -> Float[Tensor, " batch"]:
    """Return the distance between the student's and the teacher's soft ranks, per sample.

    Args:
        student: logits, [B, C]. Half precision is computed in float32.
        teacher: logits, [B, C]; no gradient flows into them.
        epsilon: positive, in the logits' unit; the smaller, the harder the ranks.
        distance: "l2", the mean over classes of the squared difference; "l1", of its absolute value; "spearman",
            1 - rho, from 0 to 2, where rho is 0, without a gradient, if all classes of either row have one rank.
        regularization: "l2", the Euclidean projection, or "kl", the entropic one.
        units: "rank", the paper's: squared ("l2") or plain ("l1") ranks. "logit": ranks are multiplied by epsilon, so
            that a weight keeps its meaning when epsilon or the number of classes changes; where the Euclidean ranks
            are linear, "l2" is then the mean squared difference of centred logits. "spearman" has no unit.

    Zero where the two rows differ by a constant. A row with NaN or infinity gives NaN.

    Raises:
        TypeError: epsilon is no number.
        ValueError: the shapes differ, epsilon is not positive and finite, or an option is unknown.

    Example:
        >>> import torch
        >>> from rankdistill import rank_alignment_loss
        >>> student, teacher = torch.randn(2, 4, 100)  # logits [batch, classes] of each
        >>> rank_alignment_loss(student, teacher, epsilon=0.1, units="logit").shape
        torch.Size([4])
    """
    check_options(distance, units)
    student, teacher = paired_logits(student, teacher)
    unit = epsilon if units == "logit" else 1.0
    if distance == "l2":
        loss = squared_rank_distance(student, teacher, epsilon=epsilon, regularization=regularization)
        return loss if unit == 1.0 else loss * unit**2
    ranks = centred_soft_rank(student, epsilon=epsilon, regularization=regularization)
    target = centred_soft_rank(teacher, epsilon=epsilon, regularization=regularization)
    if distance == "l1":
        return (ranks - target).abs().mean(1) * unit
    return 1.0 - (_unit_length(ranks) * _unit_length(target)).sum(1)


def check_options(distance: Distance, units: Units) -> None:
    """Raise ValueError if the distance or the units are unknown."""
    check_choice("distance", distance, get_args(Distance))
    check_choice("units", units, get_args(Units))


def _unit_length(centred: Tensor) -> Tensor:
    """Return rows divided by their norms; a row of zeros stays so, and passes no gradient."""
    peak = centred.detach().abs().amax(1, keepdim=True)
    scaled = centred * torch.where(peak == 0.0, 0.0, 1.0 / peak)  # so that squares neither overflow nor vanish
    norm = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / torch.where(peak == 0.0, 1.0, norm)


def scheduled_epsilon(
    epoch: int, epsilon: float, end: float | None = None, epochs: int | None = None, *, schedule: EpsilonSchedule
) -> float:
    """Return epsilon in an epoch.

    Args:
        epoch: counted from 1.
        epsilon: its value in the first epoch.
        end: its value in epoch number `epochs` and later; None for "constant".
        epochs: at least 2; None for "constant".
        schedule: "constant"; "linear", by equal differences; "geometric", by equal ratios.

    Raises:
        ValueError: an argument is out of range, missing or without effect.
    """
    check_schedule(epsilon, end, epochs, schedule)
    if end is None or epochs is None:
        return epsilon
    progress = min((epoch - 1) / (epochs - 1), 1.0)
    if schedule == "linear":
        return (1.0 - progress) * epsilon + progress * end
    return float(epsilon ** (1.0 - progress) * end**progress)


def check_schedule(epsilon: float, end: float | None, epochs: int | None, schedule: EpsilonSchedule) -> None:
    """Raise ValueError unless these are arguments of `scheduled_epsilon`."""
    if schedule not in get_args(EpsilonSchedule):
        raise ValueError(f"the schedule is {schedule!r}: it must be one of {', '.join(get_args(EpsilonSchedule))}")
    check_epsilon(epsilon)
    if end is not None:
        check_epsilon(end, "epsilon_end")
    if schedule == "constant" and (end is not None or epochs is not None):
        raise ValueError(f"epsilon is constant, so its end {end} in epoch {epochs} has no effect: choose a schedule")
    if schedule != "constant" and (end is None or epochs is None or epochs < 2):
        raise ValueError(f"a {schedule} epsilon ends at {end} in epoch {epochs}: give both, the epoch being 2 or more")


class RA(Method):
    """The student ranks the classes as its teacher does, by differentiable ranks; mean over the batch.

    State: the measured epsilon, if it is "auto"; otherwise none.

    Args:
        epsilon: how soft the ranks are, positive: the smaller it is, the closer logits may be that still get different
            ranks. The paper's is 1. "auto" is the one at which the fraction `separated` of the teacher's neighbouring
            logits separate, measured on the first 1,024 training images before the first step.
        separated: the fraction that "auto" separates, above 0 and at most 1; None is one half. It is of no use without
            "auto".
        distance: how the ranks of student and teacher are compared, as in `rank_alignment_loss`; the paper has "l2".
        regularization: how the ranks are made soft, as in `rank_alignment_loss`; the paper has "l2".
        units: what the loss is measured in, as in `rank_alignment_loss`; the paper has "rank".
        epsilon_schedule: how epsilon goes from `epsilon` to `epsilon_end` over `epsilon_epochs` epochs.
        epsilon_end: the epsilon at the end of a schedule, positive; "linear" and "geometric" need it.
        epsilon_epochs: the epoch that has `epsilon_end` first, at least 2; "linear" and "geometric" need it.

    Raises:
        ValueError: an argument is out of range or has no effect.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, RA, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "ra": (5.0, RA)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    observes = True

    def __init__(
        self,
        *,
        epsilon: float | Literal["auto"] = 1.0,
        separated: float | None = None,
        distance: Distance = "l2",
        regularization: Regularization = "l2",
        units: Units = "rank",
        epsilon_schedule: EpsilonSchedule = "constant",
        epsilon_end: float | None = None,
        epsilon_epochs: int | None = None,
    ) -> None:
        super().__init__()
        check_options(distance, units)
        check_regularization(regularization)
        if isinstance(epsilon, str) and epsilon != "auto":
            raise ValueError(f'epsilon is {epsilon!r}: it must be a positive number, or "auto"')
        if epsilon != "auto":
            check_epsilon(epsilon)
        if epsilon != "auto" and separated is not None:
            raise ValueError(f"separated is {separated}, which has no effect at epsilon {epsilon}: use epsilon auto")
        if separated is not None and not 0.0 < separated <= 1.0:
            raise ValueError(f"separated is {separated}: it must be above 0 and at most 1")
        check_schedule(1.0 if epsilon == "auto" else epsilon, epsilon_end, epsilon_epochs, epsilon_schedule)
        # A float and not a buffer: reading it from a device in each step would wait for the device.
        self.epsilon: float | None = None if epsilon == "auto" else epsilon
        self.separated = 0.5 if separated is None else separated
        self.distance: Distance = distance
        self.regularization: Regularization = regularization
        self.units: Units = units
        self.epsilon_schedule: EpsilonSchedule = epsilon_schedule
        self.epsilon_end = epsilon_end
        self.epsilon_epochs = epsilon_epochs

    def get_extra_state(self) -> dict[str, float | None]:
        """Return what a checkpoint keeps: epsilon, measured or given."""
        return {"epsilon": self.epsilon}

    def set_extra_state(self, state: dict[str, float | None]) -> None:
        """Continue with the epsilon of a checkpoint."""
        self.epsilon = state["epsilon"]

    def epsilon_in(self, epoch: int) -> float:
        """Return epsilon in an epoch, counted from 1.

        Raises:
            ValueError: it is "auto" and has not been measured.
        """
        if self.epsilon is None:
            raise ValueError("epsilon is auto, but was not measured: call prepare(teacher, batches), or give a number")
        return scheduled_epsilon(
            epoch, self.epsilon, self.epsilon_end, self.epsilon_epochs, schedule=self.epsilon_schedule
        )

    @torch.no_grad()
    def prepare(self, teacher: Runs | None, batches: Callable[[], Iterable[Batch]]) -> list[str]:
        """Measure epsilon if it is "auto"; say which it is, or that the teacher does not rank at the one given."""
        if teacher is None:
            return []
        logits = torch.cat([at_least_float32(teacher.run(batch).logits) for batch in batches()])
        if self.epsilon is None:
            self.epsilon = separating_epsilon(logits, self.separated, regularization=self.regularization)
            return [
                f"epsilon is {self.epsilon:.4g}: at it {self.separated:.0%} of the teacher's neighbouring logits "
                f"separate ({len(logits)} images)"
            ]
        epsilon = self.epsilon_in(1)
        if self.regularization == "kl" or rank_regime(logits, epsilon).separated.any():
            return []
        ranking = separating_epsilon(logits, 0.5)
        return [
            f"at epsilon {epsilon:g} no logits of the teacher separate: the loss is {_LINEAR[self.distance]}, and does "
            f"not rank; epsilon {ranking:.2g} separates half of its neighbouring logits"
        ]

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"ra": mean loss}."""
        loss = rank_alignment_loss(
            student.logits,
            teacher.logits,
            epsilon=self.epsilon_in(batch.epoch),
            distance=self.distance,
            regularization=self.regularization,
            units=self.units,
        )
        return {"ra": loss.mean()}

    def observe(self, batch: Batch, student: Output, teacher: Output) -> dict[str, float]:
        """Return epsilon, and which fraction of neighbouring logits it separates: 0 is linear, 1 is hard ranks."""
        epsilon = self.epsilon_in(batch.epoch)

        def separated(logits: Tensor) -> float:
            return rank_regime(logits, epsilon, regularization=self.regularization).separated.mean().item()

        return {
            "epsilon": epsilon,
            "student_separated": separated(student.logits),
            "teacher_separated": separated(teacher.logits),
        }


# What the loss is where both rows are in the linear regime of the Euclidean ranks.
_LINEAR: dict[Distance, str] = {
    "l2": "the mean squared error of centred logits",
    "l1": "the mean absolute error of centred logits",
    "spearman": "1 - Pearson's correlation of the logits",
}
