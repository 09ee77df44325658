"""The recipes of the paper's data sets: every method of `SETTINGS`, for any pair, under any protocol of `PROTOCOLS`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from ..runs.catalogue import METHODS
from ..runs.config import Run
from ..runs.options import look_up, loss, update_rule
from .protocols import PROTOCOLS
from .settings import SETTINGS, Setting

_PAIRS = {"cifar100": ("resnet32x4", "resnet8x4"), "tiny_imagenet": ("tiny_resnet18", "tiny_mobilenetv2")}


def teacher_recipe(dataset: str) -> Callable[..., Run]:
    """Return the recipe of a data set's teachers: a function of the model's name."""

    def teacher(model: str = _PAIRS[dataset][0], protocol: str = "mdistiller") -> Run:
        """Return the training of a teacher on labels alone, as RepDistiller trains them."""
        chosen = look_up(PROTOCOLS, protocol, "protocol")(dataset, model)
        return Run(f"{dataset}.teacher", model, None, {"task": loss("ce")}, chosen.data, chosen.optim)

    return teacher


def recipe(dataset: str, method: str) -> Callable[..., Run]:
    """Return the recipe of a method on a data set: a function of the names of the networks and of a protocol."""
    usual_teacher, usual_student = _PAIRS[dataset]

    def distill(teacher: str = usual_teacher, student: str = usual_student, protocol: str | None = None) -> Run:
        setting = SETTINGS[method](teacher, student)
        chosen = look_up(PROTOCOLS, protocol or setting.protocol, "protocol")(dataset, student)
        own = {} if protocol and protocol != setting.protocol else dict(setting.optim)
        reads_teacher = any(METHODS[options.method].attribute("reads_teacher") for options in setting.losses.values())
        return Run(
            f"{dataset}.{method}",
            student,
            teacher if reads_teacher else None,
            dict(setting.losses),
            chosen.data,
            dataclasses.replace(chosen.optim, **own),
            update=update_rule(setting.update, **setting.update_options),
        )

    distill.__doc__ = _about(SETTINGS[method](usual_teacher, usual_student), f"{usual_teacher} and {usual_student}")
    return distill


def _about(setting: Setting, pair: str) -> str:
    """Return sentences on a setting, for users."""
    losses = " + ".join(f"{options.weight:g} {options.method}" for options in setting.losses.values())
    rule = "" if setting.update == "descend" else f", by the update rule {setting.update}"
    source = setting.source.removeprefix("none: ")
    return f"The loss is {losses}{rule}, for {pair}. Source of the setting: {source}."


def recipes_of(dataset: str) -> dict[str, Callable[..., Run]]:
    """Return the recipes of a data set, by name: a teacher's, and one for each setting."""
    return {f"{dataset}.teacher": teacher_recipe(dataset)} | {
        f"{dataset}.{method}": recipe(dataset, method) for method in SETTINGS
    }
