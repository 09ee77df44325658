"""Class attention transfer, as its authors train it."""

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, Setting

# Weight, resolution, normalise: in the order of CIFAR100_PAIRS.
_PUBLISHED = dict(
    zip(
        CIFAR100_PAIRS,
        (
            (0.7, 2, False),
            (15.0, 2, False),
            (12.0, 2, False),
            (1.5, 2, False),
            (4.5, 2, False),
            (1.8, 2, False),
            (600.0, 4, True),
            (15.0, 2, True),
            (40.0, 2, True),
            (80.0, 4, True),
            (600.0, 4, True),
        ),
        strict=True,
    )
)


def setting(teacher: str, student: str) -> Setting:
    """Return the authors' values by pair; for other pairs the defaults of their code: weight 400, r 2, normalised."""
    pair = (teacher, student)
    weight, resolution, normalize = _PUBLISHED.get(pair, (400.0, 2, True))
    catkd = loss(
        "catkd",
        weight,
        resolution=resolution,
        normalize=normalize,
        head_init="default" if "vgg" in student or "shufflenet" in student else "kaiming",
    )
    published = pair in _PUBLISHED
    return Setting(
        {"task": loss("ce"), "catkd": catkd},
        source="CAT-KD, configs/cifar100/CAT_KD" if published else "the defaults of CAT-KD's code; not published",
        published=published,
    )
