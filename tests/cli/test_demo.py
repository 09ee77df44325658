import dataclasses
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from rich.console import Console
from scipy.stats import spearmanr

from rankdistill.cli.demo import demo, page as report
from rankdistill.models import MODELS
from rankdistill.recipes import digits
from rankdistill.runs.config import Run


def shortened(run: Run) -> Run:
    data = dataclasses.replace(run.data, num_classes=4, num_labels=40)
    return dataclasses.replace(run, data=data, optim=dataclasses.replace(run.optim, epochs=2))


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> demo.Demo:
    recipes = {"plain": digits.plain, "KD": lambda: digits.kd("resnet14"), "RA": lambda: digits.ra("resnet14")}
    teacher = digits.teacher
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "teacher", lambda: shortened(teacher("resnet14")))
        patch.setattr(digits, "plain", lambda: shortened(recipes["plain"]()))
        students = {name: lambda recipe=recipe: shortened(recipe()) for name, recipe in recipes.items()}
        patch.setattr(demo, "STUDENTS", students)
        return demo.run_demo(tmp_path_factory.mktemp("demo"), 2, Console(file=io.StringIO()))


def test_students_of_a_seed_share_what_is_paired(small_demo: demo.Demo) -> None:
    for name in ("KD", "RA"):
        for student, plain in zip(small_demo.students[name], small_demo.students["plain"], strict=True):
            for field in ("seed", "stream_seed", "data"):
                assert getattr(student.run, field) == getattr(plain.run, field)
    assert {student.run.data.subset_seed for student in small_demo.students["plain"]} == {0, 1}


def test_rows_are_the_means_of_the_runs(small_demo: demo.Demo) -> None:
    rows = {row[0]: row for row in demo.rows_of(small_demo)}
    assert list(rows) == ["teacher", "plain", "KD", "RA"]
    scores = [student.top1 for student in small_demo.students["RA"]]
    assert rows["RA"][2].startswith(f"{sum(scores) / 2:.2f} ± ")
    gains = [score - plain.top1 for score, plain in zip(scores, small_demo.students["plain"], strict=True)]
    assert rows["RA"][3].startswith(f"{sum(gains) / 2:+.2f} ± ")
    assert rows["plain"][3] == ""
    assert all(len(row) == len(demo.COLUMNS) for row in rows.values())


def test_accuracy_is_that_of_the_logits(small_demo: demo.Demo) -> None:
    """The page's curves and the table speak of the same networks."""
    for students in small_demo.students.values():
        for student in students:
            assert student.curve[2] == student.top1
            assert student.logits.shape == (len(small_demo.images), 4)


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href") and value]


def test_page_is_whole_and_self_contained(small_demo: demo.Demo) -> None:
    page = report.demo_page(small_demo)
    parser = Links()
    parser.feed(page)
    assert parser.outside == []
    assert page.count('class="plotly-graph-div"') == 3
    for row in demo.rows_of(small_demo):
        assert all(f"<td>{cell}</td>" in page for cell in row)


def test_table_has_every_row(small_demo: demo.Demo) -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(demo.table_of(small_demo))
    shown = console.file.getvalue()
    assert "students with 40 labels, 2 seeds" in shown
    assert all(name in shown for name in ("teacher", "plain", "KD", "RA"))


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seeds is 1: a spread needs at least 2"):
        demo.run_demo(tmp_path, 1, Console(file=io.StringIO()))


def test_rank_agreement_is_spearmans_correlation() -> None:
    student, teacher = torch.randn(5, 10), torch.randn(5, 10)
    expected = sum(spearmanr(s, t).statistic for s, t in zip(student, teacher, strict=True)) / 5
    assert demo.rank_agreement(student, teacher) == pytest.approx(expected)


def test_order_of_the_teacher() -> None:
    student, teacher = torch.tensor([[1.0, 2.0, 6.0]]), torch.tensor([[0.0, 5.0, 1.0]])
    assert report.in_teachers_order(student, teacher).tolist() == [[-1.0, 3.0, -2.0]]


def test_sizes_are_the_published_ones() -> None:
    assert demo.size_of(MODELS["resnet20"](100), (3, 32, 32)) == (278_324, 40_818_944)
