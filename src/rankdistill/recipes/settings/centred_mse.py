"""Mean squared error of centred logits, trained as ranking alignment is."""

from ...runs.options import loss
from ..setting import TINY_IMAGENET_PAIRS, Setting


def setting(teacher: str, student: str) -> Setting:
    """Return the weight of ranking alignment at epsilon 1, to which this loss is equal where that does not rank."""
    weight = 10.0 if (teacher, student) in TINY_IMAGENET_PAIRS else 5.0
    return Setting(
        {"task": loss("ce", each_view=True), "centred_mse": loss("centred_mse", weight, each_view=True)},
        source="as ranking alignment's; a baseline of this project",
        published=False,
        protocol="paper",
        views=2,
    )
