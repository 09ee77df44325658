"""Two steps of every method on networks that are filled by a rule, as a few numbers each: `golden/steps.npz`.

`python tests/golden_steps.py NAME ...` makes the numbers of these methods anew, and keeps those of the others;
`tests/golden/README.md` says when they were made, and how they are tied to the numbers of the authors' code.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from golden_networks import filled
from torch import Tensor, nn

from rankdistill import METHODS, MODELS, Batch, assemble
from rankdistill.models.resnet import ResNet

FILE = Path(__file__).parent / "golden" / "steps.npz"
CLASSES, SAMPLES = 6, 12
CASES = {
    "a": (lambda: (ResNet(8, (16, 16, 16, 24), CLASSES), ResNet(8, (16, 16, 24, 32), CLASSES)), 4, 16),
    "b": (lambda: (ResNet(14, (24, 24, 40, 72), CLASSES), MODELS["shufflenetv1"](CLASSES)), 3, 24),
}
"""Case -> student and teacher, batch size, pixels of a side.

In case b the teacher is of another family, the student deeper, and no width, map size or batch is that of case a.
"""


@functools.cache
def golden() -> Mapping[str, np.ndarray]:
    """Return "<method>.<case>" -> numbers; an array of length 0 where the method does not fit the pair."""
    with np.load(FILE) as file:
        return dict(file)


def numbers(name: str, case: str) -> Tensor:
    """Return the losses of two steps, and of each step's gradients and of the final state two sums for each tensor.

    Raises:
        TypeError, ValueError: the method does not fit the pair.
    """
    make, size, side = CASES[case]
    torch.manual_seed(0)
    student, teacher = (filled(module.double()) for module in make())
    labels = torch.arange(SAMPLES) % CLASSES
    terms, images = {name: (1.0, METHODS[name])}, torch.zeros(2, 3, side, side, dtype=torch.float64)
    whole, trained, frozen = assemble(terms, student, teacher, images, num_samples=SAMPLES, labels=labels)
    method = whole.double()
    _fill_what_was_drawn(method)
    _fill_what_was_drawn(trained.module, known=set(dict(student.named_parameters())))
    method.prepare(frozen, lambda: [_batch(9, size, side)])
    trained.module.train()
    parameters = [*trained.module.parameters(), *method.parameters()]
    found: list[Tensor] = []
    for step in range(2):
        torch.manual_seed(step)  # what a method draws
        losses = method(_batch(step, size, side), trained, frozen)
        gradients = torch.autograd.grad(torch.stack(list(losses.values())).sum(), parameters, allow_unused=True)
        found += [value.detach() for value in losses.values()]
        found += [number for gradient in gradients if gradient is not None for number in _sums(gradient)]
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter -= 1e-3 * gradient / (1.0 + gradient.norm())
    state = [
        value
        for _, value in sorted(method.state_dict().items())
        if isinstance(value, Tensor) and value.is_floating_point()
    ]
    return torch.stack([*found, *(number for value in state for number in _sums(value.nan_to_num()))])


def _batch(step: int, size: int, side: int) -> Batch:
    generator = torch.Generator().manual_seed(100 + step)
    weak, strong = torch.randn(2, size, 3, side, side, generator=generator, dtype=torch.float64)
    indices = (torch.arange(size) * 5 + step) % SAMPLES
    return Batch(weak, indices % CLASSES, indices=indices, strong=strong, step=step)


def _fill_what_was_drawn(module: nn.Module, known: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Fill the parameters that were drawn at random by the rule, each with the spread that it had."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name not in known and parameter.numel() > 1 and parameter.std() > 0:
                wave = torch.cos(torch.arange(parameter.numel(), dtype=torch.float64) * 1.7 + len(name))
                parameter.copy_(wave.view_as(parameter) * parameter.std() * 2**0.5)


def _sums(value: Tensor) -> Iterator[Tensor]:
    flat = value.detach().double().flatten()
    yield flat.norm()
    yield flat @ torch.cos(torch.arange(flat.numel(), dtype=torch.float64) * 0.7 + 0.3)


def made(name: str) -> dict[str, np.ndarray]:
    """Return the numbers of a method for the file."""
    found = {}
    for case in CASES:
        try:
            found[f"{name}.{case}"] = numbers(name, case).numpy()
        except (TypeError, ValueError) as error:
            print(f"{name}.{case}: {error}")
            found[f"{name}.{case}"] = np.empty(0)
    return found


if __name__ == "__main__":
    kept = dict(golden()) if FILE.is_file() else {}
    for chosen in sys.argv[1:] or METHODS:
        kept |= made(chosen)
    np.savez_compressed(FILE, **kept)
