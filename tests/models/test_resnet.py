import pytest
import torch

from rankdistill.models.resnet import ResNet


def test_other_images():
    assert ResNet(8, (4, 4, 6, 8), 5, in_channels=1)(torch.zeros(2, 1, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize("depth", [2, 7, 18])
def test_depth(depth):
    with pytest.raises(ValueError, match=rf"depth is {depth}: a CIFAR ResNet has depth 6n \+ 2"):
        ResNet(depth, (4, 4, 6, 8), 5)
