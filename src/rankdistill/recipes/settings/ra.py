"""Ranking alignment, as its paper trains it."""

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS, Setting

_TUNED = CIFAR100_PAIRS[1], TINY_IMAGENET_PAIRS[0]


def setting(teacher: str, student: str) -> Setting:
    """Return the paper's weight: 5 on CIFAR-100, 10 on Tiny-ImageNet, each tuned there on one pair.

    Both views are used, as in MLKD, whose augmentation the paper names; it does not say whether it uses both.
    """
    weight = 10.0 if (teacher, student) in TINY_IMAGENET_PAIRS else 5.0
    losses = {"task": loss("ce", each_view=True), "ra": loss("ra", weight, epsilon=1.0, each_view=True)}
    return Setting(
        losses,
        source="the paper, section 4.1 and Figure 2",
        published=(teacher, student) in _TUNED,
        protocol="paper",
        views=2,
    )
