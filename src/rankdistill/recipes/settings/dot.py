"""Vanilla distillation trained with DOT."""

from ...runs.options import loss
from ..setting import TINY_IMAGENET_PAIRS, Setting

_CIFAR100 = (("resnet32x4", "resnet8x4"), ("resnet32x4", "shufflenetv2"), ("vgg13", "vgg8"))


def setting(teacher: str, student: str) -> Setting:
    """Return mdistiller's weights and delta, the same for every pair that it has; on Tiny-ImageNet its own protocol."""
    pair = teacher, student
    tiny = pair in TINY_IMAGENET_PAIRS
    published = tiny or pair in _CIFAR100
    source = f"mdistiller, {'tiny_imagenet' if tiny else 'cifar100'}/dot"
    return Setting(
        {"task": loss("ce", 0.1), "kd": loss("kd", 0.9, temperature=4.0)},
        source=source if published else f"{source}: other pairs",
        published=published,
        protocol="dot" if tiny else "mdistiller",
        update="dot",
        update_options={"delta": 0.075},
    )
