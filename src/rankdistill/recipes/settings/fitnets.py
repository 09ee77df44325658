"""FitNets."""

from ...runs.options import loss
from ..setting import TINY_IMAGENET_PAIRS, Setting
from .shared import one_weight


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of RepDistiller and mdistiller, the same for every pair.

    But the hint is at the last stage where no regressor leads to the teacher's second: the map of 17x17 of
    Tiny-ImageNet's MobileNetV2 is neither as large as the 32x32 of its teacher nor half of it.
    """
    hint_stage = 4 if (teacher, student) == TINY_IMAGENET_PAIRS[0] else 2
    return one_weight(
        teacher,
        student,
        loss("fitnets", 100.0, hint_stage=hint_stage),
        source="RepDistiller, -b 100; mdistiller, cifar100/fitnet.yaml",
    )
