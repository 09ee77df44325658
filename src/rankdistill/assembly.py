"""Two networks and the methods between them, ready for a training loop: yours or ours."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .contract import Method, Pair, check_classes, given
from .methods.combine import Sum
from .network import Network
from .taps import roles, select_roles

Term = Method | type[Method] | Callable[[Pair], Method]
"""A method; or a class, or `functools.partial` of one, whose `for_pair` makes the method; or a function of a pair."""


class Assembled(NamedTuple):
    """What a training step runs: `method(batch, student, teacher)` returns the losses of a batch.

    Attributes:
        method: the weighted sum of the methods. Its parameters, if it has any, are trained with the student's.
        student: the network that is trained, as the methods changed it. `student.module` is the bare network.
        teacher: the teacher, frozen and in eval mode. It is None if no teacher was given.

    Example:
        >>> import torch
        >>> from rankdistill import KD, MODELS, Batch, assemble
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> ready = assemble({"kd": (1.0, KD())}, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
        >>> losses = ready.method(Batch(torch.randn(4, 3, 32, 32), None), ready.student, ready.teacher)
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
    logits: int | str | None = None,
) -> Assembled:
    """Return methods and networks that fit each other, ready for a training loop.

    Both networks run once on `images`, to learn the shapes of their features. Nothing of them changes in this run.
    Before the first step of a training, call `method.prepare(teacher, lambda: [batch])`: some methods measure something
    there, and it returns what is worth knowing, a sentence each. Each `Batch` of a training says its `epoch` and
    `step`: warm-ups, schedules and draws of methods depend on them.

    A network whose roles are not known by themselves declares them: `module.roles = {"last": "name.of.a.submodule"}`.

    Methods without layers of their own work in any precision of the networks. The layers of the others are in float64
    if the images are, else in float32: in half precision train by `torch.autocast`, networks and images in float32.

    Args:
        terms: name -> (weight, method). A method that depends on the networks is given as its class, which then gets
            its default options, or as `functools.partial(CRD, dim=64)`, which sets some.
        student: the network to train: images [B, C, H, W] to logits [B, K].
        teacher: the network that the student learns from, or None. It is frozen.
        images: an example of the training images, [B, C, H, W], on the device of the networks. Two images are enough.
        num_samples: the size of the training set.
        labels: [num_samples] integers, the class of each training sample, where it is known. CRD reads them.
        logits: where the logits are if a network returns a tuple (an index) or a mapping (a key): 0 for torchvision's
            GoogLeNet and Inception, which do so while they train. A network that returns a tensor needs none.

    Raises:
        ValueError: a method does not fit these networks, reads a role that a network does not have, or reads a teacher
            where there is none; networks and images differ in device or precision; networks differ in their classes,
            and a method compares these; `labels` are not one for each sample; or student and teacher are one module.
        TypeError: a term is not a weight and a method, a network is no module, or it returns no logits.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, CrossEntropy, CRD, assemble
        >>> terms = {"task": (1.0, CrossEntropy()), "crd": (0.8, CRD)}
        >>> networks = MODELS["resnet8"](10), MODELS["resnet14"](10)
        >>> method, student, teacher = assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=50_000)
    """
    _check(terms, student, teacher)
    probes = [Network(module, roles(module), logits=logits) for module in (student, teacher) if module is not None]
    pair = pair_of(
        probes[0], probes[1] if teacher is not None else None, images, num_samples=num_samples, labels=labels
    )
    for probe in probes:
        probe.close()
    made = {name: (weight, _made(name, term, pair)) for name, (weight, term) in terms.items()}
    for name, (_, term) in made.items():
        _check_fit(name, term, pair, images)
    method = Sum(**made).to(images.device, torch.float64 if images.dtype == torch.float64 else None)
    adapted = method.adapt(student)
    frozen = None
    if teacher is not None:
        taps = select_roles(teacher, method.teacher_needs)
        frozen = Network(teacher, taps, frozen=True, mode=method.teacher_mode, logits=logits)
    taps = select_roles(adapted, method.student_needs)
    return Assembled(method, Network(adapted, taps, logits=logits), frozen)


def pair_of(
    student: Network, teacher: Network | None, images: Tensor, *, num_samples: int, labels: Tensor | None = None
) -> Pair:
    """Return what is known of both networks after one dry run of each on `images` [B, C, H, W].

    Raises:
        ValueError: `labels`, those of the training set, are not one integer for each of its samples; or a network and
            the images differ in device or precision.

    Example:
        >>> import torch
        >>> from rankdistill import MODELS, Network, pair_of
        >>> student, teacher = (Network(MODELS[name](10)) for name in ("resnet8", "resnet14"))
        >>> pair_of(student, teacher, torch.zeros(2, 3, 32, 32), num_samples=50_000).num_classes
        10
    """
    if labels is not None:
        _check_labels(labels, num_samples)
    student_shapes = _shapes(student, images, "student")
    teacher_shapes = _shapes(teacher, images, "teacher") if teacher is not None else {}
    return Pair(
        student=student.module,
        teacher=teacher.module if teacher is not None else None,
        student_shapes=student_shapes,
        teacher_shapes=teacher_shapes,
        num_classes=student_shapes["logits"][0],
        num_samples=num_samples,
        labels=None if labels is None else labels.long(),
    )


def _shapes(network: Network, images: Tensor, who: str) -> dict[str, tuple[int, ...]]:
    """Return what a dry run finds; where it fails on images of another kind than the parameters, say so."""
    try:
        return network.probe(images)
    except RuntimeError as error:
        parameter = next(network.module.parameters(), images)
        if (parameter.device, parameter.dtype) == (images.device, images.dtype):
            raise
        raise ValueError(
            f"the {who} is in {parameter.dtype} on {parameter.device}, the images in {images.dtype} on "
            f"{images.device}: give both the same device and precision"
        ) from error


def _check_labels(labels: Tensor, num_samples: int) -> None:
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels are a {type(labels).__name__}: give a tensor, such as torch.tensor(dataset.targets)")
    if labels.shape != (num_samples,):
        raise ValueError(f"labels have shape {tuple(labels.shape)}: give one for each of the {num_samples} samples")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are {labels.dtype}: give the class of each sample as an integer")


def _check(terms: Mapping[str, tuple[float, Term]], student: nn.Module, teacher: nn.Module | None) -> None:
    for name, pair in terms.items():
        if not isinstance(name, str):
            raise TypeError(f"a term is called {name!r}: its name must be a string")
        right = isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], int | float)
        if not right or not (isinstance(pair[1], Method) or callable(pair[1])):
            raise TypeError(f"the term {name!r} is {pair!r}: give (weight, method), such as (0.9, KD()) or (0.8, CRD)")
    if not isinstance(student, nn.Module) or not isinstance(teacher, nn.Module | None):
        found = student if not isinstance(student, nn.Module) else teacher
        raise TypeError(f"a network is a {type(found).__name__}: give an nn.Module that maps images to logits")
    if student is teacher:
        raise ValueError("student and teacher are one module, which cannot both learn and be frozen: give two")


def _made(name: str, term: Term, pair: Pair) -> Method:
    if isinstance(term, Method):
        return term
    make: Callable[..., Method] = term
    options: dict[str, Any] = {}
    if isinstance(term, functools.partial) and isinstance(term.func, type) and not term.args:
        make, options = term.func, term.keywords
    made = getattr(make, "for_pair", make)(pair, **options)
    if not isinstance(made, Method):
        raise TypeError(f"the term {name!r} makes a {type(made).__name__} of the pair: it must make a Method")
    return made


def _check_fit(name: str, term: Method, pair: Pair, images: Tensor) -> None:
    """Raise ValueError if a method cannot work with these networks for reasons that are the same for all methods."""
    if term.reads_teacher:
        given(pair.teacher, name)
    for part in term.modules():
        alone = isinstance(part, Method) and not any(isinstance(m, Method) for m in list(part.modules())[1:])
        if alone and part.reads_teacher and not part.teacher_needs and not part.any_classes:
            check_classes(pair, name)
    layers = [
        m for m in term.modules() if not isinstance(m, Method) and next(m.parameters(recurse=False), None) is not None
    ]
    if layers and images.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"the images are in {images.dtype}, and {name} has layers of its own, which are trained in float32: keep "
            "networks and images in float32, and train under torch.autocast"
        )
