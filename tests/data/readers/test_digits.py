import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from rankdistill.data import DATASETS, DataError
from rankdistill.data.readers.digits import MEAN, STD

load = DATASETS["digits"]


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]


def test_parts_and_classes() -> None:
    data = load()
    assert (len(data.train), len(data.test)) == (1297, 500)
    assert data.image_shape == (3, 32, 32)
    assert data.class_names == tuple("0123456789")
    assert data.test.labels.bincount().tolist() == [50] * 10


def test_the_split_is_pinned() -> None:
    data = load(image_size=8)
    assert digest(data.train.labels) == "8ded59992f364c03"
    assert digest(data.test.images) == "a84b983386cb6f70"
    assert digest(load().test.images) == "39460451a0b3e541"


def test_pixels_at_8_are_the_bundled_ones() -> None:
    data = load(image_size=8)
    images = torch.cat([data.train.images, data.test.images])
    grey = torch.from_numpy(load_digits().images)
    assert (images == images[:, :1]).all()
    ours = {(image.double() * 16 / 255).round().to(torch.int64).numpy().tobytes() for image in images[:, 0]}
    assert ours == {image.to(torch.int64).numpy().tobytes() for image in grey}


def test_enlarging_is_bilinear() -> None:
    small, large = load(image_size=8).train.images, load(image_size=16).train.images
    centre = large[:, :, 1:15, 1:15].double().unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))  # [N, 3, 7, 7]
    corners = small.double().unfold(2, 2, 1).unfold(3, 2, 1).mean(dim=(4, 5))
    assert (centre - corners).abs().max() <= 1


def test_mean_and_std_are_those_of_the_training_pixels() -> None:
    data = load(image_size=8)
    pixels = data.train.images.double() / 255
    assert data.mean == (MEAN,) * 3
    assert data.std == (STD,) * 3
    assert pixels.mean().item() == pytest.approx(MEAN, abs=5e-5)
    assert pixels.std(correction=0).item() == pytest.approx(STD, abs=5e-5)


def test_fewer_classes() -> None:
    whole, data = load(image_size=8), load(image_size=8, num_classes=3)
    assert data.class_names == ("0", "1", "2")
    assert len(data.test) == 150
    assert torch.equal(data.train.images, whole.train.images[whole.train.labels < 3])
    assert data.train.labels.unique().tolist() == [0, 1, 2]


def test_arguments_without_meaning_are_refused() -> None:
    with pytest.raises(DataError, match="leave out root somewhere"):
        load(Path("somewhere"))
    with pytest.raises(DataError, match="leave out download"):
        load(download=True)
    with pytest.raises(DataError, match="image_size 7 is too small"):
        load(image_size=7)
    for num in (0, 1, 11):
        with pytest.raises(DataError, match=f"{num} classes of digits were asked for: give 2 to 10"):
            load(image_size=8, num_classes=num)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install rankdistill\[train\]"):
        load()


def test_importing_the_package_imports_no_extra() -> None:
    heavy = "sklearn", "PIL", "torchvision"
    code = f"import sys, rankdistill.data; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
