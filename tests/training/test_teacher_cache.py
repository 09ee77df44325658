"""A replayed teacher is the teacher; what is damaged or another's is made again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract_methods import CONTRACT_METHODS
from small_runs import CLASSES, SAMPLES, BothViewsLoader, Killed, KillsAtStep, assert_same, small_plan, small_split

from rankdistill import KD, CrossEntropy, EachView, Sum
from rankdistill.data.views import Geometry
from rankdistill.network import Network
from rankdistill.training.loop import fit
from rankdistill.training.plan import Plan
from rankdistill.training.teacher_cache import (
    CachedTeacher,
    CacheOptions,
    check_cacheable,
    digest_of_stream,
    estimated_gigabytes,
)
from rankdistill.weights.durable import WriteError


def kd_plan(folder: Path, cache: Path | None = None, *, dtype: str = "float32", epochs: int = 3) -> Plan:
    plan = small_plan(folder, epochs=epochs)
    plan.state.method = Sum(task=(0.1, CrossEntropy()), kd=(0.9, EachView(KD())))
    plan.evaluate_teacher = False
    if cache is not None:
        assert isinstance(plan.state.teacher, Network)
        key = digest_of_stream(plan.loader, {})[:8]
        options = CacheOptions(dtype)  # type: ignore[arg-type]
        told: list[str] = []
        plan.state.teacher = CachedTeacher(
            plan.state.teacher, plan.loader, cache / key, SAMPLES, options, tell=told.append
        )
        plan.header["told"] = told
    return plan


def computed(plan: Plan) -> int:
    assert isinstance(plan.state.teacher, CachedTeacher)
    return plan.state.teacher.computed


def test_float32_cache_changes_nothing(tmp_path: Path) -> None:
    plain = kd_plan(tmp_path / "plain")
    fit(plain)
    for name in ("fills", "reads"):
        cached = kd_plan(tmp_path / name, tmp_path / "cache")
        fit(cached)
        cached.header.pop("told")
        assert [r["loss"] for r in plain.records] == [r["loss"] for r in cached.records]
        weights = zip(plain.state.student.module.parameters(), cached.state.student.module.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)
    assert computed(cached) == 3 * 8 or computed(cached) < SAMPLES  # only the batches that are compared


def test_two_terms_that_read_the_teacher_keep_one_row_a_sample(tmp_path: Path) -> None:
    runs = [kd_plan(tmp_path / name, tmp_path / "cache", epochs=1) for name in ("fills", "reads")]
    for run in runs:
        run.state.method = Sum(kd=(0.5, EachView(KD())), hot=(0.5, EachView(KD(temperature=9.0))))
        fit(run)
    assert computed(runs[0]) == SAMPLES
    assert runs[0].records[0]["loss"] == runs[1].records[0]["loss"]


def test_float16_rounds_and_the_filling_run_equals_the_reading_one(tmp_path: Path) -> None:
    plain = kd_plan(tmp_path / "plain", epochs=1)
    fit(plain)
    runs = [kd_plan(tmp_path / name, tmp_path / "cache", dtype="float16", epochs=1) for name in ("fills", "reads")]
    for run in runs:
        fit(run)
    assert_same(*runs)
    assert plain.records[0]["loss"] != runs[0].records[0]["loss"]
    assert plain.records[0]["loss"]["kd"] == pytest.approx(runs[0].records[0]["loss"]["kd"], rel=1e-2)


def test_one_flipped_byte_is_noticed(tmp_path: Path) -> None:
    fit(kd_plan(tmp_path / "fills", tmp_path / "cache"))
    (path,) = tmp_path.glob("cache/*/epoch-00002-*-rows.npy")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    again = kd_plan(tmp_path / "reads", tmp_path / "cache")
    fit(again)
    assert any("epoch 2" in sentence and "damaged" in sentence for sentence in again.header["told"])
    assert SAMPLES < computed(again) < 2 * SAMPLES
    third = kd_plan(tmp_path / "third", tmp_path / "cache")
    fit(third)
    assert third.header["told"] == []
    assert computed(third) < SAMPLES


def test_another_teachers_logits_are_noticed(tmp_path: Path) -> None:
    """As if the key had missed something: same folder, other teacher."""
    fit(kd_plan(tmp_path / "fills", tmp_path / "cache"))
    other = kd_plan(tmp_path / "other", tmp_path / "cache")
    assert other.state.teacher is not None
    with torch.no_grad():
        other.state.teacher.module.fc.weight.mul_(-1.0)
    fit(other)
    assert len(other.header["told"]) == 3
    assert all("is not what the teacher says" in sentence for sentence in other.header["told"])
    assert computed(other) > 3 * SAMPLES


def test_killed_and_resumed_with_a_cache(tmp_path: Path) -> None:
    whole = kd_plan(tmp_path / "whole", tmp_path / "cache")
    whole.checkpoint_steps = 2
    fit(whole)
    killed = kd_plan(tmp_path / "killed", tmp_path / "fresh")
    killed.checkpoint_steps = 2
    killed.watchers = [KillsAtStep(5)]
    with pytest.raises(Killed):
        fit(killed)
    resumed = kd_plan(tmp_path / "killed", tmp_path / "fresh")
    resumed.checkpoint_steps = 2
    fit(resumed)
    kept = sorted(path.name[:11] for path in tmp_path.glob("fresh/*/*-rows.npy"))
    assert kept == ["epoch-00001", "epoch-00003"]  # epoch 2 was never seen whole
    resumed.header.pop("told"), whole.header.pop("told")
    for a, b in zip(whole.state.student.module.parameters(), resumed.state.student.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_full_cache_keeps_no_more(tmp_path: Path) -> None:
    plan = kd_plan(tmp_path / "run", tmp_path / "cache")
    assert isinstance(plan.state.teacher, CachedTeacher)
    plan.state.teacher.options = CacheOptions("float32", gigabytes=1.5e-6)
    fit(plan)
    assert len(list(tmp_path.glob("cache/*/*-rows.npy"))) == 1
    assert any("does not fit" in sentence for sentence in plan.header["told"])


def test_estimate_is_what_the_files_take(tmp_path: Path) -> None:
    fit(kd_plan(tmp_path / "run", tmp_path / "cache"))
    size = sum(path.stat().st_size for path in tmp_path.glob("cache/*/*.npy"))
    estimate = 1e9 * estimated_gigabytes(SAMPLES, CLASSES, views=2, epochs=3, dtype="float32")
    assert size - 6 * 128 == pytest.approx(estimate)


def test_streams_have_digests_of_their_own(tmp_path: Path) -> None:
    plan = kd_plan(tmp_path)
    same = digest_of_stream(plan.loader, {"a": 1})
    assert same == digest_of_stream(kd_plan(tmp_path).loader, {"a": 1})
    assert same != digest_of_stream(plan.loader, {"a": 2})
    options = {"batch_size": 8, "geometry": Geometry(padding=2, flip=True), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    assert same == digest_of_stream(BothViewsLoader(small_split(), seed=3, **options), {"a": 1})
    assert same != digest_of_stream(BothViewsLoader(small_split(), seed=4, **options), {"a": 1})


@pytest.mark.parametrize(
    ("name", "why"),
    [("matched", "features stage2"), ("mixed_path", "runs the teacher itself"), ("bank", "features pooled")],
)
def test_methods_that_read_more_say_so(tmp_path: Path, name: str, why: str) -> None:
    assert name in CONTRACT_METHODS
    method = small_plan(tmp_path, name).state.method
    with pytest.raises(ValueError, match=rf"holds logits only, but the loss 'kd' .*{why}"):
        check_cacheable(method)


def test_methods_of_logits_are_cacheable(tmp_path: Path) -> None:
    check_cacheable(kd_plan(tmp_path).state.method)


def told(plan: Plan) -> str:
    return " ".join(plan.header["told"])


def same(left: Plan, right: Plan) -> None:
    """What was told stands in the headers of the students, and differs."""
    assert left.records[0]["loss"] == right.records[0]["loss"]
    weights = zip(left.state.student.module.parameters(), right.state.student.module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_two_runs_in_one_cache_one_of_them_keeps(tmp_path: Path) -> None:
    first, second = (kd_plan(tmp_path / name, tmp_path / "cache", epochs=1) for name in ("first", "second"))
    assert first.state.teacher is not None
    first.state.teacher.start_epoch(1)  # is under way
    fit(second)
    assert "another run is filling epoch 1 of the teacher cache" in told(second)
    assert list((tmp_path / "cache").rglob("*.npy")) == []
    first.state.teacher.end_epoch()
    third = kd_plan(tmp_path / "third", tmp_path / "cache", epochs=1)
    fit(third)
    same(second, third)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2


def test_a_cache_that_cannot_be_written_is_told_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = kd_plan(tmp_path / "plain", tmp_path / "cache", epochs=1)
    fit(plain)
    (tmp_path / "file").write_text("")
    cached = kd_plan(tmp_path / "cached", tmp_path / "file", epochs=1)
    fit(cached)
    assert "cannot be written (Not a directory): nothing is kept" in told(cached)
    same(plain, cached)
    full = kd_plan(tmp_path / "full", tmp_path / "other", epochs=1)

    def fails(manifest: Path, arrays: object) -> None:
        raise WriteError(f"{manifest} cannot be written (No space left on device): free some space")

    monkeypatch.setattr("rankdistill.training.teacher_cache.write_rows", fails)
    fit(full)
    assert "the teacher's logits of epoch 1 are not kept: " in told(full)
    same(plain, full)
