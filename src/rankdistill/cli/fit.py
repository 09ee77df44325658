"""From a run that the command line describes to its result, told in a terminal. This imports torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ..distributed import OtherProcessFailed
from ..recipes.takd import fit_chain
from ..runs.build import build
from ..runs.config import Run
from ..training.lock import Refused
from ..training.loop import fit
from ..training.plan import Plan, Record
from ..training.signals import Interrupted
from ..weights.durable import WriteError
from .console import Terminal, console
from .refusing import refusing


def fit_all(runs: Sequence[Run]) -> None:
    """Train a run, or a chain of them, each student the teacher of the next; those that are done are not trained again.

    Raises:
        SystemExit: a run is refused, was told to stop, or could not be written.
    """
    numbers = iter(range(1, len(runs) + 1))

    def told(run: Run) -> Path:
        number = next(numbers)
        if len(runs) > 1:
            console.print(f"run {number} of {len(runs)}: {run.teacher} teaches {run.student}")
        return _fitted(run)

    fit_chain(runs, told)


def _fitted(run: Run) -> Path:
    """Train a run, unless that was done before, and tell its result; return the student's file."""
    with Terminal(console, f"{run.recipe} {run.pair}") as terminal:
        with refusing():
            plan = build(run, watchers=[terminal])
        before = None if run.again else plan.finished()
        result = before or _trained(plan)
    last, best = result["last"], result["best"]
    when = f"{datetime.fromisoformat(result['finished']):%Y-%m-%d %H:%M}"
    console.print(
        (f"done before, on {when}, and not trained now: " if before else "")
        + f"top-1 {last['top1']:.2f} % after the last epoch (best: {best['top1']:.2f} % after epoch {best['epoch']}), "
        f"{result['seconds']:.0f} seconds of training" + ("; pass --again to train anew" if before else "")
    )
    console.print(str(plan.weights))
    return plan.weights


def _trained(plan: Plan) -> Record:
    try:
        return fit(plan)
    except Refused as error:
        raise SystemExit(str(error)) from error
    except Interrupted as stop:
        console.print(f"rankdistill: {stop}")
        raise SystemExit(stop.code) from stop
    except WriteError as error:
        print(f"rankdistill: {error}; the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(1) from error
    except OtherProcessFailed as error:
        raise SystemExit(1) from error
