"""The values of MLKD, MLKD with standardisation, CRLD, CALD and DOT, by pair, as published."""

import pytest

from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.settings import SETTINGS

PAIRS = (*CIFAR100_PAIRS, *TINY_IMAGENET_PAIRS, ("resnet8x4", "resnet8"))

MLKD = {  # pair -> rate, epochs
    ("resnet56", "resnet20"): (0.025, 240),
    ("resnet32x4", "resnet8x4"): (0.025, 240),
    ("wrn_40_2", "wrn_16_2"): (0.025, 240),
    ("wrn_40_2", "wrn_40_1"): (0.025, 240),
    ("vgg13", "vgg8"): (0.025, 240),
    ("resnet110", "resnet32"): (0.025, 240),
    ("resnet32x4", "shufflenetv2"): (0.01, 960),
    ("vgg13", "mobilenetv2"): (0.01, 480),
    ("resnet50", "mobilenetv2"): (0.01, 480),
    ("wrn_40_2", "shufflenetv1"): (0.01, 480),
    ("resnet32x4", "shufflenetv1"): (0.01, 960),
}
LSKD = {  # pair -> weight, rate, epochs, whether there is a log of it
    ("resnet56", "resnet20"): (9.0, 0.025, 480, False),
    ("resnet32x4", "resnet8x4"): (9.0, 0.025, 480, True),
    ("wrn_40_2", "wrn_16_2"): (9.0, 0.025, 480, True),
    ("wrn_40_2", "wrn_40_1"): (9.0, 0.025, 480, True),
    ("vgg13", "vgg8"): (6.0, 0.01, 480, True),
    ("resnet110", "resnet32"): (9.0, 0.025, 480, True),
    ("resnet32x4", "shufflenetv2"): (6.0, 0.01, 960, True),
    ("vgg13", "mobilenetv2"): (6.0, 0.01, 480, True),
    ("resnet50", "mobilenetv2"): (9.0, 0.01, 480, True),
    ("wrn_40_2", "shufflenetv1"): (9.0, 0.01, 480, False),
    ("resnet32x4", "shufflenetv1"): (9.0, 0.01, 960, False),
}


@pytest.mark.parametrize("pair", MLKD)
def test_mlkd(pair: tuple[str, str]) -> None:
    setting = SETTINGS["mlkd"](*pair)
    rate, epochs = MLKD[pair]
    assert setting.optim == {"lr": rate, "epochs": epochs}
    assert (setting.published, setting.protocol) == (True, "mlkd")
    task, mlkd = setting.losses["task"], setting.losses["mlkd"]
    assert (task.weight, task.each_view) == (0.1, True)
    assert (mlkd.weight, mlkd.temperature, mlkd.variant, mlkd.standardized) == (0.9, 4.0, "official", False)


@pytest.mark.parametrize("pair", LSKD)
def test_mlkd_with_standardised_logits(pair: tuple[str, str]) -> None:
    setting = SETTINGS["lskd_mlkd"](*pair)
    weight, rate, epochs, logged = LSKD[pair]
    assert setting.optim == {"lr": rate, "epochs": epochs}
    assert (setting.published, setting.protocol) == (logged, "mlkd")
    task, mlkd = setting.losses["task"], setting.losses["mlkd"]
    assert (task.weight, task.each_view) == (0.1, True)
    assert (mlkd.weight, mlkd.temperature, mlkd.variant, mlkd.standardized) == (weight, 2.0, "official", True)


@pytest.mark.parametrize("pair", PAIRS)
def test_crld(pair: tuple[str, str]) -> None:
    setting = SETTINGS["crld"](*pair)
    configured = pair in CIFAR100_PAIRS and pair[1] != "shufflenetv1"
    light = pair[1] in ("mobilenetv2", "shufflenetv2")
    assert (setting.published, setting.protocol) == (configured, "crld")
    assert setting.optim == ({"lr": 0.01 if light else 0.05} if configured else {})
    task, crld = setting.losses["task"], setting.losses["crld"]
    assert (task.weight, task.each_view, crld.weight) == (1.0, True, 1.0)
    values = (2.0, 4.0, 1.0) if pair in TINY_IMAGENET_PAIRS else (4.0, 2.0, 0.5)
    assert (crld.temperature, crld.within_weight, crld.cross_weight) == values
    assert (crld.weak_threshold, crld.strong_threshold, crld.mask_source) == (0.9, 0.2, "official")


@pytest.mark.parametrize("pair", PAIRS)
def test_dot(pair: tuple[str, str]) -> None:
    setting = SETTINGS["dot"](*pair)
    configured = {("resnet32x4", "resnet8x4"), ("resnet32x4", "shufflenetv2"), ("vgg13", "vgg8"), *TINY_IMAGENET_PAIRS}
    assert setting.published == (pair in configured)
    assert setting.protocol == ("dot" if pair in TINY_IMAGENET_PAIRS else "mdistiller")
    assert (setting.update, setting.update_options) == ("dot", {"delta": 0.075})
    task, kd = setting.losses["task"], setting.losses["kd"]
    assert (task.weight, kd.weight, kd.temperature) == (0.1, 0.9, 4.0)


def test_cald_says_that_it_is_a_reconstruction() -> None:
    setting = SETTINGS["cald"]("resnet32x4", "resnet8x4")
    assert (setting.published, setting.update) == (False, "bilevel")
    assert "reconstruction" in setting.source
    assert (setting.losses["task"].weight, setting.losses["cald"].weight) == (1.0, 0.9)
    expected = {"every": 10, "lr": 1e-2, "held_out_per_class": 10, "held_out_batch": 64}
    assert setting.update_options == expected
