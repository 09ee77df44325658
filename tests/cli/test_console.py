import io
from pathlib import Path

from rich.console import Console
from small_runs import small_plan

from rankdistill.cli.console import Terminal
from rankdistill.training.loop import fit


def shown(folder: Path, *, terminal: bool, epochs: int = 2) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=150)
    with Terminal(console, "small run") as watcher:
        plan = small_plan(folder, epochs=epochs)
        plan.watchers = [watcher]
        fit(plan)
    return file.getvalue()


def test_a_pipe_gets_a_plain_line_per_epoch(tmp_path: Path) -> None:
    lines = shown(tmp_path, terminal=False).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["small run epoch 1/2", "small run epoch 2/2"]
    for line in lines:
        assert "\x1b" not in line
        for word in ("task ", "top-1 ", "images/s", "s left"):
            assert word in line


def test_a_terminal_gets_a_bar_with_losses_and_throughput(tmp_path: Path) -> None:
    output = shown(tmp_path, terminal=True)
    assert "\x1b[" in output
    assert "━" in output
    assert "images/s" in output


def test_going_on_is_said(tmp_path: Path) -> None:
    shown(tmp_path, terminal=False)
    assert shown(tmp_path, terminal=False, epochs=3).startswith("small run: going on after step ")
