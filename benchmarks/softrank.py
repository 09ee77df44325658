"""Measures the soft-rank operator beside its peers: forward, backward and both, in microseconds.

Every contender's ranks and gradients are compared with ours first. Contenders take turns, so that all see the same
weather; the figure is the median. torchsort and fast-soft-sort are measured if they can be imported. `make
bench-softrank` writes results/softrank.json and results/softrank.svg; about three minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from html import escape
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rankdistill.methods.ra import rank_alignment_loss
from rankdistill.softrank import portable, rank_regime, soft_rank

RESULTS = Path(__file__).parent / "results"
SHAPES = ((64, 100), (128, 200), (256, 1000))
STANDARD_DEVIATION = 4.0
REGIMES: dict[str, Callable[[int], float]] = {"linear": lambda n: 1.0, "ranks": lambda n: 5.0 / n}
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
OURS = "rankdistill"
Contender = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Case:
    """What is measured: logits of standard deviation 4; `separated` is the mean of `rank_regime`."""

    rows: int
    n: int
    regime: str
    epsilon: float
    separated: float
    dtype: str
    threads: int

    def __str__(self) -> str:
        return f"{self.rows} x {self.n}, {self.regime}, epsilon {self.epsilon:g}, {self.dtype}, threads {self.threads}"


def peers() -> Iterator[tuple[str, Contender]]:
    """Yield the packages that can be imported; say which cannot."""
    try:
        torchsort = import_module("torchsort")
        yield "torchsort", lambda x, epsilon: torchsort.soft_rank(-x, regularization_strength=epsilon)
    except ImportError as error:
        print(f"skipped torchsort: {error}")
    try:
        fast = import_module("fast_soft_sort.pytorch_ops")
        yield (
            "fast-soft-sort",
            lambda x, epsilon: fast.soft_rank(x, direction="DESCENDING", regularization_strength=epsilon),
        )
    except ImportError as error:
        print(f"skipped fast-soft-sort: {error}")


def in_torch_operations(x: Tensor, epsilon: float) -> Tensor:
    """The path for accelerators, here on the CPU."""
    blocks = portable.rank_blocks(x.detach(), -1.0 / epsilon, False)
    return portable.ranks_of_blocks(x, blocks, -1.0 / epsilon, False, 0.0)


def closed_form(x: Tensor, epsilon: float) -> Tensor:
    """The linear regime's ranks, untested whether they are the right ones."""
    return 0.5 * (x.shape[-1] + 1) - (x - x.mean(-1, keepdim=True)) / epsilon


class _Nothing(torch.autograd.Function):
    """Copies its input, and the gradient: what any operator written in Python pays before it does any work."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        return gradient.clone()


def nothing(x: Tensor, epsilon: float) -> Tensor:
    """The floor: an autograd function that does nothing."""
    del epsilon
    return _Nothing.apply(x)


def hard_order(x: Tensor, epsilon: float) -> Tensor:
    """torch.sort alone, the larger part of an operator that sorts by it."""
    del epsilon
    return x.sort(dim=-1).values


def centred_mse(student: Tensor, teacher: Tensor) -> Tensor:
    difference = (student - teacher) - (student - teacher).mean(-1, keepdim=True)
    return difference.square().mean()


def timings(calls: dict[str, Callable[[], object]], clock: Callable[[], float], seconds: float) -> dict[str, float]:
    """Return the median time of each call in microseconds, from turns of several calls each."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, call in calls.items():
        call()
        start = clock()
        call()
        repeats[name] = max(1, int(0.02 / max(clock() - start, 1e-6)))
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end or not all(samples.values()):
        for name, call in calls.items():
            for _ in range(repeats[name]):
                start = clock()
                call()
                samples[name].append(clock() - start)
    return {name: 1e6 * statistics.median(values) for name, values in samples.items()}


def measure(
    case: Case, contenders: dict[str, Contender], clock: Callable[[], float], seconds: float
) -> dict[str, dict[str, float]]:
    """Return contender -> part ("forward", "backward", "both") -> microseconds."""
    torch.set_num_threads(case.threads)
    x = logits(case).requires_grad_()
    gradient = torch.randn_like(x)
    wide = x.detach().double().requires_grad_()  # where rounding does not decide which blocks touch
    ours = torch.autograd.grad(soft_rank(wide, epsilon=case.epsilon), wide, gradient.double())[0]
    calls: dict[str, Callable[[], object]] = {}
    for name, rank in contenders.items():
        if name == "closed form" and case.regime != "linear":
            continue
        if name not in ("torch.sort", "nothing"):
            theirs = torch.autograd.grad(rank(wide, case.epsilon), wide, gradient.double())[0]
            torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-9 * ours.abs().max().item())
        calls |= calls_of(name, rank, x, gradient, case.epsilon)
    found = timings(calls, clock, seconds)
    return {
        name: {part: found[f"{name}/{part}"] for part in ("forward", "backward", "both")}
        for name in contenders
        if f"{name}/both" in found
    }


def calls_of(
    name: str, rank: Contender, x: Tensor, gradient: Tensor, epsilon: float
) -> dict[str, Callable[[], object]]:
    graph = rank(x, epsilon)
    return {
        f"{name}/forward": lambda: rank(x, epsilon),
        f"{name}/backward": lambda: torch.autograd.grad(graph, x, gradient, retain_graph=True),
        f"{name}/both": lambda: torch.autograd.grad(rank(x, epsilon), x, gradient),
    }


def measure_loss(case: Case, clock: Callable[[], float], seconds: float) -> dict[str, float]:
    """Return the microseconds, forward and backward, of the loss and of a centred mean squared error."""
    torch.set_num_threads(case.threads)
    student = logits(case).requires_grad_()
    teacher = logits(case)
    calls: dict[str, Callable[[], object]] = {
        "rank_alignment_loss": lambda: torch.autograd.grad(
            rank_alignment_loss(student, teacher, epsilon=case.epsilon).mean(), student
        ),
        "centred MSE": lambda: torch.autograd.grad(centred_mse(student, teacher), student),
    }
    return timings(calls, clock, seconds)


def logits(case: Case) -> Tensor:
    return STANDARD_DEVIATION * torch.randn(case.rows, case.n, dtype=getattr(torch, case.dtype))


def cases(threads: list[int], dtypes: list[str]) -> Iterator[Case]:
    for (rows, n), (regime, epsilon), dtype, count in itertools.product(SHAPES, REGIMES.items(), dtypes, threads):
        sample = STANDARD_DEVIATION * torch.randn(rows, n)
        separated = rank_regime(sample, epsilon(n)).separated.mean().item()
        yield Case(rows, n, regime, epsilon(n), round(separated, 3), dtype, count)


def hardware() -> dict[str, Any]:
    """Return what the figures depend on."""
    cpu = platform.processor()
    if (path := Path("/proc/cpuinfo")).exists():
        cpu = next((line.split(": ")[1] for line in path.read_text().splitlines() if "model name" in line), cpu)
    simd: Any = np.show_config(mode="dicts")
    packages = ("torch", "numpy", "numba", "torchsort", "fast-soft-sort")
    installed = {package.metadata["Name"] for package in metadata.distributions()}
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "numpy_simd": simd["SIMD Extensions"]["found"],
        "load_average": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "versions": {name: metadata.version(name) for name in packages if name in installed},
    }


def show(case: Case, found: dict[str, dict[str, float]]) -> None:
    print(f"\n{case} (separated {case.separated:g})")
    print(f"  {'':16}{'forward':>10}{'backward':>10}{'both':>10}{'both / ours':>13}")
    for name, times in found.items():
        parts = "".join(f"{times[part]:10.1f}" for part in ("forward", "backward", "both"))
        print(f"  {name:16}{parts}{times['both'] / found[OURS]['both']:13.1f}")


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Write bars of forward and backward together, on a logarithmic axis, for one thread and float32."""
    chosen = [r for r in results if r["case"]["threads"] == 1 and r["case"]["dtype"] == "float32"]
    names = list(dict.fromkeys(name for result in chosen for name in result["microseconds"]))
    colours = dict(
        zip(names, ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#999999", "#e69f00", "#000000"), strict=False)
    )
    y, parts = 30, []
    for result in chosen:
        case = result["case"]
        title = f"{case['rows']} x {case['n']}, {case['regime']} (epsilon {case['epsilon']:g})"
        parts.append(f'<text x="10" y="{y}" font-weight="bold">{escape(title)}</text>')
        for name, times in result["microseconds"].items():
            y += 18
            width = 100 * np.log10(max(times["both"], 10.0) / 10.0)
            parts.append(f'<text x="140" y="{y + 11}" text-anchor="end">{escape(name)}</text>')
            parts.append(f'<rect x="150" y="{y}" width="{width:.1f}" height="14" fill="{colours[name]}"/>')
            parts.append(f'<text x="{156 + width:.1f}" y="{y + 11}">{times["both"]:,.0f} µs</text>')
        y += 40
    style = "font-family:sans-serif;font-size:12px;background:white"
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{y}" style="{style}">'
        + "\n".join(parts)
        + "</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="numbers of threads (default: 1)")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "float64"])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each part of each contender (default: 1)")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="cpu: of this thread, on busy machines")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args()
    if options.clock == "cpu" and max(options.threads) > 1:
        parser.error("the cpu clock sees one thread: use the wall clock for more")
    torch.manual_seed(0)
    contenders: dict[str, Contender] = {
        OURS: lambda x, epsilon: soft_rank(x, epsilon=epsilon),
        **dict(peers()),
        "torch operations": in_torch_operations,
        "closed form": closed_form,
        "torch.sort": hard_order,
        "nothing": nothing,
    }
    clock = CLOCKS[options.clock]
    results: list[dict[str, Any]] = []
    for case in cases(options.threads, options.dtypes):
        found = measure(case, contenders, clock, options.seconds)
        show(case, found)
        loss = measure_loss(case, clock, options.seconds)
        print("  " + ", ".join(f"{name} {value:.1f}" for name, value in loss.items()) + " (forward and backward)")
        results.append({"case": asdict(case), "microseconds": found, "loss_microseconds": loss})
    options.output.mkdir(parents=True, exist_ok=True)
    record = {"hardware": hardware(), "clock": options.clock, "results": results}
    (options.output / "softrank.json").write_text(json.dumps(record, indent=1) + "\n")
    plot(results, options.output / "softrank.svg")
    print(f"\nwritten to {options.output}/softrank.json and softrank.svg")


if __name__ == "__main__":
    main()
