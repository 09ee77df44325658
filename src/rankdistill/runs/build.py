"""From a run's configuration to a plan that `train.fit` executes: names checked, files read, networks built."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .. import distributed
from .._version import __version__
from ..assembly import Assembled, assemble
from ..contract import Method, Pair
from ..data import DATASETS
from ..data.dataset import DataSet
from ..methods import METHODS, EachView, LabelFirst, Standardized
from ..models import MODELS
from ..training.clock import Clock
from ..training.folding import fold_batch_norms
from ..training.loggers import LOGGERS, Profile, check_packages
from ..training.plan import Plan, Watcher
from ..training.state import State
from ..training.updates import UPDATES, UpdateRule
from ..weights.foreign import load_into
from ..weights.storage import digest_of
from .config import Run, describe
from .launch import environment, launched
from .options import look_up, shared_options
from .outside import digest_of_outside
from .streams import load_data, split, split_for, test_batches, training_batches, view_shape
from .teacher import cached, for_data, teacher_weights

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def build(run: Run, watchers: Sequence[Watcher] = ()) -> Plan:
    """Return the plan of a run. Names are checked first, then files, then data; what is wrong leaves nothing behind.

    Raises:
        ValueError: a name, an option, a file or the data is wrong. FileNotFoundError: a file is not there.
    """
    look_up(DATASETS, run.data.name, "data set")
    look_up(MODELS, run.student, "model")
    check_options(run.losses)
    check_packages(run.loggers)
    rule = UPDATES[run.update.rule](**dataclasses.asdict(run.update))
    weights, header = teacher_weights(run)
    fabric = launched(run)
    device = fabric.device
    data = load_data(run.data)
    train, test = split(data, run.data)
    train, held_out = split_for(rule, train, data.num_classes, run.data.subset_seed)
    torch.manual_seed(run.seed)
    student = MODELS[run.student](data.num_classes)
    teacher = None
    if run.teacher is not None:
        teacher = MODELS[run.teacher](data.num_classes)
        weights = for_data(run, weights, header, data)
        load_into(teacher, weights, name=run.teacher, source=str(run.teacher_weights))
    example = torch.zeros(2, *view_shape(data, run.data))
    assembled = assemble(terms(run.losses), student, teacher, example, num_samples=len(train), labels=train.labels)
    state = _state(run, rule, assembled, fabric)
    digest = digest_of(weights) if weights else ""
    found = {
        "teacher_digest": digest,
        "teacher_folded": _folded(state, example.to(device)),
        "data_digest": _digest(data),
        "precision": fabric._precision.precision,
    }
    config = describe(run) | found | {"code": digest_of_outside(_used(run))}
    name = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    loader = training_batches(run, train, held_out, rule, data, views=state.method.views, device=device)
    if run.teacher_cache is not None:
        state.teacher = cached(run, state, loader, found, len(train), data.num_classes, watchers)
    elif state.teacher is not None:
        state.teacher.uncached.around = lambda: state.clock("teacher")
    _compile(run, state, len(loader))
    return Plan(
        state=state,
        loader=loader,
        test=lambda: test_batches(test, data, run.data, device),
        epochs=run.optim.epochs,
        learning_rate=run.optim.rate,
        folder=run.runs / run.recipe / run.pair / name,
        identity={"config": name, "teacher": digest},
        header=_header(run, data),
        about=config | {"environment": environment(fabric)},
        again=run.again,
        seed=run.seed,
        update=rule,
        evaluate_every=run.evaluate_every,
        checkpoint_every=run.checkpoint_every,
        checkpoint_steps=run.checkpoint_steps,
        evaluate_teacher=run.evaluate_teacher,
        watchers=_watchers(run, watchers),
    )


def _folded(state: State, like: Tensor) -> int:
    """Merge the teacher's batch norms into the layers before them, and return how many; see `folding`."""
    if state.teacher is None:
        return 0
    images = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(like.device)
    return fold_batch_norms(state.teacher.uncached, images)


def _used(run: Run) -> list[object]:
    """Return the code that the run names: of data set, networks, methods and update rule."""
    models = [MODELS[name] for name in (run.student, run.teacher) if name is not None]
    methods = [METHODS[config.method] for config in run.losses.values()]
    return [DATASETS[run.data.name], *models, *methods, UPDATES[run.update.rule]]


def _state(run: Run, rule: UpdateRule, assembled: Assembled, fabric: Fabric) -> State:
    """Return networks, method and optimizers, all on the run's device."""
    method = assembled.method.to(fabric.device)
    for network in (assembled.student, assembled.teacher):
        if network is not None:
            network.module.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    student = assembled.student.module
    rule.check(method)
    optim = run.optim
    if not rule.descends and (optim.accumulate > 1 or optim.clip_norm is not None):
        raise ValueError(
            f"optim.accumulate is {optim.accumulate} and optim.clip_norm {optim.clip_norm}, which have no effect under "
            f"the update rule {run.update.rule}: leave them out"
        )
    average = None
    if optim.ema is not None:
        decay: Any = get_ema_multi_avg_fn(optim.ema)  # type: ignore[no-untyped-call]
        average = AveragedModel(student, multi_avg_fn=decay, use_buffers=True)
    if run.sync_bn:
        distributed.synchronized_batch_norm(student)
        distributed.synchronized_batch_norm(method)
    optimizer = rule.make_optimizer(
        student,
        method,
        lr=optim.lr,
        momentum=optim.momentum,
        weight_decay=optim.weight_decay,
        nesterov=optim.nesterov,
    )
    return State(
        student=assembled.student,
        teacher=assembled.teacher,
        method=method,
        optimizer=optimizer,
        meta_optimizer=rule.make_meta_optimizer(method),
        autocast=fabric.autocast,
        clip_norm=optim.clip_norm,
        accumulate=optim.accumulate,
        average=average,
        clock=Clock(fabric.device),
    )


_WORTH_COMPILING = 20_000
"""Steps from which "auto" compiles: about a minute of compilation is then below a few per cent of the run."""


def _compile(run: Run, state: State, steps: int) -> None:
    if run.compile == "off" or (run.compile == "auto" and steps * run.optim.epochs < _WORTH_COMPILING):
        return
    state.student.compile()
    if state.teacher is not None:
        state.teacher.uncached.compile()


def _watchers(run: Run, watchers: Sequence[Watcher]) -> Sequence[Watcher]:
    if distributed.rank() != 0:
        return ()
    if not run.loggers and not run.profile:
        return watchers
    profile = [Profile()] if run.profile else []
    return [*watchers, *(LOGGERS[name]() for name in run.loggers), *profile]


def terms(losses: Mapping[str, Any]) -> dict[str, tuple[float, Callable[[Pair], Method]]]:
    """Return the terms of a run's losses, as `assemble` takes them.

    Args:
        losses: as `Run.losses`.
    """
    return {name: (config.weight, functools.partial(_method, config)) for name, config in losses.items()}


def _method(config: Any, pair: Pair) -> Method:
    method = METHODS[config.method].for_pair(pair, **_options(config))
    shared = shared_options(config.method)
    for option, wrapper in (("standardized", Standardized), ("label_first", LabelFirst), ("each_view", EachView)):
        if option in shared and getattr(config, option):
            method = wrapper(method)
    return method


def check_options(losses: Mapping[str, Any]) -> None:
    """Let the methods that need no pair check their options.

    Raises:
        ValueError: an option is out of its range.
    """
    for config in losses.values():
        method = METHODS[config.method]
        if method.for_pair.__func__ is Method.for_pair.__func__:  # type: ignore[attr-defined]
            method(**_options(config))


def _options(config: Any) -> dict[str, Any]:
    """The method's own options, without those that losses have beside them."""
    shared = shared_options(config.method)
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in shared}


def _digest(data: DataSet) -> str:
    """Tell data sets of one name apart: folders of one's own, a part of an official set, other pixels."""
    parts = (data.train, data.test)
    what = [data.class_names, data.mean, data.std, [(part.pixel_digest(), part.labels.tolist()) for part in parts]]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


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
            "random_resized_crop": run.data.random_resized_crop,
            "padding": run.data.padding,
        },
        "image_shape": view_shape(data, run.data),
        "mean": data.mean,
        "std": data.std,
    }
