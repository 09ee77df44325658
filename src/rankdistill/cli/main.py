"""The command line: finds the command, and imports what it needs only then.

Exit codes: 0 done; 1 a run failed (a loss became infinite, say); 2 wrong usage or input, nothing was started;
129 hung up, 130 interrupted, 143 terminated, 75 told by SIGUSR1 to stop and be started again: these four after saving.
"""

from __future__ import annotations

import difflib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from .._version import __version__
from .stopping import SIGNALS, Told, stopping

COMMANDS = {
    "train-teacher": "train a teacher on a data set",
    "distill": "train a student by a recipe",
    "evaluate": "measure the accuracy of saved weights",
    "convert-checkpoint": "turn a checkpoint of others into safetensors",
    "demo": "teacher and students on real digits, with a table and a page",
    "list": "show data sets, models, methods and recipes, all or those with a word",
}

_EXTRAS = {
    "lightning_fabric": "train",
    "rich": "train",
    "filelock": "train",
    "safetensors": "train",
    "sklearn": "train",
    "torchvision": "train",
    "jinja2": "report",
    "plotly": "report",
    "tensorboard": "log",
    "wandb": "log",
    "mlflow": "log",
}

_USAGE = """usage: rankdistill COMMAND [options]

Knowledge distillation of image classifiers.

commands:
{commands}

`rankdistill COMMAND --help` shows a command's options. Exit codes: 0 done, 1 a run failed, 2 wrong usage or input,
129 hung up, 130 interrupted, 143 terminated, 75 to be started again (SIGUSR1); a run that is told to stop saves first.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name); return the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what it cannot encode of a path is not worth a run
    try:
        with warnings.catch_warnings(), stopping():
            warnings.showwarning = _note
            code = _main(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `rankdistill list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes when it leaves
        return 141


def _main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<18} {text}" for name, text in COMMANDS.items())
        print(_USAGE.format(commands=lines), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"rankdistill {__version__}")
        return 0
    command = arguments[0]
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        return _say(f"unknown command {command!r}: {hint}", code=2)
    return _run(command, arguments[1:])


def _run(command: str, arguments: Sequence[str]) -> int:
    try:
        commands = import_module(".commands", __package__)
        commands.COMMANDS[command](arguments)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        return _say(f"this command needs {error.name}: pip install 'rankdistill[{extra}]'", code=2)
    except FloatingPointError as error:
        return _say(str(error), code=1)
    except MemoryError as error:
        return _say(str(error) or "there is not enough memory: use smaller images, batches or networks", code=1)
    except Told as told:
        sentence = f"stopped by {told.number.name}; the same command goes on from the last checkpoint, if there is one"
        return _say(sentence, code=SIGNALS[told.number])
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else _say(str(leave.code), code=2)
    return 0


def _say(message: str, *, code: int) -> int:
    """Print a sentence, in the first of several processes alone."""
    if all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
        print(f"rankdistill: {message}", file=sys.stderr)
    return code


def _note(message: Warning | str, *_: object, **__: object) -> None:
    """Print a warning as a sentence."""
    _say(" ".join(str(message).split()), code=0)
