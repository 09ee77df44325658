"""The paper's pairs of networks, and the losses whose numbers go by pair: columns of numbers, and functions of a pair.

A column has what was published, in the order of the pairs. A pair that a column lacks gets the function's default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ..runs.options import loss

PairNames = tuple[str, str]
"""Names of teacher and student."""

ONE_FAMILY: tuple[PairNames, ...] = (
    ("resnet56", "resnet20"),
    ("resnet32x4", "resnet8x4"),
    ("wrn_40_2", "wrn_16_2"),
    ("wrn_40_2", "wrn_40_1"),
    ("vgg13", "vgg8"),
    ("resnet110", "resnet32"),
)
"""The pairs of the paper's Table 1, in their order."""

ACROSS_FAMILIES: tuple[PairNames, ...] = (
    ("resnet32x4", "shufflenetv2"),
    ("vgg13", "mobilenetv2"),
    ("resnet50", "mobilenetv2"),
    ("wrn_40_2", "shufflenetv1"),
    ("resnet32x4", "shufflenetv1"),
)
"""The pairs of the paper's Table 2, in their order."""

CIFAR100_PAIRS: tuple[PairNames, ...] = (*ONE_FAMILY, *ACROSS_FAMILIES)

TINY_IMAGENET_PAIRS: tuple[PairNames, ...] = (
    ("tiny_resnet18", "tiny_mobilenetv2"),
    ("tiny_resnet18", "tiny_shufflenetv2"),
)
"""The pairs of the paper's Table 3."""

Losses = Mapping[str, Any]
"""As `Run.losses`: name -> weight and options."""

CE = loss("ce")
CE_OF_KD = loss("ce", 0.1)  # beside KD's weight of 0.9
CE_OF_VIEWS = loss("ce", each_view=True)
KD = {"task": CE_OF_KD, "kd": loss("kd", 0.9, temperature=4.0)}

T = TypeVar("T")


def _column(
    one_family: Sequence[T | None],
    across_families: Sequence[T | None],
    others: Mapping[PairNames, T] | None = None,
) -> dict[PairNames, T]:
    """Return pair -> value.

    Args:
        one_family: a value for each pair of `ONE_FAMILY`; None where nothing was published.
        across_families: a value for each pair of `ACROSS_FAMILIES`; None where nothing was published.
        others: values that were published for pairs that the paper does not use.
    """
    values = (*one_family, *across_families)
    known = {pair: value for pair, value in zip(CIFAR100_PAIRS, values, strict=True) if value is not None}
    return {**known, **(others or {})}


CATKD = _column(
    ((0.7, 2, False), (15.0, 2, False), (12.0, 2, False), (1.5, 2, False), (4.5, 2, False), (1.8, 2, False)),
    ((600.0, 4, True), (15.0, 2, True), (40.0, 2, True), (80.0, 4, True), (600.0, 4, True)),
)
"""Weight, resolution, and whether maps are normalised."""


def catkd(teacher: str, student: str) -> Losses:
    """Return the authors' values by pair; for other pairs the defaults of their code: weight 400, r 2, normalised."""
    weight, resolution, normalize = CATKD.get((teacher, student), (400.0, 2, True))
    head_init = "default" if "vgg" in student or "shufflenet" in student else "kaiming"
    options = {"resolution": resolution, "normalize": normalize, "head_init": head_init}
    return {"task": CE, "catkd": loss("catkd", weight, **options)}


def centred_mse(teacher: str, student: str) -> Losses:
    """Return the weight of ranking alignment at epsilon 1, to which this loss is equal where that does not rank."""
    alike = ra(teacher, student)
    return {"task": alike["task"], "centred_mse": loss("centred_mse", alike["ra"].weight, each_view=True)}


CRLD_OPTIM = _column(({"lr": 0.05},) * 6, ({"lr": 0.01}, {"lr": 0.01}, {"lr": 0.01}, None, None))
"""Fields of `Optim` of CRLD, for the pairs that the code has a configuration for."""

DKD = _column((2.0, 8.0, 6.0, 6.0, 6.0, 2.0), (8.0, 6.0, 8.0, 8.0, 8.0))
"""Beta, the weight of NCKD."""


def dkd(teacher: str, student: str) -> Losses:
    """Return mdistiller's weights; for a pair without one, its default beta of 8."""
    beta = DKD.get((teacher, student), 8.0)
    return {"task": CE, "dkd": loss("dkd", alpha=1.0, beta=beta, temperature=4.0, warmup=20)}


def fcfd(teacher: str, student: str) -> Losses:
    """Return the authors' temperature and weights by pair; for other pairs temperature 4 and weight 5.

    From resnet110 to resnet32, which they leave out, it is what they have from resnet56 to resnet20.
    """
    hot = (("resnet32x4", "shufflenetv1"), ("resnet32x4", "shufflenetv2"), ("resnet50", "mobilenetv2"))
    options: dict[str, Any] = {
        "feature_weight": 0.02 if student in ("resnet20", "resnet32") else 5.0,
        "path_weight": 0.2 if student == "wrn_16_2" else 1.0,
        "temperature": 8.0 if (teacher, student) in hot else 4.0,
        "student_borders": _fcfd_borders(student),
        "teacher_borders": _fcfd_borders(teacher),
    }
    return {"task": CE, "fcfd": loss("fcfd", **options)}


def _fcfd_borders(network: str) -> tuple[str, ...] | None:
    """Return the borders between the authors' stages; None where these are simply the ends of stages."""
    borders = {  # by how a network's name begins
        "mobilenetv2": ("stage1", "stage2", "stage3", "prelast"),
        "shufflenetv1": ("pre1", "pre2", "pre3"),
        "vgg": ("pre1", "pre2", "pre3", "pre4"),
        "wrn": ("stage1", "stage2", "pre3"),
    }
    return next((roles for name, roles in borders.items() if network.startswith(name)), None)


def fitnets(teacher: str, student: str) -> Losses:
    """Return the weight of RepDistiller and mdistiller, the same for every pair.

    But the hint is at the last stage where no regressor leads to the teacher's second: the map of 17x17 of
    Tiny-ImageNet's MobileNetV2 is neither as large as the 32x32 of its teacher nor half of it.
    """
    hint_stage = 4 if (teacher, student) == TINY_IMAGENET_PAIRS[0] else 2
    return {"task": CE, "fitnets": loss("fitnets", 100.0, hint_stage=hint_stage)}


LSKD = _column(
    ((2.0, 9.0), (2.0, 9.0), (2.0, 9.0), (2.0, 9.0), (3.0, 9.0), (2.0, 9.0)),
    ((2.0, 9.0), (3.0, 9.0), (3.0, 1.0), None, None),
    {("resnet110", "resnet20"): (4.0, 12.0), ("resnet32x4", "wrn_16_2"): (3.0, 9.0)},
)
"""Temperature and weight."""


def lskd(teacher: str, student: str) -> Losses:
    """Return KD on standardised logits; for a pair without a log, temperature 2 and weight 9."""
    temperature, weight = LSKD.get((teacher, student), (2.0, 9.0))
    return {"task": CE_OF_KD, "kd": loss("kd", weight, temperature=temperature, standardized=True)}


LSKD_DKD = _column(
    ((3.0, 18.0, 2.0), (2.0, 9.0, 8.0), (2.0, 12.0, 2.0), (2.0, 12.0, 2.0), (2.0, 15.0, 2.0), (2.0, 15.0, 2.0)),
    ((2.0, 9.0, 8.0), (3.0, 9.0, 2.0), (2.0, 15.0, 2.0), None, None),
)
"""Temperature, weight of alpha and beta, and beta."""


def lskd_dkd(teacher: str, student: str) -> Losses:
    """Return DKD on standardised logits; for a pair without a log, temperature 2, weight 9 and beta 8."""
    temperature, weight, beta = LSKD_DKD.get((teacher, student), (2.0, 9.0, 8.0))
    options = {"alpha": 1.0, "beta": beta, "temperature": temperature, "warmup": 20}
    return {"task": CE, "dkd": loss("dkd", weight, **options, standardized=True)}


_LOGGED: tuple[PairNames, ...] = (
    ("resnet110", "resnet20"),
    ("resnet32x4", "wrn_16_2"),
    ("resnet32x4", "wrn_40_2"),
    ("wrn_40_2", "resnet8x4"),
)
LSKD_MLKD = _column((None, 9.0, 9.0, 9.0, 6.0, 9.0), (6.0, 6.0, 9.0, None, None), dict.fromkeys(_LOGGED, 9.0))
"""Weights in the names of the published logs; all have temperature 2."""


def lskd_mlkd(teacher: str, student: str) -> Losses:
    """Return MLKD on standardised logits, with the weight of the pair's published log, else the code's default, 9."""
    weight = LSKD_MLKD.get((teacher, student), 9.0)
    mlkd = loss("mlkd", weight, temperature=2.0, variant="official", standardized=True)
    return {"task": loss("ce", 0.1, each_view=True), "mlkd": mlkd}


def _optim(lr: float, epochs: int) -> dict[str, Any]:
    return {"lr": lr, "epochs": epochs}


_LIGHT, _LONG, _HALF_RATE = _optim(0.01, 480), _optim(0.01, 960), _optim(0.025, 480)
MLKD_OPTIM = _column((_optim(0.025, 240),) * 6, (_LONG, _LIGHT, _LIGHT, _LIGHT, _LONG))
"""Fields of `Optim` of MLKD. At the time of its paper, pairs of one family had 480 epochs, and the same milestones."""

LSKD_MLKD_OPTIM = _column(
    (_HALF_RATE, _HALF_RATE, _HALF_RATE, _HALF_RATE, _LIGHT, _HALF_RATE),
    (_LONG, _LIGHT, _LIGHT, _LIGHT, _LONG),
    {**dict.fromkeys(_LOGGED, _HALF_RATE), ("wrn_40_2", "mobilenetv2"): _optim(0.005, 480)},
)
"""Fields of `Optim` of MLKD on standardised logits: configuration files exist for more pairs than logs do."""


def norm(teacher: str, student: str) -> Losses:
    """Return the weights of the example in the authors' README, 0.1 on labels and 1 on features.

    Their script searches the weight on labels in 0.0625, 0.125, 0.25 and 0.5; which they use for a pair is not
    published.
    """
    del teacher
    conv_init = "default" if "shufflenet" in student else "kaiming"
    return {"task": loss("normalized_ce", 0.1), "norm": loss("norm", copies=8, conv_init=conv_init)}


def norm_kd(teacher: str, student: str) -> Losses:
    """Return NORM+KD, what tables quote as NORM: NORM and distillation between normalised logits at temperature 4.

    Its weight, not published, is the 0.9 that goes with 0.1 on labels in vanilla distillation.
    """
    return {**norm(teacher, student), "kd": loss("normalized_kd", 0.9, temperature=4.0)}


def ra(teacher: str, student: str) -> Losses:
    """Return the paper's weight: 5 on CIFAR-100, 10 on Tiny-ImageNet, each tuned there on one pair.

    Both views are used, as in MLKD, whose augmentation the paper names; it does not say whether it uses both.
    """
    weight = 10.0 if (teacher, student) in TINY_IMAGENET_PAIRS else 5.0
    return {"task": CE_OF_VIEWS, "ra": loss("ra", weight, epsilon=1.0, each_view=True)}


REVIEWKD = _column((0.6, 5.0, 5.0, 5.0, None, 1.0), (8.0, None, None, 5.0, 5.0))
"""Weights."""


def reviewkd(teacher: str, student: str) -> Losses:
    """Return the authors' weight; where they publish none, 8 for MobileNets and for ShuffleNetV2, else 5.

    8 is what they have for MobileNets on ImageNet.
    """
    fallback = 8.0 if "mobilenet" in student or "shufflenetv2" in student else 5.0
    weight = REVIEWKD.get((teacher, student), fallback)
    return {"task": CE, "reviewkd": loss("reviewkd", weight, warmup_epochs=20)}


def _reviewkd_optim(student: str) -> dict[str, Any]:
    lr = 0.02 if student in ("shufflenetv1", "shufflenetv2", "mobilenetv2") else 0.1
    return {"batch_size": 128, "lr": lr, "milestones": (151, 181, 211), "nesterov": True}


REVIEWKD_OPTIM = {pair: _reviewkd_optim(pair[1]) for pair in CIFAR100_PAIRS}
"""Fields of `Optim` of ReviewKD: its rate drops one epoch later than elsewhere."""

TTM = _column(
    ((0.3, 7.0), (0.1, 100.0), (0.1, 101.0), (0.1, 76.0), (0.1, 45.0), (0.1, 33.0)),
    ((0.4, 40.0), (0.2, 16.0), (0.2, 20.0), (0.3, 8.0), (0.2, 12.0)),
    {("resnet110", "resnet20"): (0.2, 8.0)},
)
"""Exponent and weight."""


def ttm(teacher: str, student: str) -> Losses:
    """Return the paper's exponent and weight; for a pair without one, those of vgg13 and mobilenetv2."""
    exponent, weight = TTM.get((teacher, student), TTM["vgg13", "mobilenetv2"])
    return {"task": CE, "ttm": loss("ttm", weight, exponent=exponent)}


WTTM = _column(
    ((0.3, 1.5), (0.1, 3.0), (0.1, 4.0), (0.1, 3.0), (0.1, 2.25), (0.1, 1.5)),
    ((0.4, 16.0), (0.2, 3.0), (0.2, 5.0), (0.3, 3.0), (0.2, 1.4)),
    {("resnet110", "resnet20"): (0.2, 2.0)},
)
"""Exponent and weight."""


def wttm(teacher: str, student: str) -> Losses:
    """Return the paper's exponent and weight; for a pair without one, those of vgg13 and mobilenetv2."""
    exponent, weight = WTTM.get((teacher, student), WTTM["vgg13", "mobilenetv2"])
    return {"task": CE, "wttm": loss("wttm", weight, exponent=exponent)}
