import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rankdistill.methods import METHODS
from rankdistill.training.updates import UPDATES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_committed_page_is_what_the_code_says(generate: ModuleType) -> None:
    committed = (ROOT / "docs" / "methods.md").read_text()
    assert committed == generate.page(), "docs/methods.md is out of date: run `make docs-tables`"


def test_every_method_and_rule_has_a_row_and_a_section() -> None:
    page = (ROOT / "docs" / "methods.md").read_text()
    headings = {name for line in page.splitlines() if line.startswith("### ") for name in line[4:].split(", ")}
    assert headings >= METHODS.keys() | UPDATES.keys()
    assert all(page.count(f"\n| [`{name}`](#") == 1 for name in (*METHODS, *UPDATES))


def test_a_docstring_becomes_a_citation_differences_and_markdown(generate: ModuleType) -> None:
    text = "\n".join(
        [
            "A Paper on Something (Doe, Roe and Poe, ICLR 2020).",
            "",
            "arXiv:2001.00001. It begins.",
            "",
            "    L = |s|",
            "      + |t|",
            "",
            "Differs from the authors' code:",
            "- The first thing, which goes on long enough for one cell of a table on a page that is not to be wide.",
            "  More of it.",
            "- The second.",
        ]
    )
    found = generate.Text.parse(text)
    link = "[arXiv:2001.00001](https://arxiv.org/abs/2001.00001)"
    assert found.citation == f"*A Paper on Something*, ICLR 2020, {link}"
    assert found.difference.startswith("The first thing")
    assert found.difference.endswith("not to be wide. And 1 more.")
    assert "```text\nL = |s|\n  + |t|\n```" in found.body
    assert "code:\n\n- The first" in found.body


def test_a_text_without_a_paper_has_no_citation(generate: ModuleType) -> None:
    found = generate.Text.parse(
        "Steps of a kind.\n\nAs in DARTS (Liu et al., ICLR 2019) they are taken. See f(x, 2019)."
    )
    assert (found.citation, found.difference) == ("-", "-")
