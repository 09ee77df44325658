import dataclasses
import math
import pickle
from pathlib import Path
from typing import Literal

import pytest
import torch

from rankdistill.data import DATASETS, DataSet, Geometry
from rankdistill.methods import METHODS
from rankdistill.methods.ra import Distance
from rankdistill.recipes import RECIPES
from rankdistill.runs.build import build
from rankdistill.runs.config import Data, Optim, Run, describe
from rankdistill.runs.launch import resolve_precision
from rankdistill.runs.options import look_up, loss, options_of
from rankdistill.training.loop import fit


def small_run(folder: Path, **changes: object) -> Run:
    data = Data(name="digits", image_size=8, num_classes=3, num_labels=30, padding=1, flip=False)
    optim = Optim(epochs=1, schedule="cosine", milestones=())
    run = Run("test.plain", "resnet8", None, {"task": loss("ce")}, data, optim, runs=folder, threads=1)
    return dataclasses.replace(run, **changes)  # type: ignore[arg-type]


def test_multistep_rate_drops_after_each_milestone() -> None:
    optim = Optim(lr=0.05, milestones=(150, 180, 210))
    rates = [optim.rate(epoch) for epoch in (1, 150, 151, 180, 181, 210, 211, 240)]
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.005, 5e-4, 5e-4, 5e-5, 5e-5])


def test_cosine_rate_starts_at_lr_and_nears_zero() -> None:
    optim = Optim(lr=0.2, epochs=10, schedule="cosine", milestones=())
    assert optim.rate(1) == 0.2
    assert optim.rate(6) == pytest.approx(0.1)
    assert optim.rate(10) == pytest.approx(0.1 * (1 + math.cos(0.9 * math.pi)))


@pytest.mark.parametrize(("schedule", "milestones"), [("multistep", (4, 6)), ("cosine", ())])
def test_warm_up_is_that_of_pytorch(schedule: Literal["multistep", "cosine"], milestones: tuple[int, ...]) -> None:
    ours = Optim(lr=0.2, epochs=10, schedule=schedule, milestones=milestones, warmup_epochs=3)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.2)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / 4, total_iters=3)
    rates = {
        "multistep": torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones),
        "cosine": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
    }
    theirs = torch.optim.lr_scheduler.ChainedScheduler([warm, rates[schedule]], optimizer=optimizer)
    for epoch in range(1, 11):
        assert ours.rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("warmup_epochs", -1),
        ("warmup_epochs", 240),
        ("epochs", 0),
        ("batch_size", 1),
        ("lr", 0.0),
        ("lr", math.nan),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("gamma", 0.0),
        ("milestones", (3, 2)),
        ("milestones", (0,)),
    ],
)
def test_optimizer_settings_out_of_range(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"optim\.{field} is .*: it must be"):
        Optim(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_out_of_range(tmp_path: Path, weight: float) -> None:
    with pytest.raises(ValueError, match=rf"losses\.task\.weight is {weight}: it must be finite and not negative"):
        small_run(tmp_path, losses={"task": loss("ce", weight)})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, r"seed is -1: it must be at least 0 and less than 2\^63"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"stream_seed": -1}, "stream_seed is -1"),
        ({"threads": 99_999}, "threads is 99999: it must be 1 to 1024"),
    ],
)
def test_seeds_and_threads_out_of_range(tmp_path: Path, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(small_run(tmp_path), **wrong)


def test_options_are_the_methods_keyword_arguments() -> None:
    options = options_of("ra")(weight=2.0, epsilon=0.1, distance="spearman")
    assert (options.weight, options.epsilon, options.distance, options.method) == (2.0, 0.1, "spearman", "ra")
    types = {field.name: field.type for field in dataclasses.fields(options)}
    assert types["separated"] == float | None
    assert types["distance"] == Distance


def test_runs_can_be_pickled(tmp_path: Path) -> None:
    run = small_run(tmp_path, losses={"task": loss("ce", 0.5), "ra": loss("ra", 2.0, epsilon=0.3)})
    assert pickle.loads(pickle.dumps(run)) == run


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_options(name: str) -> None:
    assert options_of(name)().weight == 1.0


def test_unknown_names_are_answered() -> None:
    with pytest.raises(ValueError, match="unknown method 'k': did you mean kd"):
        loss("k")
    with pytest.raises(ValueError, match="unknown letter 'z': there are aa, bb"):
        look_up({"aa": 1, "bb": 2}, "z", "letter")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_named_as_it_is_listed_and_trains_a_known_pair(name: str) -> None:
    run = RECIPES[name]()
    assert run.recipe == name
    alone = {"simkd", "pld"}.intersection(run.losses)  # the one learns from no labels, the other reads them itself
    if alone:
        assert (set(run.losses), run.teacher is not None) == (alone, True)
        return
    assert "task" in run.losses
    assert (run.teacher is not None) == (len(run.losses) > 1)


def test_identity_forgets_places_and_keeps_the_rest(tmp_path: Path) -> None:
    run = small_run(tmp_path)
    elsewhere = dataclasses.replace(run, runs=tmp_path / "x", accelerator="cpu", checkpoint_every=5)
    assert describe(run) == describe(elsewhere)
    others = [
        dataclasses.replace(run, seed=1),
        dataclasses.replace(run, stream_seed=1),
        dataclasses.replace(run, losses={"task": loss("ce", 2.0)}),
        dataclasses.replace(run, losses={"task": loss("ce", label_smoothing=0.1)}),
        dataclasses.replace(run, optim=dataclasses.replace(run.optim, lr=1.0)),
        dataclasses.replace(run, data=dataclasses.replace(run.data, padding=2)),
        dataclasses.replace(run, student="resnet14"),
    ]
    folders = {build(other).folder for other in [run, elsewhere, *others]}
    assert len(folders) == len(others) + 2


def test_where_decoded_images_are_kept_is_no_part_of_the_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: list[Path | None] = []

    def load(root: Path | None, *, cache: Path | None, **options: object) -> DataSet:
        caches.append(cache)
        return DATASETS["digits"](image_size=8)

    monkeypatch.setitem(DATASETS, "tiny_imagenet", load)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    places: tuple[Literal["auto", "off"] | Path, ...] = ("auto", "off", tmp_path / "other")
    folders = set()
    for cache in places:
        data = Data(name="tiny_imagenet", cache=cache, padding=1, flip=False)
        folders.add(build(small_run(tmp_path, data=data)).folder)
    assert caches == [tmp_path / "rankdistill", None, tmp_path / "other"]
    assert len(folders) == 1


def test_other_images_under_the_same_name_are_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits = DATASETS["digits"](image_size=8)
    other = dataclasses.replace(digits, class_names=tuple("abcdefghij"))
    fewer = dataclasses.replace(digits, train=digits.train.subset(torch.arange(1000)))
    folders = set()
    for data in (digits, other, fewer, digits):
        monkeypatch.setitem(DATASETS, "csv", lambda root, data=data, **options: data)
        config = Data(name="csv", padding=1, flip=False)
        folders.add(build(small_run(tmp_path, data=config)).folder)
    assert len(folders) == 3


def test_seeds_decide_the_run(tmp_path: Path) -> None:
    runs = [small_run(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    weights = []
    for run in runs:
        plan = build(run)
        fit(plan)
        weights.append(plan.weights.read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_held_out_images_are_evaluated_and_not_trained_on(tmp_path: Path) -> None:
    data = Data(name="digits", image_size=8, held_out=60, padding=0, flip=False)
    plan = build(small_run(tmp_path, data=data))
    trained, held_out = (
        torch.cat([batch.images.flatten(1) for batch in batches]) for batches in (plan.loader.epoch(1), plan.test())
    )
    assert (len(trained), len(held_out)) == (1297 - 60, 60)
    assert torch.cdist(held_out, trained).min() > 0


def test_a_loss_of_two_views_gets_them(tmp_path: Path) -> None:
    run = small_run(tmp_path, losses={"task": loss("ce", each_view=True)})
    batch = next(build(run).loader.epoch(1))
    assert batch.strong is not None
    assert next(build(small_run(tmp_path)).loader.epoch(1)).strong is None
    weak = dataclasses.replace(run, data=dataclasses.replace(run.data, second_view="weak"))
    other = next(build(weak).loader.epoch(1))
    assert other.strong is not None
    assert torch.equal(other.images, batch.images)
    assert not torch.equal(other.strong, batch.strong)
    with pytest.raises(ValueError, match=r"data\.second_view is 'weak', but no loss"):
        build(small_run(tmp_path, data=weak.data))


def test_a_resized_crop_is_evaluated_on_the_middle(tmp_path: Path) -> None:
    data = Data(name="digits", image_size=12, num_classes=3, padding=0, rotation=10.0, random_resized_crop=8)
    plan = build(small_run(tmp_path, data=data))
    assert next(plan.loader.epoch(1)).images.shape[2:] == next(iter(plan.test())).images.shape[2:] == (8, 8)
    assert Data(**plan.header["data"]).random_resized_crop == 8
    larger = dataclasses.replace(data, random_resized_crop=16)
    with pytest.raises(ValueError, match="random_resized_crop is 16, more than the 12 x 12 pixels"):
        build(small_run(tmp_path, data=larger))


@pytest.mark.parametrize("options", [{"padding": -1}, {"rotation": 100.0}, {"random_resized_crop": 8, "padding": 1}])
def test_views_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"padding is|rotation is"):
        Data(**options)  # type: ignore[arg-type]


def test_precision() -> None:
    assert resolve_precision("32-true") == "32-true"
    assert resolve_precision("bf16-mixed", "cpu") == "bf16-mixed"
    can = torch.cpu.get_capabilities()
    expected = "bf16-mixed" if can["amx_bf16"] or can["avx512_bf16"] else "32-true"
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("auto", "mps") == "32-true"


def test_bf16_run_trains_in_float32_weights(tmp_path: Path) -> None:
    plan = build(small_run(tmp_path, precision="bf16-mixed"))
    result = fit(plan)
    assert math.isfinite(result["last"]["loss"]["task"])
    assert {parameter.dtype for parameter in plan.state.student.module.parameters()} == {torch.float32}


def test_each_flag_of_the_data_has_a_help_text() -> None:
    """The command line takes it from the docstring of the class that has the field."""
    texts = "".join(f"{kind.__doc__}\n" for kind in (Data, Geometry))
    assert [field.name for field in dataclasses.fields(Data) if f"\n        {field.name}: " not in texts] == []
