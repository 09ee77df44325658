import pytest

from rankdistill.data import DataError
from rankdistill.data.readers.lists import ordered, tell_absent


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "2", "0", "2"], ("0", "2", "10")),
        (["10.0", "2.0", "0.0"], ("0.0", "2.0", "10.0")),
        (["-1", "+3", "2"], ("-1", "2", "+3")),
        (["10", "2", "x"], ("10", "2", "x")),
        (["2.5", "10.0", "1.0"], ("1.0", "10.0", "2.5")),
        (["01", "1", "x"], ("01", "1", "x")),
        (["9" * 19, "10"], ("10", "9" * 19)),
        ([], ()),
    ],
)
def test_the_order_is_that_of_whole_numbers_or_of_text(labels: list[str], expected: tuple[str, ...]) -> None:
    assert ordered("list", labels) == expected


@pytest.mark.parametrize("labels", [["1", "01"], ["1", "1.0"], ["0", "-0"], ["\u00e4", "a\u0308", "1"]])
def test_one_label_in_two_ways_is_refused(labels: list[str]) -> None:
    with pytest.raises(DataError, match=r"list has the labels .* and .*, which are the same: write it one way"):
        ordered("list", labels)


def test_only_absent_classes_are_told() -> None:
    tell_absent("list", ("a", "b"), [1, 0])
    with pytest.warns(UserWarning, match=r"^list has no images of 'b' \(2 of 3 classes\): accuracy"):
        tell_absent("list", ("a", "b", "c"), [0, 0])
