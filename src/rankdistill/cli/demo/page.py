"""One self-contained HTML page from the demonstration: table, curves, and how each student ranks the classes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jinja2
import plotly.graph_objects as go
import torch
from torch import Tensor

from ..._version import __version__
from .demo import COLUMNS, Demo, Trained, rows_of

_COLOURS = {"teacher": "#6b7280", "plain": "#94a3b8", "KD": "#2563eb", "RA": "#dc2626"}


def demo_page(demo: Demo) -> str:
    """Return the page as HTML that needs no network and no other file."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(files(__package__).joinpath("page.html").read_text())
    figures = (_curves(demo.students), _one_image(demo), _all_images(demo))
    parts = [
        figure.to_html(full_html=False, include_plotlyjs="inline" if number == 0 else False)
        for number, figure in enumerate(figures)
    ]
    plain = demo.students["plain"]
    return template.render(
        columns=COLUMNS,
        rows=rows_of(demo),
        labels=plain[0].run.data.num_labels,
        seeds=len(plain),
        test_images=len(demo.images),
        seconds=demo.seconds,
        version=__version__,
        losses={name: _losses(students[0]) for name, students in demo.students.items()},
        curves=parts[0],
        one_image=parts[1],
        all_images=parts[2],
    )


def in_teachers_order(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the student's centred logits [N, K] sorted by the teacher's: column 0 is the teacher's first choice."""
    order = teacher.argsort(dim=1, descending=True)
    return (student - student.mean(dim=1, keepdim=True)).gather(1, order)


def _losses(student: Trained) -> str:
    terms = []
    for options in student.run.losses.values():
        values = {name: value for name, value in vars(options).items() if name != "weight"}
        inner = ", ".join(f"{name}={value}" for name, value in values.items())
        terms.append(f"{options.weight:g} {options.method}({inner})")
    return " + ".join(terms)


def _curves(students: Mapping[str, list[Trained]]) -> go.Figure:
    figure = go.Figure(layout=_layout("epoch", "top-1 accuracy on the test images, %"))
    for name, trained in students.items():
        epochs = list(trained[0].curve)
        for one in trained:
            line = {"color": _COLOURS[name], "width": 1}
            figure.add_scatter(x=epochs, y=list(one.curve.values()), line=line, opacity=0.25, showlegend=False)
        mean = [statistics.mean(one.curve[epoch] for one in trained) for epoch in epochs]
        figure.add_scatter(x=epochs, y=mean, name=name, line={"color": _COLOURS[name], "width": 3})
    return figure


def _one_image(demo: Demo) -> go.Figure:
    order = demo.teacher.logits[0].argsort(descending=True).tolist()
    positions = [f"{rank}: digit {digit}" for rank, digit in enumerate(order, start=1)]
    return _by_rank(demo, positions, slice(0, 1), seeds=1)


def _all_images(demo: Demo) -> go.Figure:
    positions = [str(rank) for rank in range(1, demo.teacher.logits.shape[1] + 1)]
    return _by_rank(demo, positions, slice(None), seeds=len(demo.students["plain"]))


def _by_rank(demo: Demo, positions: list[str], images: slice, seeds: int) -> go.Figure:
    figure = go.Figure(layout=_layout("position in the teacher's ranking", "centred logit"))
    teacher = demo.teacher.logits[images]
    for name, trained in {"teacher": [demo.teacher], **demo.students}.items():
        curves = torch.stack([in_teachers_order(one.logits[images], teacher).mean(dim=0) for one in trained[:seeds]])
        line = {"color": _COLOURS[name], "width": 2, "dash": "dot" if name == "teacher" else "solid"}
        figure.add_scatter(x=positions, y=curves.mean(dim=0).tolist(), name=name, mode="lines+markers", line=line)
    return figure


def _layout(x: str, y: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": x},
        "yaxis": {"title": y},
        "template": "plotly_white",
        "height": 380,
        "margin": {"l": 60, "r": 20, "t": 20, "b": 50},
    }
