"""FitNets."""

from ...run import loss
from ..setting import Setting
from .shared import one_weight


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of RepDistiller and mdistiller, the same for every pair."""
    return one_weight(
        teacher,
        student,
        loss("fitnets", 100.0, hint_stage=2),
        source="RepDistiller, -b 100; mdistiller, cifar100/fitnet.yaml",
    )
