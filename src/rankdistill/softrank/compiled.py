"""How the kernels are compiled: by numba, at their first call, and kept on disk for the next program."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile at the first call, cached on disk beside the source, else in the user's cache folder, else not at all."""
    return _compiled(function, {"contract"})


def simd_sum(function: F) -> F:
    """As `kernel`, for sums whose order may change. Nowhere is a flag set that assumes away NaN or infinity."""
    return _compiled(function, {"contract", "reassoc", "nsz"})


def part(function: F) -> F:
    """Compile as part of each kernel that calls it."""
    return cast("F", numba.njit(function, inline="always"))


def _compiled(function: F, fastmath: set[str]) -> F:
    compile = functools.partial(numba.njit, nogil=True, error_model="numpy", fastmath=fastmath)
    try:
        dispatcher = compile(function, cache=True)
    except RuntimeError:  # numba found no folder that it may write to
        return cast("F", compile(function))
    dispatcher._cache = _Forgiving(dispatcher._cache)  # type: ignore[attr-defined]
    return cast("F", dispatcher)


class _Forgiving:
    """numba's cache of a kernel, where a damaged file or a full disk means that the kernel is compiled again."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return the compiled kernel, or None."""
        try:
            return self._cache.load_overload(signature, context)
        except Exception:  # whatever a damaged file makes of pickle and LLVM
            with contextlib.suppress(Exception):
                self._cache.flush()
            return None

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Keep the compiled kernel, if that works."""
        with contextlib.suppress(Exception):
            self._cache.save_overload(signature, compiled)
