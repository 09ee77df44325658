"""What `rankdistill list` shows: names on a screen, sentences of a kind or of a word."""

import re

import pytest

from rankdistill import METHODS, MODELS, UPDATES
from rankdistill.cli.main import main
from rankdistill.data import DATASETS
from rankdistill.recipes import RECIPES
from rankdistill.recipes.takd import CHAINS


def output(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, with line breaks taken out."""
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_list_shows_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = output(capsys)
    for name in (*DATASETS, *MODELS, *METHODS, *UPDATES):
        assert re.search(rf"\b{name}\b", shown)
    assert main(["list", "recipes"]) == 0
    shown = output(capsys)
    for name in (*RECIPES, *CHAINS):
        assert f" {name} " in shown


@pytest.mark.parametrize(
    ("word", "there", "not_there"),
    [
        ("", ["digits", "recipes cifar100.NAME:", "resnet8x4", "bilevel"], ["parameters", "The student"]),
        ("dkd", ["dkd ", "cifar100.dkd ", "tiny_imagenet.dkd "], ["vgg8 ", "digits.ra"]),
        ("models", ["resnet8x4", "vgg8"], ["digits.ra", "methods:"]),
        ("Model", ["resnet8x4", "vgg8"], ["digits.ra", "methods:"]),
        ("data", ["digits ", "csv"], ["digits.ra", "methods:"]),
        ("update rules", ["bilevel "], ["digits.ra", "methods:"]),
        ("kendall", ["rkkd "], ["resnet8x4"]),
    ],
)
def test_list_filters(word: str, there: list[str], not_there: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *([word] if word else [])]) == 0
    shown = capsys.readouterr().out
    assert [name for name in there if name not in shown] == []
    assert [name for name in not_there if name in shown] == []
    assert len(shown.splitlines()) <= (30 if not word else 200)


def test_list_shows_a_sentence_on_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for kind in ("data sets", "models", "methods", "update rules", "recipes"):
        assert main(["list", kind]) == 0
        first, *lines = capsys.readouterr().out.splitlines()
        assert first == f"{kind}:"
        assert len(lines) <= 60 or kind == "recipes"
        entries = re.split(r"\n  (?=\S)", "\n" + "\n".join(lines))[1:]
        texts = [" ".join(entry.split()[1:]) for entry in entries]
        assert [text for text in texts if not re.match("[A-Z0-9].{20,}[.]$", text)] == []
        assert [text for text in texts if re.search("Return|none:|in nats|See `", text)] == []


def test_list_of_nothing_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "elephant"]) == 2
    assert "nothing has 'elephant' in its name or its sentence" in output(capsys)
