"""How what is wrong with a command line, a file or data ends a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what the checks of names, options, files and data refuse into one sentence and exit code 2."""
    try:
        yield
    except BrokenPipeError:  # who reads has left, and nothing is wrong
        raise
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from error
