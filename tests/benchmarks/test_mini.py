"""The equal-recipe benchmark: its plan, what is chosen, its table of folders of runs, its page."""

from __future__ import annotations

import csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankdistill.cli.main import main as rankdistill
from rankdistill.recipes.settings import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import mini  # noqa: E402
import mini_page  # noqa: E402
from mini_plan import FACTORS, Job, Plan, chosen_factor, flags, planned, read_plan, sixth  # noqa: E402

COMMITTED = read_plan(ROOT / "benchmarks" / "mini.toml")
SMALL = """
[protocol]
dataset = "tiny_imagenet"
teacher = "resnet56"
student = "resnet20"
choice_seed = 0

[protocol.options]
"data.image-size" = 32
"data.padding" = 4
"data.held-out" = 5000
"data.num-labels" = 10000
"optim.epochs" = 2
"optim.batch-size" = 64
"optim.schedule" = "cosine"
"optim.lr" = 0.05
"optim.clip-norm" = 5

[[groups]]
name = "1"
title = "First"
search = true
seeds = [1, 2]
entries = [
  { name = "plain", recipe = "plain" },
  { name = "KD", recipe = "kd", weight = "losses.kd.weight", published = 0.9 },
  { name = "DIST", recipe = "dist", weight = "losses.dist.weight", published = 2.0 },
  { name = "AT", recipe = "at", once = true, cached = false },
  { name = "none", impossible = "there is no recipe" },
]

[[groups]]
name = "2"
title = "More images"
chosen_in = "1"
seeds = [1]
options = { "data.num-labels" = 45000 }
entries = "1"
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return read_plan(path)


@pytest.fixture
def paths(tmp_path: Path) -> mini.Paths:
    return mini.Paths(tmp_path / "images.zip", tmp_path / "teacher.safetensors", tmp_path / "runs")


def finish(job: Job, paths: mini.Paths, top1: float, test: float | None = None) -> None:
    """Leave what a run leaves that ended with these accuracies."""
    folder = paths.folder(job) / job.recipe / "-".join(job.pair) / "0123456789ab"
    folder.mkdir(parents=True)
    result = {"last": {"top1": top1}, "best": {"top1": top1 + 1.0}, "seconds": 60.04}
    (folder / "result.json").write_text(json.dumps(result))
    (paths.folder(job) / "about.json").write_text(json.dumps(mini.about("32-true", 1)))
    if test is not None:
        (paths.folder(job) / "test.json").write_text(json.dumps({"top1": test}))


def searched(plan: Plan, paths: mini.Paths, best: float) -> dict[str, float]:
    """Finish every trial; accuracy falls with the distance of the factor from `best`."""
    found: dict[str, float] = {}
    for _ in range(2):  # the sixth comes with the five
        for job in planned(plan, found):
            if job.setting == "trial" and job.key not in found:
                finish(job, paths, 40.0 - abs(math.log(job.factor / best)))
        found = mini.accuracies(plan, paths)
    return found


def test_published_weights_come_first_then_the_search_then_one_seed_of_each_line_after_the_other(plan: Plan) -> None:
    jobs = [(job.group, job.entry.name, job.setting, job.seed) for job in planned(plan, {})]
    assert jobs[:3] == [("1", name, "trial", 0) for name in ("plain", "KD", "DIST")]
    assert jobs[3:11] == [("1", name, "trial", 0) for _ in FACTORS[1:] for name in ("KD", "DIST")]
    assert jobs[11:15] == [("1", name, "published", 1) for name in ("plain", "KD", "DIST", "AT")]
    assert jobs[15:18] == [("1", name, "published", 2) for name in ("plain", "KD", "DIST")]
    assert jobs[18:] == [("2", name, "published", 1) for name in ("plain", "KD", "DIST", "AT")]


def test_a_published_weight_is_left_to_the_recipe_and_a_trial_sets_it(plan: Plan) -> None:
    published, tripled = (
        next(job for job in planned(plan, {}) if job.entry.name == "KD" and job.factor == factor) for factor in (1, 3)
    )
    assert "--losses.kd.weight" not in published.arguments
    assert tripled.weight == 2.7
    place = tripled.arguments.index("--losses.kd.weight")
    assert tripled.arguments[place + 1] == "2.7"
    assert published.key != tripled.key


@pytest.mark.parametrize(
    ("best", "expected"), [(1.0, 3**0.5), (1 / 3, 3**-0.5), (9.0, 27.0), (1 / 9, 1 / 27), (3.0, 3**1.5)]
)
def test_the_sixth_is_between_the_best_and_its_better_neighbour_or_beyond_an_end(best: float, expected: float) -> None:
    found = {factor: 40.0 - abs(math.log(factor / best) - 0.01) for factor in FACTORS}
    assert sixth(found) == pytest.approx(expected)


def test_a_failed_trial_is_the_worst() -> None:
    found = dict.fromkeys(FACTORS, 30.0) | {9.0: -math.inf, 3.0: 31.0}
    assert sixth(found) == pytest.approx(3**0.5)


def test_six_trials_make_a_choice_and_it_is_trained_with_every_seed_here_and_in_the_group_that_takes_it(
    plan: Plan, paths: mini.Paths
) -> None:
    found = searched(plan, paths, best=2.9)
    group = plan.groups[0]
    assert [chosen_factor(plan, group, entry, found) for entry in group.entries[:4]] == [None, 3.0, 3.0, None]
    chosen = [job for job in planned(plan, found) if job.setting == "chosen"]
    assert [(job.group, job.entry.name, job.seed, job.weight) for job in chosen] == [
        *(("1", name, seed, weight) for seed in (1, 2) for name, weight in (("KD", 2.7), ("DIST", 6.0))),
        *(("2", name, 1, weight) for name, weight in (("KD", 2.7), ("DIST", 6.0))),
    ]
    assert all("45000" in job.arguments for job in chosen if job.group == "2")
    assert list(planned(plan, found, ["2"])) == [job for job in planned(plan, found) if job.group == "2"]


def test_a_published_weight_that_is_chosen_is_trained_once(plan: Plan, paths: mini.Paths) -> None:
    settings = [job.setting for job in planned(plan, searched(plan, paths, best=1.0)) if job.entry.name == "KD"]
    assert settings.count("both") == 3
    assert "chosen" not in settings
    assert "published" not in settings


def test_the_same_command_is_the_same_run_in_every_group(plan: Plan) -> None:
    same = replace(plan.groups[0], name="3", search=False, seeds=(2,))
    jobs = list(planned(replace(plan, groups=(*plan.groups, same)), {}))
    first = {job.key for job in jobs if job.group == "1" and job.seed == 2}
    assert {job.key for job in jobs if job.group == "3" and job.entry.name != "AT"} == first


def test_a_run_is_trained_then_measured_on_test_images_but_never_one_of_the_search(
    plan: Plan, paths: mini.Paths
) -> None:
    jobs = list(planned(plan, {}))
    trial, final = jobs[1], next(job for job in jobs if job.setting == "published" and job.entry.name == "AT")
    command = mini.next_command(trial, paths)
    assert command is not None
    assert command[:2] == ["distill", "tiny_imagenet.kd"]
    assert "--teacher-cache" in command
    assert "--teacher-cache" not in (mini.next_command(final, paths) or [])
    assert "--teacher-weights" not in (mini.next_command(jobs[0], paths) or [])
    finish(trial, paths, 30.0)
    finish(final, paths, 30.0)
    assert mini.next_command(trial, paths) is None
    assert (mini.next_command(final, paths) or [])[0] == "evaluate"
    (paths.folder(final) / "test.json").write_text("{}")
    assert mini.next_command(final, paths) is None


def test_the_table_has_a_row_for_each_run_and_split_and_the_sentences_of_failed_runs(
    plan: Plan, paths: mini.Paths, tmp_path: Path
) -> None:
    jobs = list(planned(plan, {}))
    trial = jobs[1]
    done = next(job for job in jobs if job.setting == "published" and job.entry.name == "KD")
    failed = next(job for job in jobs if job.setting == "published" and job.entry.name == "DIST")
    finish(trial, paths, 30.004)
    finish(done, paths, 31.0, test=29.5)
    paths.folder(failed).mkdir()
    (paths.folder(failed) / "failed.json").write_text(json.dumps({"code": 1, "sentence": "the loss is not finite"}))
    mini.write_table(plan, paths, tmp_path / "mini.csv")
    with (tmp_path / "mini.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = ("method", "setting", "weight", "seed", "split", "top1_last", "top1_best", "seconds", "failed")
    assert [tuple(row[name] for name in wanted) for row in rows] == [
        ("KD", "trial", "0.9", "0", "held-out", "30.0", "31.0", "60.0", ""),
        ("KD", "published", "0.9", "1", "held-out", "31.0", "32.0", "60.0", ""),
        ("KD", "published", "0.9", "1", "test", "29.5", "", "60.0", ""),
        ("DIST", "published", "2.0", "1", "", "", "", "", "the loss is not finite"),
    ]
    assert rows[0]["options"].startswith("--data.image-size 32 --data.padding 4 ")
    assert rows[0]["options"].endswith(" --optim.clip-norm 5 --seed 0 --stream-seed 0")
    assert rows[0]["precision"] == "32-true"


def test_rows_of_another_machine_are_kept_count_for_choices_and_are_not_trained_again(
    plan: Plan, paths: mini.Paths, tmp_path: Path
) -> None:
    found = searched(plan, paths, best=2.9)
    done, half = (job for job in planned(plan, found) if job.setting == "chosen" and job.seed == 1 and job.group == "1")
    finish(done, paths, 31.0, test=29.5)
    finish(half, paths, 32.0)
    table = tmp_path / "mini.csv"
    mini.write_table(plan, paths, table)
    before = table.read_text()

    elsewhere = replace(paths, runs=tmp_path / "elsewhere", kept=mini.read_kept(table))
    mini.write_table(plan, elsewhere, table)
    assert table.read_text() == before
    assert mini.accuracies(plan, elsewhere) == pytest.approx(mini.accuracies(plan, paths), abs=0.006)
    assert mini.next_command(done, elsewhere) is None
    assert (mini.next_command(half, elsewhere) or [])[0] == "distill"  # its student is not here to be measured
    finish(half, elsewhere, 33.0, test=30.0)
    mini.write_table(plan, elsewhere, table)
    assert ",33.0,34.0," in table.read_text()
    assert ",32.0,33.0," not in table.read_text()


def test_a_folder_of_another_teacher_is_refused(paths: mini.Paths) -> None:
    paths.teacher.write_bytes(b"one")
    mini.check_teacher(paths)
    mini.check_teacher(paths)
    paths.teacher.write_bytes(b"another")
    with pytest.raises(ValueError, match="was made with another teacher"):
        mini.check_teacher(paths)


def test_a_failing_run_is_tried_twice_and_does_not_stop_the_others(
    plan: Plan, paths: mini.Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini.time, "sleep", lambda seconds: None)
    script = "import sys; print('log of', sys.argv[3], file=sys.stderr); sys.exit(2)"
    real = mini.subprocess.Popen
    monkeypatch.setattr(
        mini.subprocess, "Popen", lambda command, **how: real([sys.executable, "-c", script, *command[1:]], **how)
    )
    one_each = replace(
        plan, groups=(replace(plan.groups[0], search=False, seeds=(1,), entries=plan.groups[0].entries[:2]),)
    )
    runner = mini.Runner(one_each, paths, tmp_path / "mini.csv", (), mini.about("32-true", 1))
    runner.run(jobs=2, seconds=60.0)
    assert sorted(runner.tries.values()) == [2, 2]
    with (tmp_path / "mini.csv").open(newline="") as file:
        assert [row["failed"] for row in csv.DictReader(file)] == ["log of distill", "log of distill"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (False, ["--optim.no-nesterov"]),
        (True, ["--optim.nesterov"]),
        ([], ["--optim.nesterov"]),
        (5, ["--optim.nesterov", "5"]),
    ],
)
def test_options_become_flags(value: Any, expected: list[str]) -> None:
    assert flags({"optim.nesterov": value}) == expected


def test_an_unknown_group_is_refused(plan: Plan) -> None:
    with pytest.raises(ValueError, match="there is no group '7': there are 1, 2"):
        list(planned(plan, {}, ["7"]))


def test_a_group_that_refers_to_one_after_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(SMALL.replace('chosen_in = "1"', 'chosen_in = "9"'))
    with pytest.raises(ValueError, match="takes weights of '9', which is not before it"):
        read_plan(path)


def _commands() -> dict[str, Job]:
    """Each recipe once with each set of options."""
    found: dict[str, Job] = {}
    for job in planned(COMMITTED, {}):
        options = [word for word in job.arguments if word.startswith("--losses")]
        found.setdefault(" ".join([job.recipe, *options]), job)
    return found


COMMANDS = _commands()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_committed_plan_is_understood(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    command = mini.next_command(COMMANDS[name], mini.Paths(nowhere, nowhere, tmp_path))
    assert command is not None
    assert rankdistill(command) == 2
    # Names and options are checked before files.
    assert str(nowhere) in capsys.readouterr().err.replace("\n", "")


def test_published_weights_are_those_of_the_recipes() -> None:
    for group in COMMITTED.groups:
        for entry in group.entries:
            if entry.weight:
                _, loss, option = entry.weight.split(".")
                setting = SETTINGS[entry.recipe]("resnet56", "resnet20")
                assert getattr(setting.losses[loss], option) == entry.published, entry.name


def test_the_committed_page_is_what_the_committed_table_says() -> None:
    with (ROOT / "benchmarks" / "results" / "mini.csv").open(newline="") as file:
        page = mini_page.page(COMMITTED, list(csv.DictReader(file)))
    assert (ROOT / "docs" / "mini.md").read_text() == page, "docs/mini.md is out of date: run `make docs-tables`"


def test_the_page_tells_spread_number_and_interval(plan: Plan, paths: mini.Paths, tmp_path: Path) -> None:
    searched(plan, paths, best=2.9)
    for job in planned(plan, mini.accuracies(plan, paths), ["1"]):
        if job.setting != "trial" and job.entry.name in ("KD", "DIST") and (job.setting == "chosen" or job.seed == 1):
            gain = {"KD": 0.0, "DIST": 1.0 + job.seed}[job.entry.name]
            finish(job, paths, 30.0, test=30.0 + job.seed + gain)
    mini.write_table(plan, paths, tmp_path / "mini.csv")
    with (tmp_path / "mini.csv").open(newline="") as file:
        page = mini_page.page(plan, list(csv.DictReader(file)))
    # Differences 2 and 3: mean 2.5, standard error 0.5, t of 97.5 % with one degree of freedom 12.706.
    chosen = "34.00 ± 1.41 (n = 2) | 6.0 | +2.50 [-3.85, +8.85] (n = 2) |"
    assert f"| DIST | 33.00 (n = 1) | +2.00 (n = 1) | {chosen}" in page
    assert "| plain | not run | - | - | - | - |" in page
    assert "| none | not run: there is no recipe |" in page
    assert "| KD | 0.9 | 36.74 | 37.84 | 38.94 | 39.97 | 38.87 | 39.48 (weight 1.559) |" in page
    assert "## 2. More images\n\nNot run." in page


def test_lines_are_compared_with_kd_under_the_same_conditions_only() -> None:
    assert [mini_page.baseline_of(COMMITTED, group) for group in COMMITTED.groups] == ["1", "1", "1", "4"]
    elsewhere = replace(COMMITTED.groups[1], student="resnet32")
    assert mini_page.baseline_of(COMMITTED, elsewhere) == ""
