"""How stages of two networks are paired and read as maps."""

import pytest
import torch
from torch import nn

from rankdistill import Output, Pair, StageMap, stage_pairs
from rankdistill.methods._stages import deepest_pair, deepest_roles, pooled_widths

Shapes = dict[str, tuple[int, ...]]
TOKENS: Shapes = {f"stage{n}": (17, 192) for n in range(1, 13)}
SWIN: Shapes = {"stage1": (8, 8, 96), "stage2": (4, 4, 192), "stage3": (2, 2, 384), "stage4": (1, 1, 768)}
RESNET: Shapes = {"stem": (16, 8, 8), "stage1": (16, 8, 8), "stage2": (32, 4, 4), "stage3": (64, 2, 2), "pooled": (64,)}


def pair(student: Shapes, teacher: Shapes | None) -> Pair:
    has_teacher = nn.Identity() if teacher is not None else None
    return Pair(nn.Identity(), has_teacher, student, teacher or {}, num_classes=5, num_samples=10)


def roles(student: Shapes, teacher: Shapes) -> list[tuple[str, str]]:
    return [(s.role, t.role) for s, t in stage_pairs(pair(student, teacher), "AT")]


def test_equally_many_stages_are_paired_by_their_number() -> None:
    assert roles(RESNET, RESNET) == [("stage1", "stage1"), ("stage2", "stage2"), ("stage3", "stage3")]


def test_otherwise_the_deepest_are_paired_whatever_the_order_of_the_roles() -> None:
    assert roles(RESNET, SWIN) == [("stage1", "stage2"), ("stage2", "stage3"), ("stage3", "stage4")]
    shuffled = {role: TOKENS[role] for role in sorted(TOKENS)}  # stage1, stage10, stage11, stage12, stage2, ...
    assert roles(shuffled, RESNET) == [("stage10", "stage1"), ("stage11", "stage2"), ("stage12", "stage3")]


def test_shapes_and_layouts() -> None:
    maps = [student for student, _ in stage_pairs(pair(SWIN, SWIN), "AT")]
    assert [m.shape for m in maps] == [(96, 8, 8), (192, 4, 4), (384, 2, 2), (768, 1, 1)]
    assert {m.layout for m in maps} == {"channels_last"}
    tokens = stage_pairs(pair(TOKENS, TOKENS), "AT")[0].teacher
    assert tokens == StageMap("stage1", (192, 4, 4), "tokens")
    # Channels-last is what all the maps say together: one map with as many channels as rows says nothing.
    oblong = {"stage1": (8, 8, 4), "stage2": (16, 4, 2)}
    assert [s.layout for s, _ in stage_pairs(pair(oblong, oblong), "AT")] == ["channels_first"] * 2
    square = {"stage1": (4, 4, 4), "stage2": (2, 2, 2)}
    assert [s.layout for s, _ in stage_pairs(pair(square, square), "AT")] == ["channels_first"] * 2


@pytest.mark.parametrize("num_prefix_tokens", [0, 1, 2])
def test_every_layout_is_read_as_the_same_map(num_prefix_tokens: int) -> None:
    feature = torch.randn(2, 5, 3, 3)
    tokens = torch.cat([torch.randn(2, num_prefix_tokens, 5), feature.flatten(2).mT], 1)
    shapes = {"stage1": tuple(tokens.shape[1:])}
    read = stage_pairs(pair(shapes, shapes), "AT")[0].student
    assert torch.equal(read.read(Output(torch.zeros(2, 5), {"stage1": tokens})), feature)
    last = StageMap("stage1", (5, 3, 3), "channels_last")
    assert torch.equal(last.read(Output(torch.zeros(2, 5), {"stage1": feature.permute(0, 2, 3, 1)})), feature)
    first = StageMap("stage1", (5, 3, 3))
    assert first.read(Output(torch.zeros(2, 5), {"stage1": feature})) is feature


def test_the_deepest_stage_or_the_last_map() -> None:
    last_only = {"stem": (17, 192), "last": (17, 192), "pooled": (192,)}
    assert deepest_roles(pair(RESNET, last_only), "SP") == ("stage3", "last")
    student, teacher = deepest_pair(pair(SWIN | {"last": (768, 1, 1)}, last_only), "ICKD")
    assert student == StageMap("stage4", (768, 1, 1), "channels_last")
    assert teacher == StageMap("last", (192, 4, 4), "tokens")


def test_pooled_widths() -> None:
    assert pooled_widths(pair(RESNET, {"pooled": (1280, 1, 1)}), "CC") == (64, 1280)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (None, "AT reads a teacher, but this run has none: give it one"),
        (
            {"pooled": (64,), "logits": (5,)},
            r"of the teacher, and Identity has no stages .its roles: pooled.: ",
        ),
        (
            {"logits": (5,)},
            r"no stages .its roles: none.: declare it, module.roles = {\"stage1\": \"name.of.a.submodule\"}",
        ),
        ({"stage1": (64,)}, r"AT needs maps, and 'stage1' of the teacher has shape .64,. in a batch: declare a module"),
        ({"stage1": (53, 192)}, "'stage1' of the teacher is 53 tokens of width 192: only a square of tokens"),
    ],
)
def test_refusals(shapes: Shapes | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage_pairs(pair(RESNET, shapes), "AT")


def test_refusals_without_stages() -> None:
    with pytest.raises(ValueError, match=r'SP reads features of the student, .* has no stages and no role "last"'):
        deepest_roles(pair({"pooled": (64,)}, RESNET), "SP")
    with pytest.raises(ValueError, match=r'CC reads features of the student, .* has no role "pooled"'):
        pooled_widths(pair({"stage1": (64, 2, 2)}, RESNET), "CC")
    with pytest.raises(ValueError, match="CC reads a teacher"):
        pooled_widths(pair(RESNET, None), "CC")
