"""Recipes: functions of a pair of networks that return the Run of a published or sensible setting."""

from collections.abc import Callable

from ..runs.config import Run
from . import digits, fashion_mnist
from .papers import recipes_of

RECIPES: dict[str, Callable[..., Run]] = {
    "digits.teacher": digits.teacher,
    "digits.plain": digits.plain,
    "digits.kd": digits.kd,
    "digits.ra": digits.ra,
    "fashion_mnist.teacher": fashion_mnist.teacher,
    "fashion_mnist.plain": fashion_mnist.plain,
    "fashion_mnist.kd": fashion_mnist.kd,
    "fashion_mnist.ra": fashion_mnist.ra,
    **recipes_of("cifar100"),
    **recipes_of("tiny_imagenet"),
}
"""Name -> function of the names of the networks."""

__all__ = ["RECIPES"]
