"""The example of CONTRIBUTING.md, written into a copy of the repository: what must find a new method finds it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = dict(
    re.findall(r'^```python title="(.*?)"\n(.*?)^```', (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE)
)
SETTING = "src/rankdistill/recipes/settings.py"
NAME = "regression"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository with the method, but without its setting."""
    folder = tmp_path_factory.mktemp("copy")
    for part in ("src", "tests", "docs"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / part, folder)
    for place, code in BLOCKS.items():
        if place != SETTING:
            write(folder, place, code)
    return folder


def write(folder: Path, place: str, code: str) -> None:
    """Do with a block what CONTRIBUTING.md says: run it, add its lines to a file that is there, or make the file."""
    path = folder / place
    if path.suffix == ".npz":
        ran(folder, "-c", code)
    elif path.exists():
        lines = path.read_text().splitlines(keepends=True)
        for line in code.splitlines(keepends=True):
            lines.insert(_position(lines, line), line)
        path.write_text("".join(lines))
    else:
        path.write_text(code)


def _position(lines: list[str], line: str) -> int:
    """Return where a line belongs: an import before the next one by name, an entry at the end of the first table."""
    if line.startswith("from ."):
        later = (at for at, other in enumerate(lines) if re.match(r"from \.\w", other) and other > line)
        return next(later)
    return lines.index("}\n")


def ran(folder: Path, *arguments: str) -> str:
    """Return what Python prints in the copy; it must end well."""
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_the_example_is_three_files_two_lines_and_an_optional_entry() -> None:
    there = {place for place in BLOCKS if (ROOT / place).exists()}
    assert there == {"src/rankdistill/methods/__init__.py", SETTING}
    assert BLOCKS.keys() - there == {
        f"src/rankdistill/methods/{NAME}.py",
        f"tests/methods/test_{NAME}.py",
        f"tests/golden/{NAME}.npz",
    }
    assert [len(BLOCKS[place].splitlines()) for place in sorted(there)] == [2, 1]


def test_flags(copy: Path) -> None:
    code = f"""
from rankdistill.cli.main import main
for command in (["distill", "cifar100.{NAME}", "--help-all"], ["list", "tiny_imagenet."]):
    assert main(command) == 0
"""
    shown = " ".join(ran(copy, "-c", code).split())
    assert f"--losses.{NAME}.power" in shown
    assert f"The loss is 1 ce + 1 {NAME}, for resnet32x4 and resnet8x4." in shown
    assert f"tiny_imagenet.{NAME}" in shown


def test_assemble_and_public_names(copy: Path) -> None:
    code = f"""
import torch, rankdistill
assert "Regression" in rankdistill.__all__ and "regression_loss" in rankdistill.__all__
networks = rankdistill.MODELS["resnet8"](5), rankdistill.MODELS["resnet8x4"](5)
terms = {{"{NAME}": (2.0, rankdistill.Regression)}}
method, student, teacher = rankdistill.assemble(terms, *networks, torch.zeros(2, 3, 32, 32), num_samples=9)
batch = rankdistill.Batch(torch.randn(4, 3, 32, 32), None)
print(*method(batch, student, teacher), tuple(method.methods["{NAME}"].regress.weight.shape))
"""
    assert ran(copy, "-c", code) == f"{NAME} (256, 64)\n"


def test_page(copy: Path) -> None:
    """The page of few methods, so that it takes no minute; one of them is refused on networks of others."""
    code = f"""
import sys
sys.path.insert(0, "docs")
import generate
for name in set(generate.METHODS) - {{"{NAME}", "kd", "fcfd"}}:
    del generate.METHODS[name]
print(generate.page())
"""
    page = ran(copy, "-c", code)
    row = rf"^\| \[`{NAME}`\]\(#{NAME}\) \| - \| both: pooled \| - \| 4,160 parameters \|"
    assert re.search(row, page, re.MULTILINE)
    assert f"### {NAME}\n\nRegression of the pooled features." in page


def test_group_tests(copy: Path) -> None:
    groups = ["methods/test_every_method.py", "methods/test_foreign_networks.py", "recipes/test_papers.py"]
    groups += ["matrix/test_matrix.py", "matrix/test_rules.py", "test_assembly.py"]
    options = ["-q", "-rA", "-p", "no:cacheprovider", "-k", NAME]
    files = [f"tests/{group}" for group in (*groups, f"methods/test_{NAME}.py")]
    passed = re.findall(r"^PASSED (tests/\S+?)::", ran(copy, "-m", "pytest", *options, *files), re.MULTILINE)
    assert set(passed) == set(files)
    assert passed.count("tests/methods/test_every_method.py") >= 10


def test_setting(copy: Path) -> None:
    write(copy, SETTING, BLOCKS[SETTING])
    code = f"from rankdistill.recipes import RECIPES; print(RECIPES['cifar100.{NAME}'].__doc__)"
    said = ran(copy, "-c", code)
    assert (
        f"The loss is 1 ce + 0.5 {NAME}, for resnet32x4 and resnet8x4. Source of the setting: nobody: an example"
        in said
    )


def test_style(copy: Path) -> None:
    for arguments in (["check"], ["format", "--check"]):
        ran(copy, "-m", "ruff", *arguments, "--no-cache", "src/rankdistill/methods", "tests/methods", SETTING)
