"""From a run's configuration to a plan that `train.fit` executes: names checked, files read, networks built."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ._version import __version__
from .core import Batch, EachView, Method, Pair, Sum
from .data import DATASETS
from .data.loader import Loader, evaluation_batches
from .data.sets import DataSet, Split
from .data.splits import few_labels, hold_out
from .methods import METHODS
from .models import MODELS
from .models.checkpoints import PUBLISHED, load_into
from .network import Network, pair_of, roles, select_roles
from .run import SHARED_OPTIONS, Data, Run, describe, look_up
from .storage import digest_of, write_json
from .train import Plan, State, Watcher, evaluate
from .weights import read_weights


def build(run: Run, watchers: Sequence[Watcher] = ()) -> Plan:
    """Return the plan of a run. Names are checked first, then files, then data; what is wrong leaves nothing behind.

    Raises:
        ValueError: a name, an option, a file or the data is wrong. FileNotFoundError: a file is not there.
    """
    look_up(DATASETS, run.data.name, "data set")
    look_up(MODELS, run.student, "model")
    check_options(run.losses)
    teacher_weights = _teacher_weights(run)
    fabric = Fabric(accelerator=run.accelerator, devices=1, precision=resolve_precision(run.precision, run.accelerator))
    device = fabric.device
    if run.threads is not None:
        torch.set_num_threads(run.threads)

    data = load_data(run.data)
    train, test = _splits(data, run.data)
    torch.manual_seed(run.seed)
    student = MODELS[run.student](data.num_classes)
    teacher = None
    if run.teacher is not None:
        teacher = MODELS[run.teacher](data.num_classes)
        load_into(teacher, teacher_weights, name=run.teacher, source=str(run.teacher_weights))
    example = torch.zeros(2, *data.image_shape)
    method = build_method(run.losses, student, teacher, example, num_samples=len(train)).to(device)
    student = method.adapt(student).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    optim = run.optim
    optimizer = torch.optim.SGD(
        [*student.parameters(), *method.parameters()],
        lr=optim.lr,
        momentum=optim.momentum,
        weight_decay=optim.weight_decay,
        nesterov=optim.nesterov,
    )
    state = State(
        student=Network(student, select_roles(student, method.student_needs)),
        teacher=_frozen(teacher, method, device),
        method=method,
        optimizer=optimizer,
        autocast=fabric.autocast,
    )
    digest = digest_of(teacher_weights) if teacher_weights else ""
    config = describe(run) | {"teacher_digest": digest, "precision": fabric._precision.precision}
    name = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    plan = Plan(
        state=state,
        loader=Loader(
            train,
            batch_size=optim.batch_size,
            seed=run.stream_seed,
            mean=data.mean,
            std=data.std,
            padding=run.data.padding,
            flip=run.data.flip,
            device=device,
        ),
        test=lambda: _evaluated(test, data, device),
        epochs=optim.epochs,
        learning_rate=optim.rate,
        folder=run.runs / run.recipe / run.pair / name,
        identity={"config": name, "teacher": digest},
        header=_header(run, data),
        seed=run.seed,
        evaluate_every=run.evaluate_every,
        checkpoint_every=run.checkpoint_every,
        watchers=watchers,
    )
    write_json(plan.folder / "run.json", config | {"environment": _environment(fabric)})
    return plan


def build_method(
    losses: Mapping[str, Any],
    student: nn.Module,
    teacher: nn.Module | None,
    example: Tensor,
    *,
    num_samples: int,
) -> Sum:
    """Return the weighted sum of the losses for this pair of networks, measured on an example batch [B, C, H, W]."""
    probes = [Network(module, roles(module)) for module in (student, teacher) if module is not None]
    pair = pair_of(probes[0], probes[1] if teacher is not None else None, example, num_samples=num_samples)
    for probe in probes:
        probe.close()
    return Sum(**{name: (config.weight, _method(config, pair)) for name, config in losses.items()})


def _method(config: Any, pair: Pair) -> Method:
    method = METHODS[config.method].for_pair(pair, **_options(config))
    return EachView(method) if config.each_view else method


def check_options(losses: Mapping[str, Any]) -> None:
    """Let the methods that need no pair check their options.

    Raises:
        ValueError: an option is out of its range.
    """
    for config in losses.values():
        method = METHODS[config.method]
        if method.for_pair.__func__ is Method.for_pair.__func__:  # type: ignore[attr-defined]
            method(**_options(config))


def evaluate_weights(
    path: Path,
    *,
    model: str | None = None,
    data_name: str | None = None,
    root: Path | None = None,
    accelerator: str = "auto",
) -> dict[str, str | int | float]:
    """Return the accuracy in percent of saved weights on the test images of a data set, and what was measured.

    Args:
        path: a safetensors file, or a checkpoint of others.
        model: the architecture, needed where the file's header does not say it.
        data_name: the data set, likewise.
        root: the data set's folder or archive.
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
    module = MODELS[model](data.num_classes)
    load_into(module, weights, name=model, source=str(path))
    mean, std = tuple(header.get("mean", data.mean)), tuple(header.get("std", data.std))
    data = dataclasses.replace(data, mean=mean, std=std)
    result = {"model": model, "data": data_name, "images": len(data.test), **measure(module, data, accelerator)}
    if "recipe" not in header and (data_name, model) in PUBLISHED:
        result["published"] = PUBLISHED[data_name, model].top1
    return result


def measure(module: nn.Module, data: DataSet, accelerator: str = "auto") -> dict[str, float]:
    """Return a network's accuracy in percent on the test images. Moves the network to the accelerator."""
    fabric = Fabric(accelerator=accelerator, devices=1, precision=resolve_precision("auto", accelerator))
    module.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return evaluate(module, _evaluated(data.test, data, fabric.device), fabric.autocast)


def load_data(data: Data) -> DataSet:
    """Return the data set, with the classes and the image size that are asked for."""
    read = DATASETS[data.name]
    return read(data.root, image_size=data.image_size, num_classes=data.num_classes, download=data.download)


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


def _teacher_weights(run: Run) -> dict[str, Tensor]:
    if run.teacher is None:
        if run.teacher_weights is not None:
            raise ValueError(f"teacher_weights is {run.teacher_weights}, but the recipe {run.recipe} has no teacher")
        return {}
    look_up(MODELS, run.teacher, "model")
    if run.teacher_weights is None:
        raise ValueError(
            f"the recipe {run.recipe} needs weights of a trained {run.teacher}: pass --teacher-weights FILE, made by "
            f"`rankdistill train-teacher {run.recipe.split('.')[0]} --model {run.teacher}`"
        )
    weights, header = read_weights(run.teacher_weights)
    saved = header.get("model", run.teacher)
    if saved != run.teacher:
        raise ValueError(f"{run.teacher_weights} holds a {saved}, not a {run.teacher}: pass --teacher {saved}")
    return weights


def _options(config: Any) -> dict[str, Any]:
    """The method's own options, without those that every loss has."""
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in SHARED_OPTIONS}


def _evaluated(split: Split, data: DataSet, device: torch.device) -> Iterator[Batch]:
    return evaluation_batches(split, batch_size=500, mean=data.mean, std=data.std, device=device)


def _splits(data: DataSet, config: Data) -> tuple[Split, Split]:
    train, test = data.train, data.test
    if config.held_out:
        train, test = hold_out(train, config.held_out, seed=config.subset_seed)
    if config.num_labels is not None:
        train = few_labels(train, config.num_labels, seed=config.subset_seed)
    return train, test


def _frozen(teacher: nn.Module | None, method: Method, device: torch.device) -> Network | None:
    if teacher is None:
        return None
    teacher = teacher.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Network(teacher, select_roles(teacher, method.teacher_needs), frozen=True, mode=method.teacher_mode)


def _header(run: Run, data: DataSet) -> dict[str, Any]:
    """What a weights file says of itself, so that `evaluate` and others need no options."""
    return {
        "rankdistill": __version__,
        "recipe": run.recipe,
        "model": run.student,
        "class_names": data.class_names,
        "data": {
            "name": run.data.name,
            "image_size": run.data.image_size,
            "num_classes": run.data.num_classes,
        },
        "mean": data.mean,
        "std": data.std,
    }


def _environment(fabric: Fabric) -> dict[str, Any]:
    return {
        "rankdistill": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": str(fabric.device),
        "threads": torch.get_num_threads(),
    }
