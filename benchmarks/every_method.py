"""Trains a student by every method on a part of Tiny-ImageNet through the command line: accuracies and speed.

20 classes at 32x32, resnet56 -> resnet20, three epochs: far too short to compare methods by, and meant to show that
each one runs on real images, and at what speed. Then five feature methods across families, resnet56 -> shufflenetv2.
`make bench-every-method DATA=tiny-imagenet-200.zip` goes on where it was stopped; it writes results/every_method.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import torch

from rankdistill.cli.main import main as rankdistill
from rankdistill.recipes.settings import SETTINGS
from rankdistill.runs.launch import resolve_precision

RESULTS = Path(__file__).parent / "results"
LOGITS = (
    *("kd", "dkd", "nkd", "lskd", "lskd_dkd", "lskd_ctkd", "lskd_mlkd", "ttm", "wttm", "ctkd", "mlkd", "crld"),
    *("dist", "ra", "rkkd", "centred_mse", "cald", "dot"),
)
ACROSS = ("fitnets", "at", "crd", "reviewkd", "simkd")
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
IMAGES = ("--data.image-size", "32", "--data.num-classes", "20", "--data.padding", "4")
SHORT = ("--optim.schedule", "cosine", "--optim.milestones", "--optim.batch-size", "64")


def trained(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Train by a command line, unless the folder has the result; return the result."""
    if not list(folder.glob("*/result.json")) and (code := rankdistill(arguments)) != 0:
        raise SystemExit(f"rankdistill {' '.join(arguments)} ended with exit code {code}")
    found: dict[str, Any] = json.loads(next(folder.glob("*/result.json")).read_text())
    return found


def row(method: str, student: str, options: argparse.Namespace, teacher: Path) -> dict[str, object]:
    runs, data = options.runs, ["--data.root", str(options.data), *IMAGES]
    # Methods that read features cannot use the cache, and say so.
    cached = method in LOGITS
    arguments = ["distill", f"tiny_imagenet.{method}", "--teacher", "resnet56", "--student", student]
    arguments += ["--protocol", "mdistiller", "--optim.epochs", str(options.epochs), *SHORT, "--runs", str(runs), *data]
    arguments += ["--data.num-labels", options.labels, "--threads", options.threads, "--no-evaluate-teacher"]
    arguments += ["--optim.lr", "0.05" if student == "resnet20" else "0.01"]
    if method != "plain":
        arguments += ["--teacher-weights", str(teacher)]
    if cached:
        arguments += ["--teacher-cache", str(runs / "teacher-cache")]
    pair = student if method == "plain" else f"resnet56-{student}"
    result = trained(arguments, runs / f"tiny_imagenet.{method}" / pair)
    return {
        "method": method,
        "teacher": "" if method == "plain" else "resnet56",
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
    arguments = ["train-teacher", "tiny_imagenet", "--model", "resnet56", "--optim.epochs", str(options.teacher_epochs)]
    arguments += ["--data.root", str(options.data), *IMAGES, *SHORT, "--optim.lr", "0.1", "--runs", str(options.runs)]
    arguments += ["--threads", options.threads]
    folder = options.runs / "tiny_imagenet.teacher" / "resnet56"
    teacher = trained(arguments, folder)
    print(f"teacher: top-1 {teacher['last']['top1']:.2f}")
    weights = next(folder.glob("*/student.safetensors"))
    students = [(method, "resnet20") for method in options.methods]
    students += [(method, "shufflenetv2") for method in ACROSS if method in options.methods]
    rows = []
    options.output.mkdir(parents=True, exist_ok=True)
    for method, student in students:
        rows.append(row(method, student, options, weights) | {"teacher_top1": round(teacher["last"]["top1"], 2)})
        print("  ".join(f"{rows[-1][column]}" for column in COLUMNS), flush=True)
        with (options.output / "every_method.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
