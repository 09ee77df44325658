import pytest

pytest.register_assert_rewrite("checks")

from cells import quick_matrix, whole_matrix  # noqa: E402


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames:
        whole = metafunc.config.getoption("whole_matrix")
        metafunc.parametrize("cell", whole_matrix() if whole else quick_matrix(), ids=str)
