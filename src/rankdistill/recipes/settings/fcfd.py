"""Function-consistent feature distillation, as its authors train it."""

from ...runs.options import loss
from ..setting import CIFAR100_PAIRS, Setting

_UNPUBLISHED = ("resnet110", "resnet32")
_HOT = {  # temperature 8
    ("resnet32x4", "shufflenetv1"),
    ("resnet32x4", "shufflenetv2"),
    ("resnet50", "mobilenetv2"),
}
_PLAIN = ("resnet20", "resnet32")

# Borders between the authors' stages, where they are not simply the ends of stages, by how a network's name begins.
_BORDERS = {
    "mobilenetv2": ("stage1", "stage2", "stage3", "prelast"),
    "shufflenetv1": ("pre1", "pre2", "pre3"),
    "vgg": ("pre1", "pre2", "pre3", "pre4"),
    "wrn": ("stage1", "stage2", "pre3"),
}


def setting(teacher: str, student: str) -> Setting:
    """Return the authors' temperature and weights by pair; for other pairs temperature 4 and weight 5.

    From resnet110 to resnet32, which they leave out, it is what they have from resnet56 to resnet20.
    """
    pair = (teacher, student)
    published = pair in CIFAR100_PAIRS and pair != _UNPUBLISHED
    fcfd = loss(
        "fcfd",
        feature_weight=0.02 if student in _PLAIN else 5.0,
        path_weight=0.2 if student == "wrn_16_2" else 1.0,
        temperature=8.0 if pair in _HOT else 4.0,
        student_borders=_borders(student),
        teacher_borders=_borders(teacher),
    )
    return Setting(
        {"task": loss("ce"), "fcfd": fcfd},
        source="FCFD, its CIFAR-100 scripts" if published else "ours, as FCFD's scripts have it for like pairs",
        published=published,
        optim={"nesterov": True},
    )


def _borders(network: str) -> tuple[str, ...] | None:
    return next((roles for name, roles in _BORDERS.items() if network.startswith(name)), None)
