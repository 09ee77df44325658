"""The operator as installed: what importing it costs, where compiled kernels are kept, and how much memory it takes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import rankdistill
from rankdistill.softrank import soft_rank

RANK = "import torch; from rankdistill.softrank import kernels, soft_rank; print(soft_rank(torch.tensor([3.0, 1.0])));"


def run(script: str, **environment: str) -> str:
    """Return what a new process prints."""
    process = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_importing_compiles_nothing_and_does_without_numba() -> None:
    assert run("import sys, rankdistill.softrank; print('numba' in sys.modules)") == "False\n"


@pytest.fixture
def read_only_installation(tmp_path: Path) -> Path:
    """A copy of the package in whose folders no cache can be made."""
    package = tmp_path / "site" / "rankdistill"
    shutil.copytree(Path(rankdistill.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "softrank" / "__pycache__").write_text("a file where numba would make its folder")
    return tmp_path / "site"


def test_kernels_are_kept_in_the_users_cache_if_the_installation_is_read_only(
    read_only_installation: Path, tmp_path: Path
) -> None:
    environment = {"PYTHONPATH": str(read_only_installation), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    hits = RANK + "print(sum(kernels.range_test.stats.cache_hits.values()))"
    assert run(hits, **environment) == "tensor([1., 2.])\n0\n"
    assert list(tmp_path.rglob("*range_test*.nbc"))
    assert run(hits, **environment) == "tensor([1., 2.])\n1\n"


def test_kernels_work_where_nothing_can_be_written(read_only_installation: Path) -> None:
    environment = {"PYTHONPATH": str(read_only_installation), "HOME": os.devnull, "XDG_CACHE_HOME": os.devnull}
    assert run(RANK, **environment) == "tensor([1., 2.])\n"


@pytest.mark.parametrize("function", ["soft_rank", "soft_sort"])
def test_peak_memory_is_at_most_8_copies_of_the_input(function: str) -> None:
    """Forward and backward on 64 x 100,000 float32, which rank at the one epsilon and sort softly at the other."""
    script = f"""
import resource, sys, torch
from rankdistill.softrank import {function}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
def both(x):
    {function}(x, epsilon={5e-5 if function == "soft_rank" else 100.0}).backward(torch.ones_like(x))
both(torch.randn(2, 100, requires_grad=True))
values = torch.randn(64, 100_000, requires_grad=True)
before = peak()
both(values)
print((peak() - before) / (4 * values.numel()))
"""
    assert float(run(script)) <= 8.0


class Ranked(Dataset[torch.Tensor]):
    """Ranks in the workers of a loader."""

    def __getitem__(self, index: int) -> torch.Tensor:
        return soft_rank(torch.arange(200.0) * (index + 1))

    def __len__(self) -> int:
        return 4


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_workers_of_a_loader_rank() -> None:
    expected = torch.stack([Ranked()[i] for i in range(4)])
    loader = DataLoader(Ranked(), batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60)
    assert torch.equal(torch.cat(list(loader)), expected)
