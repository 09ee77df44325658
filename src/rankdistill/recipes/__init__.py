"""Recipes: functions of a pair of networks that return the Run of a published or sensible setting."""

from collections.abc import Callable

from ..run import Run
from . import digits, fashion_mnist, tiny_imagenet

RECIPES: dict[str, Callable[..., Run]] = {
    "digits.teacher": digits.teacher,
    "digits.plain": digits.plain,
    "digits.kd": digits.kd,
    "digits.ra": digits.ra,
    "fashion_mnist.teacher": fashion_mnist.teacher,
    "fashion_mnist.plain": fashion_mnist.plain,
    "fashion_mnist.kd": fashion_mnist.kd,
    "fashion_mnist.ra": fashion_mnist.ra,
    "tiny_imagenet.teacher": tiny_imagenet.teacher,
    "tiny_imagenet.plain": tiny_imagenet.plain,
    "tiny_imagenet.kd": tiny_imagenet.kd,
    "tiny_imagenet.ra": tiny_imagenet.ra,
}
"""Name -> function of the names of the networks."""

__all__ = ["RECIPES"]
