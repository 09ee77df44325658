import re
import shlex
from pathlib import Path

import pytest

from rankdistill.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]
COMMANDS = [
    pytest.param(command.replace("\\\n", " "), id=f"{page.stem}-{number}")
    for page in PAGES
    for number, command in enumerate(re.findall(r"^rankdistill (?:.*\\\n)*.*$", page.read_text(), re.MULTILINE))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_example_runs(code: str) -> None:
    exec(compile(code, "example", "exec"), {"__name__": "example"})


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command line of the documentation has flags and names that exist: with --help-all it ends well."""
    arguments = [word.replace("<hash>", "0") for word in shlex.split(command)[1:]]
    assert main([*arguments, "--help-all"]) == 0
    shown = capsys.readouterr().out
    for flag in (word for word in arguments if word.startswith("--")):
        assert flag in shown


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(
            r"\]\((?!https?://|#)([^)#]+)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        ):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_make_targets_of_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert {"demo", "test"} <= named <= targets
