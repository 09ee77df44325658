"""Accuracy of saved weights, ours and others', on the test images of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data import DATASETS
from ..data.dataset import DataSet
from ..methods import DEPLOYED
from ..models import MODELS
from ..training.evaluate import evaluate
from ..weights.foreign import PUBLISHED, check_fit, load_into
from ..weights.reading import read_weights
from .config import Data
from .fitting import Classes, check_views, chosen_classes
from .launch import fabric_of
from .options import look_up
from .streams import load_data, test_batches, view_shape


def evaluate_weights(
    path: Path,
    *,
    model: str | None = None,
    data_name: str | None = None,
    root: Path | None = None,
    classes: Classes = "same",
    accelerator: str = "auto",
) -> dict[str, str | int | float]:
    """Return the accuracy in percent of saved weights on the test images of a data set, and what was measured.

    Args:
        path: a safetensors file, or a checkpoint of others.
        model: the architecture, needed where the file's header does not say it.
        data_name: the data set, likewise.
        root: the data set's folder or archive.
        classes: "same" if the file is for the data's classes in their order; "by-name" takes these out of its own.
        accelerator: "auto", "cpu", "cuda" or "mps".

    Raises:
        ValueError: a name, the file or the data is wrong. FileNotFoundError: a file is not there.
    """
    weights, header = read_weights(path)
    saved = header.get("data", {})
    model = model or header.get("model")
    data_name = data_name or saved.get("name")
    if model is None or data_name is None:
        raise ValueError(f"{path} does not say its model and data set: pass --model and --data")
    look_up(MODELS, model, "model")
    look_up(DATASETS, data_name, "data set")
    config = Data(**saved, root=root) if data_name == saved.get("name") else Data(name=data_name, root=root)
    data = load_data(config)
    check_views(header, data, view_shape(data, config), path)
    chosen = chosen_classes(header, data, source=path, classes=classes, option="--classes")
    num_classes = data.num_classes if chosen is None else len(header["class_names"])
    if "deployed" in header:
        look_up(DEPLOYED, header["deployed"], "deployed student")
        _check_deployed(header["deployed"], model, num_classes, weights, view_shape(data, config), path)
    module = _network(header.get("deployed"), model, num_classes, weights)
    load_into(module, weights, name=model, source=str(path))
    if chosen is not None:
        module = nn.Sequential(module, _Columns(chosen))
    result = {"model": model, "data": data_name, "images": len(data.test), **measure(module, data, config, accelerator)}
    if "recipe" not in header and (data_name, model) in PUBLISHED:
        result["published"] = PUBLISHED[data_name, model].top1
    return result


class _Columns(nn.Module):
    """Some of the logits, in a new order."""

    def __init__(self, chosen: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("chosen", torch.tensor(chosen))

    def forward(self, logits: Tensor) -> Tensor:
        return logits.index_select(1, self.get_buffer("chosen"))


def _network(deployed: str | None, model: str, num_classes: int, weights: Mapping[str, Tensor]) -> nn.Module:
    plain: nn.Module = MODELS[model](num_classes)
    return plain if deployed is None else DEPLOYED[deployed].rebuild(plain, weights)


def _check_deployed(
    deployed: str, model: str, num_classes: int, weights: Mapping[str, Tensor], shape: tuple[int, int, int], path: Path
) -> None:
    """Raise ValueError unless the weights are those of a deployed student; nothing takes memory that is not theirs."""
    try:
        with torch.device("meta"):
            module = _network(deployed, model, num_classes, weights)
            found = module.to("meta").eval()(torch.empty(2, *shape)).shape
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{path} holds no {model} as {deployed} deploys it: fetch the file again") from error
    check_fit(module, weights, name=f"{model} of {deployed}", source=str(path))
    if found != (2, num_classes):
        raise ValueError(f"{path} holds a {model} for {found[1]} classes, {num_classes} are needed: fetch it again")


def measure(module: nn.Module, data: DataSet, config: Data, accelerator: str = "auto") -> dict[str, float]:
    """Return a network's accuracy in percent on the test images. Moves the network to the accelerator."""
    fabric = fabric_of(accelerator, devices=1)
    module.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return evaluate(module, test_batches(data.test, data, config, fabric.device), fabric.autocast)
