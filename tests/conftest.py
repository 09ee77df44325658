import jaxtyping
import pytest
import torch

# On tensors as small as these a second thread gives nothing, and costs up to 60 times where the cores are busy.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--whole-matrix", action="store_true", help="run tests/matrix on every setting and pair, not the quick part"
    )


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the types of signatures unchecked, as they are outside of tests, to see what a wrong one meets there."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
