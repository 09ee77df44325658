"""Every cell of the paper's tables builds a run; protocols have the values of their sources."""

import dataclasses
import inspect

import pytest

from rankdistill import METHODS, UPDATES
from rankdistill.recipes import RECIPES
from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.protocols import PROTOCOLS
from rankdistill.recipes.settings import SETTINGS
from rankdistill.runs.build import check_options
from rankdistill.runs.config import Optim, describe
from rankdistill.runs.options import loss, update_rule

ALL_PAIRS = [*CIFAR100_PAIRS, *TINY_IMAGENET_PAIRS, ("a_teacher", "a_student")]


def test_every_method_has_a_recipe() -> None:
    assert RECIPES.keys() >= {f"cifar100.{name}" for name in METHODS if name != "ce"} | {"cifar100.plain"}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_says_where_it_is_from_and_has_options_that_exist(name: str) -> None:
    for pair in ALL_PAIRS:
        setting = SETTINGS[name](*pair)
        assert setting.source
        check_options(setting.losses)
        UPDATES[setting.update](**dataclasses.asdict(update_rule(setting.update, **setting.update_options)))
        Optim(**setting.optim)
        labels_alone = {key for key, options in setting.losses.items() if not METHODS[options.method].reads_teacher}
        assert labels_alone <= {"task"}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_published_for_unknown_networks_is_published_for_every_pair(name: str) -> None:
    if SETTINGS[name]("a_teacher", "a_student").published:
        assert all(SETTINGS[name](*pair).published for pair in ALL_PAIRS)


@pytest.mark.parametrize("method", SETTINGS)
def test_every_pair_of_a_method_has_a_run(method: str) -> None:
    for dataset, pairs in (("cifar100", CIFAR100_PAIRS), ("tiny_imagenet", TINY_IMAGENET_PAIRS)):
        for teacher, student in pairs:
            run = RECIPES[f"{dataset}.{method}"](teacher, student)
            assert (run.teacher or teacher, run.student) == (teacher, student)
            assert run.data.name == dataset
            assert run.optim.momentum == 0.9
            assert describe(run)["losses"]


@pytest.mark.parametrize("name", SETTINGS)
def test_labels_are_learned_from_each_view_that_a_method_reads(name: str) -> None:
    for pair in ALL_PAIRS:
        losses = SETTINGS[name](*pair).losses.values()
        assert (
            len({2 if getattr(options, "each_view", False) else METHODS[options.method].views for options in losses})
            == 1
        )


def test_a_method_without_an_entry_is_beside_cross_entropy() -> None:
    found = SETTINGS["normalized_kd"]("resnet56", "resnet20")
    assert found.losses == {"task": loss("ce"), "normalized_kd": loss("normalized_kd")}
    assert (found.published, found.source, found.update) == (False, "none: not published", "descend")
    assert SETTINGS["normalized_ce"]("resnet56", "resnet20").losses == {"task": loss("normalized_ce")}
    assert RECIPES["cifar100.normalized_ce"]().teacher is None


def test_a_recipe_says_what_it_trains_with_and_where_that_is_from() -> None:
    assert inspect.getdoc(RECIPES["cifar100.at"]) == (
        "The loss is 1 ce + 1000 at, for resnet32x4 and resnet8x4. Source of the setting: RepDistiller, -b 1000; "
        "mdistiller, cifar100/at.yaml."
    )
    assert "by the update rule dot" in (inspect.getdoc(RECIPES["cifar100.dot"]) or "")


@pytest.mark.parametrize(
    ("protocol", "dataset", "student", "expected"),
    [
        ("paper", "cifar100", "resnet8x4", (300, 64, 0.025, (150, 180, 210))),
        ("paper", "cifar100", "mobilenetv2", (300, 64, 0.01, (150, 180, 210))),
        ("paper", "tiny_imagenet", "tiny_mobilenetv2", (240, 128, 0.05, (150, 180, 210))),
        ("mdistiller", "cifar100", "resnet20", (240, 64, 0.05, (150, 180, 210))),
        ("mdistiller", "cifar100", "shufflenetv1", (240, 64, 0.01, (150, 180, 210))),
        ("mlkd", "cifar100", "wrn_16_2", (240, 64, 0.025, (150, 180, 210))),
        ("crld", "tiny_imagenet", "resnet8x4", (240, 64, 0.05, (150, 180, 210))),
        ("dot", "tiny_imagenet", "tiny_shufflenetv2", (200, 256, 0.2, (60, 120, 160))),
        ("dot", "cifar100", "vgg8", (240, 64, 0.05, (150, 180, 210))),
    ],
)
def test_protocols(protocol: str, dataset: str, student: str, expected: tuple[object, ...]) -> None:
    optim = PROTOCOLS[protocol](dataset, student).optim
    assert (optim.epochs, optim.batch_size, optim.lr, optim.milestones) == expected
    assert (optim.momentum, optim.weight_decay, optim.nesterov) == (0.9, 5e-4, False)


def test_dots_augmentation_on_tiny_imagenet_is_a_rotation() -> None:
    data = PROTOCOLS["dot"]("tiny_imagenet", "tiny_shufflenetv2").data
    assert (data.rotation, data.padding, data.flip) == (20.0, 0, True)


def test_another_protocol_drops_the_sources_own_epochs() -> None:
    recipe = RECIPES["cifar100.mlkd"]
    assert recipe("resnet32x4", "shufflenetv2").optim.epochs == 960
    assert recipe("resnet32x4", "shufflenetv2", "paper").optim.epochs == 300
    assert recipe("resnet32x4", "shufflenetv2").data == recipe("resnet32x4", "shufflenetv2", "paper").data


def test_a_run_of_a_two_view_method_reads_both_views() -> None:
    run = RECIPES["cifar100.ra"]()
    assert [run.losses[name].each_view for name in ("task", "ra")] == [True, True]
    assert (run.losses["ra"].weight, run.losses["ra"].epsilon) == (5.0, 1.0)
    assert RECIPES["tiny_imagenet.ra"]().losses["ra"].weight == 10.0


def test_plain_runs_have_no_teacher() -> None:
    assert RECIPES["cifar100.plain"]("resnet56", "resnet20").teacher is None
    assert RECIPES["cifar100.simkd"]().teacher == "resnet32x4"


def test_unknown_protocol() -> None:
    with pytest.raises(ValueError, match="unknown protocol 'mlkdd': did you mean mlkd"):
        RECIPES["cifar100.kd"](protocol="mlkdd")
