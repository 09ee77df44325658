"""The examples in docstrings run, and no public function or method of distillation is without one."""

import doctest
import inspect

import pytest
import torch
import torch.nn.functional as F

import rankdistill
from rankdistill import METHODS

NAMES = {name: getattr(rankdistill, name) for name in rankdistill.__all__}
READS_A_FILE = {"read_checkpoint"}
IN_A_STEP = {"meta_gradients", "stage_pairs"}  # what update rules and methods call; their tests are the example
NEED_ONE = {name for name, value in NAMES.items() if inspect.isfunction(value)} - READS_A_FILE - IN_A_STEP


def examples_of(name: str) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(recurse=False).find(NAMES[name], name)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", sorted(NEED_ONE | {method.__name__ for method in METHODS.values()}))
def test_has_an_example(name: str) -> None:
    assert examples_of(name), f"{name} has no example in its docstring: add one of two or three lines, `>>> ...`"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", [name for name in sorted(NAMES) if examples_of(name)])
def test_the_example_runs(name: str) -> None:
    torch.manual_seed(0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in examples_of(name):
        test.globs |= {**NAMES, "torch": torch, "F": F}
        told: list[str] = []
        runner.run(test, out=told.append)
        assert not told, "".join(told)
