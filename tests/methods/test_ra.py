"""RA: the golden numbers of fast-soft-sort, its invariances, its units, its schedule, its criterion and method."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rankdistill.methods.ra import rank_alignment_loss
from rankdistill.softrank import rank_regime, soft_rank

COPY = Path(__file__).resolve().parents[1] / "golden" / "ra.npz"
FULL = Path(__file__).resolve().parents[3] / "shared" / "golden" / "logit" / "ra.npz"


def golden(path: Path) -> list[tuple[str, torch.dtype, float, Tensor, Tensor, Tensor | None, dict[str, Tensor]]]:
    """Return (name, dtype, epsilon, student, teacher, probe, expected) for each setting of a golden file."""
    file = {key: torch.from_numpy(np.array(value)) for key, value in np.load(path).items()}
    patterns = (
        (r"(?P<inputs>C\d+\.s\d+)\.e(?P<epsilon>[\d.]+)\.(?P<dtype>f32|f64)\.rank_student", "{}"),
        (r"(?P<inputs>[abc])\.(?P<dtype>f32|f64)\.e(?P<epsilon>[\d.]+)\.rank_student", "{}.in"),
    )
    cases = []
    for (pattern, inputs), key in itertools.product(patterns, file):
        if match := re.fullmatch(pattern, key):
            dtype = torch.float32 if match["dtype"] == "f32" else torch.float64
            student, teacher = (
                file[f"{inputs.format(match['inputs'])}.{who}"].to(dtype) for who in ("student", "teacher")
            )
            stem = key.removesuffix("rank_student")
            expected = {name.removeprefix(stem): value for name, value in file.items() if name.startswith(stem)}
            probe = file.get(f"{match['inputs'].split('.')[0]}.v")
            cases.append((stem, dtype, float(match["epsilon"]), student, teacher, probe, expected))
    return cases


def assert_equals_golden(name: str, dtype: torch.dtype, actual: Tensor, expected: Tensor) -> None:
    scale = max(expected.abs().max().item(), 1e-30)
    tolerance = (1e-9 if dtype == torch.float64 else 1e-4) * scale
    assert (actual.double() - expected.double()).abs().max().item() <= tolerance, name


@pytest.mark.parametrize("path", [COPY, *([FULL] if FULL.is_file() else [])], ids=lambda path: path.parent.name)
def test_golden(path: Path) -> None:
    cases = golden(path)
    assert len(cases) >= 10
    for name, dtype, epsilon, student, teacher, probe, expected in cases:
        student = student.requires_grad_()
        ranks = soft_rank(student, epsilon=epsilon)
        assert_equals_golden(name + "rank_student", dtype, ranks, expected["rank_student"])
        assert_equals_golden(
            name + "rank_teacher", dtype, soft_rank(teacher, epsilon=epsilon), expected["rank_teacher"]
        )
        if "nblocks_student" in expected:
            blocks = [rank_regime(x, epsilon).blocks for x in (student, teacher)]
            assert torch.equal(blocks[0], expected["nblocks_student"]), name
            assert torch.equal(blocks[1], expected["nblocks_teacher"]), name
            assert torch.equal((blocks[0] == 1) & (blocks[1] == 1), expected["linear_regime"]), name
        if "vjp_v" in expected:
            assert probe is not None
            product = torch.autograd.grad(ranks, student, probe.to(dtype))[0]
            assert_equals_golden(name + "vjp_v", dtype, product, expected["vjp_v"])
        for distance, key in (("l2", "l2"), ("l1", "l1"), ("spearman", "spearman_pearson")):
            if expected[key].isnan().any():
                continue
            loss = rank_alignment_loss(student, teacher, epsilon=epsilon, distance=distance)
            assert_equals_golden(name + key, dtype, loss, expected[key])
            gradient = torch.autograd.grad(loss.mean(), student)[0]
            assert_equals_golden(f"{name}grad_{key}", dtype, gradient, expected[f"grad_{key}"])
