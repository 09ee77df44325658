"""Every method that reads features, on convolutional networks and transformers of timm and torchvision.

It trains there, or says why it cannot. Logits are logits, whoever gives them.
"""

import copy
import functools
from collections.abc import Callable

import pytest
import timm
import torchvision
from method_pairs import assembled, batch_of, total
from torch import nn

from rankdistill import METHODS, Method

SIDE = 64
FOREIGN: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: timm.create_model("resnet18", num_classes=5),
    "mobilenetv3": lambda: timm.create_model("mobilenetv3_small_050", num_classes=5),
    "convnext": lambda: timm.create_model("convnext_atto", num_classes=5),
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", img_size=SIDE, depth=4, num_classes=5),
    "swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=SIDE, window_size=2, embed_dim=24, depths=(1,) * 4, num_classes=5
    ),
    "torchvision mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=5),
    "torchvision vit": lambda: torchvision.models.VisionTransformer(SIDE, 16, 2, 2, 32, 64, num_classes=5),
}


PAIRS = [("torchvision mobilenet_v2", "convnext"), ("mobilenetv3", "vit"), ("resnet18", "swin"), ("vit", "resnet18")]


def needs_of(name: str) -> set[str]:
    """Return the roles that a method reads between small networks of ours, which have every role."""
    _, student, teacher = assembled(name)
    return {*student.taps, *teacher.taps}


def is_plain(name: str) -> bool:
    """Tell whether a method runs the networks as they are, and reads no more than their stages and pooled features."""
    kind = METHODS[name]
    others = [role for role in needs_of(name) if role != "pooled" and not role.startswith("stage")]
    return kind.forward is Method.forward and kind.adapt is Method.adapt and not others


READS_FEATURES = [name for name in METHODS if needs_of(name)]


@functools.cache
def _made(name: str) -> nn.Module:
    return FOREIGN[name]()


def made(name: str) -> nn.Module:
    return copy.deepcopy(_made(name))


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
@pytest.mark.parametrize("name", READS_FEATURES)
def test_trains_or_is_refused(name: str, student: str, teacher: str) -> None:
    networks = made(student), made(teacher)
    try:
        method, trained, frozen = assembled(name, *networks, side=SIDE)
    except (TypeError, ValueError):
        assert not is_plain(name)
        return
    loss = total(method(batch_of(size=4, side=SIDE, views=method.views), trained, frozen))
    loss.backward()
    gradient = next(trained.module.parameters()).grad
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize("name", [name for name in READS_FEATURES if needs_of(name) == {"pooled"}])
def test_a_method_that_needs_no_map_runs_on_a_teacher_without_stages(name: str) -> None:
    method, *networks = assembled(name, None, made("torchvision vit"), side=SIDE)
    assert total(method(batch_of(size=3, side=SIDE, views=method.views), *networks)).isfinite()


@pytest.mark.parametrize("name", [name for name in METHODS if is_plain(name) and len(needs_of(name)) > 1])
def test_a_teacher_without_stages_is_refused_where_several_are_needed(name: str) -> None:
    with pytest.raises(ValueError, match=r"stage") as refused:
        assembled(name, None, made("torchvision vit"), side=SIDE)
    assert "stem, last, pooled" in str(refused.value)  # the roles that it has
