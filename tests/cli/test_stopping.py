"""What ends a command before its end: signals, and a reader that leaves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rankdistill.cli.stopping import SIGNALS, Told, stopping, whole
from rankdistill.training.signals import EXIT_CODES

QUICK = ["--data.image-size", "8", "--data.num-classes", "3", "--data.num-labels", "30", "--optim.epochs", "2"]


pytestmark = pytest.mark.usefixtures("heard")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["--help"],
        ["distill", "digits.ra", "--help"],
        ["evaluate", "--help"],
        ["distill", "--help"],
        ["train-teacher", "digits", "--model", "resnet8", *QUICK],
    ],
)
def test_a_reader_that_leaves_ends_it_quietly(arguments: list[str], unbuffered: str, tmp_path: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [sys.executable, "-m", "rankdistill", *arguments],
        stdout=writes,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_the_first_step_ends_with_the_promised_code(number: signal.Signals, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom rankdistill.cli import fit\nfrom rankdistill.cli.main import main\n"
        "def waits(*_, **__):\n    print('building', flush=True)\n    import time\n    time.sleep(60)\n"
        "fit.build = waits\nsys.exit(main(['distill', 'digits.plain']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    process.send_signal(number)
    assert process.wait(60) == EXIT_CODES[number]
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_signals_have_the_same_codes_before_and_while_a_run_trains() -> None:
    assert SIGNALS == EXIT_CODES


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_wait_for_the_end_of_an_import(number: signal.Signals) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    steps = []

    def imports() -> None:
        with stopping():
            with whole():
                signal.raise_signal(number)
                steps.append("imported")
            steps.append("started")

    with pytest.raises(Told) as told:
        imports()
    assert (told.value.number, steps) == (number, ["imported"])
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rankdistill", "train-teacher", "digits", "--model", "resnet8", *QUICK]
    command[-1] = "10000"
    process = subprocess.Popen(["nohup", *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    epochs = (line for line in process.stdout if b"resnet8 epoch" in line)
    next(epochs)
    process.send_signal(signal.SIGHUP)
    for _ in range(5):
        assert next(epochs)
    process.terminate()
    process.stdout.read()
    process.stdout.close()
    assert process.wait(60) == 143
