"""Training recipes of the field: optimizer, epochs and augmentation, by the name of whose they are.

A method's numbers depend on the protocol as much as on its loss; the paper compares rows that were trained under
several of them. Momentum is 0.9, without Nesterov, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..runs.config import Data, Optim

_CIFAR = Data(name="cifar100", padding=4, flip=True)
_TINY = Data(name="tiny_imagenet", padding=8, flip=True)
_DROPS = (150, 180, 210)
_LIGHT = ("mobilenetv2", "shufflenetv1", "shufflenetv2")


@dataclass(frozen=True)
class Protocol:
    """How a student is trained, whatever its losses.

    Attributes:
        data: the images and their augmentation; a second, strong view is added for losses that read one.
        optim: the optimizer and its schedule.
    """

    data: Data
    optim: Optim


def mdistiller(dataset: str, student: str) -> Protocol:
    """Return mdistiller's and RepDistiller's recipe: 240 epochs, batch 64, rate 0.05 (0.01 for light students).

    It is in mdistiller's cifar100/*.yaml and in RepDistiller's train_student.py. For Tiny-ImageNet mdistiller has only
    DOT's recipe: there it is the one of CIFAR-100, with a crop of padding 8.
    """
    optim = Optim(epochs=240, batch_size=64, lr=_rate(student, 0.05), milestones=_DROPS)
    return Protocol(_CIFAR if dataset == "cifar100" else _TINY, optim)


def mlkd(dataset: str, student: str) -> Protocol:
    """Return MLKD's recipe: as mdistiller's with rate 0.025 (0.01 for light students); its epochs are per pair.

    It is in MLKD's cifar100/ours/*.yaml of September 2024. MLKD has none for Tiny-ImageNet: there it is the same, with
    a crop of padding 8.
    """
    optim = Optim(epochs=240, batch_size=64, lr=_rate(student, 0.025), milestones=_DROPS)
    return Protocol(_CIFAR if dataset == "cifar100" else _TINY, optim)


def crld(dataset: str, student: str) -> Protocol:
    """Return CRLD's recipe: mdistiller's, with two views.

    It is in CRLD's cifar100/crld/*.yaml and tiny_imagenet. Images of Tiny-ImageNet are normalised with mdistiller's
    constants, where CRLD uses ImageNet's.
    """
    base = mdistiller(dataset, student)
    return base if dataset == "cifar100" else replace(base, optim=replace(base.optim, lr=0.05))


def dot(dataset: str, student: str) -> Protocol:
    """Return the recipe of DOT's experiments: mdistiller's; on Tiny-ImageNet 200 epochs at rate 0.2, without a crop.

    It is in mdistiller's cifar100/dot/*.yaml and tiny_imagenet/dot/*.yaml.
    """
    if dataset == "cifar100":
        return mdistiller(dataset, student)
    data = Data(name="tiny_imagenet", padding=0, flip=True, rotation=20.0)
    return Protocol(data, Optim(epochs=200, batch_size=256, lr=0.2, milestones=(60, 120, 160)))


def paper(dataset: str, student: str) -> Protocol:
    """Return the ranking alignment paper's recipe: 300 epochs at rate 0.025; on Tiny-ImageNet 240, batch 128, 0.05.

    It is in the paper's section 4.1, which names no exception for light students. All related work trains them at a
    lower rate: 0.01 here on CIFAR-100, as MLKD does. The paper does not state its augmentation on Tiny-ImageNet: crop
    with padding 8 and flip here.
    """
    if dataset == "cifar100":
        return Protocol(_CIFAR, Optim(epochs=300, batch_size=64, lr=_rate(student, 0.025), milestones=_DROPS))
    return Protocol(_TINY, Optim(epochs=240, batch_size=128, lr=0.05, milestones=_DROPS))


PROTOCOLS: dict[str, Callable[[str, str], Protocol]] = {
    "paper": paper,
    "mdistiller": mdistiller,
    "mlkd": mlkd,
    "crld": crld,
    "dot": dot,
}
"""Name -> function of the names of the data set and of the student."""


def _rate(student: str, rate: float) -> float:
    return 0.01 if student.removeprefix("tiny_") in _LIGHT else rate
