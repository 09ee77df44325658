"""Two networks and the methods between them, ready for a training loop: yours or ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .contract import Method, Pair, given
from .methods.combine import Sum
from .network import Network
from .taps import roles, select_roles

Term = Method | type[Method] | Callable[[Pair], Method]
"""A method; or a class, which is made for the pair by its `for_pair`; or a function that makes a method of the pair."""


class Assembled(NamedTuple):
    """What a training step runs: `method(batch, student, teacher)` returns the losses of a batch.

    Attributes:
        method: the weighted sum of the methods. Its parameters, if it has any, are trained with the student's.
        student: the network that is trained, as the methods changed it. `student.module` is the bare network.
        teacher: the teacher, frozen and in eval mode. It is None if no teacher was given.
    """

    method: Sum
    student: Network
    teacher: Network | None


def assemble(
    terms: Mapping[str, tuple[float, Term]],
    student: nn.Module,
    teacher: nn.Module | None,
    images: Tensor,
    *,
    num_samples: int,
    labels: Tensor | None = None,
) -> Assembled:
    """Return methods and networks that fit each other, ready for a training loop.

    Both networks run once on `images`, to learn the shapes of their features. Nothing of them changes in this run.
    Before the first step of a training, call `method.prepare(teacher, lambda: [batch])`: some methods measure something
    there, and it returns what is worth knowing, a sentence each. Each `Batch` of a training says its `epoch` and
    `step`: warm-ups, schedules and draws of methods depend on them.

    A network whose roles are not known by themselves declares them: `module.roles = {"last": "name.of.a.submodule"}`.

    Args:
        terms: name -> (weight, method). A method that depends on the networks is given as its class, which then gets
            its default options, or as `functools.partial(CRD.for_pair, dim=64)`, which sets some.
        student: the network to train: images [B, C, H, W] to logits [B, K].
        teacher: the network that the student learns from, or None. It is frozen.
        images: an example of the training images, [B, C, H, W], on the device of the networks. Two images are enough.
        num_samples: the size of the training set.
        labels: [num_samples] int64, the class of each training sample, where it is known. CRD reads them.

    Raises:
        ValueError: a method does not fit these networks, reads a role that a network does not have, or reads a teacher
            where there is none; `labels` are not one for each sample; or student and teacher are one module.
        TypeError: a term is not a weight and a method, or a network is no module.

    Example:
        >>> from rankdistill import MODELS, CrossEntropy, CRD, assemble
        >>> terms = {"task": (1.0, CrossEntropy()), "crd": (0.8, CRD)}
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """
    _check(terms, student, teacher)
    probes = [Network(module, roles(module)) for module in (student, teacher) if module is not None]
    pair = pair_of(
        probes[0], probes[1] if teacher is not None else None, images, num_samples=num_samples, labels=labels
    )
    for probe in probes:
        probe.close()
    method = Sum(**{name: (weight, _made(term, pair)) for name, (weight, term) in terms.items()}).to(images.device)
    if teacher is None:
        given(None if method.reads_teacher else method, f"a term of {', '.join(terms)}")
    if images.dtype == torch.float64:
        method = method.double()
    adapted = method.adapt(student)
    frozen = None
    if teacher is not None:
        taps = select_roles(teacher, method.teacher_needs)
        frozen = Network(teacher, taps, frozen=True, mode=method.teacher_mode)
    return Assembled(method, Network(adapted, select_roles(adapted, method.student_needs)), frozen)


def pair_of(
    student: Network, teacher: Network | None, images: Tensor, *, num_samples: int, labels: Tensor | None = None
) -> Pair:
    """Return what is known of both networks after one dry run of each on `images` [B, C, H, W].

    Raises:
        ValueError: `labels`, those of the training set, are not as many as its samples.

    Example:
        >>> student, teacher = (Network(MODELS[name](10)) for name in ("resnet8", "resnet14"))
        >>> pair_of(student, teacher, torch.zeros(2, 3, 32, 32), num_samples=50_000).num_classes
        10
    """
    if labels is not None and labels.shape != (num_samples,):
        raise ValueError(f"labels have shape {tuple(labels.shape)}: give one for each of the {num_samples} samples")
    student_shapes = student.probe(images)
    teacher_shapes = teacher.probe(images) if teacher is not None else {}
    return Pair(
        student=student.module,
        teacher=teacher.module if teacher is not None else None,
        student_shapes=student_shapes,
        teacher_shapes=teacher_shapes,
        num_classes=student_shapes["logits"][0],
        num_samples=num_samples,
        labels=labels,
    )


def _check(terms: Mapping[str, tuple[float, Term]], student: nn.Module, teacher: nn.Module | None) -> None:
    for name, pair in terms.items():
        right = isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], int | float)
        if not right or not (isinstance(pair[1], Method) or callable(pair[1])):
            raise TypeError(f"the term {name!r} is {pair!r}: give (weight, method), such as (0.9, KD()) or (0.8, CRD)")
    if not isinstance(student, nn.Module) or not isinstance(teacher, nn.Module | None):
        found = student if not isinstance(student, nn.Module) else teacher
        raise TypeError(f"a network is a {type(found).__name__}: give an nn.Module that maps images to logits")
    if student is teacher:
        raise ValueError("student and teacher are one module, which cannot both learn and be frozen: give two")


def _made(term: Term, pair: Pair) -> Method:
    if isinstance(term, Method):
        return term
    make: Callable[[Pair], Method] = getattr(term, "for_pair", term)
    return make(pair)
