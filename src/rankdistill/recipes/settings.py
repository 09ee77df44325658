"""The setting of every method: its losses for a pair of networks, and who published the numbers.

A setting is an entry of `SETTINGS`. Losses that are the same for every pair stand in the entry; where numbers go by
pair, the entry names a function of `by_pair`. A method without an entry gets one by itself: cross-entropy and the
method, each with weight 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..runs.catalogue import METHODS
from ..runs.options import loss
from . import by_pair
from .by_pair import CE, CE_OF_KD, CE_OF_VIEWS, CIFAR100_PAIRS, KD, ONE_FAMILY, TINY_IMAGENET_PAIRS, Losses, PairNames


@dataclass(frozen=True)
class Setting:
    """What a method asks of a run for one pair.

    Attributes:
        losses: as `Run.losses`: name -> weight and options; "task" is the loss on the labels.
        source: who published these values, and where; or why they were chosen.
        published: whether the source gives them for this very pair.
        protocol: the training recipe that the source used, a name in `recipes.protocols`.
        update: how a step is made, a name in `UPDATES`.
        update_options: its options.
        optim: fields of `Optim` that the source sets otherwise than its protocol does.
    """

    losses: Losses
    source: str
    published: bool
    protocol: str = "mdistiller"
    update: str = "descend"
    update_options: Mapping[str, Any] = field(default_factory=dict)
    optim: Mapping[str, Any] = field(default_factory=dict)


UNPUBLISHED = "none: not published"
"""The source of a setting that stands in no entry."""

SettingOf = Callable[[str, str], Setting]
"""Function of the names of teacher and student."""


def _setting(
    losses: Losses | Callable[[str, str], Losses],
    source: str,
    published: Collection[PairNames] | bool = CIFAR100_PAIRS,
    otherwise: str = "{source}; taken over, not published for this pair",
    *,
    optim: Mapping[str, Any] | None = None,
    optim_by_pair: Mapping[PairNames, Mapping[str, Any]] | None = None,
    **how: Any,
) -> SettingOf:
    """Return the setting of a method.

    Args:
        losses: as `Setting.losses`, or a function of teacher and student that returns them.
        source: as `Setting.source`.
        published: the pairs for which the source gives these values; True for every pair, False for none.
        otherwise: the source to give for another pair, where "{source}" stands for `source`.
        optim: as `Setting.optim`, the same for every pair.
        optim_by_pair: as `Setting.optim`, for the pairs that have one.
        how: further fields of `Setting`.
    """

    def setting(teacher: str, student: str) -> Setting:
        pair = teacher, student
        told = isinstance(published, bool) or pair in published
        return Setting(
            losses(*pair) if callable(losses) else losses,
            source if told else otherwise.format(source=source),
            published if isinstance(published, bool) else told,
            optim=(optim_by_pair or {}).get(pair, optim or {}),
            **how,
        )

    return setting


def _beside_ce(method: Any, source: str, published: Collection[PairNames] = CIFAR100_PAIRS) -> SettingOf:
    """Return cross-entropy and one loss, named as its method, the same for every pair."""
    return _setting({"task": CE, method.method: method}, source, published)


def _by_data_set(cifar100: SettingOf, tiny_imagenet: SettingOf) -> SettingOf:
    """Return the second setting for pairs of Tiny-ImageNet, the first for others."""

    def setting(teacher: str, student: str) -> Setting:
        return (tiny_imagenet if (teacher, student) in TINY_IMAGENET_PAIRS else cifar100)(teacher, student)

    return setting


def _unpublished(name: str) -> SettingOf:
    """Return cross-entropy and a method with its default options, each with weight 1; a loss on labels stands alone.

    Where the method reads two views, cross-entropy is on both, as published settings have it.
    """
    method = METHODS[name]
    task = CE_OF_VIEWS if method.attribute("views") == 2 else CE
    losses = {"task": task, name: loss(name)} if method.attribute("reads_teacher") else {"task": loss(name)}
    return _setting(losses, UNPUBLISHED, False, update="bilevel" if method.attribute("meta") else "descend")


_NORM = "NORM's README, -r 0.1 -a 0 -b 1 -s 8; it does not publish the weight on labels by pair"

_ENTRIES: dict[str, SettingOf] = {
    "plain": _setting({"task": CE}, "RepDistiller, train_teacher.py", True),
    "at": _beside_ce(loss("at", 1000.0, power=2.0), "RepDistiller, -b 1000; mdistiller, cifar100/at.yaml"),
    "cald": _setting(
        {"task": CE, "cald": loss("cald", 0.9)},  # KD's weight, beside a full cross-entropy
        "ours: a reconstruction; neither text nor code of the paper was to be had",
        False,
        update="bilevel",
        update_options={"every": 10, "lr": 1e-2, "held_out_per_class": 10, "held_out_batch": 64},
    ),
    "catkd": _setting(
        by_pair.catkd,
        "CAT-KD, configs/cifar100/CAT_KD",
        by_pair.CATKD,
        "the defaults of CAT-KD's code; not published",
    ),
    "cc": _beside_ce(loss("cc", 0.02, dim=128), "RepDistiller, -b 0.02"),
    "centred_mse": _setting(
        by_pair.centred_mse, "as ranking alignment's; a baseline of this project", False, protocol="paper"
    ),
    "crd": _setting(
        {"task": CE, "crd": loss("crd", 0.8, dim=128, num_negatives=16384, temperature=0.07, momentum=0.5)},
        "RepDistiller, scripts/run_cifar_distill.sh, -b 0.8; mdistiller, cifar100/crd.yaml",
        otherwise="as on CIFAR-100: {source}",  # others use these values too, untuned
    ),
    "crld": _by_data_set(
        _setting(  # the code's defaults, which no pair overrides
            {"task": CE_OF_VIEWS, "crld": loss("crld", temperature=4.0, within_weight=2.0, cross_weight=0.5)},
            "a mirror of the authors' code, cifar100/crld",
            by_pair.CRLD_OPTIM,
            "{source}: other pairs",
            protocol="crld",
            optim_by_pair=by_pair.CRLD_OPTIM,
        ),
        _setting(
            {"task": CE_OF_VIEWS, "crld": loss("crld", temperature=2.0, within_weight=4.0, cross_weight=1.0)},
            "a mirror of the authors' code, tinyimagenet200/crld/res32x4_res8x4.yaml: another pair",
            False,
            protocol="crld",
        ),
    ),
    "ctkd": _setting(
        {"task": CE_OF_KD, "ctkd": loss("ctkd", 0.9, reversal_epochs=10)},
        "CTKD's repository, its CIFAR-100 scripts",
        otherwise="as on CIFAR-100; none for this pair",
    ),
    "dist": _setting(
        {"task": CE, "dist": loss("dist", 2.0, temperature=4.0)},
        "DIST's repository, dist_t4",
        [CIFAR100_PAIRS[i] for i in (0, 1, 3, 6, 8, 10)],
        "as DIST's dist_t4 on CIFAR-100; none for this pair",
    ),
    "dkd": _setting(
        by_pair.dkd, "mdistiller, configs/cifar100/dkd", by_pair.DKD, "mdistiller's default; none for this pair"
    ),
    "dot": _by_data_set(
        _setting(
            KD,
            "mdistiller, cifar100/dot",
            [("resnet32x4", "resnet8x4"), ("resnet32x4", "shufflenetv2"), ("vgg13", "vgg8")],
            "{source}: other pairs",
            update="dot",
            update_options={"delta": 0.075},
        ),
        _setting(
            KD, "mdistiller, tiny_imagenet/dot", True, protocol="dot", update="dot", update_options={"delta": 0.075}
        ),
    ),
    "fcfd": _setting(
        by_pair.fcfd,
        "FCFD, its CIFAR-100 scripts",
        [pair for pair in CIFAR100_PAIRS if pair != ("resnet110", "resnet32")],
        "ours, as FCFD's scripts have it for like pairs",
        optim={"nesterov": True},
    ),
    "fitnets": _setting(by_pair.fitnets, "RepDistiller, -b 100; mdistiller, cifar100/fitnet.yaml"),
    # The authors' README has one command, and results for the pairs of one family.
    "ickd": _beside_ce(loss("ickd", 2.5), "ICKD, Cifar100/README.md, -b 2.5", ONE_FAMILY),
    "kd": _setting(KD, "mdistiller, cifar100/kd.yaml; RepDistiller, -r 0.1 -a 0.9", True),
    # RepDistiller's form needs maps of equal width, and fails on the other pairs.
    "kdsvd": _beside_ce(
        loss("kdsvd", 1.0, num_vectors=1, form="channels"),
        "RepDistiller, -b 1; mdistiller, cifar100/kdsvd.yaml",
        [pair for pair in ONE_FAMILY if pair != ("wrn_40_2", "wrn_40_1")],
    ),
    "lskd": _setting(
        by_pair.lskd,
        "the logit-standardisation repository, names of its log files",
        by_pair.LSKD,
        "the logit-standardisation repository's default; no log for this pair",
    ),
    "lskd_ctkd": _setting(
        {"task": CE_OF_KD, "ctkd": loss("ctkd", 9.0, reversal_epochs=10, standardized=True)},
        "the logit-standardisation repository, its CTKD script: -r 0.1 -a 9, not by pair",
        False,
    ),
    "lskd_dkd": _setting(
        by_pair.lskd_dkd,
        "the logit-standardisation repository, names of its log files",
        by_pair.LSKD_DKD,
        "chosen, as for resnet32x4 and resnet8x4; no log for this pair",
    ),
    "lskd_mlkd": _setting(
        by_pair.lskd_mlkd,
        "logit standardisation, mlkd configurations and names of its logs",
        by_pair.LSKD_MLKD,
        "{source}; none for this pair, the code's default weight",
        protocol="mlkd",
        optim_by_pair=by_pair.LSKD_MLKD_OPTIM,
    ),
    "mlkd": _setting(
        {"task": loss("ce", 0.1, each_view=True), "mlkd": loss("mlkd", 0.9, temperature=4.0, variant="official")},
        "the authors' code, cifar100/ours/*.yaml of September 2024",
        by_pair.MLKD_OPTIM,
        "as on CIFAR-100",
        protocol="mlkd",
        optim_by_pair=by_pair.MLKD_OPTIM,
    ),
    # The authors ran none of these pairs. From ResNet-34 to ResNet-18 on CIFAR-100 they used temperature 3, gamma 3.5.
    "nkd": _setting(
        {"task": CE, "nkd": loss("nkd", gamma=1.5, temperature=1.0)},
        "CRLD's repository, its NKD runs on CIFAR-100",
        ONE_FAMILY,
        "as CRLD's NKD runs; none for this pair",
    ),
    "norm": _setting(by_pair.norm, _NORM, False, optim={"epochs": 241}),
    "norm_kd": _setting(
        by_pair.norm_kd,
        f"{_NORM}; weight 0.9 of distillation: ours, as vanilla KD",
        False,
        optim={"epochs": 241},
    ),
    "nst": _beside_ce(loss("nst", 50.0), "RepDistiller, -b 50; mdistiller, cifar100/nst.yaml"),
    "ofd": _setting(
        {"task": CE, "ofd": loss("ofd", 0.001)},
        "mdistiller, cifar100/ofd.yaml",
        [("resnet32x4", "resnet8x4")],
        "as from resnet32x4 to resnet8x4: {source}",  # others use this weight too, untuned
    ),
    "pkt": _beside_ce(loss("pkt", 30000.0), "RepDistiller, -b 30000; mdistiller, cifar100/pkt.yaml"),
    "pld": _setting({"pld": loss("pld")}, "the PLD paper: in place of cross-entropy, no weight to choose", False),
    "ra": _setting(
        by_pair.ra,
        "the paper, section 4.1 and Figure 2",
        (CIFAR100_PAIRS[1], TINY_IMAGENET_PAIRS[0]),
        "{source}",
        protocol="paper",
    ),
    "rank": _setting(
        {"task": CE, "rank": loss("rank", 32.0)}, "ours: single runs on Tiny-ImageNet", False, optim={"clip_norm": 5.0}
    ),
    "reviewkd": _setting(
        by_pair.reviewkd,
        "ReviewKD, CIFAR-100/script",
        by_pair.REVIEWKD,
        "ours: 8 for MobileNets and ShuffleNetV2, else 5",
        optim_by_pair=by_pair.REVIEWKD_OPTIM,
    ),
    "rkd": _beside_ce(
        loss("rkd", 1.0, distance_weight=25.0, angle_weight=50.0),
        "RepDistiller, -b 1; mdistiller, cifar100/rkd.yaml",
    ),
    "rkkd": _setting(  # KD, and the ranking loss at KD's weight, which reviews report
        {**KD, "rkkd": loss("rkkd", 0.9, steepness=100.0)}, "reconstructed from reviews of arXiv:2409.17823", False
    ),
    "simkd": _setting(
        {"simkd": loss("simkd", factor=2)},  # and none on labels
        "SimKD, train_student.py: -c 0 -d 0 -b 1 --factor 2, for every pair",
        otherwise="{source}; not published for this one",
    ),
    "sp": _beside_ce(loss("sp", 3000.0), "RepDistiller, -b 3000; mdistiller, cifar100/sp.yaml"),
    "ttm": _setting(
        by_pair.ttm, "the TTM paper, Table 8", by_pair.TTM, "chosen; the TTM paper's Table 8 lacks this pair"
    ),
    "vid": _beside_ce(
        loss("vid", 1.0, initial_variance=5.0, eps=1e-5), "RepDistiller, -b 1; mdistiller, cifar100/vid.yaml"
    ),
    "wttm": _setting(
        by_pair.wttm, "the TTM paper, Table 9", by_pair.WTTM, "chosen; the TTM paper's Table 9 lacks this pair"
    ),
}

# The recipe of cross-entropy alone is called "plain".
SETTINGS: dict[str, SettingOf] = _ENTRIES | {
    name: _unpublished(name) for name in METHODS if name not in _ENTRIES and name != "ce"
}
"""Name of a method or of a recipe -> its setting, a function of the names of teacher and student."""
