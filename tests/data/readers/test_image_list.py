from contextlib import nullcontext
from itertools import product
from pathlib import Path

import pytest
import torch
from test_imagefolder import write_image

from rankdistill.data import DATASETS, DataError, DataSet
from rankdistill.data.readers.images import open_rgb, square

load = DATASETS["csv"]

LINES = [
    "path,label,split",
    "images/0.png,cat,train",
    "images/1.png,ant,train",
    "images/2.png,cat,test",
    "images/sub/3.png,cat,train",
    "images/4.png,ant,test",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        write_image(tmp_path / "images" / ("sub" if number == 3 else "") / f"{number}.png", number)
    return tmp_path


def write(folder: Path, lines: list[str], encoding: str = "utf-8") -> Path:
    path = folder / "list.csv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    return path


def read(folder: Path, lines: list[str], match: str | None = None) -> DataSet:
    """Return what the lines list; with `match`, a warning says so."""
    with nullcontext() if match is None else pytest.warns(UserWarning, match=match):
        return load(write(folder, lines), image_size=8)


def image(folder: Path, name: str) -> torch.Tensor:
    from torchvision.transforms.functional import pil_to_tensor

    return pil_to_tensor(square(open_rgb((folder / "images" / name).read_bytes()), 8))


def test_images_are_where_the_list_says(folder: Path) -> None:
    data = read(folder, LINES)
    assert data.class_names == ("ant", "cat")
    assert data.train.labels.tolist() == [1, 0, 1]
    assert data.test.labels.tolist() == [1, 0]
    assert torch.equal(
        data.train.images, torch.stack([image(folder, name) for name in ("0.png", "1.png", "sub/3.png")])
    )
    assert torch.equal(data.test.images, torch.stack([image(folder, name) for name in ("2.png", "4.png")]))
    assert load(folder / "list.csv").image_shape == (3, 224, 224)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_in_any_order_names_in_any_script(folder: Path, encoding: str) -> None:
    lines = [
        "split,label,who,path",
        "train,ямб,me,images/0.png",
        f'train,"a, b",me,{folder}/images/1.png',
        "test,ямб,you,images/2.png",
        'test,"a, b",you,images/4.png',
    ]
    data = load(write(folder, lines, encoding), image_size=8)
    assert data.class_names == ("a, b", "ямб")
    assert data.train.labels.tolist() == [1, 0]


def test_whole_numbers_keep_their_order(folder: Path) -> None:
    numbers = [number for number in range(12) if number != 3]
    for form in ("{}", "{}.0", "0{}", "{}."):
        labels = [form.format(number) for number in numbers]
        train = [f"images/{number}.png,{label},train" for number, label in zip(numbers, labels, strict=True)]
        data = read(folder, ["path,label,split", *train, f"images/12.png,{labels[-1]},test"], match="10 of 11")
        assert data.class_names == tuple(labels)
        assert data.train.labels.tolist() == list(range(11))
        assert data.test.labels.tolist() == [10]


def test_numbers_of_thousands_of_digits_are_text(folder: Path) -> None:
    labels = ["9" * 5000, "8" * 5000, "10"]
    lines = [
        f"images/{n}.png,{label},{split}" for n, (label, split) in enumerate(product(labels, ("train", "test")), 4)
    ]
    assert read(folder, ["path,label,split", *lines]).class_names == tuple(sorted(labels))


def test_blanks_around_labels_do_not_count(folder: Path) -> None:
    lines = ["path, label, split", "images/0.png,cat,train", "images/1.png, cat ,train", "images/2.png,ant\t, train"]
    data = read(folder, [*lines, "images/4.png,ant,test", "images/5.png,cat,test "])
    assert data.class_names == ("ant", "cat")
    assert data.train.labels.tolist() == [1, 1, 0]
    assert data.test.labels.tolist() == [0, 1]


def test_classes_without_test_images_are_told(folder: Path) -> None:
    data = read(folder, LINES[:-1], match=r"test part of .* has no images of 'ant' \(1 of 2 classes\)")
    assert data.test.labels.tolist() == [1]


def test_an_image_may_be_listed_twice_alike(folder: Path) -> None:
    assert read(folder, [*LINES, LINES[1]]).train.labels.tolist() == [1, 0, 1, 1]


def test_val_is_the_test_part_only_where_there_is_no_other(folder: Path) -> None:
    renamed = [line.replace(",test", ",val") for line in LINES]
    assert read(folder, renamed).test.labels.tolist() == [1, 0]
    both = read(folder, [*LINES, "images/5.png,cat,val"], match="has test and val: the 1 of val are not read")
    assert both.test.labels.tolist() == [1, 0]


def test_without_a_split_a_fifth_is_for_testing(folder: Path) -> None:
    lines = ["path,label", *(f"images/{n}.png,{'ant' if n % 2 else 'cat'}" for n in range(20) if n != 3)]
    data = read(folder, lines)
    assert (len(data.train), len(data.test)) == (16, 3)
    assert sorted(data.test.labels.bincount().tolist()) == [1, 2]
    pixels = torch.cat([data.train.images, data.test.images])
    assert len(pixels.flatten(1).unique(dim=0)) == 19
    again = read(folder, lines)
    assert torch.equal(data.test.images, again.test.images)


def test_only_the_first_classes_are_decoded(folder: Path) -> None:
    lines = [*LINES, "images/5.png,zebra,train"]
    (folder / "images" / "5.png").write_bytes(b"not read")
    data = load(write(folder, lines), image_size=8, num_classes=2)
    assert data.class_names == ("ant", "cat")
    with pytest.raises(DataError, match="1 classes of csv were asked for: give 2 to 3"):
        load(folder / "list.csv", num_classes=1)


def test_decoded_images_are_kept(folder: Path, tmp_path: Path) -> None:
    path, cache = write(folder, LINES), tmp_path / "cache"
    data = load(path, image_size=8, cache=cache)
    assert sorted(file.name.rpartition("-")[0] for file in cache.glob("*.npy")) == ["csv-2-test-8px", "csv-2-train-8px"]
    assert torch.equal(load(path, image_size=8, cache=cache).train.images, data.train.images)
    write_image(folder / "images" / "0.png", 77)
    changed = load(path, image_size=8, cache=cache).train.images
    assert (changed != data.train.images).flatten(1).any(1).tolist() == [True, False, False]


BROKEN: dict[str, tuple[list[str], str]] = {
    "empty": ([], r"has the columns none, not path and label once: give a header path,label"),
    "other columns": (["file,label", "a,b"], r"has the columns file, label, not path once: give a header"),
    "no lines": (LINES[:1], r"lists no train images"),
    "no lines, no split": (["path,label"], r"lists no train images"),
    "no label": ([*LINES, "images/5.png,,train"], r"line 7 of .* has path 'images/5.png', label '' and split 'train'"),
    "no path": ([*LINES, ",cat,train"], r"line 7 of .* has path ''"),
    "short line": ([*LINES, "images/5.png"], r"line 7 of .* has path 'images/5.png', label '' and split ''"),
    "unknown split": ([*LINES, "images/5.png,cat,dev"], r"line 7 .* split 'dev': give all of them, and train"),
    "no test": (LINES[:3], r"lists no test images: mark some so in the column split, or leave the column out"),
    "no train": ([LINES[0], LINES[3]], r"lists no train images"),
    "one class": ([LINES[0], LINES[1], LINES[3]], r"has 1 class among its training images: at least 2"),
    "one class, no split": (["path,label", *(f"images/{n}.png,cat" for n in (0, 1, 2))], r"has 1 class among"),
    "unknown test label": ([*LINES, "images/5.png,cow,test"], r"line 7 of .* has the label 'cow', which no training"),
    "trained and tested": (
        [*LINES, "images/sub/../0.png,cat,test"],
        r"line 7 .* lists 'images/sub/../0.png' for testing, and line 2 for train",
    ),
    "missing image": (
        [*LINES, "images/99.png,cat,train"],
        r"line 7 .* lists 'images/99.png', which cannot be read \(No",
    ),
    "folder": (
        [*LINES, "images,cat,train"],
        r"line 7 of .* lists 'images', which is no file: replace it, or take it off",
    ),
    "no image": ([*LINES, "list.csv,cat,train"], r"list.csv in .* is no whole image .*: replace it, or take it off"),
    "column twice": (
        ["path,label,label", "images/0.png,cat,dog"],
        r"has the columns path, label, label, not label once",
    ),
    "unquoted comma": ([*LINES, "images/5.png,cat, tabby,train"], r"line 7 of .* has 4 cells for 3 columns: quote"),
    "two labels": (
        [*LINES, "images/../images/0.png,ant,train"],
        r"line 7 of .* with the label 'ant', and line 2 with 'c",
    ),
    "two labels, absolute": (
        [*LINES, "{folder}/images/0.png,ant,train"],
        r"line 7 of .* with the label 'ant', and line",
    ),
    "one number in two ways": (
        ["path,label", "images/0.png,1", "images/1.png,01", "images/2.png,2"],
        r"has the labels '01' and '1', which are the same: write it one way",
    ),
    "one number as two types": (
        [LINES[0], "images/0.png,1,train", "images/1.png,0,train", "images/2.png,1.0,test"],
        r"labels '1' and '1.0', which are the same",
    ),
    "two forms of Unicode": (
        ["path,label", "images/0.png,k\u00e4fer", "images/1.png,ka\u0308fer"],
        r"which are the same: write",
    ),
    "null byte": ([*LINES, "images/5\0.png,cat,train"], r"line 7 of .* has path 'images/5\\x00.png'|is no CSV file"),
    "device": ([*LINES, "/dev/zero,cat,train"], r"line 7 of .* lists '/dev/zero', which is no file"),
    "endless line": (
        [*LINES, "images/" + "5" * 70000 + ".png,cat,train"],
        r"is no CSV file .*\(a line has more than 65536",
    ),
    "long path": (
        [*LINES, "images/" + "5" * 7000 + ".png,cat,train"],
        r"line 7 of .* which cannot be read \(File name too",
    ),
    "quote": ([*LINES, 'images/5.png,"cat,train'], r"is no CSV file in UTF-8 \(unexpected end of data\): write"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_lists_are_one_clear_error(folder: Path, case: str) -> None:
    lines, message = BROKEN[case]
    lines = [line.replace("{folder}", str(folder)) for line in lines]
    with pytest.raises(DataError, match=message) as error:
        read(folder, lines)
    assert str(folder / "list.csv") in str(error.value)
    assert "\n" not in str(error.value)


def test_another_encoding(folder: Path) -> None:
    with pytest.raises(DataError, match=r"is no CSV file in UTF-8 \('utf-8' codec"):
        load(write(folder, [*LINES, "images/5.png,Käfer,train"], encoding="latin1"))


def test_arguments_without_meaning_are_refused(folder: Path) -> None:
    path = write(folder, LINES)
    with pytest.raises(DataError, match="csv needs a root"):
        load()
    with pytest.raises(DataError, match="leave out download"):
        load(path, download=True)
    with pytest.raises(DataError, match="image_size is -1: give"):
        load(path, image_size=-1)
    for root in (folder, folder / "nowhere.csv"):
        with pytest.raises(DataError, match=f"there is no file {root}: give a CSV file"):
            load(root)
