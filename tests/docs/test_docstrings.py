"""The examples in docstrings run as they are pasted, and no public class or function is without one."""

import doctest
import inspect

import pytest
import torch

import rankdistill

NAMES = {name: getattr(rankdistill, name) for name in rankdistill.__all__}
NEED_ONE = sorted(name for name, value in NAMES.items() if inspect.isclass(value) or inspect.isfunction(value))


def examples_of(name: str) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(recurse=False).find(NAMES[name], name, globs={"__name__": "__main__"})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", NEED_ONE)
def test_has_an_example(name: str) -> None:
    assert examples_of(name), f"{name} has no example in its docstring: add one of two or three lines, `>>> ...`"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", [name for name in NEED_ONE if examples_of(name)])
def test_the_example_runs_where_nothing_is_imported(name: str) -> None:
    torch.manual_seed(0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in examples_of(name):
        told: list[str] = []
        runner.run(test, out=told.append)
        assert not told, "".join(told)
