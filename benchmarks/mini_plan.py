"""Which runs a benchmark has, in which order, and what is chosen from their accuracies. Nothing is trained here.

A file such as mini.toml holds protocol, groups and entries. Each entry of a group that searches is first trained with
one seed at five weights around the published one and a sixth, and the best on held-out training images is *chosen*.
Then published and chosen weight are trained with the group's seeds, for the table of the test images.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FACTORS = (1.0, 3.0, 1 / 3, 9.0, 1 / 9)
"""Times the published weight, in the order in which they are tried; `sixth` follows."""


@dataclass(frozen=True)
class Entry:
    """A line of a table.

    Attributes:
        name: in the table.
        recipe: the method's part of a recipe's name.
        weight: the option that is searched, a flag without its dashes; None where nothing is.
        published: its published value.
        options: other options, which replace those of the group.
        cached: whether the method reads only the teacher's logits, so that a teacher cache can be used.
        once: train the published weight with the group's first seed only, and search nothing.
        impossible: why the entry cannot be run; empty if it can.
    """

    name: str
    recipe: str = ""
    weight: str | None = None
    published: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    cached: bool = True
    once: bool = False
    impossible: str = ""


@dataclass(frozen=True)
class Group:
    """Entries that are trained alike.

    Attributes:
        name: as `--groups` takes it.
        title: of its table.
        entries: its lines.
        seeds: of the runs of the table.
        options: of every run; they replace those of the protocol.
        search: whether weights are chosen here.
        chosen_in: the group whose chosen weights are trained here.
        teacher: the network that teaches; None for the protocol's.
        student: the network that is trained; None for the protocol's.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    search: bool = False
    chosen_in: str = ""
    teacher: str | None = None
    student: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a file holds: the protocol and the groups, in their order."""

    dataset: str
    teacher: str
    student: str
    choice_seed: int
    options: Mapping[str, Any]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Job:
    """One run of one group: `arguments` are those of `rankdistill`, without paths.

    Attributes:
        group: the group's name.
        entry: the line that it belongs to.
        setting: "trial" of the search, "published", "chosen", or "both" where the published weight was chosen.
        weight: the searched option's value; None where the recipe's is left.
        factor: the weight divided by the published one.
        seed: of the student and of the stream of images.
        recipe: the whole name of the recipe.
        pair: names of teacher and student.
        arguments: the command line.
    """

    group: str
    entry: Entry
    setting: str
    weight: float | None
    factor: float
    seed: int
    recipe: str
    pair: tuple[str, str]
    arguments: tuple[str, ...]

    @property
    def tested(self) -> bool:
        """Return whether the student is measured on the test images: never, if it takes part in a choice."""
        return self.setting != "trial"

    @property
    def key(self) -> str:
        """Return a name of the run for its folder: the same command has the same one in every group."""
        digest = hashlib.sha256(json.dumps(self.arguments).encode()).hexdigest()[:10]
        return f"{self.recipe.split('.')[-1]}-seed{self.seed}-{digest}"


Accuracies = Mapping[str, float]
"""`Job.key` -> accuracy on held-out training images in percent; minus infinity where the run failed."""


def read_plan(path: Path) -> Plan:
    """Return what a file holds.

    Raises:
        ValueError: two groups have one name, or a group refers to one that is not before it.
        TypeError: a key is not known, or is missing.
    """
    content = tomllib.loads(path.read_text())
    groups: dict[str, Group] = {}
    for found in content["groups"]:
        name, entries = found["name"], found["entries"]
        if name in groups:
            raise ValueError(f"{path} has two groups {name!r}: give one of them another name")
        for other in {entries} if isinstance(entries, str) else set():
            if other not in groups:
                raise ValueError(f"{path}: group {name} takes entries of {other!r}, which is not before it")
        if found.get("chosen_in", name) not in (name, *groups):
            raise ValueError(f"{path}: group {name} takes weights of {found['chosen_in']!r}, which is not before it")
        same = isinstance(entries, str)
        own = groups[entries].entries if same else tuple(Entry(**entry) for entry in entries)
        groups[name] = Group(**(found | {"entries": own, "seeds": tuple(found["seeds"])}))
    return Plan(**content["protocol"], groups=tuple(groups.values()))


def planned(plan: Plan, accuracies: Accuracies, names: Sequence[str] = ()) -> Iterator[Job]:
    """Yield the runs that are known by now, the most telling first; those of chosen weights come with the choices.

    Of a group that searches: the published weights, the other trials, then seed after seed all lines of the table.

    Args:
        plan: all groups.
        accuracies: of the runs that are done.
        names: of the groups whose runs are wanted; empty for all.

    Raises:
        ValueError: there is no group of such a name.
    """
    for name in names:
        if name not in (known := [group.name for group in plan.groups]):
            raise ValueError(f"there is no group {name!r}: there are {', '.join(known)}")
    for group in plan.groups:
        if names and group.name not in names:
            continue
        possible = [entry for entry in group.entries if not entry.impossible]
        if group.search:
            searched = [entry for entry in possible if not entry.once]
            for factor in FACTORS:
                for entry in searched:
                    if factor == 1.0 or entry.weight:
                        yield trial(plan, group, entry, factor)
            for entry in searched:
                yield from (trial(plan, group, entry, factor) for factor in _sixth_of(plan, group, entry, accuracies))
        for seed in group.seeds:
            for entry in possible:
                if not entry.once or seed == group.seeds[0]:
                    yield from _of_table(plan, group, entry, seed, accuracies)


def trial(plan: Plan, group: Group, entry: Entry, factor: float) -> Job:
    """Return a run of the search, at the published weight times a factor."""
    return _job(plan, group, entry, "trial", factor, plan.choice_seed)


def sixth(found: Mapping[float, float]) -> float:
    """Return the last factor to try after five: between the best and its better neighbour, or beyond an end.

    Args:
        found: factor -> accuracy.
    """
    order = sorted(found)
    best = max(order, key=lambda factor: found[factor])
    place = order.index(best)
    if place == 0:
        return best * best / order[1]
    if place == len(order) - 1:
        return best * best / order[-2]
    neighbour = max(order[place - 1], order[place + 1], key=lambda factor: found[factor])
    return float((best * neighbour) ** 0.5)


def chosen_factor(plan: Plan, group: Group, entry: Entry, accuracies: Accuracies) -> float | None:
    """Return the factor that was best of the six; of equals the one tried first. None until all six are known."""
    if not entry.weight or entry.once or entry.impossible:
        return None
    if group.chosen_in:
        group = next(other for other in plan.groups if other.name == group.chosen_in)
    if not group.search:
        return None
    last = _sixth_of(plan, group, entry, accuracies)
    found = {factor: accuracies.get(trial(plan, group, entry, factor).key) for factor in (*FACTORS, *last)}
    known = {factor: top1 for factor, top1 in found.items() if top1 is not None}
    return max(known, key=lambda factor: known[factor]) if len(known) == len(FACTORS) + 1 else None


def _sixth_of(plan: Plan, group: Group, entry: Entry, accuracies: Accuracies) -> tuple[float, ...]:
    """Return the sixth factor of an entry, if five are known."""
    if not entry.weight:
        return ()
    found = {factor: accuracies.get(trial(plan, group, entry, factor).key) for factor in FACTORS}
    known = {factor: top1 for factor, top1 in found.items() if top1 is not None}
    return (sixth(known),) if len(known) == len(FACTORS) else ()


def _of_table(plan: Plan, group: Group, entry: Entry, seed: int, accuracies: Accuracies) -> Iterator[Job]:
    chosen = chosen_factor(plan, group, entry, accuracies)
    yield _job(plan, group, entry, "both" if chosen == 1.0 else "published", 1.0, seed)
    if chosen is not None and chosen != 1.0:
        yield _job(plan, group, entry, "chosen", chosen, seed)


def _job(plan: Plan, group: Group, entry: Entry, setting: str, factor: float, seed: int) -> Job:
    options = {**plan.options, **group.options, **entry.options}
    weight = None
    if entry.weight and entry.published is not None:
        weight = float(f"{entry.published * factor:.4g}")
        if factor != 1.0:  # a published weight is the recipe's own
            options[entry.weight] = weight
    recipe, teacher, student = (
        f"{plan.dataset}.{entry.recipe}",
        group.teacher or plan.teacher,
        group.student or plan.student,
    )
    options |= {"seed": seed, "stream-seed": seed}
    arguments = ("distill", recipe, "--teacher", teacher, "--student", student, *flags(options))
    return Job(group.name, entry, setting, weight, factor, seed, recipe, (teacher, student), arguments)


def flags(options: Mapping[str, Any]) -> Sequence[str]:
    """Return options as a command line has them: True is `--a.b`, False `--a.no-b`, a list several values."""
    found: list[str] = []
    for name, value in options.items():
        if isinstance(value, bool):
            head, _, last = name.rpartition(".")
            switch = last if value else f"no-{last}"
            found.append(f"--{head}.{switch}" if head else f"--{switch}")
        elif isinstance(value, list):
            found += [f"--{name}", *map(str, value)]
        else:
            found += [f"--{name}", str(value)]
    return found
