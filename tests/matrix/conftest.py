import pytest

pytest.register_assert_rewrite("checks")

from cells import quick_matrix, quick_students, whole_matrix, whole_students  # noqa: E402


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    whole = metafunc.config.getoption("whole_matrix")
    if "cell" in metafunc.fixturenames:
        metafunc.parametrize("cell", whole_matrix() if whole else quick_matrix(), ids=str)
    if "student" in metafunc.fixturenames:
        metafunc.parametrize("student", whole_students() if whole else quick_students())
