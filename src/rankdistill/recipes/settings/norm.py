"""N-to-one representation matching alone."""

from ...runs.options import loss
from ..setting import Setting


def setting(teacher: str, student: str) -> Setting:
    """Return the weights of the example in the authors' README, 0.1 on labels and 1 on features.

    Their script searches the weight on labels in 0.0625, 0.125, 0.25 and 0.5; which they use for a pair is not
    published.
    """
    del teacher
    features = loss("norm", copies=8, conv_init="default" if "shufflenet" in student else "kaiming")
    return Setting(
        {"task": loss("normalized_ce", 0.1), "norm": features},
        source="NORM's README, -r 0.1 -a 0 -b 1 -s 8; it does not publish the weight on labels by pair",
        published=False,
        optim={"epochs": 241},
    )
