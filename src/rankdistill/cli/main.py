"""The command line: finds the command, and imports what it needs only then.

Exit codes: 0 done; 1 a run failed (a loss became infinite, say); 2 wrong usage or input, nothing was started;
130 interrupted, 143 terminated, 75 told by SIGUSR1 to stop and be started again: these three after saving.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from .._version import __version__

COMMANDS = {
    "train-teacher": "train a teacher on a data set",
    "distill": "train a student by a recipe",
    "evaluate": "measure the accuracy of saved weights",
    "convert-checkpoint": "turn a checkpoint of others into safetensors",
    "demo": "teacher and students on real digits, with a table and a page",
    "list": "show data sets, models, methods and recipes",
}

_EXTRAS = {
    "lightning_fabric": "train",
    "rich": "train",
    "safetensors": "train",
    "sklearn": "train",
    "torchvision": "train",
    "tyro": "train",
    "jinja2": "report",
    "plotly": "report",
}

_USAGE = """usage: rankdistill COMMAND [options]

Knowledge distillation of image classifiers.

commands:
{commands}

`rankdistill COMMAND --help` shows a command's options. Exit codes: 0 done, 1 a run failed, 2 wrong usage or input,
130 interrupted, 143 terminated, 75 to be started again (SIGUSR1); a run that is told to stop saves first.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name); return the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
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
    except (FloatingPointError, MemoryError) as error:
        return _say(str(error), code=1)
    except KeyboardInterrupt:
        return _say("interrupted; the same command goes on from the last checkpoint", code=130)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else _say(str(leave.code), code=2)
    return 0


def _say(message: str, *, code: int) -> int:
    print(f"rankdistill: {message}", file=sys.stderr)
    return code
