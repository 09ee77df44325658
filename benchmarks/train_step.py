"""Measures a training step as the peers write it, ours, and ours with the teacher cached, phase by phase.

The peers' step: float32, contiguous, eager, the teacher in every step, each image augmented alone with Pillow, torch's
default SGD. Ours: what `build` makes of a run on this machine. They take turns in one process, so that all see the same
weather; figures are medians of steps. `make bench-train` writes results/train_step.json and .svg; about ten minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from steps import hardware
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rankdistill.contract import Batch
from rankdistill.data.dataset import Split
from rankdistill.data.loader import Loader
from rankdistill.data.views import Geometry
from rankdistill.methods import KD
from rankdistill.methods.ce import CrossEntropy
from rankdistill.methods.combine import Sum
from rankdistill.methods.ra import rank_alignment_loss
from rankdistill.models import MODELS
from rankdistill.network import Network
from rankdistill.runs.launch import resolve_precision
from rankdistill.training.clock import Clock
from rankdistill.training.state import State
from rankdistill.training.step import descend
from rankdistill.training.teacher_cache import CachedTeacher, CacheOptions

RESULTS = Path(__file__).parent / "results"
PAIRS = (("resnet32x4", "resnet8x4"), ("resnet56", "resnet20"))
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
CLASSES, SAMPLES = 100, 2048
PHASES = ("data", "teacher", "student", "update")


@dataclass
class Timed:
    """Seconds of each step, by phase."""

    steps: list[dict[str, float]] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        """Return phase -> median, and that of whole steps."""
        found = {phase: statistics.median(step[phase] for step in self.steps) for phase in PHASES}
        return found | {"step": statistics.median(sum(step.values()) for step in self.steps)}


def images() -> Split:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (SAMPLES, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Split(pixels, torch.arange(SAMPLES) % CLASSES)


def per_image(split: Split, batch_size: int, augment: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Crop, mirror and normalise one image at a time, as torchvision's classic transforms do."""
    pictures = [Image.fromarray(image) for image in split.images.permute(0, 2, 3, 1).numpy()]
    mean, std = (np.asarray(value, np.float32)[:, None, None] for value in (MEAN, STD))
    while True:
        order = random.sample(range(len(pictures)), len(pictures))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            chosen = order[start : start + batch_size]
            found = []
            for index in chosen:
                picture = pictures[index]
                if augment:
                    padded = Image.new("RGB", (40, 40))
                    padded.paste(picture, (4, 4))
                    left, top = random.randint(0, 8), random.randint(0, 8)
                    picture = padded.crop((left, top, left + 32, top + 32))
                    if random.random() < 0.5:
                        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                pixels = np.asarray(picture, np.float32).transpose(2, 0, 1) / 255
                found.append(torch.from_numpy((pixels - mean) / std))
            yield torch.stack(found), split.labels[chosen]


def peers_steps(pair: tuple[str, str], split: Split, batch_size: int, augment: bool) -> Callable[[], dict[str, float]]:
    teacher, student = (MODELS[name](CLASSES) for name in pair)
    teacher.eval()
    student.train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    batches = per_image(split, batch_size, augment)

    def step() -> dict[str, float]:
        marks = [time.perf_counter()]
        pixels, labels = next(batches)
        marks.append(time.perf_counter())
        with torch.no_grad():
            target = teacher(pixels)
        marks.append(time.perf_counter())
        logits = student(pixels)
        kd = F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(target / 4, 1), reduction="batchmean") * 16
        loss = 0.1 * F.cross_entropy(logits, labels) + 0.9 * kd
        optimizer.zero_grad()
        loss.backward()
        marks.append(time.perf_counter())
        optimizer.step()
        marks.append(time.perf_counter())
        return {phase: marks[i + 1] - marks[i] for i, phase in enumerate(PHASES)}

    return step


def our_steps(
    pair: tuple[str, str], split: Split, batch_size: int, precision: str, cache: Path | None
) -> Callable[[], dict[str, float]]:
    teacher, student = (MODELS[name](CLASSES).to(memory_format=torch.channels_last) for name in pair)
    clock = Clock()
    method = Sum(task=(0.1, CrossEntropy()), kd=(0.9, KD()))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)
    loader = Loader(split, batch_size=batch_size, seed=0, mean=MEAN, std=STD, geometry=Geometry(padding=4, flip=True))
    frozen = Network(teacher, frozen=True)

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed")

    state = State(Network(student), frozen, method, optimizer, autocast=autocast, clock=clock)
    frozen.around = lambda: clock("teacher")
    if cache is not None:
        kept = CachedTeacher(frozen, loader, cache, SAMPLES, CacheOptions(), autocast)
        frozen.around = nullcontext
        kept.start_epoch(1)
        with autocast():
            for batch in loader.epoch(1):
                kept.run(batch)
        kept.end_epoch()
        kept.around = lambda: clock("teacher")
        state.teacher = kept
    student.train()

    def batches() -> Iterator[Batch]:
        while True:
            if isinstance(state.teacher, CachedTeacher):
                state.teacher.start_epoch(1)
            yield from loader.epoch(1)

    stream = batches()

    def step() -> dict[str, float]:
        with clock("data"):
            batch = next(stream)
        clock_before = clock.take()
        with clock("step"):
            descend(state, batch)
        found = clock.take()
        teacher, update = found.get("teacher", 0.0), found["update"]
        return {
            "data": clock_before["data"],
            "teacher": teacher,
            "student": found["step"] - teacher - update,
            "update": update,
        }

    return step


def bare_step(pair: tuple[str, str], batch_size: int, precision: str) -> Callable[[], float]:
    """The networks' forward and backward passes and the optimizer: what no loop can do without."""
    teacher, student = (MODELS[name](CLASSES).to(memory_format=torch.channels_last) for name in pair)
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True)
    pixels = torch.randn(batch_size, 3, 32, 32).to(memory_format=torch.channels_last)

    def step() -> float:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            with torch.no_grad():
                teacher(pixels)
            logits = student(pixels)
        optimizer.zero_grad(set_to_none=True)
        logits.backward(logits.detach())
        optimizer.step()
        return time.perf_counter() - start

    return step


def loss_seconds(batch_size: int) -> dict[str, float]:
    """Return the seconds, forward and backward, of the RA loss and of a centred mean squared error."""
    student = (4 * torch.randn(batch_size, CLASSES)).requires_grad_()
    teacher = 4 * torch.randn(batch_size, CLASSES)

    def centred_mse() -> Tensor:
        difference = student - teacher
        return (difference - difference.mean(1, keepdim=True)).square().mean()

    calls: dict[str, Callable[[], Tensor]] = {
        "ra": lambda: rank_alignment_loss(student, teacher).mean(),
        "ra, epsilon 0.05": lambda: rank_alignment_loss(student, teacher, epsilon=0.05).mean(),
        "centred_mse": centred_mse,
    }
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(200):
        for name, call in calls.items():
            start = time.perf_counter()
            torch.autograd.grad(call(), student)
            samples[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in samples.items()}


def flops(pair: tuple[str, str], batch_size: int) -> float:
    """Return the operations of a step: the teacher forward, the student forward and backward."""
    teacher, student = (MODELS[name](CLASSES) for name in pair)
    pixels = torch.randn(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            teacher(pixels)
        student(pixels).sum().backward()
    return counter.get_total_flops() * batch_size / 2


def peak(dtype: torch.dtype) -> float:
    """Return the operations a second that a large matrix product reaches; a small one where that is slow already."""

    def rate(size: int) -> float:
        a = torch.randn(size, size).to(dtype)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - start)
        return float(2 * size**3 / min(times))

    small = rate(256)
    return small if small < 1e10 else max(small, rate(2048))


def measure(pair: tuple[str, str], options: argparse.Namespace, precision: str, folder: Path) -> dict[str, Any]:
    split = images()
    size = options.batch_size
    contenders = {
        "peers": peers_steps(pair, split, size, augment=True),
        "peers, no augmentation": peers_steps(pair, split, size, augment=False),
        "ours": our_steps(pair, split, size, precision, None),
        "ours, cached teacher": our_steps(pair, split, size, precision, folder / pair[0]),
    }
    bare = bare_step(pair, size, precision)
    timed = {name: Timed() for name in contenders}
    bares: list[float] = []
    for round_number in range(options.rounds + 1):
        for name, step in contenders.items():
            found = [step() for _ in range(options.steps)]
            if round_number:  # the first round warms up
                timed[name].steps += found
        found_bare = [bare() for _ in range(options.steps)]
        if round_number:
            bares += found_bare
    medians = {name: value.medians() for name, value in timed.items()}
    return {
        "pair": "-".join(pair),
        "seconds": medians,
        "images_per_second": {name: size / value["step"] for name, value in medians.items()},
        "bare_seconds": statistics.median(bares),
        "loss_seconds": loss_seconds(size),
        "operations": flops(pair, size),
    }


def show(result: dict[str, Any], top: dict[str, float]) -> None:
    print(f"\n{result['pair']}")
    print(f"  {'':24}{'images/s':>10}{'step ms':>10}" + "".join(f"{phase:>10}" for phase in PHASES) + f"{'ratio':>8}")
    base = result["seconds"]["peers"]["step"]
    for name, times in result["seconds"].items():
        phases = "".join(f"{1e3 * times[phase]:10.1f}" for phase in PHASES)
        rate = result["images_per_second"][name]
        print(f"  {name:24}{rate:10.1f}{1e3 * times['step']:10.1f}{phases}{base / times['step']:8.2f}")
    ours = result["seconds"]["ours"]["step"]
    losses = result["loss_seconds"]
    print(f"  loop beside networks and optimizer: {100 * (ours - result['bare_seconds']) / ours:.1f} % of our step")
    extra = 100 * (losses["ra"] - losses["centred_mse"]) / ours
    print(f"  RA loss less centred MSE: {extra:.2f} % of our step")
    rate = result["operations"] / ours
    print(f"  {rate / 1e9:.0f} GFLOP/s, {100 * rate / max(top.values()):.0f} % of a large matrix product here")


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Write one bar per contender, divided into phases."""
    colours = dict(zip(PHASES, ("#e69f00", "#0072b2", "#009e73", "#999999"), strict=True))
    y, parts = 30, []
    for result in results:
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{escape(result["pair"])}, milliseconds a step</text>')
        longest = max(times["step"] for times in result["seconds"].values())
        for name, times in result["seconds"].items():
            y += 18
            x = 170.0
            parts.append(f'<text x="160" y="{y + 11}" text-anchor="end">{escape(name)}</text>')
            for phase in PHASES:
                width = 400 * times[phase] / longest
                parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="14" fill="{colours[phase]}"/>')
                x += width
            parts.append(f'<text x="{x + 6:.1f}" y="{y + 11}">{1e3 * times["step"]:.0f}</text>')
        y += 40
    for i, (phase, colour) in enumerate(colours.items()):
        parts.append(f'<rect x="{170 + 90 * i}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{186 + 90 * i}" y="{y}">{phase}</text>')
    style = "font-family:sans-serif;font-size:12px;background:white"
    body = "\n".join(parts)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="680" height="{y + 20}" style="{style}">{body}</svg>\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3, help="of each contender in its turn (default: 3)")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each (default: 6)")
    parser.add_argument("--precision", choices=("auto", "32-true", "bf16-mixed"), default="auto")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    torch.manual_seed(0)
    random.seed(0)
    precision = resolve_precision(options.precision)
    top = {"float32": peak(torch.float32), "bfloat16": peak(torch.bfloat16)}
    print(f"precision {precision}; matrix product: " + ", ".join(f"{k} {v / 1e9:.0f} GFLOP/s" for k, v in top.items()))
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for pair in PAIRS:
            results.append(measure(pair, options, precision, Path(folder)))
            show(results[-1], top)
    options.output.mkdir(parents=True, exist_ok=True)
    record = {"hardware": hardware(), "precision": precision, "peak": top, "results": results}
    (options.output / "train_step.json").write_text(json.dumps(record, indent=1) + "\n")
    plot(results, options.output / "train_step.svg")
    print(f"\nwritten to {options.output}/train_step.json and train_step.svg")


if __name__ == "__main__":
    main()
