"""Run by torchrun in `test_resume.py`: a run on two processes, left alone or killed at a step and started again.

Arguments: folder, method's name or "none", precision, and the step to die at (0 for none). Dies as by SIGKILL.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from small_runs import SAMPLES, small_plan, small_split

from rankdistill import Batch, distributed
from rankdistill.data.loader import Loader
from rankdistill.data.views import Geometry
from rankdistill.training.loop import fit
from rankdistill.training.plan import Plan, Record


class Dies:
    def __init__(self, step: int) -> None:
        self.left = step

    def start(self, plan: Plan) -> None:
        pass

    def note(self, sentence: str) -> None:
        pass

    def step(self, images: int) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(137)

    def epoch(self, record: Record) -> None:
        pass


class Shared(Loader):
    def epoch(self, number: int, *, first: int = 0) -> Iterator[Batch]:
        for batch in super().epoch(number, first=first):
            yield dataclasses.replace(batch, strong=batch.images.flip(3))


def main(folder: Path, name: str, precision: str, step: int) -> None:
    torch.set_num_threads(1)
    plan = small_plan(folder, None if name == "none" else name, epochs=3)
    options = {"batch_size": 8, "geometry": Geometry(padding=2, flip=True), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    ranks = {"rank": distributed.rank(), "world_size": distributed.world_size()}
    plan.loader = Shared(small_split(), seed=3, **options, **ranks)
    assert plan.loader.num_samples == SAMPLES
    plan.checkpoint_steps = 2
    plan.watchers = [Dies(step)]
    if precision == "bf16":
        plan.state.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    fit(plan)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
    dist.destroy_process_group()
