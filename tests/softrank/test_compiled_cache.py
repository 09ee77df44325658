"""A cache of compiled kernels that is damaged, full or no folder costs time, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = (
    "import sys\nfrom rankdistill.softrank import kernels\nimport numpy as np\n"
    "found = kernels.inspect(np.arange(8, dtype=np.float32), 3.0)\nprint(found)"
)


def run(cache: Path, program: str = PROGRAM) -> str:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def files(cache: Path, end: str) -> list[Path]:
    return sorted(cache.rglob(f"*inspect*.{end}"))


@pytest.mark.parametrize("end", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(b"broken"), lambda p: p.write_bytes(b"")])
def test_a_damaged_file_is_made_again(tmp_path: Path, end: str, damage: Callable[[Path], object]) -> None:
    expected = run(tmp_path)
    (path,) = files(tmp_path, end)
    whole = path.stat().st_size
    damage(path)
    assert run(tmp_path) == expected
    assert path.stat().st_size >= whole // 2


def test_a_full_disk_and_a_file_in_the_folders_place(tmp_path: Path) -> None:
    full = PROGRAM.replace("import numpy", "import numba.core.caching as c\nimport numpy").replace(
        "found =", "c.IndexDataCacheFile.save = lambda *_: (_ for _ in ()).throw(OSError(28, 'full'))\nfound ="
    )
    expected = run(tmp_path / "cache", full)
    assert files(tmp_path / "cache", "nbc") == []
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file") == expected
