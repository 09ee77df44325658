"""Others' checkpoints as safetensors files that say what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._version import __version__
from ..data import DATASETS
from ..data.dataset import DataSet
from ..models import MODELS
from ..weights.foreign import PUBLISHED, Checkpoint, Subtree, check_fit, load_into, read_checkpoint
from ..weights.reading import is_safetensors
from ..weights.storage import save_weights
from .config import Data
from .evaluate import measure
from .options import look_up
from .streams import load_data


def convert_checkpoint(
    path: Path,
    *,
    model: str,
    out: Path | None = None,
    data_name: str | None = None,
    root: Path | None = None,
    subtree: Subtree = "student",
    accelerator: str = "auto",
) -> dict[str, str | int | float]:
    """Write a checkpoint of others as safetensors; return what was written and, if there are images, its accuracy.

    Args:
        path: the checkpoint.
        model: its architecture.
        out: the new file; by default beside `path`, with the ending .safetensors.
        data_name: measure the accuracy on the test images of this data set.
        root: the data set's folder or archive.
        subtree: which network, where the file holds a student and a teacher.
        accelerator: "auto", "cpu", "cuda" or "mps".

    Raises:
        ValueError: a name, the file or the data is wrong, or the new file exists.
        FileNotFoundError: a file is not there.
    """
    look_up(MODELS, model, "model")
    if data_name is not None:
        look_up(DATASETS, data_name, "data set")
    elif root is not None:
        raise ValueError(f"root is {root}, but no data set is named: pass --data, or leave out root")
    target = out or _beside(path)
    if target.exists():
        raise ValueError(f"{target} is there already: name another file with --out, or remove it")
    if is_safetensors(path):
        raise ValueError(f"{path} is a safetensors file already: use it as it is")
    checkpoint = read_checkpoint(path, subtree=subtree)
    config = Data(name=data_name or "", root=root)
    data = load_data(config) if data_name else None
    num_classes = data.num_classes if data else _num_classes(checkpoint, model)
    with torch.device("meta"):  # first without memory, since the file says for how many classes
        check_fit(MODELS[model](num_classes), checkpoint.weights, name=model, source=str(path))
    module = MODELS[model](num_classes)
    load_into(module, checkpoint.weights, name=model, source=str(path))

    result: dict[str, str | int | float] = {"file": str(target), "model": model}
    if checkpoint.left:  # a moving average beside the weights
        result |= {"taken": checkpoint.taken or "the top", "left": f"{checkpoint.left}: pass --subtree ema to take it"}
    if checkpoint.accuracy is not None:
        result["stated"] = checkpoint.accuracy
    if data and data_name:
        result |= {"data": data_name, "images": len(data.test), **measure(module, data, config, accelerator)}
        if (data_name, model) in PUBLISHED:
            result["published"] = PUBLISHED[data_name, model].top1
    save_weights(target, module.state_dict(), _header(path, model, data, data_name, result))
    return result


def _beside(path: Path) -> Path:
    stem = path.stem if path.suffix in (".pth", ".pt", ".bin", ".ckpt") else path.name
    return path.with_name(f"{stem}.safetensors")


def _num_classes(checkpoint: Checkpoint, model: str) -> int:
    """How many classes the weights are for: the length of the classifier's bias, the last tensor of our networks."""
    with torch.device("meta"):
        module: nn.Module = MODELS[model](1)
    bias = checkpoint.weights.get(list(module.state_dict())[-1])
    return 1 if bias is None or bias.ndim == 0 else len(bias)  # without one it is another model, which is said later


def _header(
    path: Path, model: str, data: DataSet | None, data_name: str | None, result: dict[str, str | int | float]
) -> dict[str, Any]:
    header: dict[str, Any] = {"rankdistill": __version__, "converted_from": path.name, "model": model}
    if data is not None:
        header |= {
            "class_names": data.class_names,
            "data": {"name": data_name, "image_size": None, "num_classes": None},
            "image_shape": data.image_shape,
            "mean": data.mean,
            "std": data.std,
            "top1": result["top1"],
        }
    return header
