"""The teacher's side of a run: its weights, whether they fit, and the cache of its logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import distributed
from ..data.dataset import DataSet
from ..data.schedule import Batches
from ..models import MODELS
from ..training.plan import Watcher
from ..training.state import State
from ..training.teacher_cache import CachedTeacher, CacheOptions, check_cacheable, digest_of_stream, estimated_gigabytes
from ..weights.reading import read_weights
from .config import Run, describe
from .fitting import check_views, chosen_classes, with_classes
from .options import look_up
from .streams import view_shape


def teacher_weights(run: Run) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the teacher's weights and what their file says of itself; both are empty where there is no teacher.

    Raises:
        ValueError: there is no file where one is needed, or it holds another network.
        FileNotFoundError: the file is not there.
    """
    if run.teacher is None:
        if run.teacher_weights is not None:
            raise ValueError(f"teacher_weights is {run.teacher_weights}, but the recipe {run.recipe} has no teacher")
        return {}, {}
    look_up(MODELS, run.teacher, "model")
    if run.teacher_weights is None:
        raise ValueError(
            f"the recipe {run.recipe} needs weights of a trained {run.teacher}: pass --teacher-weights FILE, made by "
            f"`rankdistill train-teacher {run.recipe.split('.')[0]} --model {run.teacher}`"
        )
    weights, header = read_weights(run.teacher_weights)
    if "deployed" in header:
        raise ValueError(
            f"{run.teacher_weights} holds a {header.get('model')} as {header['deployed']} deploys it, with layers that "
            "the plain network lacks: pass the weights of a plain network"
        )
    saved = header.get("model", run.teacher)
    if saved != run.teacher:
        raise ValueError(f"{run.teacher_weights} holds a {saved}, not a {run.teacher}: pass --teacher {saved}")
    return weights, header


def for_data(run: Run, weights: dict[str, Tensor], header: dict[str, Any], data: DataSet) -> dict[str, Tensor]:
    """Return the teacher's weights for the classes of the data.

    Raises:
        ValueError: they were made for other classes, another size or another normalisation.
    """
    source = Path(run.teacher_weights or "")
    check_views(header, data, view_shape(data, run.data), source)
    classes, option = run.teacher_classes, "--teacher-classes"
    chosen = chosen_classes(header, data, source=source, classes=classes, option=option)
    if chosen is None or run.teacher is None:
        return weights
    return with_classes(weights, MODELS[run.teacher], len(header["class_names"]), chosen)


def cached(
    run: Run,
    state: State,
    stream: Batches,
    found: Mapping[str, object],
    num_samples: int,
    num_classes: int,
    watchers: Sequence[Watcher],
) -> CachedTeacher:
    """Return the teacher behind its cache for this stream, after saying how much that takes.

    Raises:
        ValueError: there is no teacher, or a loss reads more of it than its logits.
    """
    if run.teacher_cache is None or state.teacher is None:
        raise ValueError(f"a teacher cache in {run.teacher_cache} needs a teacher: this run has none")
    check_cacheable(state.method)

    def tell(sentence: str) -> None:
        for watcher in watchers:
            watcher.note(sentence)

    options = CacheOptions(run.teacher_cache_dtype, run.teacher_cache_gigabytes)
    facts = dict(found) | {
        "teacher": run.teacher,
        "data": describe(run)["data"],
        "images": num_samples,
        "stream_seed": run.stream_seed,
        "batch_size": run.optim.batch_size,
        "views": state.method.views,
        "memory_format": "channels_last",
        "dtype": options.dtype,
        "processes": distributed.world_size(),
    }
    folder = run.teacher_cache / digest_of_stream(stream, facts)[:24]
    size = estimated_gigabytes(
        num_samples, num_classes, views=state.method.views, epochs=run.optim.epochs, dtype=options.dtype
    )
    tell(f"the teacher's logits of {run.optim.epochs} epochs take {size:.2g} GB in {folder}")
    return CachedTeacher(
        state.teacher.uncached,
        stream,
        folder,
        num_samples,
        options,
        autocast=state.autocast,
        tell=tell,
        around=lambda: state.clock("teacher"),
    )
