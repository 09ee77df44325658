"""Contrastive Representation Distillation (Tian, Krishnan and Isola, ICLR 2020). arXiv:1910.10699.

Each network's embedding of a sample x, a unit vector, is told from those that the other network gave to samples of
other classes, out of a memory of N embeddings:

    p(k) = exp(v . m_k / T) / Z
    CRD  = -log (p(x) / (p(x) + K / N + e)) - sum over K negatives k of log ((K / N) / (p(k) + K / N + e))

once with the student's v and the teacher's memory m, once the other way round. Z is set by the first batch, so that the
mean of p is 1 / N, and kept. Recipes add cross-entropy; the weight of CRD is 0.8.

Differs from the authors' code:
- Negatives are drawn on the device, by a function of a key, the step and the sample's index. As there, they are uniform
  over the samples of all other classes and without replacement; with replacement where some class leaves fewer than K
  others (there it is decided class by class). Positives are the samples themselves (their mode "exact").
- All N scores of a sample are computed and K + 1 of them picked: the same numbers from one matrix product, in place of
  B (K + 1) gathered rows.
- Scores and Z stay in log space. If a sample is in a batch twice, its later occurrence is remembered: there, the order
  is undefined.
- Z and both memories are in the state dict; there only the student is saved.

The file is long because negatives are drawn on the device, each exactly once or with replacement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .. import distributed
from ..contract import Batch, Losses, Method, Output, Pair, Runs
from ..numerics import at_least_float32, check_positive, check_range, full_precision
from ._stages import pooled_widths

_EPSILON = 1e-7  # e, of the authors' code


def crd_loss(
    student: Float[Tensor, "batch dim"],
    teacher: Float[Tensor, "batch dim"],
    student_memory: Float[Tensor, "samples dim"],
    teacher_memory: Float[Tensor, "samples dim"],
    contrast: Int64[Tensor, "batch contrast"],
    log_z: Float[Tensor, " 2"] | None = None,
    *,
    temperature: float = 0.07,
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " 2"]]:
    """Return the contrastive loss per sample, in nats, and the logarithms of the constants Z that it was computed with.

    Args:
        student: embeddings, [B, D], of unit length. Half precision is computed in float32.
        teacher: embeddings of the teacher, [B, D], of unit length. They receive gradients, too, since the layer that
            embeds the teacher's features is trained.
        student_memory: [N, D], unit embeddings of all training samples, which score the teacher's embeddings. No
            gradient flows into it.
        teacher_memory: [N, D], unit embeddings of all training samples, which score the student's embeddings. No
            gradient flows into it.
        contrast: [B, 1 + K], positions in the memories: the positive, then K >= 1 negatives.
        log_z: log Z of the student's scores and of the teacher's. None, or NaN in either place: of this batch.
        temperature: T, positive.

    Raises:
        ValueError: there are no negatives, or the temperature is not positive.

    Example:
        >>> import torch
        >>> import torch.nn.functional as F
        >>> from rankdistill import crd_loss
        >>> student, teacher = F.normalize(torch.randn(2, 4, 8), dim=2)
        >>> memories = F.normalize(torch.randn(2, 50, 8), dim=2)
        >>> loss, log_z = crd_loss(student, teacher, *memories, torch.randint(50, (4, 17)))
    """
    check_positive("temperature", temperature)
    if contrast.shape[1] < 2:
        raise ValueError(f"contrast has shape {tuple(contrast.shape)}: a positive and at least one negative are needed")
    with full_precision(student):
        student, teacher = at_least_float32(student), at_least_float32(teacher)
        scores = torch.stack(
            [
                _scores(student, teacher_memory, contrast, temperature),
                _scores(teacher, student_memory, contrast, temperature),
            ]
        )  # [2, B, 1 + K]
        num_samples = len(teacher_memory)
        of_batch = scores.detach().flatten(1).logsumexp(1) - math.log(contrast.numel() / num_samples)
        log_z = of_batch if log_z is None else torch.where(log_z.isnan(), of_batch, log_z.to(of_batch))
        log_p = scores - log_z[:, None, None]
        noise = (contrast.shape[1] - 1) / num_samples
        log_odds = log_p - math.log(noise + _EPSILON)
        offset = (contrast.shape[1] - 1) * math.log1p(_EPSILON / noise)
        told = F.logsigmoid(log_odds[:, :, 0]) + F.logsigmoid(-log_odds[:, :, 1:]).sum(2) - offset  # [2, B]
        return -told.sum(0), log_z


def _scores(anchor: Tensor, memory: Tensor, contrast: Tensor, temperature: float) -> Tensor:
    """Return v . m / T of the contrasted samples, [B, 1 + K]."""
    return (anchor @ memory.detach().to(anchor).T).gather(1, contrast) / temperature


def draw_negatives(
    labels: Int64[Tensor, " samples"],
    indices: Int64[Tensor, " batch"],
    keys: Int64[Tensor, " batch"],
    count: int,
) -> Int64[Tensor, "batch count"]:
    """Return `count` different samples of other classes for each index, uniformly drawn, in no particular order.

    Args:
        labels: [N], the class of each training sample.
        indices: [B], positions of the samples in the training set.
        keys: [B]: what a row is drawn with. Equal keys draw alike, so each sample needs its own in each step.
        count: at most the number of samples of other classes.
    """
    order = _grid(keys, len(labels))  # [B, N]
    # Multiplication by an odd number and a shifted xor can be undone, so no two samples of a row tie.
    order.mul_(_FIRST)
    order.bitwise_xor_((order >> 27) & (2**37 - 1)).mul_(_SECOND)
    order.masked_fill_(labels[indices][:, None] == labels, -(2**63))
    return order.topk(count, dim=1, sorted=False).indices


def draw_negatives_with_replacement(
    labels: Int64[Tensor, " samples"],
    indices: Int64[Tensor, " batch"],
    keys: Int64[Tensor, " batch"],
    count: int,
) -> Int64[Tensor, "batch count"]:
    """Return `count` samples of other classes for each index, independent and uniform, repeats included.

    Args:
        labels: [N], the class of each training sample.
        indices: [B], positions of the samples in the training set.
        keys: [B], as in `draw_negatives`.
        count: any number.
    """
    by_class = labels.argsort(stable=True)
    ordered = labels[by_class]
    own = labels[indices].contiguous()
    first, end = torch.searchsorted(ordered, own), torch.searchsorted(ordered, own, right=True)  # own class's block
    others = len(labels) - (end - first)
    words = _mixed(_grid(keys, count))
    drawn = (((words >> 33) & (2**31 - 1)) * others[:, None]) >> 31  # uniform from 0 to others - 1
    return by_class[torch.where(drawn < first[:, None], drawn, drawn + (end - first)[:, None])]


# Of SplitMix64 (Steele, Lea and Flood, 2014), as signed numbers; int64 products wrap modulo 2^64.
_STEP, _FIRST, _SECOND = (word - 2**64 for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _grid(keys: Tensor, count: int) -> Tensor:
    """Return a word for each key [B] and each of `count` places, [B, count]; no two of a row are equal."""
    places = torch.arange(1, count + 1, device=keys.device) * _STEP  # steps keep them apart from small keys
    return _mixed(keys)[:, None] ^ _mixed(places)


def _mixed(words: Tensor) -> Tensor:
    """Return SplitMix64's finalizer of each int64: a one-to-one map onto what looks like independent uniform words."""
    words = (words ^ ((words >> 30) & (2**34 - 1))) * _FIRST
    words = (words ^ ((words >> 27) & (2**37 - 1))) * _SECOND
    return words ^ ((words >> 31) & (2**33 - 1))


class CRD(Method):
    """The student's pooled feature of a sample picks the teacher's of the same sample among many, in nats.

    Its parameters are a linear embedding for each network; that of the teacher's features is trained, too.
    Its state, all in the state dict, is both memories, [N, dim] (51 MB for 50,000 samples at the default dim), log Z,
    and the key that negatives are drawn with, which the constructor takes from torch's random state. A step also holds
    scores and order of all samples, [B, N], and a copy of the memories.

    Several processes remember the samples of all, so that their memories agree; log Z is that of process 0.

    Args:
        student_dim, teacher_dim: sizes of the pooled features.
        labels: [N] int64, the class of each training sample. Without classes, `torch.arange(N)`: negatives are then all
            other samples.
        dim: the width of the embeddings.
        num_negatives: the number of negatives of each sample (K).
        temperature: the temperature T, positive; 0.07 in the authors' code.
        momentum: the share of the old embedding in what is remembered, from 0 to 1.

    Example:
        >>> import torch
        >>> from rankdistill import CRD, MODELS, CrossEntropy, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> terms = {"task": (1.0, CrossEntropy()), "crd": (0.8, CRD)}
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """

    student_needs = teacher_needs = ("pooled",)

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        labels: Int64[Tensor, " samples"],
        *,
        dim: int = 128,
        num_negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        check_range("dim", dim, 1)
        check_range("num_negatives", num_negatives, 1)
        check_range("momentum", momentum, 0.0, 1.0)
        largest = int(labels.bincount().max()) if len(labels) else 0
        if largest == len(labels):
            raise ValueError(f"all {len(labels)} training samples are of one class: CRD needs samples of two or more")
        self.draw = draw_negatives if num_negatives <= len(labels) - largest else draw_negatives_with_replacement
        self.num_negatives = num_negatives
        self.temperature = temperature
        self.momentum = momentum
        self.has_classes = largest > 1
        self.embed_student = nn.Linear(student_dim, dim)
        self.embed_teacher = nn.Linear(teacher_dim, dim)
        bound = math.sqrt(3.0 / dim)
        self.student_memory: Tensor
        self.teacher_memory: Tensor
        self.log_z: Tensor
        self.key: Tensor
        self.labels: Tensor
        self.register_buffer("student_memory", torch.empty(len(labels), dim).uniform_(-bound, bound))
        self.register_buffer("teacher_memory", torch.empty(len(labels), dim).uniform_(-bound, bound))
        self.register_buffer("log_z", torch.full((2,), math.nan))
        self.register_buffer("key", torch.randint(2**62, ()))
        self.register_buffer("labels", labels.clone(), persistent=False)  # they are the data's, and come with it

    @classmethod
    def for_pair(cls, pair: Pair, **options: Any) -> CRD:
        """Return the method for this pair; without `Pair.labels`, negatives are drawn from all other samples."""
        labels = torch.arange(pair.num_samples) if pair.labels is None else pair.labels.cpu()
        return cls(*pooled_widths(pair, "CRD"), labels, **options)

    def prepare(self, teacher: Runs | None, batches: Callable[[], Iterable[Batch]]) -> list[str]:
        """Say if negatives may be of the sample's own class."""
        if self.has_classes:
            return []
        return ["no two training samples share a label: CRD draws negatives from all other samples"]

    def losses(self, batch: Batch, student: Output, teacher: Output) -> Losses:
        """Return {"crd": mean loss}; remember both embeddings of the batch, and Z if this is the first.

        Raises:
            ValueError: the batch has no indices, or they are no positions in the training set.
        """
        indices = _checked(batch.indices, self.labels)
        embedded = (
            _embedding(self.embed_student, student.features["pooled"]),
            _embedding(self.embed_teacher, teacher.features["pooled"].detach()),
        )
        keys = _mixed(self.key + batch.step) + indices
        negatives = self.draw(self.labels, indices, keys, self.num_negatives)
        return {"crd": self.contrasted(*embedded, torch.cat([indices[:, None], negatives], dim=1)).mean()}

    def contrasted(
        self,
        student: Float[Tensor, "batch dim"],
        teacher: Float[Tensor, "batch dim"],
        contrast: Int64[Tensor, "batch contrast"],
    ) -> Float[Tensor, " batch"]:
        """Return `crd_loss` of embeddings against the memories; then remember them, if `updates_state` is true.

        Args:
            student: unit embeddings of the student's features, [B, dim].
            teacher: unit embeddings of the teacher's features, [B, dim].
            contrast: [B, 1 + K], positions in the training set: of the sample itself, then of K negatives.
        """
        memories = self.student_memory.clone(), self.teacher_memory.clone()  # the backward pass reads them later
        loss, log_z = crd_loss(student, teacher, *memories, contrast, self.log_z, temperature=self.temperature)
        if self.updates_state:
            self.log_z.copy_(distributed.of_first(log_z))
            self.remember(*(distributed.gather(rows) for rows in (contrast[:, 0], student, teacher)))
        return loss

    @torch.no_grad()
    def remember(
        self,
        indices: Int64[Tensor, " batch"],
        student: Float[Tensor, "batch dim"],
        teacher: Float[Tensor, "batch dim"],
    ) -> None:
        """Move the memories of these samples towards their embeddings [B, dim]; of one index twice, the last counts."""
        places = torch.arange(len(indices), device=indices.device)
        last = torch.where(indices[:, None] == indices, places, -1).amax(1)  # equal rows for equal indices
        for memory, embedding in ((self.student_memory, student), (self.teacher_memory, teacher)):
            moved = F.normalize(memory[indices].lerp(embedding.to(memory), 1.0 - self.momentum), dim=1)
            memory.index_copy_(0, indices, moved[last])


def _checked(indices: Tensor | None, labels: Tensor) -> Tensor:
    """Return the indices of a batch; they are positions in the labels of the training set."""
    if indices is None:
        raise ValueError("CRD needs Batch.indices, which is None: the position of each sample in the training set")
    if indices.ndim != 1 or indices.is_floating_point():
        raise ValueError(
            f"Batch.indices has shape {tuple(indices.shape)} and is {indices.dtype}: CRD needs positions in the "
            "training set, [batch], as integers"
        )
    try:
        labels.index_select(0, indices)  # reads nothing back, and refuses negative places
    except IndexError as error:
        raise ValueError(
            f"Batch.indices goes from {int(indices.min())} to {int(indices.max())}, and CRD was made for {len(labels)} "
            "samples: give positions in the training set, counted from 0"
        ) from error
    return indices.long()


def _embedding(embed: nn.Module, pooled: Tensor) -> Tensor:
    """Return the unit embedding [B, dim] of pooled features [B, ...], in at least float32."""
    embedding = at_least_float32(embed(pooled.flatten(1)))
    with full_precision(embedding):
        return F.normalize(embedding, dim=1)
