import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from rankdistill import KD, Batch, CrossEntropy, Output, Sum
from rankdistill.cli.main import main
from rankdistill.recipes import RECIPES
from rankdistill.recipes.by_pair import CIFAR100_PAIRS, TINY_IMAGENET_PAIRS
from rankdistill.recipes.takd import ASSISTANTS, CHAINS, authors_losses, fit_chain, takd, train_once
from rankdistill.runs.build import build
from rankdistill.runs.config import Optim, Run
from rankdistill.training.loop import fit
from rankdistill.weights.storage import load_weights

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "takd.npz")
QUICK = ["--data.image-size", "8", "--data.num-classes", "3", "--data.num-labels", "30", "--optim.epochs", "2"]


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(np.asarray(GOLDEN[name]))


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    return bool((found.detach() - expected).abs().max() <= tolerance * expected.abs().max())


@pytest.mark.parametrize(("precision", "tolerance"), [("f32", 1e-5), ("f64", 1e-9)])
@pytest.mark.parametrize(("temperature", "weight"), [(5.0, 0.7), (20.0, 0.3)])
def test_authors_weighting_gives_the_authors_losses(
    temperature: float, weight: float, precision: str, tolerance: float
) -> None:
    losses = authors_losses(100, temperature=temperature, weight=weight)
    kd = KD(temperature=losses["kd"].temperature)
    method = Sum(task=(losses["task"].weight, CrossEntropy()), kd=(losses["kd"].weight, kd))
    dtype = {"f32": torch.float32, "f64": torch.float64}[precision]
    student = golden("a.in.student").to(dtype).requires_grad_()
    teacher = golden("a.in.teacher").to(dtype)
    found = method.losses(Batch(torch.zeros(8, 3, 8, 8), golden("a.in.target")), Output(student), Output(teacher))
    case = f"a.{precision}.T{temperature:.0f}_lam{weight}"
    assert close(found["kd"], golden(f"{case}.kd_total"), tolerance)
    assert close(100 * found["kd"], golden(f"{case}.kd_total_if_batchmean"), tolerance)
    total = found["task"] + found["kd"]
    assert close(total, golden(f"{case}.total_with_ce"), tolerance)
    (gradient,) = torch.autograd.grad(total, student)
    assert close(gradient, golden(f"{case}.grad_total_student"), tolerance)


def test_a_chain_is_the_kd_recipe_between_neighbours() -> None:
    runs = takd("digits", "resnet8x4", "resnet8", ["resnet20", "resnet14"])
    assert [(run.teacher, run.student) for run in runs] == [
        ("resnet8x4", "resnet20"),
        ("resnet20", "resnet14"),
        ("resnet14", "resnet8"),
    ]
    assert {run.recipe for run in runs} == {"digits.takd"}
    assert runs[1] == dataclasses.replace(RECIPES["digits.kd"]("resnet20", "resnet14"), recipe="digits.takd")


def test_assistants_have_defaults_and_may_be_none() -> None:
    assert [run.student for run in takd("digits")] == ["resnet14", "resnet8"]
    assert [run.student for run in takd("digits", "resnet56", "resnet20")] == ["resnet32", "resnet20"]
    assert [run.student for run in takd("digits", assistants=[])] == ["resnet8"]
    with pytest.raises(ValueError, match="no assistants are known between resnet8 and resnet56: pass --assistants"):
        takd("digits", "resnet8", "resnet56")
    assert set(ASSISTANTS) >= {*CIFAR100_PAIRS, *TINY_IMAGENET_PAIRS}
    assert CHAINS.keys() == {name.replace(".kd", ".takd") for name in RECIPES if name.endswith(".kd")}


def small(run: Run, folder: Path) -> Run:
    data = dataclasses.replace(run.data, image_size=8, num_classes=3, num_labels=30)
    optim = Optim(epochs=2, batch_size=16, schedule="cosine", milestones=())
    return dataclasses.replace(run, data=data, optim=optim, runs=folder)


def small_chain(folder: Path, teacher: Path) -> list[Run]:
    runs = [small(run, folder) for run in takd("digits", "resnet14", "resnet8", ["resnet14", "resnet8"])]
    return [dataclasses.replace(runs[0], teacher_weights=teacher), *runs[1:]]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = build(small(RECIPES["digits.teacher"]("resnet14"), tmp_path_factory.mktemp("teacher")))
    fit(plan)
    return plan.weights


def test_each_student_teaches_the_next(teacher: Path, tmp_path: Path) -> None:
    students = fit_chain(small_chain(tmp_path, teacher))
    assert len(set(students)) == 3
    assert [load_weights(path)[1]["model"] for path in students] == ["resnet14", "resnet8", "resnet8"]
    alone = dataclasses.replace(small_chain(tmp_path / "alone", teacher)[2], teacher_weights=students[1])
    assert train_once(alone).read_bytes() == students[2].read_bytes()


def test_an_interrupted_chain_goes_on_and_ends_the_same(teacher: Path, tmp_path: Path) -> None:
    whole = fit_chain(small_chain(tmp_path / "whole", teacher))
    trained: list[Run] = []

    def interrupted(run: Run) -> Path:
        trained.append(run)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train_once(run)

    with pytest.raises(KeyboardInterrupt):
        fit_chain(small_chain(tmp_path / "again", teacher), interrupted)
    first = next((tmp_path / "again").glob("*/resnet14-resnet14/*/student.safetensors"))
    written = first.stat().st_mtime_ns
    again = fit_chain(small_chain(tmp_path / "again", teacher))
    assert first.stat().st_mtime_ns == written
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in whole]


def test_a_run_counts_as_done_only_if_its_student_is_whole(teacher: Path, tmp_path: Path) -> None:
    run = small_chain(tmp_path, teacher)[0]
    plan = build(run)
    assert plan.finished() is None
    result = fit(plan)
    whole = plan.weights.read_bytes()
    assert build(run).finished() == result
    plan.weights.write_bytes(whole[:-1])
    assert build(run).finished() is None
    assert train_once(run).read_bytes() == whole


def test_command_trains_a_chain_and_skips_what_is_done(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", "digits.takd", "--teacher", "resnet14", "--assistants", "resnet8", "--student", "resnet8"]
    command += ["--teacher-weights", str(teacher), "--runs", str(tmp_path), *QUICK]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "run 1 of 2: resnet14 teaches resnet8" in first
    assert "run 2 of 2: resnet8 teaches resnet8" in first
    assert first.count("epoch 2/2") == 2
    assert main(command) == 0
    again = capsys.readouterr().out
    assert "epoch" not in again.replace("after epoch", "").replace("last epoch", "")
    assert again.count("done before") == 2
    assert len(list(tmp_path.glob("digits.takd/*/*/student.safetensors"))) == 2


BAD = {
    "assistant": (["--assistants", "resnet9"], "unknown model 'resnet9': did you mean"),
    "no weights": ([], "needs weights of a trained resnet8x4: pass --teacher-weights FILE"),
    "no assistants known": (["--student", "resnet20"], "no assistants are known between resnet8x4 and resnet20"),
    "option": (["--losses.kd.temprature", "1"], "--losses.kd.temperature"),
    "rule": (["--update", "dott"], "unknown update rule 'dott': did you mean dot?"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[case]
    assert main(["distill", "digits.takd", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in " ".join((captured.out + captured.err).replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_update_rules_are_chosen_on_the_command_line(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", "digits.kd", "--teacher", "resnet14", "--teacher-weights", str(teacher)]
    command += ["--runs", str(tmp_path), *QUICK]
    assert main([*command, "--update", "dot", "--update.delta", "0.05"]) == 0
    saved = torch.load(next(tmp_path.glob("**/checkpoint-*.pt")), weights_only=True)
    assert saved["optimizer"]["param_groups"][0]["delta"] == 0.05
    capsys.readouterr()
    assert main([*command, "--update.delta", "0.05"]) == 2
    assert main(["train-teacher", "digits", "--update", "dot", "--runs", str(tmp_path / "none")]) == 2
    assert "it needs both kinds" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
