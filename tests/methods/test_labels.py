"""What losses on labels take for labels: the right value, or a sentence that names them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rankdistill import METHODS, Batch, CrossEntropy, Output

ON_LABELS = ["ce", "nkd", "dkd", "normalized_ce", "pld"]
LABELS = torch.tensor([1, 2, 5])
LOGITS = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(1))


def total(name: str, labels: Tensor) -> Tensor:
    batch = Batch(torch.zeros(3, 3, 8, 8), labels, torch.arange(3))
    return torch.stack(list(METHODS[name]().losses(batch, *map(Output, LOGITS)).values())).sum()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int16])
@pytest.mark.parametrize("name", ON_LABELS)
def test_any_integers_are_classes(name: str, dtype: torch.dtype) -> None:
    assert torch.equal(total(name, LABELS.to(dtype)), total(name, LABELS))


@pytest.mark.parametrize("wrong", [-100, -1, 10])
@pytest.mark.parametrize("name", ON_LABELS)
def test_a_label_that_is_no_class_is_refused(name: str, wrong: int) -> None:
    with pytest.raises(ValueError, match=f"1 of 3 labels of .* are no class, the first is {wrong}: classes are 0 to 9"):
        total(name, torch.tensor([1, wrong, 5]))


@pytest.mark.parametrize("name", ["ce", "nkd", "normalized_ce"])
def test_other_shapes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"labels of .* have shape \(3, 1\).*squeeze"):
        total(name, LABELS[:, None])
    with pytest.raises(ValueError, match=r"labels of .* have shape \(3,\) and are torch.float32"):
        total(name, LABELS.float())


@pytest.mark.parametrize("name", ["ce", "nkd", "normalized_ce"])
def test_several_hot_rows_are_no_distributions(name: str) -> None:
    several = F.one_hot(LABELS, 10).float()
    assert torch.allclose(total(name, several), total(name, LABELS))
    several[1, 7] = 1.0
    with pytest.raises(ValueError, match=r"a row of the labels of .* sums to 2"):
        total(name, several)


def test_class_weights() -> None:
    weights = tuple(float(k + 1) for k in range(10))
    batch = Batch(torch.zeros(3, 3, 8, 8), LABELS)
    found = CrossEntropy(class_weights=weights).losses(batch, Output(LOGITS[0].double()))["task"]
    expected = F.cross_entropy(LOGITS[0].double(), LABELS, torch.tensor(weights, dtype=torch.float64))
    torch.testing.assert_close(found, expected)
    assert CrossEntropy(class_weights=weights).state_dict() == {}
    with pytest.raises(ValueError, match="there are 2 class_weights for 10 classes"):
        CrossEntropy(class_weights=(1.0, 2.0)).losses(batch, Output(LOGITS[0]))
    with pytest.raises(ValueError, match=r"a weight of class_weights is -1\.0"):
        CrossEntropy(class_weights=(1.0, -1.0))
