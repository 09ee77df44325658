import signal
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch

from rankdistill.cli.stopping import SIGNALS

AUTHORS = Path(__file__).resolve().parents[2] / "shared" / "golden" / "feature"
"""The whole numbers of the authors' code for methods on features: 16 MB, not in the repository."""

# On tensors as small as these a second thread gives nothing, and costs up to 60 times where the cores are busy.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--whole-matrix", action="store_true", help="run tests/matrix on every setting and pair, not the quick part"
    )
    parser.addoption(
        "--fuzz-inputs", type=int, default=100, metavar="N", help="how many inputs each test of tests/faults has (100)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of the authors' whole files where these are absent; `golden/steps.npz` holds there."""
    if AUTHORS.is_dir():
        return
    left_out = [item for item in items if item.get_closest_marker("authors")]
    items[:] = [item for item in items if not item.get_closest_marker("authors")]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def heard() -> Iterator[None]:
    """Let every signal be heard, also where the tests run in the background, which a shell lets ignore SIGINT."""
    ignored = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the types of signatures unchecked, as they are outside of tests, to see what a wrong one meets there."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
