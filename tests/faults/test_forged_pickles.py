"""Pickles that are well formed and say what torch.save never writes: refused before they take memory or time.

Some are written by hand. Others have whole operations of an honest pickle exchanged, so that most of them still run.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from foreign_checkpoints import mdistiller_training
from fuzzing import ODD_STRINGS, watch

from rankdistill.models import MODELS
from rankdistill.weights.durable import digest_path, write_with_digest
from rankdistill.weights.reading import read_weights
from rankdistill.weights.storage import load_state

FUNCTIONS = (
    *("builtins bytearray", "builtins set", "builtins complex", "collections OrderedDict", "collections Counter"),
    *("_codecs encode", "torch Size", "torch Tensor", "torch FloatTensor", "torch device", "torch FloatStorage"),
    *("torch.nn.parameter Parameter", "torch.serialization _get_layout", "argparse Namespace", "numpy dtype"),
    *("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3"),
    *("torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state", "numpy.core.multiarray scalar"),
    *("torch._utils _rebuild_qtensor", "torch._utils _rebuild_sparse_tensor", "torch._utils _rebuild_nested_tensor"),
    *("torch._utils _rebuild_meta_tensor_no_storage", "torch._utils _rebuild_wrapper_subclass", "torch float64"),
    *("torch._utils _rebuild_device_tensor_from_numpy", "torch._tensor _rebuild_from_type_v2", "torch complex64"),
)
"""What torch's restricted reader allows, and what is allowed beside it."""


@pytest.fixture
def inputs(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("fuzz_inputs"))


def number(value: int) -> bytes:
    encoded = pickle.encode_long(value)[:255]
    return b"\x8a" + bytes([len(encoded)]) + encoded


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def named(function: str) -> bytes:
    return b"c" + function.replace(" ", "\n").encode() + b"\n"


def called(function: str, *arguments: bytes) -> bytes:
    return named(function) + b"(" + b"".join(arguments) + b"tR"


def entry(key: bytes, value: bytes) -> bytes:
    return b"\x80\x02}" + key + value + b"s."


def in_archive(content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, member in {"data.pkl": content, "version": b"3\n", "byteorder": b"little"}.items():
            archive.writestr(f"a/{name}", member)
    return made.getvalue()


def before_archives(content: bytes) -> bytes:
    before = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(part, 2) for part in before) + content + pickle.dumps([], 2)


def doubled(times: int) -> bytes:
    """A pair of a pair of a pair: few bytes, and 2^times objects to hash."""
    return b"K\x01K\x01\x86" + b"q\x01h\x01\x86" * times


STORAGE = b"(" + text("storage") + named("torch FloatStorage") + text("0") + text("cpu") + number(10**9) + b"NtQ"
DOUBLE = called("numpy dtype", text("f8"), b"\x89", b"\x88")
FORGED = {
    "a bytearray": (entry(text("w"), called("builtins bytearray", number(10**10))), "it asks for a bytearray"),
    "a bytearray of Python 2": (entry(text("w"), called("__builtin__ bytearray", number(10**10))), "a bytearray"),
    "a bytearray behind another function": (
        entry(text("w"), called("torch._tensor _rebuild_from_type_v2", named("builtins bytearray"), b"K\x01\x85")),
        "it asks for a bytearray",
    ),
    "an empty tensor of gigabytes": (entry(text("w"), called("torch Tensor", number(10**9))), "1,000,000,000 entries"),
    "a storage that is not in the file": (
        entry(
            text("w"),
            called(
                "torch._utils _rebuild_tensor_v2",
                *(STORAGE, b"K\x00", number(10**9) + b"\x85", b"K\x01\x85", b"\x89", called("collections OrderedDict")),
            ),
        ),
        r"1,000,000,000 entries|not a readable checkpoint \(ValueError\)",
    ),
    "a NumPy number of gigabytes": (
        entry(
            text("best_acc"), called("numpy.core.multiarray scalar", called("numpy dtype", text("V2000000000")), b"C\0")
        ),
        "not a readable checkpoint",
    ),
    "a NumPy type that raises SystemError": (
        entry(text("best_acc"), DOUBLE + b"(" + number(10**300) + text("<") + b"NNNK\x00K\x00K\x00tb"),
        r"not a readable checkpoint \(SystemError\)|not a readable checkpoint \(OverflowError\)",
    ),
    "a codec": (
        entry(text("w"), called("_codecs encode", text("\u4e00" * 10**6), text("punycode"))),
        "a codec other than latin1",
    ),
    "a codec behind another function": (
        entry(text("w"), called("torch._tensor _rebuild_from_type_v2", named("_codecs encode"), text("x"))),
        "a codec other than latin1",
    ),
    "a key that is hashed for ever": (entry(doubled(60), text("x")), "objects within objects without end"),
    "a key deeper than the stack": (entry(b"K\x01" + b"\x85" * 10**6, text("x")), "objects within objects"),
    "a key of many characters": (entry(text("x" * 10**6), text("x")), r"holds the keys x{40}\.\.\.: weights are"),
    "a key of two lines": (entry(text("a\nb\x1b[2J"), text("x")), r"holds the keys 'a\\nb\\x1b\[2J': weights are"),
    "a name that is unwrapped for ever": (
        entry(text("module." * 10**5), called("torch Tensor", number(1))),
        "a name of more than 1000 characters",
    ),
    "an attribute in place of a method": (
        b"\x80\x02" + named("collections OrderedDict") + b")R}" + text("get") + text("x") + text("items") + b"Nsb.",
        "holds nothing|not a readable checkpoint",
    ),
}


@pytest.mark.parametrize("wrapped", [in_archive, before_archives])
@pytest.mark.parametrize(("content", "message"), FORGED.values(), ids=list(FORGED))
def test_what_is_forged_is_refused_before_it_takes_memory_or_time(
    wrapped: Callable[[bytes], bytes], content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(wrapped(content))
    assert watch(read_weights, [path], refusals=(ValueError,), megabytes=100.0) == {"refused": 1}
    with pytest.raises(ValueError, match=message) as error:
        read_weights(path)
    assert len(str(error.value)) < 1000


def test_our_own_checkpoints_are_looked_through(tmp_path: Path) -> None:
    for content, _ in (FORGED["a bytearray"], FORGED["a key that is hashed for ever"]):
        write_with_digest(tmp_path / "a.pt", in_archive(content))
        with pytest.raises(ValueError, match=r"a\.pt is no checkpoint of this program"):
            load_state(tmp_path / "a.pt")


@pytest.mark.parametrize("value", [10**400, complex(1, 2), float("nan"), torch.ones(1, dtype=torch.complex64), "x"])
def test_an_accuracy_that_is_no_number_is_left_out(value: object, tmp_path: Path) -> None:
    torch.save({"model": MODELS["resnet8"](3).state_dict(), "best_acc": value}, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth")[0].keys() == MODELS["resnet8"](3).state_dict().keys()


def test_parts_of_an_archive_that_overlap_are_not_read(tmp_path: Path) -> None:
    """Few bytes that every one of many names stands for."""
    torch.save({"model": {str(n): torch.full((1000,), n) for n in range(9)}}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
        first = archive.getinfo("a/data/0")
        for member in archive.infolist():
            if member.filename.startswith("a/data/"):
                member.header_offset, member.file_size, member.compress_size = first.header_offset, 10**5, 10**5
        archive.writestr("a/more", b"")  # so that the directory is written
    with pytest.raises(ValueError, match="its parts are longer than the file"):
        read_weights(tmp_path / "a.pth")


def operations(content: bytes) -> list[bytes]:
    """Return the operations of a pickle, each with its argument."""
    places = [place for _, _, place in pickletools.genops(content) if place is not None]
    return [content[start:end] for start, end in zip(places, [*places[1:], len(content)], strict=True)]


def odd(draw: random.Random) -> bytes:
    """Return operations that put one odd object on the stack, or what is needed for one."""
    match draw.randrange(8):
        case 0:
            return number(draw.choice((0, 1, -1, 2**31, 2**63, 10**9, 10**12, 10**300, draw.randrange(100))))
        case 1:
            return text(draw.choice(ODD_STRINGS))
        case 2:
            return called(draw.choice(FUNCTIONS), *(odd(draw) for _ in range(draw.randrange(4))))
        case 3:
            return named(draw.choice(FUNCTIONS))
        case 4:
            return draw.choice((b"N", b"\x88", b")", b"]", b"}", b"\x8f", b"(", b"G" + struct.pack(">d", float("nan"))))
        case 5:
            return odd(draw) + b"\x85"
        case 6:
            return b"h" + bytes([draw.randrange(256)])
        case _:
            return draw.choice((b"Q", b"R", b"b", b"s", b"u", b"a", b"e", b"t", b"\x81", b"\x86", b"\x87", b"q\x05"))


def exchanged(draw: random.Random, whole: list[bytes]) -> bytes:
    """Return a pickle with one to three of its operations left out, doubled, moved or exchanged for odd ones."""
    changed = list(whole)
    for _ in range(draw.choice((1, 1, 2, 3))):
        place = draw.randrange(2, len(changed) - 1)
        match draw.randrange(6):
            case 0:
                del changed[place]
            case 1:
                changed[place:place] = [changed[place]] * draw.choice((1, 2, 1000))
            case 2:
                changed[place] = changed[draw.randrange(1, len(changed) - 1)]
            case 3:
                changed[place:place] = [odd(draw)]
            case _:
                changed[place] = odd(draw)
    return b"".join(changed)


def of_archive(whole: bytes, content: bytes) -> bytes:
    """Return an archive that torch.save wrote with another pickle in it."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(made, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, content if member.filename.endswith("data.pkl") else old.read(member))
    return made.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("ours", [True, False])
def test_operations_exchanged(inputs: int, tmp_path: Path, zipped: bool, ours: bool) -> None:
    torch.manual_seed(0)
    network = MODELS["resnet8"](3)
    content = {"records": [{"epoch": 1}], "student": network.state_dict()} if ours else mdistiller_training(network)
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    whole, place = buffer.getvalue(), 0
    if zipped:
        with zipfile.ZipFile(buffer) as archive:
            main = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    else:
        with io.BytesIO(whole) as file:
            starts = []
            for _ in range(4):
                starts.append(file.tell())
                list(pickletools.genops(file))
            place, main = starts[3], whole[starts[3] : file.tell()]
    parts, path = operations(main), tmp_path / "a.pth"

    def reads(turn: int) -> object:
        forged = exchanged(random.Random(turn), parts) if turn % 10 else main
        made = of_archive(whole, forged) if zipped else whole[:place] + forged + whole[place + len(main) :]
        if not ours:
            path.write_bytes(made)
            return read_weights(path)
        write_with_digest(path, made)
        return load_state(path)

    counts = watch(reads, range(inputs), refusals=(ValueError, OSError))
    assert counts["read"] > 0
    assert counts["refused"] > 0
    assert digest_path(path).exists() is ours
