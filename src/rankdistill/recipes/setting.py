"""What one method asks of a run, for one pair of networks, and where each value comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Pair = tuple[str, str]
"""Names of teacher and student."""

CIFAR100_PAIRS: tuple[Pair, ...] = (
    ("resnet56", "resnet20"),
    ("resnet32x4", "resnet8x4"),
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("vgg13", "vgg8"),
    ("resnet110", "resnet32"),
    ("resnet32x4", "shufflenetv2"),
    ("vgg13", "mobilenetv2"),
    ("resnet50", "mobilenetv2"),
    ("wrn_40_2", "shufflenetv1"),
    ("resnet32x4", "shufflenetv1"),
)
"""The pairs of the paper's Tables 1 and 2, in their order."""

TINY_IMAGENET_PAIRS: tuple[Pair, ...] = (
    ("tiny_resnet18", "tiny_mobilenetv2"),
    ("tiny_resnet18", "tiny_shufflenetv2"),
)
"""The pairs of the paper's Table 3."""


@dataclass(frozen=True)
class Setting:
    """What a method asks of a run for one pair.

    Attributes:
        losses: as `Run.losses`: name -> weight and options; "task" is the loss on the labels.
        source: who published these values, and where; or why they were chosen.
        published: whether the source gives them for this very pair.
        protocol: the training recipe that the source used, a name in `recipes.protocols`.
        views: 2 if a loss reads the strong view as well.
        update: how a step is made, a name in `UPDATES`.
        update_options: its options.
        optim: fields of `Optim` that the source sets otherwise than its protocol does.
    """

    losses: Mapping[str, Any]
    source: str
    published: bool
    protocol: str = "mdistiller"
    views: int = 1
    update: str = "descend"
    update_options: Mapping[str, Any] = field(default_factory=dict)
    optim: Mapping[str, Any] = field(default_factory=dict)
