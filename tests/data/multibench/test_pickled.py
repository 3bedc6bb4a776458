"""`read_pickle`: arrays come out as pickle would give them; whatever else a pickle may ask for is refused unrun."""

from __future__ import annotations

import bz2
import datetime
import functools
import gzip
import io
import lzma
import os
import pickle
import pickletools
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s3ray.data.multibench.pickled import read_pickle
from s3ray.data.multibench.prepare import prepare
from s3ray.errors import UserError

PROTOCOLS = range(6)
MAPPED_BYTES = 65536


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.pkl"


def _read(path: Path, raw: bytes) -> Any:
    path.write_bytes(raw)
    return read_pickle(path)


def _sentence(path: Path, raw: bytes | None = None) -> str:
    """What reading `path` ends in: one short line that names the file and, after a semicolon, a remedy."""
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(UserError) as error:
        read_pickle(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert message.isprintable()
    assert len(message) - len(str(path)) < 300
    return message


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Fails where the block takes longer; one that waits is interrupted, one that computes in C is not."""

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError("still waiting")

    earlier = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 2 * seconds)
    start = time.perf_counter()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    assert time.perf_counter() - start < seconds


@contextmanager
def _allocating_less_than(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def _split(samples: int, seed: int) -> dict[str, Any]:
    """(n, 5 steps, features), as in a file of MultiBench. 40 samples: vision and audio are mapped, text is not."""
    rng = np.random.default_rng(seed)
    vision, audio = rng.normal(size=(samples, 5, 50)), rng.normal(size=(samples, 5, 90)).astype("f4")
    vision[0, 1, 2], audio[0, :2, 1] = np.nan, -np.inf
    rows = [[f"vidéo_{i // 10}", str(i), str(i + 1)] for i in range(samples)]
    return {
        "vision": vision,
        "audio": audio,
        "text": rng.normal(size=(samples, 5, 7)).astype(">f8"),
        "labels": rng.normal(size=(samples, 1, 1)),
        "id": np.array(rows, dtype="U"),
    }


def _content() -> dict[Any, Any]:
    content: dict[Any, Any] = {split: _split(40 - i, i) for i, split in enumerate(("train", "valid", "test"))}
    rng = np.random.default_rng(9)
    shared = rng.normal(size=(3, 4))
    return content | {
        "fortran": np.asfortranarray(rng.normal(size=(4, 6))),
        "large fortran": np.asfortranarray(rng.normal(size=(100, 90))),
        "large big-endian": rng.integers(-9, 9, size=(60, 300)).astype(">i4"),
        "byte names": np.array([[b"a\xff", b"0.5"], [b"", b"12.25"]]),
        "many names": np.array([f"n{i}" for i in range(20_000)], dtype="U"),
        "objects": np.array([["a", b"\xfe", 3], [-1.5, None, 2**70]], dtype=object),
        "kinds": [np.array([0, 1, 0], code) for code in ("i1", "u1", "i2", "u4", "u8", "f2", "?")],
        "scalars": [np.float64(0.1), np.float32(0.5), np.int16(-7), np.bool_(True), np.str_("é"), np.bytes_(b"\x80")],
        "no dimension": np.array(2.5),
        "empty": [np.empty((0, 5, 3)), np.empty((0,), "S3"), np.empty((2, 0), object), np.empty(0, "f4")],
        "empty containers": [[], {}, (), b"", ""],
        "numbers": (2**64 + 1, -(2**100), 255, 65536, -1, 0.1, float("inf"), 2**31),
        "constants": (None, True, False),
        "nested": ((1, (2, 3, 4, 5)), [{"a": [b"\xff\x00", "ü\n"]}]),
        3: "a number as key",
        b"key": "bytes as key",
        "shared": [shared, {"again": shared}],
        "shared list": (lambda value: [value, value])([1, 2]),
    }


def _assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.flags.f_contiguous == expected.flags.f_contiguous
        if expected.dtype.kind == "O":
            _assert_same(found.tolist(), expected.tolist())
        else:
            assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, np.generic):
        _assert_same(found, expected.item())
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            _assert_same(found[key], value)
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _assert_same(one, other)
    else:
        assert type(found) is type(expected)
        assert found == expected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_what_pickle_wrote(protocol: int, path: Path) -> None:
    content = _content()
    found = _read(path, pickle.dumps(content, protocol))
    _assert_same(found, content)
    # What the pickle holds once is one object.
    assert found["shared"][0] is found["shared"][1]["again"]
    assert found["shared list"][0] is found["shared list"][1]


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_large_arrays_are_read_only_maps_of_the_file(protocol: int, path: Path) -> None:
    found = _read(path, pickle.dumps(_content(), protocol))
    large = [found["train"]["vision"], found["train"]["audio"], found["test"]["vision"], found["large fortran"]]
    for array in [*large, found["large big-endian"], found["many names"]]:
        assert isinstance(array, np.memmap)
        assert Path(str(array.filename)) == path
        assert not array.flags.writeable
    for array in (found["train"]["text"], found["fortran"], found["shared"][0]):
        assert not isinstance(array, np.memmap)


@pytest.mark.parametrize(("size", "mapped"), [(MAPPED_BYTES - 1, False), (MAPPED_BYTES, True)])
def test_arrays_are_mapped_from_64_kib_on(size: int, mapped: bool, path: Path) -> None:
    array = np.arange(size, dtype="u1")
    found = _read(path, pickle.dumps([array], 3))[0]
    assert isinstance(found, np.memmap) == mapped
    _assert_same(found, array)


def test_a_large_array_takes_no_memory(path: Path) -> None:
    path.write_bytes(pickle.dumps({"text": np.ones((100, 50, 500))}, 3))  # 20 MB
    with _allocating_less_than(10**6):
        assert read_pickle(path)["text"].shape == (100, 50, 500)


@pytest.mark.parametrize("size", [10, MAPPED_BYTES, 200_000])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_bytes_and_text_of_any_size(protocol: int, size: int, path: Path) -> None:
    content = {"bytes": b"\x80" * size, "text": "é" * size, "objects": np.array([b"\x80" * size, "a"], dtype=object)}
    _assert_same(_read(path, pickle.dumps(content, protocol)), content)


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_transposed_array_comes_out_transposed(protocol: int, path: Path) -> None:
    array = np.arange(24.0).reshape(2, 3, 4).swapaxes(1, 2)
    found = _read(path, pickle.dumps({"vision": array}, protocol))["vision"]
    assert found.shape == (2, 4, 3)
    assert np.array_equal(found, array)


def test_arrays_of_numpy_1_and_2_are_the_same(path: Path) -> None:
    content = {"vision": np.ones((2, 3)), "large": np.ones(10_000), "scalar": np.float64(2)}
    since_numpy_2 = pickle.dumps(content, 3)
    before = since_numpy_2.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert b"numpy._core" in since_numpy_2
    assert b"numpy._core" not in before
    for raw in (since_numpy_2, before):
        _assert_same(_read(path, raw), content)


def _text(value: str) -> bytes:
    """BINUNICODE"""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _bytes(value: bytes) -> bytes:
    """BINBYTES"""
    return b"B" + struct.pack("<I", len(value)) + value


def _int(value: int) -> bytes:
    """LONG4"""
    encoded = pickle.encode_long(value)
    return b"\x8b" + struct.pack("<I", len(encoded)) + encoded


def _dtype(code: str, state: bytes = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t") -> bytes:
    """numpy.dtype(code, 0, 1), then BUILD with (3, '<', None, None, None, -1, -1, 0)."""
    return b"cnumpy\ndtype\n" + _text(code) + b"K\x00K\x01\x87R" + state + b"b"


def _array(shape: bytes, dtype: bytes, raw: bytes) -> bytes:
    """_reconstruct(ndarray, (0,), 'b'), then BUILD with (1, shape, dtype, False, raw)."""
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    return start + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"


def test_protocol_5_of_numpy_1(path: Path) -> None:
    raw = np.array([1.5, -2.0, 0.25]).tobytes()
    call = b"cnumpy.core.numeric\n_frombuffer\n(" + b"\x96" + struct.pack("<Q", len(raw)) + raw
    found = _read(path, b"\x80\x05" + call + _dtype("f8") + b"K\x03\x85\x8c\x01CtR.")
    assert found.tolist() == [1.5, -2.0, 0.25]


# IEEE 754, little-endian: 1 is 3ff0…, -2 is c000…, 0.5 is 3fe0….
PYTHON_2_RAW = bytes.fromhex("000000000000f03f 00000000000000c0 000000000000e03f")


def _python_2(count: int, raw: bytes) -> bytes:
    """What Python 2's cPickle wrote at protocol 2 for {'vision': an array}: SHORT_BINSTRINGs; `raw` is the payload."""
    return (
        b"\x80\x02}q\x01U\x06visionq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04"
        b"K\x00\x85U\x01b\x87Rq\x05(K\x01M" + struct.pack("<H", count) + b"\x85"
        b"cnumpy\ndtype\nq\x06U\x02f8K\x00K\x01\x87Rq\x07(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + raw
        + b"tbs."
    )


@pytest.mark.parametrize("header", [b"U\x18", b"T\x18\x00\x00\x00"], ids=["SHORT_BINSTRING", "BINSTRING"])
def test_python_2_wrote_bytes_as_strings(header: bytes, path: Path) -> None:
    found = _read(path, _python_2(3, header + PYTHON_2_RAW))
    assert list(found) == ["vision"]
    assert found["vision"].tolist() == [1.0, -2.0, 0.5]


def test_large_arrays_of_python_2_are_mapped(path: Path) -> None:
    values = np.arange(10_000.0)
    found = _read(path, _python_2(10_000, b"T" + struct.pack("<i", 80_000) + values.tobytes()))
    assert isinstance(found["vision"], np.memmap)
    assert np.array_equal(found["vision"], values)


class Call:
    """Unpickling it calls `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def _system(marker: Path) -> Call:
    return Call(os.system, f"touch '{marker}'")


# Objects that make `marker` when pickle loads them, and what the sentence must name.
HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "os.system": (_system, f"{os.system.__module__}.system"),
    "eval": (lambda marker: Call(eval, f"open({str(marker)!r}, 'w').close()"), "eval"),
    "functools.reduce": (lambda marker: Call(functools.reduce, os.symlink, ["x", str(marker)]), "reduce"),
    "functools.partial": (lambda marker: Call(functools.partial(os.mkdir, str(marker))), "functools.partial"),
    "a call with what a call gives": (lambda marker: Call(os.mkdir, Call(str, str(marker))), "mkdir"),
    "in an object array": (lambda marker: np.array(["a", _system(marker)], dtype=object), "system"),
    "in a list of a tuple": (lambda marker: [("a", [_system(marker)])], "system"),
    "beside arrays": (lambda marker: {"vision": np.ones(3), "audio": _system(marker)}, "system"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", HOSTILE)
def test_calls_are_named_and_not_made(name: str, protocol: int, path: Path, tmp_path: Path) -> None:
    make, named = HOSTILE[name]
    marker = tmp_path / "marker"
    raw = pickle.dumps({"train": make(marker)}, protocol)
    assert named in _sentence(path, raw)
    assert not os.path.lexists(marker)
    pickle.loads(raw)
    assert os.path.lexists(marker), "the pickle was harmless"


def test_no_module_is_imported(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "trap_module.py").write_text(f"open({str(marker)!r}, 'w').close()\nname = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    raw = b"\x80\x02}" + _text("train") + b"ctrap_module\nname\ns."
    assert "trap_module.name" in _sentence(path, raw)
    assert "trap_module" not in sys.modules
    assert not marker.exists()
    try:
        assert pickle.loads(raw) == {"train": 1}
    finally:
        sys.modules.pop("trap_module", None)
    assert marker.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_in_an_object_array_is_bytes(protocol: int, path: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    inner = pickle.dumps(_system(marker))
    found = _read(path, pickle.dumps({"id": np.array([inner, "a"], dtype=object)}, protocol))
    assert found["id"].tolist() == [inner, "a"]
    assert not marker.exists()


class Plain:
    """An object without a state."""


OBJECTS: dict[str, tuple[Any, str]] = {
    "an object of a class": (Plain(), "Plain"),
    "a class": (Fraction, "fractions.Fraction"),
    "a function of the same module": (np.frombuffer, "frombuffer"),
    "an ordered dict": (OrderedDict(a=1), "collections.OrderedDict"),
    "a date": (datetime.date(2020, 1, 2), "datetime.date"),
    "a complex number": (1j, "complex"),
    "a subclass of arrays": (np.ma.array([1.0]), "numpy.ma"),
    "a random generator": (np.random.default_rng(0), "numpy.random"),
    "a set": ({1, 2}, "set"),
    "an array of records": (np.zeros(2, [("a", "f8"), ("b", "i4")]), "V12"),
    "an array of times": (np.array(["2020-01-01"], "M8[D]"), "M8"),
    "an array of durations": (np.array([1], "m8[s]"), "m8"),
    "an array of complex numbers": (np.array([1j]), "c16"),
    "an array of raw bytes": (np.zeros(2, "V5"), "V5"),
    "an object array of lists": (np.array([[1], None], dtype=object), "list"),
    "an object array of arrays": (np.array([np.ones(2), None], dtype=object), "ndarray"),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_no_plain_array_is_refused_by_name(name: str, protocol: int, path: Path) -> None:
    value, named = OBJECTS[name]
    assert named.lower() in _sentence(path, pickle.dumps({"train": value}, protocol)).lower()


# Each is a complete program up to the instruction that is to be named.
INSTRUCTIONS = {
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00",
    "PERSID": b"Pname\n",
    "BINPERSID": b"Nq\x00Q",
    "OBJ": b"(cnumpy\nndarray\nK\x01o",
    "NEWOBJ": b"cnumpy\nndarray\nK\x01\x85\x81",
    "NEWOBJ_EX": b"cnumpy\nndarray\nK\x01\x85}\x92",
    "EMPTY_SET": b"\x8f",
    "ADDITEMS": b"](K\x01\x90",
    "FROZENSET": b"(K\x01\x91",
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": b"N\x98",
    "DUP": b"N2",
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_instructions_that_arrays_do_not_need_are_refused_by_name(name: str, path: Path) -> None:
    program = b"\x80\x05" + INSTRUCTIONS[name]
    assert [opcode.name for opcode, _, _ in pickletools.genops(program + b".")][-2] == name
    assert _sentence(path, program + b".").split(", which")[0].endswith(f" {name}")


# Programs of admitted instructions that make no array, and words of the sentence.
MISUSES: dict[str, tuple[bytes, str]] = {
    "an object (INST)": (b"(iposix\nsystem\n.", "posix.system"),
    "the state of a dict": (b"}}b.", "state"),
    "the state of a list": (b"]K\x01\x85b.", "state"),
    "the state of a class": (b"cnumpy\nndarray\nK\x01\x85b.", "state"),
    "the state of an array that is complete": (
        _array(b"K\x01\x85", _dtype("f8"), _bytes(bytes(8))) + b"(K\x01K\x01\x85N\x89C\x00tb.",
        "state",
    ),
    "a call of text": (_text("eval") + _text("1") + b"\x85R.", "calls"),
    "a call of an array": (_array(b"K\x01\x85", _dtype("f8"), _bytes(bytes(8))) + b")R.", "calls"),
    "a call without a tuple": (b"cnumpy\ndtype\nNR.", "calls"),
    "ndarray itself": (b"cnumpy\nndarray\nK\x05\x85R.", "ndarray"),
    "another codec": (b"c_codecs\nencode\n" + _text("abc") + _text("rot13") + b"\x86R.", "encode"),
    "a subclass for ndarray": (b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85C\x01b\x87R.", "call"),
    "records under a plain type": (
        _array(
            b"K\x01\x85",
            _dtype("f8", b"(K\x03" + _text("<") + b"N" + _text("a") + b"\x85}" + b"K\x08K\x01K\x00t"),
            _bytes(bytes(8)),
        )
        + b".",
        "records",
    ),
    "a name that is a number": (b"K\x01K\x02\x93.", "name"),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misused_instructions_are_refused(name: str, path: Path) -> None:
    program, word = MISUSES[name]
    assert word in _sentence(path, b"\x80\x04" + program if not program.startswith(b"(") else program)


@pytest.mark.parametrize("depth", [99, 995, 100_000])
def test_tuples_in_tuples_are_read_or_refused(depth: int, path: Path) -> None:
    program = b"\x80\x04]" + b")" + b"\x85" * depth + b"a."
    if depth > 99:
        assert "holds tuples more than 100 deep" in _sentence(path, program)
    else:
        path.write_bytes(program)
        assert read_pickle(path) == pickle.loads(program)


BAD_ARRAYS: dict[str, bytes] = {
    "more values than bytes": _array(b"K\x03\x85", _dtype("f8"), _bytes(bytes(16))),
    "fewer values than bytes": _array(b"K\x01\x85", _dtype("f8"), _bytes(bytes(16))),
    "half a value": _array(b"K\x01\x85", _dtype("f8"), _bytes(bytes(12))),
    "a large array of another size": _array(b"K\x03\x85", _dtype("f8"), _bytes(bytes(80_000))),
    "a negative length": _array(b"J\xff\xff\xff\xff\x85", _dtype("f8"), _bytes(bytes(8))),
    "two negative lengths": _array(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86", _dtype("f8"), _bytes(bytes(8))),
    "a length that is no integer": _array(b"G?\xf0\x00\x00\x00\x00\x00\x00\x85", _dtype("f8"), _bytes(bytes(8))),
    "a length that is a boolean": _array(b"\x88\x85", _dtype("f8"), _bytes(bytes(8))),
    "a length beyond any array": _array(_int(2**80) + b"K\x00\x86", _dtype("f8"), _bytes(b"")),
    "a hundred dimensions": _array(b"(" + b"K\x01" * 100 + b"t", _dtype("f8"), _bytes(bytes(8))),
    "ten thousand dimensions": _array(b"(" + b"K\x02" * 10_000 + b"t", _dtype("f8"), _bytes(bytes(8))),
    "a length of many digits": _array(_int(10**5000) + b"\x85", _dtype("f8"), _bytes(bytes(8))),
    "no bytes": _array(b"K\x01\x85", _dtype("f8"), b"N"),
    "a list for bytes": _array(b"K\x01\x85", _dtype("f8"), b"]K\x01a"),
    "text that is no bytes": _array(b"K\x01\x85", _dtype("S3"), _text("a→")),
    "no type": _array(b"K\x01\x85", b"N", _bytes(bytes(8))),
    "too few objects": _array(b"K\x02\x85", _dtype("O8"), b"]Na"),
    "too many objects": _array(b"K\x00\x85", _dtype("O8"), b"]Na"),
    "bytes for objects": _array(b"K\x01\x85", _dtype("O8"), _bytes(bytes(8))),
    "a type that numpy has not": _array(b"K\x01\x85", _dtype("f1"), _bytes(bytes(1))),
    "a type list": _array(b"K\x01\x85", _dtype("f8,f8"), _bytes(bytes(16))),
    "values of no size": _array(b"K\x02\x85", _dtype("S0"), _bytes(b"")),
    "a scalar of two values": b"cnumpy.core.multiarray\nscalar\n" + _dtype("f8") + _bytes(bytes(16)) + b"\x86R",
    "a character beyond Unicode": b"cnumpy.core.multiarray\nscalar\n" + _dtype("U1") + _bytes(b"\xff" * 4) + b"\x86R",
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_an_array_that_is_none(name: str, path: Path) -> None:
    with _within(1):
        _sentence(path, b"\x80\x04" + BAD_ARRAYS[name] + b".")


BROKEN = {
    "nothing": b"",
    "two values": b"NN",
    "no value for a key": b"}(" + _text("a") + b"u",
    "a key to nothing": b"NN" + b"s",
    "an item to nothing": b"Na",
    "items without a mark": b"]NNe",
    "a tuple without a mark": b"NNt",
    "a tuple across a mark": b"N(N\x86",
    "an unknown memo entry": b"h\x05",
    "an unknown instruction": b"\xff",
    "no number": b"Iabc\n",
    "a number of many digits": b"I" + b"1" * 5000 + b"\n",
    "a float of many letters": b"F" + b"x" * 5000 + b"\n",
    "no text": b"X\x01\x00\x00\x00\xff",
    "pop of nothing": b"0",
    "a negative length of text": b"T\xff\xff\xff\xff",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_program_that_nobody_wrote(name: str, path: Path) -> None:
    assert "damaged or no pickle" in _sentence(path, b"\x80\x04" + BROKEN[name] + b".")


HALF_MADE = {
    "a mark": b"(",
    "a mark above a list": b"](e(",
    "a class": b"cnumpy\nndarray\n",
    "a class in a list": b"]cnumpy\ndtype\na",
    "an array without its state": (
        b"}" + _text("a") + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87Rs"
    ),
    "a type without its state": b"]cnumpy\ndtype\n" + _text("f8") + b"K\x00K\x01\x87Ra",
}


@pytest.mark.parametrize("name", HALF_MADE)
def test_nothing_half_made_comes_out(name: str, path: Path) -> None:
    _sentence(path, b"\x80\x02" + HALF_MADE[name] + b".")


GARBLING = {
    "lines and escapes": _text("posix\nsystem\x1b[2J") + _text("\r\x00") + b"\x93",
    "long text": _text("x" * 10_000) + _text("y" * 10_000) + b"\x93",
    "a long global": b"c" + b"x" * 10_000 + b"\ny\n",
    "escapes of an object": b"(iposix\r\x1b[2Jx\nsystem\n",
    "a long object": b"(i" + b"x" * 10_000 + b"\ny\n",
}


@pytest.mark.parametrize("name", GARBLING)
def test_a_name_cannot_garble_the_sentence(name: str, path: Path) -> None:
    _sentence(path, b"\x80\x04" + GARBLING[name] + b".")


def _laughs(levels: int) -> list[Any]:
    """10 ** `levels` entries, through the memo."""
    value: list[Any] = [1]
    for _ in range(levels):
        value = [value] * 10
    return value


LAUGHS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "holds a list": lambda content: _laughs(9),
    "train is a list": lambda content: content | {"train": _laughs(9)},
    "train/text must be numbers": lambda content: content | {"train": content["train"] | {"text": _laughs(9)}},
    "train/labels must be an array": lambda content: content | {"train": content["train"] | {"labels": _laughs(9)}},
    "train/id must hold": lambda content: content | {"train": content["train"] | {"id": _laughs(9)}},
}


@pytest.mark.parametrize("words", LAUGHS)
def test_lists_of_a_billion_entries_are_read_and_refused_at_once(words: str, tmp_path: Path) -> None:
    path = tmp_path / "mosi_data.pkl"
    content = {split: _split(10, seed) for seed, split in enumerate(("train", "valid", "test"))}
    path.write_bytes(pickle.dumps(LAUGHS[words](content), 3))
    with _within(1):
        read_pickle(path)
        with pytest.raises(UserError, match=words) as error:
            prepare("mosi", path, tmp_path / "out")
    assert str(error.value).isprintable()
    assert not (tmp_path / "out" / "mosi").exists()


def test_a_key_of_nested_tuples_is_never_hashed(path: Path) -> None:
    # 2 ** 28 empty tuples: seconds to hash. PUT, GET and TUPLE2 double the tuple.
    key = b")" + b"".join(b"r" + struct.pack("<I", i) + b"j" + struct.pack("<I", i) + b"\x86" for i in range(28))
    for store in (b"}" + key + b"Ns.", b"}(" + key + b"Nu.", b"(" + key + b"Nd."):
        with _within(1):
            assert "key" in _sentence(path, b"\x80\x02" + store)


def test_a_shape_of_huge_numbers_is_never_multiplied(path: Path) -> None:
    # 2000 times a number of 160 000 bits, in a file of 24 kB: minutes to multiply.
    shape = b"(" + _int(2**160_000) + b"q\x01" + b"h\x01" * 2000 + b"t"
    with _within(1):
        _sentence(path, b"\x80\x02" + _array(shape, _dtype("f8"), _bytes(bytes(8))) + b".")


AMPLIFIED = {
    "text that is encoded again and again": (
        b"c_codecs\nencode\nq\x01" + _text("a" * 100_000) + _text("latin1") + b"\x86q\x02](" + b"h\x01h\x02R" * 400
    ),
    "an object array again and again": (
        b"]("
        + b"N" * 50_000
        + b"eq\x01"
        + _dtype("O8")
        + b"q\x02]("
        + _array(b"M\x50\xc3\x85", b"h\x02", b"h\x01") * 40
    ),
    "a scalar again and again": (
        b"cnumpy.core.multiarray\nscalar\nq\x01"
        + _dtype("S50000")
        + _bytes(b"a" * 50_000)
        + b"\x86q\x02]("
        + b"h\x01h\x02R" * 800
    ),
}


@pytest.mark.parametrize("name", AMPLIFIED)
def test_a_small_file_takes_little_memory(name: str, path: Path) -> None:
    """Each would make 16 to 40 MB of about 100 kB."""
    path.write_bytes(b"\x80\x04" + AMPLIFIED[name] + b"e.")
    with _allocating_less_than(10**7), suppress(UserError):
        read_pickle(path)


SMALL = {
    "train": {"vision": np.array([[1.5, -np.inf]]), "id": np.array(["a", "bc"])},
    "objects": np.array(["a", b"\xff", 2.5, None], dtype=object),
    "numbers": [2**70, (True, None), np.float32(0.5)],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_that_ends_early(protocol: int, path: Path) -> None:
    raw = pickle.dumps(SMALL, protocol)
    assert len(raw) > 400
    path.write_bytes(raw)
    for size in reversed(range(len(raw))):
        os.truncate(path, size)
        assert "damaged" in _sentence(path), size


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_that_ends_in_a_large_array(protocol: int, path: Path) -> None:
    raw = pickle.dumps({"vision": np.ones(10_000), "audio": np.ones(3)}, protocol)
    path.write_bytes(raw)
    for size in reversed(range(150, len(raw), len(raw) // 40)):
        os.truncate(path, size)
        assert "damaged" in _sentence(path), size


@pytest.mark.parametrize("announced", [4 * 10**9, 2**63 - 1, 2**64 - 1])
@pytest.mark.parametrize("instruction", [b"\x8e", b"\x8d", b"\x96"], ids=["BINBYTES8", "BINUNICODE8", "BYTEARRAY8"])
def test_an_announced_length_is_not_believed(instruction: bytes, announced: int, path: Path) -> None:
    raw = b"\x80\x04}" + _text("train") + instruction + struct.pack("<Q", announced) + b"abcs."
    with _allocating_less_than(10**7):
        assert "damaged" in _sentence(path, raw)


@pytest.mark.parametrize("instruction", [b"B", b"X", b"T", b"\x8b"])
def test_an_announced_length_of_4_bytes_is_not_believed(instruction: bytes, path: Path) -> None:
    with _allocating_less_than(10**7):
        assert "damaged" in _sentence(path, b"\x80\x04" + instruction + struct.pack("<I", 2**31 - 1) + b"abc.")


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train", "1")
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("train"))
    return file.getvalue()


# What may lie under a pickle's name, what it is called and what helps.
FOREIGN = {
    "a web page": (b"<!DOCTYPE html>\n<html><title>Quota exceeded</title></html>\n", "(a web page); download it again"),
    "an empty file": (b"", "(an empty file); download it again"),
    "zeros": (bytes(1000), "(nothing but zeros); download it again"),
    "one byte": (b"\x80", "damaged or no pickle of arrays (1 bytes are announced"),
    "text": ("label,é\n1,2\n".encode(), "CSV, no pickle of arrays; get the original file"),
    "JSON": (b'{"train": 1}', "JSON, no pickle of arrays; get the original"),
    "a pointer of git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "; run git lfs pull"),
    "an HDF5 file": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, no pickle"),
    "a zip archive": (_zip(), "a zip archive, no pickle of arrays; unpack it: (cd "),
    "a gzipped pickle": (gzip.compress(pickle.dumps(1)), "a gzip archive, no pickle of arrays; unpack it: (cd "),
    "a gzipped web page": (gzip.compress(b"<html>"), "a gzip archive of a web page); download it again"),
    "half a gzip": (gzip.compress(bytes(range(250)))[:40], "a damaged gzip archive); download it again"),
    "a tar archive": (_tar(), "a tar archive, no pickle of arrays; unpack it: (cd "),
    "a tar archive in xz": (lzma.compress(_tar()), "a tar archive in xz, no pickle of arrays; unpack it: (cd "),
    "a single array": (b"\x93NUMPY\x01\x00", "a single array of numpy.save, no pickle"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_pickle(name: str, path: Path) -> None:
    content, words = FOREIGN[name]
    assert words in _sentence(path, content)


@pytest.mark.parametrize(
    ("pack", "tool"),
    [(gzip.compress, "gunzip"), (bz2.compress, "bunzip2"), (lzma.compress, "unxz"), (None, "unzip")],
)
def test_the_command_that_unpacks_leaves_the_pickle_in_its_place(
    pack: Callable[[bytes], bytes] | None, tool: str, tmp_path: Path
) -> None:
    if not shutil.which(tool):
        pytest.skip(f"no {tool} here")
    path = tmp_path / "it's a file.pkl"
    content = pickle.dumps({"train": 1})
    if pack:
        path.write_bytes(pack(content))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inside.pkl", content)
    with pytest.raises(UserError) as error:
        read_pickle(path)
    subprocess.run(str(error.value).partition("unpack it: ")[2], shell=True, check=True)
    assert read_pickle(path) == {"train": 1}


def _loop(path: Path) -> None:
    other = path.with_name("other")
    path.symlink_to(other)
    other.symlink_to(path)


NO_FILES: dict[str, Callable[[Path], Any]] = {
    "nothing": lambda path: None,
    "a link loop": _loop,
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
    "a directory": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_is_not_opened(name: str, path: Path) -> None:
    NO_FILES[name](path)
    with _within(1):
        assert "not a file" in _sentence(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(path: Path) -> None:
    path.write_bytes(pickle.dumps({}))
    path.chmod(0)
    assert "permissions" in _sentence(path)


def _assert_plain(value: Any, seen: set[int]) -> None:
    """Nothing but the admitted types, all the way down."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if type(value) is dict:
        for key, item in value.items():
            assert type(key) in (str, bytes, int, bool)
            _assert_plain(item, seen)
    elif type(value) in (list, tuple):
        for item in value:
            _assert_plain(item, seen)
    elif isinstance(value, np.ndarray):
        assert type(value) in (np.ndarray, np.memmap)
        assert value.dtype.kind in "biufSUO"
        if value.dtype.kind == "O":
            _assert_plain(value.tolist(), seen)
    elif not isinstance(value, np.dtype):
        assert type(value) in (str, bytes, int, float, bool, type(None), np.longdouble)


def _read_or_refuse(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    try:
        value = read_pickle(path)
    except UserError:
        return
    _assert_plain(value, set())


@pytest.fixture(scope="module")
def shared_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutations") / "data.pkl"


@pytest.mark.slow
@settings(max_examples=600)
@given(
    protocol=st.sampled_from(PROTOCOLS),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), st.binary(max_size=3)), min_size=1, max_size=6),
)
def test_a_changed_pickle_is_read_or_refused(
    protocol: int, edits: list[tuple[float, int, bytes]], shared_path: Path
) -> None:
    """Each edit replaces up to two bytes at a place by up to three others."""
    raw = pickle.dumps(SMALL, protocol)
    for place, removed, inserted in edits:
        start = round(place * len(raw))
        raw = raw[:start] + inserted + raw[start + removed :]
    _read_or_refuse(shared_path, raw)


def _tokens() -> list[bytes]:
    """The instructions of real pickles, each with its argument."""
    tokens = {b"h\x00", b"h\x01", b"q\x00", b"q\x01", _text("latin1"), _dtype("f8"), _dtype("O8")}
    tokens |= {_array(b"K\x01\x85", _dtype("f8"), _bytes(bytes(8)))}
    for protocol in (2, 5):
        raw = pickle.dumps(SMALL, protocol)
        starts = [place for _, _, place in pickletools.genops(raw) if place is not None]
        tokens |= {raw[start:end] for start, end in zip(starts, [*starts[1:], len(raw)], strict=True)}
    return sorted(tokens - {b"."})


@pytest.mark.slow
@settings(max_examples=1500)
@given(st.lists(st.sampled_from(_tokens()), min_size=1, max_size=12))
@example([b"("])
@example([b"]", b"(", b"e", b"("])
def test_shuffled_instructions_are_read_or_refused(shared_path: Path, tokens: list[bytes]) -> None:
    _read_or_refuse(shared_path, b"\x80\x05" + b"".join(tokens) + b".")
