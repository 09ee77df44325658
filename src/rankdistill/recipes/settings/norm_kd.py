"""N-to-one representation matching with distillation of logits, NORM+KD: what tables quote as NORM."""

from dataclasses import replace

from ...runs.options import loss
from ..setting import Setting
from . import norm


def setting(teacher: str, student: str) -> Setting:
    """Return NORM's setting and distillation between normalised logits at temperature 4.

    Its weight, not published, is the 0.9 that goes with 0.1 on labels in vanilla distillation.
    """
    alone = norm.setting(teacher, student)
    losses = {**alone.losses, "kd": loss("normalized_kd", 0.9, temperature=4.0)}
    return replace(alone, losses=losses, source=f"{alone.source}; weight 0.9 of distillation: ours, as vanilla KD")
