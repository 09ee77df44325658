"""Golden values of the networks, and the rule by which their parameters were filled."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "golden" / "models"
SIZES: dict[str, dict[str, Any]] = json.loads((FOLDER / "networks.json").read_text())
Golden = dict[str, np.ndarray]


def filled(module: nn.Module) -> nn.Module:
    """Fill every tensor from a generator seeded with the CRC-32 of its name, by the golden files' rule."""
    own = module.state_dict()
    for name, tensor in own.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        owner, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            tensor.zero_()
        elif leaf == "running_var" or (leaf == "weight" and f"{owner}.running_var" in own):
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)
        else:
            if leaf == "weight":
                scale = math.prod(tensor.shape[1:]) ** -0.5
            else:
                scale = 0.1 if f"{owner}.running_var" in own else 0.05
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * scale)
    return module


def golden_images(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)


def assert_near(value: Tensor, golden: np.ndarray, *, tolerance: float, scale: float | None = None) -> None:
    """Compare to a tolerance relative to `scale`, which is the largest golden value if not given."""
    difference = (value.double() - torch.as_tensor(golden)).abs().max().item()
    assert difference <= tolerance * (np.abs(golden).max() if scale is None else scale)
