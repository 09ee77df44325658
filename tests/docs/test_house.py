"""The budgets of the house: short files, small folders, each public name once, and the tree that CONTRIBUTING shows."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "rankdistill"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
FILES = sorted(PACKAGE.rglob("*.py"))
METHODS = list((PACKAGE / "methods").glob("[a-z]*.py"))
READERS = list((PACKAGE / "data" / "readers").glob("[a-z]*.py"))


def says_why(path: Path) -> bool:
    return "The file is long because" in (ast.get_docstring(ast.parse(path.read_text())) or "")


def lines_of_code(path: Path) -> int:
    """Count the lines that are neither blank, nor a comment, nor part of a docstring."""
    tree, lines = ast.parse(path.read_text()), path.read_text().splitlines()
    counted = {number for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            counted -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(counted)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_short_or_says_why(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300 or says_why(path)


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_method_is_120_lines_of_code_or_says_why(path: Path) -> None:
    assert lines_of_code(path) <= 120 or says_why(path)


def test_no_folder_but_that_of_methods_has_more_than_12_files() -> None:
    counts = Counter(path.parent for path in PACKAGE.rglob("*.py*") if "__pycache__" not in path.parts)
    crowded = {folder.name for folder, count in counts.items() if count > 13}  # one of them is __init__.py
    assert crowded == {"methods"}


def test_each_public_name_is_written_once() -> None:
    stub = (PACKAGE / "__init__.pyi").read_text() + (PACKAGE / "methods" / "__init__.py").read_text()
    names = Counter(re.findall(r"\b(\w+) as \1\b", stub))
    assert max(names.values()) == 1


def test_contributing_shows_the_tree() -> None:
    text = CONTRIBUTING
    tree = text[text.index("```\nsrc/rankdistill/") :]
    tree = tree[: tree.index("```\n", 4)]
    assert len(tree.splitlines()) <= 40, "the tree fits one screen"
    for path in PACKAGE.iterdir():
        if (path / "__init__.py").is_file():
            assert f"\n  {path.name}/" in tree, f"{path.name}/ is not in the tree"
        elif path.suffix == ".py" and not path.name.startswith("_"):
            assert path.name in tree, f"{path.name} is not in the tree"


@pytest.mark.parametrize("folder", ["cli", "data", "recipes", "runs", "training", "weights"])
def test_the_tree_names_the_files_of_a_folder(folder: str) -> None:
    line = re.search(rf"^  {folder}/ .*\n(?:   .*\n)*", CONTRIBUTING, re.MULTILINE)
    assert line is not None
    words = set(re.findall(r"\w+", line.group().replace("teacher cache", "teacher_cache")))
    files = {path.stem for path in (PACKAGE / folder).iterdir() if not path.name.startswith("_")}
    assert files <= words, f"{files - words} of {folder}/ are not in the tree"


def test_targets_take_as_long_on_every_page() -> None:
    of_make = dict(
        re.findall(r"^([a-z-]+):.*## .*\((.*?hour|.*?minutes)\)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )
    of_page = re.findall(r"^\| `make ([a-z-]+)` \|.*\((.*?hour|.*?minutes)\)", CONTRIBUTING, re.MULTILINE)
    assert of_page
    assert all(of_make[target] == duration for target, duration in of_page)


def test_adding_a_method_is_the_same_work_on_every_page() -> None:
    assert "three files and two lines" in CONTRIBUTING
    assert "three files and two lines" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("wrong", "right"), [("Fitnets", "FitNets"), ("CrossEntropyLoss", "CrossEntropy")])
def test_a_misspelt_public_name_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    """Python itself does so, as long as the names are in `dir`."""
    code = f"import rankdistill; rankdistill.{wrong}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"has no attribute '{wrong}'. Did you mean: '{right}'?" in found.stderr
