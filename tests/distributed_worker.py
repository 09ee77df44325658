"""Run by torchrun in `test_distributed.py`: trains on every process what the first argument names, and saves it."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from rankdistill import distributed
from rankdistill.contract import Batch, Output
from rankdistill.methods import CRD
from rankdistill.methods.ce import CrossEntropy
from rankdistill.methods.combine import Sum
from rankdistill.models.resnet import ResNet
from rankdistill.network import Network
from rankdistill.training.evaluate import evaluate
from rankdistill.training.state import State
from rankdistill.training.step import descend

STEPS, SIZES = 20, (12, 12, 12, 7)  # the last batch of each four does not divide by two


def a_state(dtype: torch.dtype, *, sync: bool) -> State:
    torch.manual_seed(3)
    student = ResNet(8, (16, 16, 16, 16), 5).to(dtype)
    if sync:
        distributed.synchronized_batch_norm(student)
    method = Sum(task=(1.0, CrossEntropy()))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    return State(Network(student), None, method, optimizer)


def a_batch(step: int, dtype: torch.dtype) -> Batch:
    generator = torch.Generator().manual_seed(step)
    size = SIZES[step % len(SIZES)]
    images = torch.randn(size, 3, 16, 16, generator=generator, dtype=torch.float64).to(dtype)
    return Batch(images, torch.randint(5, (size,), generator=generator), step=step)


def mine(batch: Batch) -> Batch:
    return batch.chunks(distributed.world_size())[distributed.rank()]


def main(kind: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dtype = torch.float64 if kind.endswith("64") else torch.float32
    state = a_state(dtype, sync=kind.startswith("sync"))
    counter = nn.BatchNorm1d(2)
    counter.num_batches_tracked += distributed.rank() + 5
    distributed.broadcast_state(counter)
    crd = CRD(4, 4, torch.arange(12) % 3, dim=8, num_negatives=5)
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        pooled, indices = torch.randn(2, 5, 4, generator=generator), torch.randperm(12, generator=generator)[:5]
        batch = mine(Batch(torch.zeros(5, 3, 8, 8), indices % 3, indices, step=step))
        rows = [x.squeeze(0).tensor_split(distributed.world_size())[distributed.rank()] for x in pooled.split(1)]
        outputs = [Output(x, {"pooled": x}) for x in rows]
        crd.losses(batch, *outputs)
    state.student.module.train()
    for step in range(STEPS):
        descend(state, mine(a_batch(step, dtype)))
    weights = [parameter.detach() for parameter in state.student.module.parameters()]
    buffers = [buffer.clone() for buffer in state.student.module.buffers()]
    distributed.broadcast_buffers(state.student.module)
    tests = [mine(a_batch(100 + step, dtype)) for step in range(4)]
    accuracy = evaluate(state.student.module, tests)
    gathered = distributed.gather(torch.arange(3 + distributed.rank())[:, None] + 10 * distributed.rank())
    flag = distributed.any_of(75 if distributed.rank() == 1 else 0)
    result = {
        "weights": weights,
        "buffers": buffers,
        "shared_buffers": list(state.student.module.buffers()),
        "accuracy": accuracy,
        "gathered": gathered,
        "flag": flag,
        "memories": [crd.student_memory, crd.teacher_memory, crd.log_z],
        "shared_state": int(counter.num_batches_tracked),
    }
    torch.save(result, folder / f"{kind}-{distributed.world_size()}-{distributed.rank()}.pt")


if __name__ == "__main__":
    if len(sys.argv) > 3 and sys.argv[3] == "gloo":
        dist.init_process_group("gloo")
    for name in sys.argv[1].split(","):
        main(name, Path(sys.argv[2]))
    if dist.is_initialized():
        dist.destroy_process_group()
