"""RA's epsilon in a run: measured, remembered, observed, and advised about."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from rankdistill import RA, Batch, Network, Output, Sum, rank_regime
from rankdistill.softrank import separating_epsilon


def networks(spread: float = 4.0) -> tuple[Network, list[Batch]]:
    """A teacher whose logits are its images' pixels, and batches of 48 of them with 20 classes."""
    images = spread * torch.randn(48, 20, 1, 1)
    return Network(nn.Flatten(), frozen=True), [Batch(part, None) for part in images.split(16)]


def logits(batches: Iterable[Batch]) -> Tensor:
    return torch.cat([batch.images.flatten(1) for batch in batches])


@pytest.mark.parametrize("separated", [None, 0.2, 0.8])
def test_auto_separates_the_fraction_asked_for(separated: float | None) -> None:
    teacher, batches = networks()
    method = RA(epsilon="auto", separated=separated)
    advice = method.prepare(teacher, lambda: batches)
    fraction = separated or 0.5
    assert method.epsilon_in(1) == separating_epsilon(logits(batches), fraction)
    assert rank_regime(logits(batches), method.epsilon_in(1)).separated.mean() == pytest.approx(fraction, abs=0.02)
    told = f"epsilon is {method.epsilon:.4g}: at it {fraction:.0%} of the teacher's neighbouring logits separate"
    assert advice == [f"{told} (48 images)"]


def test_measured_epsilon_is_in_the_state_dict() -> None:
    teacher, batches = networks()
    method = Sum(ra=(1.0, RA(epsilon="auto")))
    method.prepare(teacher, lambda: batches)
    resumed = Sum(ra=(1.0, RA(epsilon="auto")))
    resumed.load_state_dict(method.state_dict())
    output = Output(torch.randn(3, 20)), Output(torch.randn(3, 20))
    batch = Batch(torch.zeros(3, 3, 8, 8), None)
    assert resumed.losses(batch, *output) == method.losses(batch, *output)


def test_auto_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"was not measured: call prepare\(teacher, batches\), or give a number"):
        RA(epsilon="auto").losses(
            Batch(torch.zeros(1, 3, 8, 8), None), Output(torch.zeros(1, 5)), Output(torch.zeros(1, 5))
        )


@pytest.mark.parametrize(
    ("distance", "words"),
    [("l2", "mean squared error of centred logits"), ("l1", "mean absolute error"), ("spearman", "1 - Pearson's")],
)
def test_a_teacher_that_does_not_rank_is_told_with_the_epsilon_that_would(distance: str, words: str) -> None:
    teacher, batches = networks(spread=1.0)
    (advice,) = RA(distance=distance).prepare(teacher, lambda: batches)
    assert advice.startswith("at epsilon 1 no logits of the teacher separate: ")
    assert words in advice
    assert f"epsilon {separating_epsilon(logits(batches), 0.5):.2g} separates half" in advice


def test_a_teacher_that_ranks_needs_no_advice() -> None:
    teacher, batches = networks()
    assert RA(epsilon=0.1).prepare(teacher, lambda: batches) == []


def test_observation_is_the_regime_of_both_networks() -> None:
    batch = Batch(torch.zeros(2, 3, 8, 8), None, epoch=3)
    student, teacher = torch.zeros(2, 10), torch.arange(20.0).view(2, 10)
    method = RA(epsilon=1.0, epsilon_end=0.25, epsilon_epochs=3, epsilon_schedule="geometric")
    seen = method.observe(batch, Output(student), Output(teacher))
    assert seen == {"epsilon": pytest.approx(0.25), "student_separated": 0.0, "teacher_separated": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 1.0, "separated": 0.5}, "has no effect at epsilon 1.0: use epsilon auto"),
        ({"epsilon": "auto", "separated": 0.0}, "separated is 0.0: it must be above 0 and at most 1"),
        ({"epsilon": "auto", "separated": 1.5}, "separated is 1.5"),
        ({"epsilon": 0.0}, "epsilon is 0.0: it must be positive and finite"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RA(**options)
