"""Trains a student by every method on a part of Tiny-ImageNet through the command line: accuracies and speed.

20 classes at 32x32, resnet56 -> resnet20, three epochs: far too short to compare methods by, and meant to show that
each one runs on real images, and at what speed. Then those that read features, across families: resnet56 ->
shufflenetv2. Where a method reads only the teacher's logits, these are kept from the first run to the last.
`make bench-every-method DATA=tiny-imagenet-200.zip` goes on where it was stopped; it writes results/every_method.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import torch

from rankdistill import MODELS, Sum, assemble
from rankdistill.cli.main import main as rankdistill
from rankdistill.recipes.settings import SETTINGS
from rankdistill.runs.build import terms
from rankdistill.runs.launch import resolve_precision
from rankdistill.training.teacher_cache import check_cacheable

RESULTS = Path(__file__).parent / "results"
TEACHER, STUDENT, ACROSS = "resnet56", "resnet20", "shufflenetv2"
CLASSES = 20
COLUMNS = (
    "method",
    "teacher",
    "student",
    "top1",
    "teacher_top1",
    "images",
    "images_per_second",
    "seconds",
    "cached",
    "precision",
)
IMAGES = ("--data.image-size", "32", "--data.num-classes", str(CLASSES), "--data.padding", "4")
SHORT = ("--optim.schedule", "cosine", "--optim.milestones", "--optim.batch-size", "64")


def trained(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Train by a command line, unless the folder has the result; return the result."""
    if not list(folder.glob("*/result.json")) and (code := rankdistill(arguments)) != 0:
        raise SystemExit(f"rankdistill {' '.join(arguments)} ended with exit code {code}")
    found: dict[str, Any] = json.loads(next(folder.glob("*/result.json")).read_text())
    return found


def method_of(name: str) -> Sum:
    """Return the losses of a setting, from the teacher to a student of its family."""
    losses = SETTINGS[name](TEACHER, STUDENT).losses
    student, teacher = (MODELS[network](CLASSES) for network in (STUDENT, TEACHER))
    return assemble(
        terms(losses),
        student,
        teacher,
        torch.zeros(2, 3, 32, 32),
        num_samples=CLASSES,
        labels=torch.arange(CLASSES),
    ).method


def reads_logits_alone(method: Sum) -> bool:
    """Tell whether the teacher's logits may be kept."""
    try:
        check_cacheable(method)
    except ValueError:
        return False
    return method.reads_teacher


def row(name: str, student: str, options: argparse.Namespace, teacher: Path) -> dict[str, object]:
    runs, data = options.runs, ["--data.root", str(options.data), *IMAGES]
    method = method_of(name)
    cached = reads_logits_alone(method)
    arguments = ["distill", f"tiny_imagenet.{name}", "--teacher", TEACHER, "--student", student]
    arguments += ["--protocol", "mdistiller", "--optim.epochs", str(options.epochs), *SHORT, "--runs", str(runs), *data]
    arguments += ["--data.num-labels", options.labels, "--threads", options.threads, "--no-evaluate-teacher"]
    arguments += ["--optim.lr", "0.05" if student == STUDENT else "0.01"]
    if method.reads_teacher:
        arguments += ["--teacher-weights", str(teacher)]
    if cached:
        arguments += ["--teacher-cache", str(runs / "teacher-cache")]
    pair = f"{TEACHER}-{student}" if method.reads_teacher else student
    result = trained(arguments, runs / f"tiny_imagenet.{name}" / pair)
    return {
        "method": name,
        "teacher": TEACHER if method.reads_teacher else "",
        "student": student,
        "top1": round(result["last"]["top1"], 2),
        "images": int(options.labels),
        "images_per_second": round(result["last"]["images_per_second"], 1),
        "seconds": round(result["seconds"], 1),
        "cached": cached,
        "precision": resolve_precision("auto"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="tiny-imagenet-200.zip, or its folder")
    parser.add_argument("--threads", default="2", help="of torch; 1 where other programs run (default: 2)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--labels", default="3000", help="training images of the students (default: all 3,000)")
    parser.add_argument("--teacher-epochs", type=int, default=10)
    parser.add_argument("--runs", type=Path, default=Path("runs/every_method"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--methods", nargs="+", default=list(SETTINGS))
    options = parser.parse_args()
    torch.manual_seed(0)
    arguments = ["train-teacher", "tiny_imagenet", "--model", TEACHER, "--optim.epochs", str(options.teacher_epochs)]
    arguments += ["--data.root", str(options.data), *IMAGES, *SHORT, "--optim.lr", "0.1", "--runs", str(options.runs)]
    arguments += ["--threads", options.threads]
    folder = options.runs / "tiny_imagenet.teacher" / TEACHER
    teacher = trained(arguments, folder)
    print(f"teacher: top-1 {teacher['last']['top1']:.2f}")
    weights = next(folder.glob("*/student.safetensors"))
    students = [(name, STUDENT) for name in options.methods]
    students += [(name, ACROSS) for name in options.methods if method_of(name).student_needs]
    rows = []
    options.output.mkdir(parents=True, exist_ok=True)
    for name, student in students:
        rows.append(row(name, student, options, weights) | {"teacher_top1": round(teacher["last"]["top1"], 2)})
        print("  ".join(f"{rows[-1][column]}" for column in COLUMNS), flush=True)
        with (options.output / "every_method.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
