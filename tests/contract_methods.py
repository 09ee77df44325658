"""Small methods that do real work, one for each point of the contract that a paper's method may use.

After construction under a given seed, each is a deterministic function of its inputs, its state and `Batch.step`.
"""

from __future__ import annotations

import copy
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankdistill.contract import Batch, Losses, Method, Output, Pair
from rankdistill.network import Network, batch_statistics
from rankdistill.taps import resume


class Matched(Method):
    """As FitNets: a learnable bridge takes a student feature to the teacher's. Shapes come from `for_pair`."""

    student_needs = teacher_needs = ("stage2",)

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.bridge = nn.Conv2d(student_channels, teacher_channels, 1)

    @classmethod
    def for_pair(cls, pair: Pair) -> Self:
        return cls(pair.student_shapes["stage2"][0], pair.teacher_shapes["stage2"][0])

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        return {"near": F.mse_loss(self.bridge(student.features["stage2"]), teacher.features["stage2"])}


class MixedPath(Method):
    """As FCFD: the frozen teacher's tail judges the bridged student feature, on the statistics of the batch."""

    student_needs = ("stage2",)
    teacher_mode = "batch_stats"

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.bridge = nn.Sequential(
            nn.Conv2d(student_channels, teacher_channels, 1, bias=False), nn.BatchNorm2d(teacher_channels)
        )

    @classmethod
    def for_pair(cls, pair: Pair) -> Self:
        return cls(pair.student_shapes["stage2"][0], pair.teacher_shapes["stage2"][0])

    def forward(self, batch: Batch, student: Network, teacher: Network | None) -> Losses:
        assert teacher is not None
        whole = teacher.run(batch)
        bridged = self.bridge(student.run(batch).features["stage2"])
        with batch_statistics(teacher.module):
            mixed = resume(teacher.module, "stage2", bridged)
        return {"mixed": F.mse_loss(mixed.logits, whole.logits)}


class Widened(Method):
    """As NORM: the student trains with a wider linear head, each copy near the teacher; it is deployed merged."""

    student_needs = ("widened",)
    teacher_needs = ("pooled",)

    def __init__(self, student_dim: int, teacher_dim: int, *, copies: int = 2) -> None:
        super().__init__()
        self.student_dim, self.teacher_dim, self.copies = student_dim, teacher_dim, copies

    @classmethod
    def for_pair(cls, pair: Pair, *, copies: int = 2) -> Self:
        return cls(pair.student_shapes["pooled"][0], pair.teacher_shapes["pooled"][0], copies=copies)

    def adapt(self, student: nn.Module) -> nn.Module:
        adapted = copy.deepcopy(student)
        width = self.copies * self.teacher_dim
        head = (nn.Linear(self.student_dim, width, bias=False), nn.Linear(width, student.fc.out_features))
        adapted.fc = nn.Sequential(*head).to(student.fc.weight)
        adapted.roles = student.roles | {"widened": "fc.0"}
        return adapted

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        copies = student.features["widened"].unflatten(1, (self.copies, self.teacher_dim))
        target = teacher.features["pooled"].unsqueeze(1).expand_as(copies)
        return {"copies": F.mse_loss(copies, target), "logits": F.mse_loss(student.logits, teacher.logits)}

    @torch.no_grad()
    def deploy(self, student: nn.Module) -> nn.Module:
        expand, classify = student.fc
        merged = nn.Linear(expand.in_features, classify.out_features).to(classify.weight)
        merged.weight.copy_(classify.weight @ expand.weight)
        merged.bias.copy_(classify.bias)
        deployed = copy.deepcopy(student)
        deployed.fc = merged
        del deployed.roles["widened"]
        return deployed


class Bank(Method):
    """As CRD: the student's embedding is compared with a memory of the teacher's, which every step writes.

    State: the memory [N, teacher_dim] and the number of writes.
    """

    student_needs = teacher_needs = ("pooled",)

    def __init__(self, student_dim: int, teacher_dim: int, num_samples: int, *, momentum: float = 0.5) -> None:
        super().__init__()
        self.momentum = momentum
        self.embed = nn.Linear(student_dim, teacher_dim)
        self.register_buffer("bank", torch.zeros(num_samples, teacher_dim))
        self.register_buffer("num_writes", torch.zeros((), dtype=torch.int64))

    @classmethod
    def for_pair(cls, pair: Pair, *, momentum: float = 0.5) -> Self:
        dims = pair.student_shapes["pooled"][0], pair.teacher_shapes["pooled"][0]
        return cls(*dims, pair.num_samples, momentum=momentum)

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        if batch.indices is None:
            raise ValueError("Bank needs Batch.indices, which is None: the position of each sample in the training set")
        remembered = self.bank[batch.indices]
        if self.updates_state:
            self.bank[batch.indices] = remembered.lerp(teacher.features["pooled"].float(), 1 - self.momentum)
            self.num_writes += 1
        return {"bank": F.mse_loss(self.embed(student.features["pooled"]), remembered)}


class BothViews(Method):
    """As MLKD: the student sees the strong view, and is also held to what the teacher says of the weak one."""

    views = 2

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        if student.strong is None or teacher.strong is None:
            raise ValueError(
                "BothViews needs Batch.strong, the second view, which is None: use a two-view augmentation"
            )
        return {
            "same": F.mse_loss(student.strong.logits, teacher.strong.logits),
            "across": F.mse_loss(student.strong.logits, teacher.logits),
        }


class NoisyTeacher(Method):
    """The teacher's logits with noise that is a function of the seed and of `Batch.step`."""

    def __init__(self, *, seed: int = 0, scale: float = 0.5) -> None:
        super().__init__()
        self.seed, self.scale = seed, scale

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + batch.step)
        noise = torch.randn(teacher.logits.shape, generator=generator).to(teacher.logits)
        return {"noisy": F.mse_loss(student.logits, teacher.logits + self.scale * noise)}


class BatchStatistics(Method):
    """As OFD: an ordinary method, but the teacher normalises with the statistics of the batch."""

    teacher_mode = "batch_stats"

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        return {"logits": F.mse_loss(student.logits, teacher.logits)}


CONTRACT_METHODS: dict[str, type[Method]] = {
    "matched": Matched,
    "mixed_path": MixedPath,
    "widened": Widened,
    "bank": Bank,
    "both_views": BothViews,
    "noisy_teacher": NoisyTeacher,
    "batch_statistics": BatchStatistics,
}


def random_batch(step: int = 0, *, size: int = 6, num_classes: int = 5, num_samples: int = 12) -> Batch:
    """Return the batch of a step: two views of random 16x16 images, classes, positions in the training set."""
    generator = torch.Generator().manual_seed(step)

    def images() -> Tensor:
        return torch.randn(size, 3, 16, 16, generator=generator)

    return Batch(
        images(),
        torch.randint(num_classes, (size,), generator=generator),
        indices=torch.randperm(num_samples, generator=generator)[:size],
        strong=images(),
        step=step,
    )
