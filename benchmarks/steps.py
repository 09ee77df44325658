"""What benchmarks of training steps share: a pair of networks, batches for them, a step of any losses, the hardware."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rankdistill.assembly import assemble
from rankdistill.contract import Batch, Losses
from rankdistill.models import MODELS
from rankdistill.runs.build import terms
from rankdistill.runs.options import loss
from rankdistill.training.state import State
from rankdistill.training.updates import UPDATES, UpdateRule

PAIR = ("resnet32x4", "resnet8x4")
CLASSES, SAMPLES, SIZE = 100, 50_000, 32
KD = {"task": loss("ce", 0.1), "kd": loss("kd", 0.9, temperature=4.0)}


class Steps:
    """Steps of one training on random images, which are there before a step begins.

    The learning rate is 0: a step costs the same, and the losses of random networks do not run away.

    Args:
        losses: as `Run.losses`.
        rule: how a step is made; None is "bilevel" for losses with meta-parameters, else "descend".
        batch_size: images in a batch.
        precision: "32-true" or "bf16-mixed".
        views: 2 for batches with a strong view even where no loss reads it.
    """

    def __init__(
        self,
        losses: Mapping[str, Any],
        rule: UpdateRule | None = None,
        *,
        batch_size: int,
        precision: str,
        views: int = 1,
    ) -> None:
        teacher, student = (MODELS[name](CLASSES) for name in PAIR)
        example = torch.zeros(2, 3, SIZE, SIZE)
        labels = torch.arange(SAMPLES) % CLASSES
        method, trained, frozen = assemble(terms(losses), student, teacher, example, num_samples=SAMPLES, labels=labels)
        if rule is None:
            rule = UPDATES["bilevel" if method.meta_parameters() else "descend"]()
        rule.check(method)
        student = trained.module.to(memory_format=torch.channels_last).train()
        teacher.to(memory_format=torch.channels_last)
        self.rule = rule
        self.state = State(
            student=trained,
            teacher=frozen,
            method=method,
            optimizer=rule.make_optimizer(student, method, lr=0.0, momentum=0.9, weight_decay=5e-4, nesterov=False),
            meta_optimizer=rule.make_meta_optimizer(method),
            autocast=lambda: torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"),
        )
        self.batch = random_batch(batch_size, two_views=max(views, method.views) == 2)
        if rule.held_out_per_class:
            held_out = random_batch(rule.held_out_batch, two_views=False)
            self.batch = dataclasses.replace(self.batch, held_out=held_out)
        with self.state.autocast():
            method.prepare(frozen, lambda: [self.batch])

    def __call__(self, step: int) -> Losses:
        """Take the step of this number."""
        return self.rule(self.state, dataclasses.replace(self.batch, step=step))


def random_batch(size: int, *, two_views: bool) -> Batch:
    """Return images of unit variance, in the memory format of the loader's, and their labels and positions."""
    indices = torch.randperm(SAMPLES)[:size]
    weak, strong = (torch.randn(size, 3, SIZE, SIZE).to(memory_format=torch.channels_last) for _ in range(2))
    return Batch(weak, indices % CLASSES, indices=indices, strong=strong if two_views else None)


def hardware() -> dict[str, Any]:
    """Return what the figures depend on."""
    cpu = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        cpu = next((line.split(": ")[1] for line in info.read_text().splitlines() if "model name" in line), cpu)
    return {
        "cpu": cpu,
        "capabilities": {k: v for k, v in torch.cpu.get_capabilities().items() if v is True},
        "isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "all"),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
    }
