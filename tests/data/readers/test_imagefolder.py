import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_tiny_imagenet import write_tree as write_tiny_imagenet
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from rankdistill.data import DATASETS, DataError

load = DATASETS["imagefolder"]


def write_image(path: Path, seed: int, width: int = 40, height: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def write_tree(root: Path, test: str = "test") -> Path:
    """Three classes; file names that sort otherwise as text than as numbers; images deeper down; other files."""
    for number, name in enumerate(["cat/1.png", "cat/10.jpg", "cat/2.JPEG", "Dog/a/x.png", "Dog/b/x.bmp", "eel/e.png"]):
        write_image(root / "train" / name, number, width=30 + 5 * number)
    for number, name in enumerate(["eel/1.png", "cat/1.png", "cat/0.png", "Dog/1.png"]):
        write_image(root / test / name, 100 + number)
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    write_image(root / "train" / ".ipynb_checkpoints" / "1.png", 0)
    (root / "train" / "cat" / "._1.png").write_bytes(b"what macOS leaves behind")
    (root / "README.md").write_text("about")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "pets")


@pytest.mark.parametrize("test", ["test", "val"])
def test_equals_torchvisions_image_folder(tmp_path: Path, test: str) -> None:
    root = write_tree(tmp_path, test)
    data = load(root, image_size=24)
    for path in (root / "train" / ".ipynb_checkpoints", root / "train" / "cat" / "._1.png"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()  # torchvision takes them
    transform = Compose([Resize(24), CenterCrop(24), PILToTensor()])
    for split, folder in ((data.train, "train"), (data.test, test)):
        theirs = ImageFolder(root / folder, transform)
        assert data.class_names == tuple(theirs.classes) == ("Dog", "cat", "eel")
        assert split.labels.tolist() == theirs.targets
        assert torch.equal(split.images, torch.stack([image for image, _ in theirs]))


def test_test_is_preferred_to_val(tree: Path) -> None:
    write_tree(tree, "val")
    shutil.rmtree(tree / "val" / "eel")
    with pytest.warns(UserWarning, match=r"test and .*val both have images: those of .*val are not read"):
        assert len(load(tree, image_size=8).test) == 4


def test_a_test_folder_without_classes_is_passed_over(tree: Path) -> None:
    (tree / "test").rename(tree / "val")
    write_image(tree / "test" / "images" / "test_0.png", 0)
    assert len(load(tree, image_size=8).test) == 4


def test_the_size_is_imagenets(tree: Path) -> None:
    data = load(tree)
    assert data.image_shape == (3, 224, 224)
    assert data.mean == (0.485, 0.456, 0.406)
    assert data.std == (0.229, 0.224, 0.225)


def test_only_the_first_classes_are_decoded(tree: Path) -> None:
    (tree / "train" / "eel" / "e.png").write_bytes(b"not read")
    data = load(tree, image_size=8, num_classes=2)
    assert data.class_names == ("Dog", "cat")
    assert data.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.test.labels.tolist() == [0, 1, 1]
    for num in (1, 4):
        with pytest.raises(DataError, match=f"{num} classes of imagefolder were asked for: give 2 to 3"):
            load(tree, num_classes=num)


def test_a_class_without_test_images_keeps_the_labels_of_the_others(tree: Path) -> None:
    shutil.rmtree(tree / "test" / "Dog")
    with pytest.warns(
        UserWarning, match=r"test has no images of 'Dog' \(1 of 3 classes\): accuracy is that of the oth"
    ):
        assert load(tree, image_size=8).test.labels.tolist() == [1, 1, 2]


def test_a_test_part_of_one_class_is_read_and_told(tree: Path) -> None:
    for name in ("Dog", "eel"):
        shutil.rmtree(tree / "test" / name)
    with pytest.warns(UserWarning, match=r"test has no images of 'Dog' \(2 of 3 classes\)"):
        assert load(tree, image_size=8).test.labels.tolist() == [1, 1]


def flat_tree(root: Path) -> Path:
    for number in range(30):
        write_image(root / ("ant" if number % 3 else "bee") / f"{number}.png", number)
    return root


def test_classes_without_train_and_test_are_split(tmp_path: Path) -> None:
    data = load(flat_tree(tmp_path / "insects"), image_size=8)
    assert data.class_names == ("ant", "bee")
    assert data.train.labels.bincount().tolist() == [17, 7]
    assert data.test.labels.bincount().tolist() == [3, 3]
    pixels = torch.cat([data.train.images, data.test.images])
    assert len(pixels.flatten(1).unique(dim=0)) == 30
    again = load(tmp_path / "insects", image_size=8, cache=tmp_path / "cache")
    assert torch.equal(again.test.images, data.test.images)


def test_the_folder_above_a_data_set_is_not_taken_for_classes(tmp_path: Path) -> None:
    for name in ("pets", "more"):
        write_tree(tmp_path / name)
    with pytest.raises(DataError, match=r"more has a folder train, so .* has no classes: give .*more"):
        load(tmp_path)


def test_images_of_kinds_that_are_not_read_are_told_once(tree: Path) -> None:
    for name in ("cat/3.gif", "cat/4.HEIC", "Dog/a/5.gif", "eel/6"):
        (tree / "train" / name).write_bytes(b"left out")
    told = r"4 files in .*train are left out, .* \(1 without an ending, 2 .gif, 1 .heic\): convert them to one of .bmp"
    with pytest.warns(UserWarning, match=told) as warned:
        assert len(load(tree, image_size=8).train) == 6
    assert len(warned) == 1


def test_linked_folders_are_followed(tree: Path, tmp_path: Path) -> None:
    (tree / "train" / "cat").rename(tmp_path / "elsewhere")
    (tree / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    assert load(tree, image_size=8).train.labels.tolist() == [0, 0, 1, 1, 1, 2]


def test_decoded_images_are_kept(tree: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    data = load(tree, image_size=8, cache=cache)
    assert sorted(path.name.rpartition("-")[0] for path in cache.glob("*.npy")) == [
        "imagefolder-3-test-8px",
        "imagefolder-3-train-8px",
    ]
    again = load(tree, image_size=8, cache=cache)
    assert torch.equal(data.train.images, again.train.images)
    write_image(tree / "train" / "cat" / "1.png", 77)
    changed = load(tree, image_size=8, cache=cache)
    assert (data.train.images != changed.train.images).flatten(1).any(1).tolist() == [False] * 2 + [True] + [False] * 3


def in_one_folder(root: Path) -> None:
    for number, path in enumerate(sorted((root / "test").rglob("*.png"))):
        (root / "test" / "images").mkdir(exist_ok=True)
        path.rename(root / "test" / "images" / f"{number}.png")


def flat(root: Path) -> None:
    in_one_folder(root)
    for path in (root / "test" / "images").iterdir():
        path.rename(root / "test" / path.name)


def linked(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).symlink_to("gone")


def relinked(name: str) -> Callable[[Path], None]:
    def relink(root: Path) -> None:
        shutil.rmtree(root / name)
        (root / name).symlink_to("gone")

    return relink


def removed(*names: str) -> Callable[[Path], None]:
    def remove(root: Path) -> None:
        for name in names:
            shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()

    return remove


def truncated(root: Path) -> None:
    path = root / "train" / "cat" / "10.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no train": (removed("train"), r"pets has no folder train: give"),
    "no train, no test": (removed("train", "test"), r"pets has 0 class folders"),
    "a link to no image": (
        linked("train/cat/99.png"),
        r"cat/99.png in .*train is a link to gone, which is not there \(1 s",
    ),
    "a link to no class": (linked("train/fox"), r"fox in .*train is a link to gone, which is not there \(1 such\)"),
    "a link to no test": (linked("test/cat/99.png"), r"cat/99.png in .*test is a link to gone, which is not there"),
    "train is a link to nothing": (relinked("train"), r"train cannot be read \(No such file"),
    "test is a link to nothing": (relinked("test"), r"test cannot be read \(No such file"),
    "a link back": (
        lambda root: (root / "train" / "cat" / "all").symlink_to(root / "train"),
        r"all cannot be read \(it is ",
    ),
    "a link to itself": (
        lambda root: (root / "train" / "cat" / "x").symlink_to("x"),
        r"x cannot be read|x in .* is a link",
    ),
    "a pipe": (lambda root: os.mkfifo(root / "train" / "cat" / "9.png"), r"cat/9.png in .*train is a pipe, not a file"),
    "no test": (removed("test"), r"pets has no folder test, and no val: give"),
    "one class": (removed("train/cat", "train/eel"), r"train has 1 class folders: at least 2 are needed"),
    "no classes": (removed("train/cat", "train/eel", "train/Dog"), r"train has 0 class folders"),
    "empty class": (removed("train/eel/e.png"), r"train has no images of 'eel' \(1 such classes\): add some"),
    "no training images": (
        removed("train/eel/e.png", "train/cat/1.png", "train/cat/10.jpg", "train/cat/2.JPEG", "train/Dog/a/x.png",
                "train/Dog/b/x.bmp"),
        r"train has no images: put them in a folder per class",
    ),
    "test in one folder": (in_one_folder, r"test has all its images in one folder, 'images': put them in a folder per"),
    "test without folders": (flat, r"test has all its images in one folder, '': put them in a folder per class"),
    "no test images": (removed("test/eel", "test/cat", "test/Dog"), r"test has no images: put them"),
    "unknown class": (
        lambda root: (root / "test" / "cat").rename(root / "test" / "cow"),
        r"cow/0.png in .*test is not in the folder of a training class",
    ),
    "image beside the classes": (
        lambda root: write_image(root / "train" / "0.png", 0),
        r"0.png in .*train is not in the folder of a training class",
    ),
    "no image": (
        lambda root: (root / "train" / "cat" / "1.png").write_bytes(b"no image"),
        r"cat/1.png in .*train is no whole image of a format that is read: replace it, or take it out",
    ),
    "empty image": (lambda root: (root / "test" / "cat" / "1.png").write_bytes(b""), r"cat/1.png in .*test is no"),
    "truncated image": (truncated, r"cat/10.jpg in .*train is no whole image"),
    "16 bits": (
        lambda root: Image.fromarray(np.full((9, 9), 700, dtype=np.uint16)).save(root / "train" / "cat" / "1.png"),
        r"cat/1.png in .*train has pixels of mode I;16, which are not of 8 bits",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_data_is_one_clear_error(tree: Path, case: str) -> None:
    breaking, message = BROKEN[case]
    breaking(tree)
    with pytest.raises(DataError, match=message) as error:
        load(tree, image_size=8)
    assert str(tree) in str(error.value)
    assert "\n" not in str(error.value)


def test_arguments_without_meaning_are_refused(tree: Path) -> None:
    with pytest.raises(DataError, match="imagefolder needs a root"):
        load()
    with pytest.raises(DataError, match="leave out download"):
        load(tree, download=True)
    with pytest.raises(DataError, match="image_size is 0"):
        load(tree, image_size=0)
    with pytest.raises(DataError, match="nowhere has no folder train"):
        load(tree / "nowhere")


def test_the_official_layout_of_tiny_imagenet_is_not_taken_for_classes(tmp_path: Path) -> None:
    root = write_tiny_imagenet(tmp_path)
    with pytest.raises(DataError, match=r"val has all its images in one folder, 'images': .*data set tiny_imagenet"):
        load(root)
