"""Checkpoints as others' programs write them, made here from a network of ours."""

from __future__ import annotations

import argparse
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ACCURACY = 76.25


def save(path: Path, content: object) -> None:
    torch.save(content, path)


def save_as_before_1_6(path: Path, content: object) -> None:
    """Write the format that is no zip file."""
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_under_numpy_1(path: Path, content: object) -> None:
    """Write a zip file in which NumPy's scalars are named as NumPy 1 named them."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def save_under_numpy_1_as_before_1_6(path: Path, content: object) -> None:
    save_as_before_1_6(path, content)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def optimizer_of(module: nn.Module) -> dict[str, Any]:
    """The state of SGD with momentum after some steps."""
    parameters = list(module.parameters())
    group = {"lr": 0.05, "momentum": 0.9, "nesterov": False, "foreach": None, "params": list(range(len(parameters)))}
    momenta = {number: {"momentum_buffer": torch.randn_like(p)} for number, p in enumerate(parameters)}
    return {"state": momenta, "param_groups": [group]}


def repdistiller(module: nn.Module) -> dict[str, Any]:
    return {
        "epoch": 240,
        "model": module.state_dict(),
        "accuracy": torch.tensor(ACCURACY),
        "optimizer": optimizer_of(module),
    }


def repdistiller_best(module: nn.Module) -> dict[str, Any]:
    return {"epoch": 171, "model": module.state_dict(), "best_acc": torch.tensor([ACCURACY])}


def repdistiller_last(module: nn.Module) -> dict[str, Any]:
    options = argparse.Namespace(model="resnet8", lr_decay_epochs=[150, 180, 210], learning_rate=0.05)
    return {"opt": options, "model": module.state_dict(), "optimizer": optimizer_of(module)}


def mdistiller_student(module: nn.Module) -> dict[str, Any]:
    return {"model": module.state_dict()}


def mdistiller_training(module: nn.Module) -> dict[str, Any]:
    """A distiller in DataParallel: the student, a teacher of another shape, a module of the method."""
    distiller = nn.Module()
    distiller.student = module
    distiller.teacher = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    distiller.embed = nn.Linear(4, 4)
    state = nn.DataParallel(distiller).state_dict()
    return {"epoch": 240, "model": state, "optimizer": optimizer_of(module), "best_acc": np.float64(ACCURACY)}


def reviewkd(module: nn.Module) -> OrderedDict[str, Tensor]:
    return OrderedDict(module.state_dict())


def parallel(module: nn.Module) -> dict[str, Any]:
    return {"net": nn.DataParallel(nn.DataParallel(module)).state_dict(), "acc": ACCURACY, "epoch": 200}


def without_counters(module: nn.Module) -> dict[str, Any]:
    state = {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    return {"epoch": 240, "state_dict": state, "accuracy": torch.tensor(ACCURACY)}


LAYOUTS: dict[str, tuple[Callable[[nn.Module], object], Callable[[Path, object], None], float | None]] = {
    "RepDistiller": (repdistiller, save, ACCURACY),
    "RepDistiller, old format": (repdistiller, save_as_before_1_6, ACCURACY),
    "RepDistiller best": (repdistiller_best, save, ACCURACY),
    "RepDistiller last": (repdistiller_last, save, None),
    "RepDistiller last, old format": (repdistiller_last, save_as_before_1_6, None),
    "mdistiller student": (mdistiller_student, save, None),
    "mdistiller training": (mdistiller_training, save, ACCURACY),
    "mdistiller training, NumPy 1": (mdistiller_training, save_under_numpy_1, ACCURACY),
    "mdistiller training, NumPy 1, old format": (mdistiller_training, save_under_numpy_1_as_before_1_6, ACCURACY),
    "ReviewKD": (reviewkd, save, None),
    "ReviewKD, old format": (reviewkd, save_as_before_1_6, None),
    "DataParallel twice": (parallel, save, None),
    "PyTorch 0.4.0": (without_counters, save_as_before_1_6, ACCURACY),
}
"""Name -> what is saved of a network, how it is written, and the accuracy that the file states."""


def write(layout: str, path: Path, module: nn.Module) -> None:
    make, put, _ = LAYOUTS[layout]
    put(path, make(module))
