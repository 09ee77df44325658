"""Knowledge distillation of image classifiers: the soft-rank operator, the losses, the methods, and what trains them.

Names are imported when they are first used, so `import rankdistill` costs next to nothing. The file `__init__.pyi` says
which names are public; for methods, `methods/__init__.py` says it. The operator, the losses and the methods need torch,
NumPy, numba and jaxtyping. Training, reports and the rest are extras (see pyproject.toml).
"""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path


@cache
def _homes() -> dict[str, str]:
    """Return public name -> module that has it, read from the files where each is written, `as` itself."""
    folder = Path(__file__).parent
    homes = dict.fromkeys(_exported(folder / "methods" / "__init__.py"), "methods")
    return homes | _exported(folder / "__init__.pyi")


def _exported(path: Path) -> dict[str, str]:
    imports = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
    return {name.name: str(node.module) for node in imports for name in node.names if name.asname == name.name}


def __getattr__(name: str) -> object:
    if name == "__all__":
        return __dir__()
    if (name.startswith("__") and name != "__version__") or name not in _homes():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_homes()[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_homes())
