"""Every quirk of the official layout, on small trees and zips in it; and a few classes of the real zip."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import Resize
from torchvision.transforms.functional import pil_to_tensor

from rankdistill.data import DATASETS, DataError

load = DATASETS["tiny_imagenet"]

WNIDS = ["n03", "n01", "n02"]  # as in the official file, not sorted
REAL_ZIP = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "tiny-imagenet-200.zip"


def write_image(path: Path, value: int, mode: str = "RGB", side: int = 64) -> None:
    """A JPEG of smooth noise around a brightness."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(-20, 20, (side // 8, side // 8, 3))
    image = Image.fromarray((value + noise).clip(0, 255).astype(np.uint8)).resize((side, side))
    image.convert(mode).save(path, "JPEG")


def write_tree(folder: Path) -> Path:
    """Three classes with 2, 3 and 12 training images (one of them grey), 2 validation images each."""
    for wnid, count in (("n01", 2), ("n02", 3), ("n03", 12)):
        label = int(wnid[1:]) - 1
        for number in range(count):
            mode = "L" if (wnid, number) == ("n02", 1) else "RGB"
            write_image(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", 60 * label + 40 + number, mode)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
    lines = []
    for number, wnid in enumerate(["n02", "n01", "n03", "n03", "n01", "n02"]):
        write_image(folder / "val" / "images" / f"val_{number}.JPEG", 60 * int(wnid[1:]) - 20)
        lines.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    write_image(folder / "test" / "images" / "test_0.JPEG", 100)
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (folder / "words.txt").write_text("n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\tnewt\n")
    return folder


def write_zip(folder: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tiny-imagenet-200")


def pillow(path: Path) -> torch.Tensor:
    return pil_to_tensor(Image.open(path).convert("RGB"))


def test_labels_follow_the_sorted_wnids_and_images_their_names(tree: Path) -> None:
    data = load(tree)
    assert data.class_names == ("goldfish, Carassius auratus", "newt", "n03")  # n03 is not in words.txt
    assert data.train.labels.tolist() == [0] * 2 + [1] * 3 + [2] * 12
    assert data.image_shape == (3, 64, 64)
    # As text, so that positions are those of torchvision's ImageFolder: 0, 1, 10, 11, 2, ...
    names = sorted(f"n03_{number}.JPEG" for number in range(12))
    expected = torch.stack([pillow(tree / "train" / "n03" / "images" / name) for name in names])
    assert torch.equal(data.train.images[5:], expected)


def test_validation_labels_come_from_the_annotations(tree: Path) -> None:
    test = load(tree).test
    assert test.labels.tolist() == [1, 0, 2, 2, 0, 1]
    brightness = test.images.float().mean(dim=(1, 2, 3))
    assert (brightness - (60.0 * test.labels + 40)).abs().max() < 10


def test_grey_images_become_rgb(tree: Path) -> None:
    path = tree / "train" / "n02" / "images" / "n02_1.JPEG"
    with Image.open(path) as image:
        assert image.mode == "L"
    images = load(tree).train.images
    assert torch.equal(images[3], pillow(path))
    assert (images[3] == images[3, :1]).all()
    assert not (images[2] == images[2, :1]).all()


@pytest.mark.parametrize("size", [32, 48, 96])
def test_other_sizes_are_resized_as_torchvision_does(tree: Path, size: int) -> None:
    data = load(tree, image_size=size)
    for number in range(6):
        image = Resize(size)(Image.open(tree / "val" / "images" / f"val_{number}.JPEG"))
        assert torch.equal(data.test.images[number], pil_to_tensor(image))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_and_folders_give_the_same(tree: Path, compression: int) -> None:
    path = write_zip(tree, compression)
    before = sorted(path.parent.rglob("*"))
    ours = [load(root) for root in (tree, tree.parent, path)]
    assert sorted(path.parent.rglob("*")) == before  # nothing was unpacked
    for other in ours[1:]:
        assert other.class_names == ours[0].class_names
        for a, b in ((ours[0].train, other.train), (ours[0].test, other.test)):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.labels, b.labels)


def test_only_the_first_classes_are_decoded(tree: Path) -> None:
    whole = load(tree)
    for file in (tree / "train" / "n03" / "images").iterdir():
        file.write_bytes(b"not read")
    data = load(tree, num_classes=2)
    assert data.class_names == whole.class_names[:2]
    assert torch.equal(data.train.images, whole.train.images[:5])
    assert torch.equal(data.test.images, whole.test.images[whole.test.labels < 2])
    assert data.test.labels.tolist() == [1, 0, 0, 1]


def test_words_are_optional(tree: Path) -> None:
    (tree / "words.txt").unlink()
    assert load(tree).class_names == ("n01", "n02", "n03")


def into_folders(tree: Path, inner: str, annotated: bool) -> None:
    """Sort the validation images into a folder per class, as many people's scripts do."""
    annotations = tree / "val" / "val_annotations.txt"
    for line in annotations.read_text().splitlines():
        file, wnid = line.split("\t")[:2]
        (tree / "val" / wnid / inner).mkdir(parents=True, exist_ok=True)
        shutil.move(tree / "val" / "images" / file, tree / "val" / wnid / inner / file)
    (tree / "val" / "images").rmdir()
    if not annotated:
        annotations.unlink()


@pytest.mark.parametrize("annotated", [True, False])
@pytest.mark.parametrize("inner", ["", "images"])
def test_validation_images_in_folders_of_classes_are_read(tree: Path, inner: str, annotated: bool) -> None:
    before = load(tree)
    into_folders(tree, inner, annotated)
    data = load(tree)
    assert data.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    order = before.test.labels.argsort(stable=True)
    assert torch.equal(data.test.images, before.test.images[order])
    assert torch.equal(data.train.images, before.train.images)
    if annotated:
        (tree / "val" / "n01" / inner / "val_1.JPEG").rename(tree / "val" / "n02" / inner / "val_1.JPEG")
        with pytest.raises(
            DataError, match=r"only one of .* and the folders of val in .* has val_1.JPEG as n01 \(2 such"
        ):
            load(tree)
        (tree / "val" / "n02" / inner / "val_1.JPEG").rename(tree / "val" / "n01" / inner / "val_1.JPEG")
    (tree / "val" / "n01").rename(tree / "val" / "n07")
    with pytest.raises(DataError, match=r"val in .* has the class 'n07', which wnids.txt lacks"):
        load(tree)


def test_training_images_without_the_inner_folder(tree: Path) -> None:
    before = load(tree)
    for folder in sorted((tree / "train").glob("*/images")):
        for file in sorted(folder.iterdir()):
            file.rename(folder.parent / file.name)
    assert torch.equal(load(tree).train.images, before.train.images)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no wnids": (lambda tree: (tree / "wnids.txt").unlink(), r"tiny-imagenet-200.* has no wnids.txt"),
    "one class": (lambda tree: (tree / "wnids.txt").write_text("n01\n"), r"wnids.txt in .* lists 1 of 1 classes"),
    "class missing": (lambda tree: shutil.rmtree(tree / "train" / "n02"), r"train has no images of n02 \(1 such"),
    "class too many": (
        lambda tree: write_image(tree / "train" / "n09" / "images" / "n09_0.JPEG", 50),
        r"lists 3 classes in wnids.txt, but train has images of n09",
    ),
    "no annotations": (
        lambda tree: (tree / "val" / "val_annotations.txt").unlink(),
        r"has no val/val_annotations.txt",
    ),
    "classes twice": (
        lambda tree: (tree / "wnids.txt").write_text("n01\nn02\nn03\nn02\n"),
        r"wnids.txt in .* lists 3 of 4 classes",
    ),
    "annotated twice": (
        lambda tree: (tree / "val" / "val_annotations.txt").write_text(
            (tree / "val" / "val_annotations.txt").read_text() + "val_0.JPEG\tn01\t0\t0\t62\t62\n"
        ),
        r"line 7 of val/val_annotations.txt in .* gives val_0.JPEG another class",
    ),
    "image missing": (
        lambda tree: (tree / "val" / "images" / "val_3.JPEG").unlink(),
        r"only one of .* has val/images/val_3.JPEG",
    ),
    "image not annotated": (
        lambda tree: write_image(tree / "val" / "images" / "val_9.JPEG", 50),
        r"only one of .* has val/images/val_9.JPEG",
    ),
    "unknown class": (
        lambda tree: (tree / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn77\t0\t0\t1\t1\n"),
        r"line 1 of val/val_annotations.txt in .* has the class 'n77'",
    ),
    "no JPEG": (
        lambda tree: (tree / "train" / "n01" / "images" / "n01_1.JPEG").write_bytes(b"no image"),
        r"train/n01/images/n01_1.JPEG in .* is no whole JPEG",
    ),
    "empty JPEG": (
        lambda tree: (tree / "val" / "images" / "val_0.JPEG").write_bytes(b""),
        r"val/images/val_0.JPEG in .* is no whole JPEG",
    ),
    "truncated JPEG": (
        lambda tree: truncated(tree / "val" / "images" / "val_0.JPEG"),
        r"val/images/val_0.JPEG in .* is no whole JPEG",
    ),
    "another size": (
        lambda tree: write_image(tree / "train" / "n01" / "images" / "n01_0.JPEG", 50, side=72),
        r"n01_0.JPEG in .* has 72 x 72 pixels, not 64 x 64",
    ),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("case", BROKEN)
def test_broken_data_is_one_clear_error(tree: Path, case: str, zipped: bool) -> None:
    breaking, message = BROKEN[case]
    breaking(tree)
    root = write_zip(tree) if zipped else tree
    with pytest.raises(DataError, match=message) as error:
        load(root)
    assert str(root) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_empty_roots(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*nowhere: give the zip"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no wnids.txt: give the zip"):
        load(tmp_path)
    with pytest.raises(DataError, match="needs a root"):
        load()


def test_a_truncated_zip(tree: Path) -> None:
    path = write_zip(tree)
    truncated(path)
    with pytest.raises(DataError, match=r"tiny-imagenet-200.zip is truncated or no zip"):
        load(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_with_damaged_bytes(tree: Path, compression: int) -> None:
    path = write_zip(tree, compression)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("tiny-imagenet-200/train/n02/images/n02_2.JPEG")
    content = bytearray(path.read_bytes())
    middle = entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2
    content[middle : middle + 20] = bytes(byte ^ 0xFF for byte in content[middle : middle + 20])
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train/n02/images/n02_2.JPEG in .* is truncated or damaged"):
        load(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "tiny-imagenet-200/../../x", "tiny-imagenet-200\\x"])
def test_a_zip_that_points_outside(tree: Path, name: str) -> None:
    path = write_zip(tree)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(DataError, match="which points outside"):
        load(path)


def test_arguments_out_of_range(tree: Path) -> None:
    with pytest.raises(DataError, match="image_size is 0"):
        load(tree, image_size=0)
    for num in (1, 4):
        with pytest.raises(DataError, match=f"{num} classes of tiny_imagenet were asked for: give 2 to 3"):
            load(tree, num_classes=num)


@pytest.mark.skipif(not REAL_ZIP.is_file(), reason="needs tiny-imagenet-200.zip, which is not part of the project")
def test_the_real_zip() -> None:
    data = load(REAL_ZIP, image_size=32, num_classes=3)
    assert data.class_names == (
        "goldfish, Carassius auratus",
        "European fire salamander, Salamandra salamandra",
        "bullfrog, Rana catesbeiana",
    )
    assert data.test.labels.bincount().tolist() == [50, 50, 50]
    assert data.train.labels.unique().tolist() == [0, 1, 2]
    red, _, blue = data.train.images[data.train.labels == 0].float().mean(dim=(0, 2, 3)).tolist()
    assert red > blue + 40  # goldfish
