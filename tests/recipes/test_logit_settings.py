"""The settings of the methods on logits: what is published for a pair comes out, and what is not says so."""

import pytest

from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS, PairNames
from rankdistill.recipes.settings import SETTINGS, Setting

PAIRS = [*CIFAR100_PAIRS, *TINY_IMAGENET_PAIRS, ("a_teacher", "a_student")]

# By pair: DKD's beta; exponent and weight of TTM, of WTTM; temperature and weight of KD on standardised logits;
# temperature, weight and beta of DKD on them. None: not published.
TABLE: dict[
    PairNames, tuple[float, tuple[float, ...], tuple[float, ...], tuple[float, ...] | None, tuple[float, ...] | None]
]
TABLE = {
    ("resnet56", "resnet20"): (2, (0.3, 7), (0.3, 1.5), (2, 9), (3, 18, 2)),
    ("resnet32x4", "resnet8x4"): (8, (0.1, 100), (0.1, 3), (2, 9), (2, 9, 8)),
    ("wrn_40_2", "wrn_16_2"): (6, (0.1, 101), (0.1, 4), (2, 9), (2, 12, 2)),
    ("wrn_40_2", "wrn_40_1"): (6, (0.1, 76), (0.1, 3), (2, 9), (2, 12, 2)),
    ("vgg13", "vgg8"): (6, (0.1, 45), (0.1, 2.25), (3, 9), (2, 15, 2)),
    ("resnet110", "resnet32"): (2, (0.1, 33), (0.1, 1.5), (2, 9), (2, 15, 2)),
    ("resnet32x4", "shufflenetv2"): (8, (0.4, 40), (0.4, 16), (2, 9), (2, 9, 8)),
    ("vgg13", "mobilenetv2"): (6, (0.2, 16), (0.2, 3), (3, 9), (3, 9, 2)),
    ("resnet50", "mobilenetv2"): (8, (0.2, 20), (0.2, 5), (3, 1), (2, 15, 2)),
    ("wrn_40_2", "shufflenetv1"): (8, (0.3, 8), (0.3, 3), None, None),
    ("resnet32x4", "shufflenetv1"): (8, (0.2, 12), (0.2, 1.4), None, None),
}


def by_name(name: str, pair: PairNames) -> tuple[Setting, float]:
    """Return the setting and the weight of its cross-entropy."""
    found = SETTINGS[name](*pair)
    return found, found.losses["task"].weight


def test_table_has_every_pair() -> None:
    assert tuple(TABLE) == CIFAR100_PAIRS


@pytest.mark.parametrize("pair", TABLE)
def test_dkd(pair: PairNames) -> None:
    found, task = by_name("dkd", pair)
    dkd = found.losses["dkd"]
    assert (task, dkd.weight, dkd.alpha, dkd.temperature, dkd.warmup) == (1, 1, 1, 4, 20)
    assert dkd.beta == TABLE[pair][0]
    assert found.published


@pytest.mark.parametrize("column", ["ttm", "wttm"])
@pytest.mark.parametrize("pair", TABLE)
def test_ttm_and_wttm(pair: PairNames, column: str) -> None:
    found, task = by_name(column, pair)
    options = found.losses[column]
    assert (options.exponent, options.weight) == TABLE[pair][1 if column == "ttm" else 2]
    assert task == 1
    assert found.published


def test_a_pair_of_ttm_beside_the_tables() -> None:
    for name, expected in (("ttm", (0.2, 8)), ("wttm", (0.2, 2))):
        found, _ = by_name(name, ("resnet110", "resnet20"))
        assert (found.losses[name].exponent, found.losses[name].weight) == expected
        assert found.published


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        *((pair, row[3]) for pair, row in TABLE.items()),
        (("resnet110", "resnet20"), (4, 12)),
        (("resnet32x4", "wrn_16_2"), (3, 9)),
    ],
)
def test_kd_on_standardised_logits(pair: PairNames, expected: tuple[float, ...] | None) -> None:
    found, task = by_name("lskd", pair)
    kd = found.losses["kd"]
    assert kd.standardized
    assert task == 0.1
    assert (kd.temperature, kd.weight) == (expected or (2, 9))
    assert found.published == (expected is not None)


@pytest.mark.parametrize("pair", TABLE)
def test_dkd_on_standardised_logits(pair: PairNames) -> None:
    found, task = by_name("lskd_dkd", pair)
    dkd = found.losses["dkd"]
    assert dkd.standardized
    assert (task, dkd.alpha, dkd.warmup) == (1, 1, 20)
    assert (dkd.temperature, dkd.weight, dkd.beta) == (TABLE[pair][4] or (2, 9, 8))
    assert found.published == (TABLE[pair][4] is not None)


@pytest.mark.parametrize("pair", PAIRS)
def test_those_that_are_the_same_for_every_pair(pair: PairNames) -> None:
    nkd, task = by_name("nkd", pair)
    assert (task, nkd.losses["nkd"].weight, nkd.losses["nkd"].gamma, nkd.losses["nkd"].temperature) == (1, 1, 1.5, 1)
    assert nkd.published == (pair in CIFAR100_PAIRS[:6])

    ctkd, task = by_name("ctkd", pair)
    options = ctkd.losses["ctkd"]
    assert (task, options.weight, options.reversal_epochs, options.instance_wise) == (0.1, 0.9, 10, False)
    assert (options.lowest, options.span) == (1, 20)
    assert ctkd.published == (pair in CIFAR100_PAIRS)

    standardized, task = by_name("lskd_ctkd", pair)
    assert (task, standardized.losses["ctkd"].weight, standardized.losses["ctkd"].standardized) == (0.1, 9, True)

    dist, task = by_name("dist", pair)
    options = dist.losses["dist"]
    assert (task, options.weight, options.beta, options.gamma, options.temperature) == (1, 2, 1, 1, 4)

    rkkd, task = by_name("rkkd", pair)
    assert (task, rkkd.losses["kd"].weight, rkkd.losses["rkkd"].weight, rkkd.published) == (0.1, 0.9, 0.9, False)


@pytest.mark.parametrize("pair", PAIRS)
def test_centred_mse_is_trained_as_ranking_alignment(pair: PairNames) -> None:
    found, alike = SETTINGS["centred_mse"](*pair), SETTINGS["ra"](*pair)
    assert found.losses["centred_mse"].weight == alike.losses["ra"].weight
    assert found.losses["centred_mse"].each_view == alike.losses["ra"].each_view
    assert found.losses["task"] == alike.losses["task"]
    assert (found.protocol, found.optim) == (alike.protocol, alike.optim)
