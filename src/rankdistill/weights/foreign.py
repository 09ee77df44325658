"""Others' checkpoints: read without running what is in them, and put into networks.

Known are the layouts of RepDistiller (also TTM, NORM, FCFD, ICKD, CTKD, DIST), of mdistiller (also MLKD, LSKD, CAT-KD),
whose training output holds student and teacher in one, and of ReviewKD, a bare state dict; in the zip format of today
or the one before PyTorch 1.6. Only tensors, plain containers and numbers are read from them (see `weights.pickles`).

The file is long because each of these repositories nests and names its weights in another way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .archives import archive_kind
from .pickles import ForgedPickle, read_pickled

Subtree = Literal["student", "teacher", "ema"]

_PLACES = ("model", "state_dict", "net", "model_state_dict")
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")
"""What DataParallel, torch.compile and training programs put before every name."""
_BESIDE = re.compile(r"(^|\.)(n_averaged|total_ops|total_params)$")
"""Counters of AveragedModel and of programs that count operations: no part of a network."""
_GLOBAL = re.compile(r"GLOBAL (\S+)")
_MAX_NAME = 1000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds of one network.

    Attributes:
        weights: name -> tensor on the CPU, without prefixes; batch norms have all their buffers.
        accuracy: what the file says of it, in percent in all known files; None if it says nothing.
        taken: where in the file the weights were, such as "state_dict"; empty where the file is a bare state dict.
        left: where in the file a moving average of them was, which was not taken; empty if there was none.

    Example:
        >>> from rankdistill import MODELS, Checkpoint, load_into
        >>> checkpoint = Checkpoint(MODELS["resnet8"](10).state_dict(), accuracy=88.1)
        >>> load_into(MODELS["resnet8"](10), checkpoint.weights, name="resnet8", source="another network")
    """

    weights: dict[str, Tensor]
    accuracy: float | None = None
    taken: str = ""
    left: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """A file that its authors publish.

    Attributes:
        file: where it is in their archive or on their server.
        top1: accuracy on the test images in percent, by their tables.
    """

    file: str
    top1: float


PUBLISHED: dict[tuple[str, str], Published] = {
    ("cifar100", "resnet56"): Published("resnet56_vanilla/ckpt_epoch_240.pth", 72.34),
    ("cifar100", "resnet110"): Published("resnet110_vanilla/ckpt_epoch_240.pth", 74.31),
    ("cifar100", "resnet32x4"): Published("resnet32x4_vanilla/ckpt_epoch_240.pth", 79.42),
    ("cifar100", "wrn_40_2"): Published("wrn_40_2_vanilla/ckpt_epoch_240.pth", 75.61),
    ("cifar100", "vgg13"): Published("vgg13_vanilla/ckpt_epoch_240.pth", 74.64),
    ("cifar100", "resnet50"): Published("ResNet50_vanilla/ckpt_epoch_240.pth", 79.34),
    ("tiny_imagenet", "resnet18"): Published("ResNet18_vanilla/ti_res18", 62.99),
    ("tiny_imagenet", "tiny_resnet18"): Published("ResNet18_vanilla/ti_res18", 62.99),
}
"""(data set, model) -> the teacher that RepDistiller and mdistiller (cifar100), or mdistiller alone, publish."""


def difference_from_published(data: str, model: str, top1: float) -> str | None:
    """Return a sentence if an accuracy in percent is more than 0.2 from the published teacher's, else None."""
    known = PUBLISHED.get((data, model))
    if known is None or abs(top1 - known.top1) <= 0.2 + 1e-9:
        return None
    return (
        f"top-1 is {top1:.2f} %, that of the published {model} ({known.file}) is {known.top1:.2f} %: if this is meant "
        "to be that file, check that it is the right one, and that the images are all there and normalised as in theirs"
    )


def read_checkpoint(path: Path, *, subtree: Subtree = "student") -> Checkpoint:
    """Return a network's weights from a checkpoint of others, whichever of the known layouts it has.

    Args:
        path: a file that `torch.save` wrote.
        subtree: which network, where the file holds a student and a teacher; "ema" is the moving average of the
            weights, where the file holds one beside them. An average that stands alone is taken anyway.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is an archive of files, is damaged, asks for code to be run, holds no weights of that network, or
            weights that are complex, NaN or infinite.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> from rankdistill import MODELS, read_checkpoint
        >>> with TemporaryDirectory() as folder:
        ...     torch.save({"model": MODELS["resnet8"](10).state_dict()}, f"{folder}/resnet8.pth")
        ...     weights = read_checkpoint(Path(folder, "resnet8.pth")).weights
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: check the path")
    archive = archive_kind(path)
    if archive:
        raise ValueError(
            f"{path} is a {archive} archive, not a checkpoint: extract it, and give one of the files in it"
        )
    content = _load(path)
    taken, found = _tensors_in(content, path, average=subtree == "ema")
    weights = unprefixed(found, path)
    owners = {name.split(".")[0] for name in weights} & {"student", "teacher"}
    if owners and subtree != "ema":
        weights = {
            name.removeprefix(f"{subtree}."): value for name, value in weights.items() if name.startswith(f"{subtree}.")
        }
        weights = unprefixed(weights, path)
    if (owners and subtree != "ema" and subtree not in owners) or (not owners and subtree == "teacher"):
        held = f"a {' and a '.join(sorted(owners))}" if owners else "one network, not a student and a teacher"
        raise ValueError(f"{path} holds {held}: there is no {subtree} to take out of it")
    check_values(weights, path)
    accuracy, parts = None, _parts(content) or {}
    if subtree == "student":
        accuracy = next((_number(parts[key]) for key in ("accuracy", "best_acc") if key in parts), None)
    left = next((place for place in _AVERAGES if place != taken and _tensors(parts.get(place))), "")
    return Checkpoint(_with_counters(weights), accuracy, taken, left)


def load_into(module: nn.Module, weights: Mapping[str, Tensor], *, name: str, source: str) -> None:
    """Load a state dict whose names and shapes are exactly the module's.

    Args:
        module: receives the weights; untouched where they do not fit.
        weights: name -> tensor.
        name: what the module is called in the error.
        source: where the weights come from, for the error.

    Raises:
        ValueError: a tensor is missing, unexpected or of another shape; the first is named.

    Example:
        >>> from rankdistill import MODELS, load_into
        >>> network = MODELS["resnet8"](10)
        >>> load_into(network, network.state_dict(), name="resnet8", source="another network")
    """
    check_fit(module, weights, name=name, source=source)
    module.load_state_dict(dict(weights))


def check_fit(module: nn.Module, weights: Mapping[str, Tensor], *, name: str, source: str) -> None:
    """Raise what `load_into` raises; nothing is loaded."""
    own = module.state_dict()
    missing = [key for key in own if key not in weights]
    unknown = [key for key in weights if key not in own]
    misshapen = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    if missing or unknown:
        key, verb = (missing[0], "lacks") if missing else (unknown[0], "has")
        raise ValueError(
            f"{source} is not a {name}: it {verb} {key!r} ({len(missing)} tensors missing, {len(unknown)} unknown): "
            "name the architecture that it was saved from"
        )
    if misshapen:
        key = misshapen[0]
        raise ValueError(
            f"{source} is not this {name}: its {key!r} has shape {tuple(weights[key].shape)}, not "
            f"{tuple(own[key].shape)}: check the architecture and the number of classes"
        )


def _load(path: Path) -> object:
    try:
        with path.open("rb") as file:
            return read_pickled(file)
    except Exception as error:  # of any kind, see `read_pickled`
        asked = _GLOBAL.search(str(error))
        if asked:
            raise ValueError(
                f"{path} was not opened: it asks for {asked[1]!r} to be called, which weights do not need. Save "
                "the network's state_dict() alone, in the program that wrote the file, and give that"
            ) from error
        reason = error if isinstance(error, ForgedPickle) else type(error).__name__
        raise ValueError(
            f"{path} is not a readable checkpoint ({reason}): it is damaged, or nothing that "
            "torch.save wrote; fetch it again"
        ) from error


def _parts(value: object) -> dict[Any, Any] | None:
    """Return what is in a dict; an OrderedDict of a file may carry attributes in place of its methods."""
    return dict(dict.items(value)) if isinstance(value, dict) else None


def _tensors(value: object) -> dict[str, Tensor] | None:
    """Return what is in a dict of tensors, else None."""
    parts = _parts(value)
    if not parts or not all(isinstance(name, str) and isinstance(entry, Tensor) for name, entry in parts.items()):
        return None
    return parts


def _tensors_in(content: object, path: Path, *, average: bool) -> tuple[str, dict[str, Tensor]]:
    """Return the first of the usual places that is a dict of tensors, and what it holds; "" is the whole content."""
    places = _AVERAGES if average else (*_PLACES, "", *_AVERAGES)
    parts = _parts(content)
    for place in places:
        found = _tensors((parts or {}).get(place) if place else content)
        if found:
            return place, found
    if parts is None:
        holds = f"a {type(content).__name__}"
    else:
        holds = f"the keys {', '.join(map(_shown, list(parts)[:8]))}" if parts else "nothing"
    where = ", ".join(place for place in places if place)
    raise ValueError(
        f"{path} holds {holds}: weights are looked for under {where}{'' if average else ' and at the top'}, as a dict "
        "of tensors; save a state_dict() there"
    )


def _shown(key: object) -> str:
    if isinstance(key, str):
        text = key if key.isprintable() else repr(key)
    else:
        text = str(key) if isinstance(key, int | float) else f"a {type(key).__name__}"
    return text if len(text) <= 40 else f"{text[:40]}..."


def unprefixed(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return weights by the names that the bare network gives them, without counters that are no part of it.

    `module.` is taken away wherever it stands first; `_orig_mod.`, `model.` and `net.` where every name has it; all of
    them as often as they come.

    Raises:
        ValueError: two names become one, or a name is far too long to be one.
    """
    if any(len(name) > _MAX_NAME for name in weights):
        raise ValueError(f"{path} is no network of ours: it has a name of more than {_MAX_NAME} characters")
    plain = {name: value for name, value in weights.items() if not _BESIDE.search(name)}
    count = len(plain)
    while plain:
        wrapper = next((w for w in _WRAPPERS if all(name.startswith(w) for name in plain)), "")
        if not wrapper and any(name.startswith("module.") for name in plain):
            wrapper = "module."
        if not wrapper:
            break
        plain = {name.removeprefix(wrapper): value for name, value in plain.items()}
    if len(plain) != count:
        raise ValueError(f"{path} has some names both with and without 'module.': save one state_dict() alone")
    return plain


def check_values(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise ValueError unless every tensor is dense, real and finite, and its entries are in the file."""
    length, seen = path.stat().st_size, set()
    for name, value in weights.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested:
            raise ValueError(f"{path} is no network of ours: its {name!r} is sparse, quantised or empty of values")
        view = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if view in seen:  # two names of one tensor
            continue
        seen.add(view)
        stored = min(value.untyped_storage().nbytes(), length)
        if value.numel() * value.element_size() > stored:
            raise ValueError(
                f"{path} is no network of ours: its {name!r} says it has {value.numel():,} entries, in {stored:,} bytes"
            )
        length -= value.numel() * value.element_size()
        if value.is_complex():
            raise ValueError(f"{path} is no network of ours: its {name!r} is complex; real weights are needed")
        if value.is_floating_point() and value.element_size() < 2:
            raise ValueError(f"{path} is no network of ours: its {name!r} is {value.dtype}; 16 bits or more are needed")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{path} has NaN or infinite values in {name!r}: the run that saved it had diverged")


def _with_counters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the step counters of batch norms (from 0), which files from before PyTorch 0.4.1 do not have."""
    complete: dict[str, Tensor] = {}
    for name, value in weights.items():
        complete[name] = value
        counter = name.removesuffix("running_var") + "num_batches_tracked"
        if name.endswith("running_var") and counter not in weights:
            complete[counter] = torch.zeros((), dtype=torch.int64)
    return complete


def _number(value: object) -> float | None:
    """Return a number that is one and finite, else None."""
    if isinstance(value, Tensor) and not value.is_meta and value.numel() == 1 and not value.is_complex():
        value = value.item()
    try:
        number = float(value) if isinstance(value, int | float | np.integer | np.floating) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
