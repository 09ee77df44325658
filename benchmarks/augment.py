"""Measures the augmentation beside the same pipeline in Pillow, on one thread, in images per second.

Images are 32 x 32, in batches of 128. "weak" is one view (crop with padding 4, flip), "weak + strong" two of each.
Pillow goes image by image, as the authors' code does in a worker, without the time that a worker needs to send them.
Both make the same views of the same draws, which is tested first. Ours includes drawing, and its float32 batches
normalisation. Contenders take turns, so that all see the same weather; figures are medians.

Then the share of a training step that making its batch takes: MLKD, which reads two views, on batches of 64 of one of
the paper's pairs for CIFAR-100 and of both for Tiny-ImageNet. `make bench-augment` writes results/augment.json; about
five minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rankdistill.recipes.setting import TINY_IMAGENET_PAIRS
from torch import Tensor

from rankdistill import MODELS, UPDATES, assemble
from rankdistill.data import Geometry, Loader, SecondView, Split, Views
from rankdistill.data.random import Stream, draws
from rankdistill.runs.build import terms
from rankdistill.runs.options import loss
from rankdistill.training.state import State

# With the tests, which compare every operation with it.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import pillow_view

RESULTS = Path(__file__).parent / "results"
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
BATCH, SIDE, PADDING, SAMPLES = 128, 32, 4, 4096
CONSTANTS: dict[str, Any] = {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)}
GEOMETRY = Geometry(padding=PADDING, flip=True)
KINDS: dict[str, SecondView | None] = {"weak": None, "weak + strong": "mlkd"}
STEP_BATCH = 64
PAIRS = [(("resnet56", "resnet20"), 32, 100, 4), *((pair, 64, 200, 8) for pair in TINY_IMAGENET_PAIRS)]
"""Teacher and student, side of the images, classes, padding."""


def images(samples: int, side: int) -> Tensor:
    """Return smooth images with some noise, channels-last."""
    coarse = torch.rand(samples, 3, 6, 6)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    noisy = 255 * smooth + 8 * torch.randn(samples, 3, side, side)
    return noisy.clamp(0, 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)


def by_pillow(pixels: Tensor, strong: SecondView | None) -> Callable[[], Tensor]:
    """Return what makes the views of the first batch, weak ones first, from words drawn beforehand."""
    rows = pixels[:BATCH].permute(0, 2, 3, 1).numpy()
    indices = torch.arange(BATCH)
    weak, own = (
        draws(0, 1, indices, stream=stream, count=3).tolist() for stream in (Stream.WEAK_VIEW, Stream.STRONG_VIEW)
    )
    words = draws(0, 1, indices, stream=Stream.OPERATIONS, count=7).tolist()

    def views() -> Tensor:
        made = [pillow_view.weak_view(row, drawn, PADDING) for row, drawn in zip(rows, weak, strict=True)]
        if strong:
            made += [pillow_view.strong_view(*drawn, PADDING) for drawn in zip(rows, own, words, strict=True)]
        return torch.from_numpy(np.stack([pillow_view.pixels(view) for view in made])).permute(0, 3, 1, 2)

    return views


def by_us(pixels: Tensor, strong: SecondView | None) -> Callable[[], Tensor]:
    """Return what draws and makes the views of all batches, and returns the first batch's."""
    views = Views(0, GEOMETRY, SIDE, SIDE, strong)
    rows = pixels.permute(0, 2, 3, 1)
    indices = torch.arange(SAMPLES)

    def first_batch() -> Tensor:
        drawn = views.draw(1, indices)
        made = []
        for start in range(0, SAMPLES, BATCH):
            chosen = slice(start, start + BATCH)
            taken = rows.index_select(0, indices[chosen]).permute(0, 3, 1, 2)
            made.append(views.make(taken, drawn[chosen]))
        return torch.cat([view for view in made[0] if view is not None])

    return first_batch


def by_loader(pixels: Tensor, strong: SecondView | None) -> Callable[[], object]:
    split = Split(pixels, torch.zeros(SAMPLES, dtype=torch.int64))
    loader = Loader(split, batch_size=BATCH, seed=0, geometry=GEOMETRY, second_view=strong, **CONSTANTS)
    return lambda: [len(batch) for batch in loader.epoch(1)]


def rates(
    calls: dict[str, tuple[int, Callable[[], object]]], clock: Callable[[], float], seconds: float
) -> dict[str, float]:
    """Return images per second of each (images in a call, call), from the median time of calls in turn."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _, call in calls.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, samples.values())) < 5:
        for name, (_, call) in calls.items():
            start = clock()
            call()
            samples[name].append(clock() - start)
    return {name: num / statistics.median(samples[name]) for name, (num, _) in calls.items()}


def shares(clock: Callable[[], float], repeats: int) -> dict[str, dict[str, float]]:
    """Return per pair the milliseconds that a batch and the rest of its step take, and the batch's shares."""
    found = {}
    for (teacher, student), side, classes, padding in PAIRS:
        split = Split(images(STEP_BATCH * repeats, side), torch.arange(STEP_BATCH * repeats) % classes)
        geometry = Geometry(padding=padding, flip=True)
        loader = Loader(split, batch_size=STEP_BATCH, seed=0, geometry=geometry, second_view="mlkd", **CONSTANTS)
        networks = MODELS[student](classes), MODELS[teacher](classes)
        example = torch.zeros(2, 3, side, side)
        losses = terms({"task": loss("ce", 0.1), "mlkd": loss("mlkd", 0.9)})
        method, trained, frozen = assemble(losses, *networks, example, num_samples=len(split))
        trained.module.to(memory_format=torch.channels_last).train()
        frozen.module.to(memory_format=torch.channels_last)
        rule = UPDATES["descend"]()
        optimizer = rule.make_optimizer(trained.module, method, lr=0.0, momentum=0.9, weight_decay=0.0, nesterov=False)
        state = State(student=trained, teacher=frozen, method=method, optimizer=optimizer)
        spent: dict[str, list[float]] = {"batch": [], "teacher": [], "step": []}
        batches = loader.epoch(1)
        rule(state, next(loader.epoch(2)))
        for _ in range(repeats):
            start = clock()
            batch = next(batches)
            spent["batch"].append(clock() - start)
            start = clock()
            frozen.run(batch)
            spent["teacher"].append(clock() - start)
            start = clock()
            rule(state, batch)
            spent["step"].append(clock() - start)
        batch_time, teacher_time, step_time = (statistics.median(times) for times in spent.values())
        found[f"{teacher} -> {student}, {side} px"] = {
            "batch_ms": round(1e3 * batch_time, 2),
            "step_ms": round(1e3 * step_time, 1),
            "share_percent": round(100 * batch_time / (batch_time + step_time), 2),
            "share_percent_teacher_cached": round(100 * batch_time / (batch_time + step_time - teacher_time), 2),
        }
    return found


def hardware() -> dict[str, Any]:
    """Return what the figures depend on."""
    cpu = platform.processor()
    if (path := Path("/proc/cpuinfo")).exists():
        cpu = next((line.split(": ")[1] for line in path.read_text().splitlines() if "model name" in line), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "versions": {name: metadata.version(name) for name in ("torch", "numpy", "pillow")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0, help="of measuring views (default: 40)")
    parser.add_argument("--steps", type=int, default=11, help="training steps of each pair (default: 11)")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: of this thread, on busy machines")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pixels = images(SAMPLES, SIDE)
    calls: dict[str, tuple[int, Callable[[], object]]] = {}
    for name, strong in KINDS.items():
        reference, ours = by_pillow(pixels, strong), by_us(pixels, strong)
        assert torch.equal(reference(), ours())
        calls |= {
            f"{name}, Pillow": (BATCH, reference),
            name: (SAMPLES, ours),
            f"{name}, float32 batches": (SAMPLES, by_loader(pixels, strong)),
        }
    found = rates(calls, CLOCKS[options.clock], options.seconds)
    print(f"\n{'':42}{'images/s':>10}{'times Pillow':>14}")
    for name, rate in found.items():
        reference_rate = found.get(f"{name.split(',')[0]}, Pillow")
        ratio = f"{rate / reference_rate:14.1f}" if reference_rate else ""
        print(f"  {name:40}{rate:10,.0f}{ratio}")
    of_steps = shares(CLOCKS[options.clock], options.steps)
    for name, share in of_steps.items():
        print(f"  {name}: {share}")
    options.output.mkdir(parents=True, exist_ok=True)
    record = {
        "hardware": hardware(),
        "clock": options.clock,
        "threads": 1,
        "batch": BATCH,
        "side": SIDE,
        "images_per_second": {name: round(rate) for name, rate in found.items()},
        "two_view_steps": of_steps,
    }
    (options.output / "augment.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nwritten to {options.output}/augment.json")


if __name__ == "__main__":
    main()
