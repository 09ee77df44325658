"""Cross-view consistency regularisation, as a public mirror of its authors' code trains it."""

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS, Setting

_RATE = {
    pair: 0.01 if student in ("mobilenetv2", "shufflenetv2") else 0.05
    for pair in CIFAR100_PAIRS
    if (student := pair[1]) != "shufflenetv1"
}
"""The pairs that the code has a configuration for."""


def setting(teacher: str, student: str) -> Setting:
    """Return the code's defaults, which no CIFAR-100 pair overrides; on Tiny-ImageNet those of its ResNet pair."""
    pair = teacher, student
    if pair in TINY_IMAGENET_PAIRS:
        options = {"temperature": 2.0, "within_weight": 4.0, "cross_weight": 1.0}
        source = "a mirror of the authors' code, tinyimagenet200/crld/res32x4_res8x4.yaml: another pair"
    else:
        options = {"temperature": 4.0, "within_weight": 2.0, "cross_weight": 0.5}
        source = "a mirror of the authors' code, cifar100/crld" + ("" if pair in _RATE else ": other pairs")
    return Setting(
        {"task": loss("ce", each_view=True), "crld": loss("crld", **options)},
        source=source,
        published=pair in _RATE,
        protocol="crld",
        views=2,
        optim={"lr": _RATE[pair]} if pair in _RATE else {},
    )
