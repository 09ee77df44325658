import io
from pathlib import Path

import pytest
from rich.console import Console
from small_runs import small_plan
from torch import nn

from rankdistill import MODELS
from rankdistill.cli.console import Terminal
from rankdistill.cli.main import main
from rankdistill.training.loop import fit
from rankdistill.weights.storage import save_weights


def shown(folder: Path, *, terminal: bool, epochs: int = 2) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=150)
    with Terminal(console, "small run") as watcher:
        plan = small_plan(folder, epochs=epochs)
        plan.watchers = [watcher]
        fit(plan)
    return file.getvalue()


def test_a_pipe_gets_a_plain_line_per_epoch(tmp_path: Path) -> None:
    opening, *epochs = shown(tmp_path, terminal=False).split("small run epoch")
    assert [line.split("  ")[0] for line in epochs] == [" 1/2", " 2/2"]
    assert "\x1b" not in opening
    for line in epochs:
        assert "\x1b" not in line
        assert line.count("\n") == 1
        for word in ("task ", "top-1 ", "images/s", "s left"):
            assert word in line


def test_the_opening_says_what_is_trained_before_the_first_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "teacher.safetensors"
    save_weights(weights, MODELS["resnet14"](3).state_dict(), {"model": "resnet14"})
    monkeypatch.chdir(tmp_path)
    options = ["--data.image-size", "8", "--data.num-classes", "3", "--data.num-labels", "30", "--epochs", "1"]
    networks = ["--teacher", "resnet14", "--student", "resnet8", "--teacher-weights", str(weights)]
    odd = "runs of a[/x] :smile: [red]"
    assert main(["distill", "digits.ra", *networks, *options, "--runs", odd, "--losses.ra.distance", "l1"]) == 0
    opening = capsys.readouterr().out.split(" epoch 1/1")[0]
    student, teacher = MODELS["resnet8"](3), MODELS["resnet14"](3)
    norms = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
    sizes = [sum(p.numel() for p in module.parameters()) for module in (student, teacher)]
    sizes[1] -= sum(norm.num_features for norm in norms)  # their scales are in the layers' weights
    lines = [" ".join(line.split()) for line in opening.splitlines()]
    assert lines[:6] == [
        "digits.ra resnet14-resnet8",
        f"student resnet8, {sizes[0]:,} parameters",
        f"teacher resnet14, {sizes[1]:,} parameters, {len(norms)} batch norms merged into the layers before them",
        "images 30 of 3 classes; 1 epoch of 1 step",
        "loss task: ce, weight 1",
        "loss ra: ra, weight 0.3, epsilon 3.0, distance l1, units logit",
    ]
    assert lines[6].startswith("device cpu, precision ")
    assert lines[7].startswith(f"folder {odd}/digits.ra/resnet14-resnet8/")
    assert opening.count("precision") == 1


def test_the_time_is_estimated_after_a_few_steps(tmp_path: Path) -> None:
    lines = shown(tmp_path, terminal=False, epochs=5).splitlines()
    assert sum("small run: about 2 seconds of training" in line for line in lines) == 1


def test_a_terminal_gets_a_bar_with_losses_and_throughput(tmp_path: Path) -> None:
    output = shown(tmp_path, terminal=True)
    assert "\x1b[" in output
    assert "━" in output
    assert "images/s" in output


def test_going_on_is_said(tmp_path: Path) -> None:
    shown(tmp_path, terminal=False)
    assert "\nsmall run: going on after step 6\n" in shown(tmp_path, terminal=False, epochs=3)
