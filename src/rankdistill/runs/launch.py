"""The machine's side of a run: processes, devices, precision."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any, Literal

import torch
from lightning_fabric import Fabric

from .. import distributed
from .._version import __version__
from .config import Run


def launched(run: Run) -> Fabric:
    """Return a Fabric whose processes have met. It starts them itself, except under torchrun or SLURM."""
    fabric = Fabric(
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.num_nodes,
        strategy="ddp" if run.devices * run.num_nodes > 1 else "auto",
        precision=resolve_precision(run.precision, run.accelerator),
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
