"""The settings of methods on features that have the same numbers for every pair, as published."""

import pytest

from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.settings import SETTINGS

PUBLISHED: dict[str, tuple[float, dict[str, object]]] = {
    "fitnets": (100.0, {"hint_stage": 2}),
    "at": (1000.0, {"power": 2.0}),
    "vid": (1.0, {"initial_variance": 5.0, "eps": 1e-5}),
    "sp": (3000.0, {}),
    "rkd": (1.0, {"distance_weight": 25.0, "angle_weight": 50.0}),
    "pkt": (30000.0, {}),
    "nst": (50.0, {}),
    "kdsvd": (1.0, {"num_vectors": 1, "form": "channels"}),
    "cc": (0.02, {"dim": 128}),
    "ickd": (2.5, {}),
}


@pytest.mark.parametrize("pair", [*CIFAR100_PAIRS, *TINY_IMAGENET_PAIRS, ("elsewhere", "unknown")])
@pytest.mark.parametrize("name", PUBLISHED)
def test_settings(name: str, pair: tuple[str, str]) -> None:
    setting = SETTINGS[name](*pair)
    weight, options = PUBLISHED[name]
    if (name, pair) == ("fitnets", TINY_IMAGENET_PAIRS[0]):
        options = {"hint_stage": 4}  # no regressor leads from 17x17 to 32x32
    assert list(setting.losses) == ["task", name]
    assert setting.losses["task"].weight == 1.0
    found = setting.losses[name]
    assert (found.method, found.weight) == (name, weight)
    assert {option: getattr(found, option) for option in options} == options
    of_one_family = CIFAR100_PAIRS[:6]
    known = {"ickd": of_one_family, "kdsvd": [p for p in of_one_family if p != ("wrn_40_2", "wrn_40_1")]}
    assert setting.published == (pair in known.get(name, CIFAR100_PAIRS))
    assert setting.published != setting.source.endswith("not published for this pair")
