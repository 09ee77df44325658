"""The weights of recipes are those to take: methods whose sums are large diverge where their weight is 1."""

import pytest
import torch
from method_pairs import CLASSES, SAMPLES, SIDE, batch_of, total

from rankdistill import METHODS, MODELS, CrossEntropy, assemble
from rankdistill.recipes.settings import SETTINGS

STEPS = 6


def losses(name: str, weight: float) -> list[float]:
    """Return the losses of a few steps of stochastic gradient descent, beside cross-entropy with weight 1."""
    student, teacher = MODELS["resnet8"](CLASSES), MODELS["resnet14"](CLASSES)
    teacher.train()
    with torch.no_grad():
        for _ in range(20):  # the statistics of its batch norms are then those of a trained network's
            teacher(torch.randn(64, 3, SIDE, SIDE))
    terms = {"task": (1.0, CrossEntropy()), name: (weight, METHODS[name])}
    method, *networks = assemble(terms, student, teacher, torch.zeros(2, 3, SIDE, SIDE), num_samples=SAMPLES)
    optimizer = torch.optim.SGD([*student.parameters(), *method.parameters()], lr=0.05, momentum=0.9)
    found = []
    for step in range(STEPS):
        loss = total(method(batch_of(step), *networks))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("name", ["cc", "ofd"])
def test_a_method_of_large_sums_diverges_at_weight_1_and_not_at_its_own(name: str) -> None:
    weight = SETTINGS[name]("resnet32x4", "resnet8x4").losses[name].weight
    own, one = losses(name, weight), losses(name, 1.0)
    assert max(own) < 2.0 * own[0]
    assert max(one) > 10.0 * one[0]
