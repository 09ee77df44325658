import pytest
import torch

from rankdistill.methods._features import paired_features, pool_to_match, unit_length


def test_maps_are_averaged_down_in_each_direction() -> None:
    student, teacher = torch.randn(2, 3, 4, 6), torch.randn(2, 5, 8, 3)
    found = pool_to_match(student, teacher)
    assert [x.shape for x in found] == [(2, 3, 4, 3), (2, 5, 4, 3)]
    assert torch.allclose(found[0], torch.nn.functional.avg_pool2d(student, (1, 2)))
    assert torch.allclose(found[1], torch.nn.functional.avg_pool2d(teacher, (2, 1)))
    assert pool_to_match(student, student)[1] is student


def test_unit_vectors() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]], dtype=torch.float64, requires_grad=True)
    found = unit_length(vectors, 1)
    assert torch.allclose(found, torch.tensor([[0.6, 0.8], [0.0, 0.0], [1e-8, 0.0]], dtype=torch.float64))
    found.sum().backward()
    assert vectors.grad[1].tolist() == [0, 0]
    assert vectors.grad.isfinite().all()


def test_features_are_of_the_same_samples() -> None:
    with pytest.raises(ValueError, match=r"feature has shape \(3, 4\), the teacher's \(1, 4\): features of the same"):
        paired_features(torch.zeros(3, 4), torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"the teacher's \(3,\)"):
        paired_features(torch.zeros(3, 4), torch.zeros(3))
