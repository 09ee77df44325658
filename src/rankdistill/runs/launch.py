"""The machine's side of a run: processes, devices, precision."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from .. import distributed
from .._version import __version__
from .config import Run

if TYPE_CHECKING:  # it takes seconds to import, which help, lists and errors need not wait for
    from lightning_fabric import Fabric


def fabric_of(accelerator: str, precision: str = "auto", **options: Any) -> Fabric:
    """Return a Fabric that does not tell what it was given.

    Raises:
        ValueError: this machine has no such accelerator, or fewer devices than are asked for.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(accelerator, True):
        raise ValueError(
            f"accelerator is {accelerator}, but torch finds none here: pass --accelerator cpu, or install a torch "
            "that was built for it"
        )
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    return Fabric(accelerator=accelerator, precision=resolve_precision(precision, accelerator), **options)


def launched(run: Run) -> Fabric:
    """Return a Fabric whose processes have met. It starts them itself, except under torchrun or SLURM."""
    fabric = fabric_of(
        run.accelerator,
        run.precision,
        devices=run.devices,
        num_nodes=run.num_nodes,
        strategy="ddp" if run.devices * run.num_nodes > 1 else "auto",
    )
    fabric.launch()
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    return fabric


def resolve_precision(precision: str, accelerator: str = "auto") -> Literal["32-true", "bf16-mixed"]:
    """Return the precision, where "auto" is bf16-mixed on CUDA from Ampere and on CPUs with bf16 instructions."""
    if precision == "auto":
        if accelerator in ("auto", "cuda") and torch.cuda.is_available():
            fast = torch.cuda.get_device_capability() >= (8, 0)
        else:
            can: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
            fast = accelerator in ("auto", "cpu") and (can.get("amx_bf16", False) or can.get("avx512_bf16", False))
        return "bf16-mixed" if fast else "32-true"
    return "bf16-mixed" if precision == "bf16-mixed" else "32-true"


def environment(fabric: Fabric) -> dict[str, Any]:
    """Return what the run's numbers may depend on, beside its configuration."""
    return {
        "rankdistill": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": str(fabric.device),
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
    }
