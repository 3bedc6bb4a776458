"""Read the arrays of a pickle without running it.

A pickle is a program whose instructions may call any function. The reader below follows its instructions
on paper: containers, strings and numbers come out as themselves, the few names that numpy's own arrays need
are recognised, every other name and every instruction that could call one is refused. Nothing is imported or
called, nothing is hashed that the file could have made expensive, and the bytes of a large array stay where
they are: the array that comes out is a map of the file.
"""

from __future__ import annotations

import os
import pickletools
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from s3ray.data.foreign import foreign
from s3ray.errors import UserError

# Payloads from this size on are mapped, not read.
_MAPPED_BYTES = 1 << 16

# What numpy's arrays name, before and since numpy 2, and what stands for it here.
_ADMITTED = {
    "numpy.core.multiarray._reconstruct": "reconstruct",
    "numpy._core.multiarray._reconstruct": "reconstruct",
    "numpy.core.multiarray.scalar": "scalar",
    "numpy._core.multiarray.scalar": "scalar",
    "numpy.core.numeric._frombuffer": "from buffer",
    "numpy._core.numeric._frombuffer": "from buffer",
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",  # bytes, before protocol 3 had them
    "__builtin__.bytes": "bytes",  # the same, empty
}

_INSTRUCTIONS = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}
# Instructions that push their argument; of those with a payload, the size of the payload's length.
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_STRINGS = {"STRING", "SHORT_BINSTRING", "SHORT_BINBYTES", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
_PAYLOADS = {"BINSTRING": 4, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}
_NAMED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NO_EFFECT = frozenset({"PROTO", "FRAME"})

_ELEMENT = str | bytes | int | float | None
# Far above what numpy allows and files hold; below what takes time to multiply or print.
_MAX_DIMENSIONS, _MAX_LENGTH = 32, 1 << 48
_MAX_TUPLE = 1000  # elements of a tuple in a container, those of its tuples included
_MAX_DEPTH = 100  # of tuples in tuples: whoever compares or prints them calls himself as often


class _Mark:
    """The stack's MARK."""


_MARK = _Mark()


@dataclass(frozen=True, slots=True)
class _Name:
    """An admitted global: what stands for it, never the thing itself."""

    meaning: str


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes that stay in the file."""

    offset: int
    size: int

    def __len__(self) -> int:
        return self.size


@dataclass(slots=True, eq=False)
class _Pending:
    """An array or dtype whose state has not come yet, and the memo slots that already hold it."""

    dtype: np.dtype[Any] | None  # None: an array
    memo: list[int]


class _Tape:
    """The file as pickletools reads it: no length is believed that the file does not have."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.readline = file.readline

    def _check(self, count: int) -> int:
        position = self._file.tell()
        if count > self._size - position:
            raise _DamagedError(f"{count} bytes are announced at byte {position}, the file ends at {self._size}")
        return position

    def read(self, count: int) -> bytes:
        self._check(count)
        return self._file.read(count)

    def payload(self, count: int) -> bytes | _Span:
        position = self._check(count)
        if count < _MAPPED_BYTES:
            return self._file.read(count)
        self._file.seek(count, os.SEEK_CUR)
        return _Span(position, count)


class _DamagedError(Exception):
    """The file is no pickle that anything could read."""


class _ForeignError(_DamagedError):
    """The file does not even start as a pickle does."""


class _RefusedError(Exception):
    """The pickle asks for something that arrays do not need."""


def read_pickle(path: Path) -> Any:
    """The content of a pickle of numpy arrays and plain containers.

    Arrays of 64 KiB and more are read-only maps of the file. Admitted are dict, list and tuple; str, bytes,
    numbers, None; numpy arrays and scalars of booleans, numbers and strings, and object arrays of plain values.

    Raises:
        UserError: the file cannot be read, is damaged, or asks for anything else, which the message names.
    """
    try:
        if not path.is_file():
            raise UserError(f"{path}: not a file; give the file that was downloaded")
        with path.open("rb") as file:
            return _Reader(path, file).run()
    except _RefusedError as error:
        raise UserError(
            f"{path}: {error}, which arrays do not need, so the file was not read; get it from its official page"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({said(error)}); check the path and its permissions") from error
    except (_DamagedError, ValueError, TypeError, LookupError, OverflowError, MemoryError, SystemError) as error:
        if isinstance(error, UserError):
            raise
        kind = foreign(path) if isinstance(error, _ForeignError) else None
        if kind and not kind.failed:
            raise UserError(f"{path}: {kind.what}, no pickle of arrays; {kind.for_original()}") from None
        error = _DamagedError(kind.what) if kind else error
        raise UserError(f"{path}: damaged or no pickle of arrays ({said(error)}); download it again") from error


def said(what: object) -> str:
    """Words from the file or about it, as part of one line."""
    text = "".join(c if c.isprintable() else "?" for c in str(what)[:80])
    return text or type(what).__name__


class _Reader:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        size = os.fstat(file.fileno()).st_size
        self._tape = _Tape(file, size)
        # What is copied; a payload used again and again through the memo would be copied again and again.
        self._budget = size
        start = file.read(16)
        if not start.startswith((b"\x80", b"(", b"}", b"]")):
            raise _ForeignError(f"it starts with {start!r}")
        file.seek(0)
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            instruction = _INSTRUCTIONS.get(self._tape.read(1))
            if instruction is None:
                raise _DamagedError("it holds bytes that are no instruction")
            name = instruction.name
            if name == "STOP":
                (result,) = self._stack
                return self._plain(result)
            if name in _PAYLOADS:
                size = int.from_bytes(self._tape.read(_PAYLOADS[name]), "little")
                self._stack.append(self._tape.payload(size))
                continue
            argument = instruction.arg.reader(self._tape) if instruction.arg else None  # type: ignore[arg-type]
            if name in _NUMBERS | _STRINGS:
                self._stack.append(argument)
            elif name in _NAMED:
                self._stack.append(_NAMED[name])
            elif name not in _NO_EFFECT:
                action = getattr(self, f"_{name.lower()}", None)
                if action is None:
                    raise _RefusedError(f"uses the pickle instruction {name}")
                action(argument)

    def _mark(self, _: None) -> None:
        self._stack.append(_MARK)

    def _pop_mark(self, _: None) -> None:
        self._to_mark()

    def _pop(self, _: None) -> None:
        self._stack.pop()

    def _to_mark(self) -> list[Any]:
        items = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _take(self, count: int) -> list[Any]:
        items = self._stack[len(self._stack) - count :]
        if len(items) < count or any(item is _MARK for item in items):
            raise _DamagedError("its stack is too short")
        del self._stack[len(self._stack) - count :]
        return items

    def _plain(self, value: Any) -> Any:
        """A value as it stands in a container: nothing of the reader's own."""
        if isinstance(value, _Span):
            return self._bytes(value)
        if isinstance(value, tuple):
            self._check_tuple(value)
        elif isinstance(value, _Mark | _Name | _Pending):
            raise _DamagedError("an array lacks its content")
        return value

    def _check_tuple(self, value: tuple[Any, ...]) -> None:
        seen, level = 0, [value]
        for _ in range(_MAX_DEPTH):
            items: list[Any] = []
            for one in level:
                seen += len(one)
                if seen > _MAX_TUPLE:
                    raise _RefusedError(f"holds a tuple of more than {_MAX_TUPLE} elements")
                items += one
            if any(isinstance(item, _Span | _Mark | _Name | _Pending) for item in items):
                raise _DamagedError("a tuple holds part of an array")
            if not (level := [item for item in items if isinstance(item, tuple)]):
                return
        raise _RefusedError(f"holds tuples more than {_MAX_DEPTH} deep")

    def _bytes(self, span: _Span) -> bytes:
        place = self._file.tell()
        self._spend(span.size)
        self._file.seek(span.offset)
        content = self._file.read(span.size)
        self._file.seek(place)
        return content

    def _spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise _RefusedError("repeats its content over and over")

    def _empty_dict(self, _: None) -> None:
        self._stack.append({})

    def _empty_list(self, _: None) -> None:
        self._stack.append([])

    def _empty_tuple(self, _: None) -> None:
        self._stack.append(())

    def _tuple(self, _: None) -> None:
        self._stack.append(tuple(self._to_mark()))

    def _tuple1(self, _: None) -> None:
        self._stack.append(tuple(self._take(1)))

    def _tuple2(self, _: None) -> None:
        self._stack.append(tuple(self._take(2)))

    def _tuple3(self, _: None) -> None:
        self._stack.append(tuple(self._take(3)))

    def _list(self, _: None) -> None:
        items = self._to_mark()
        self._stack.append([])
        self._extend(items)

    def _dict(self, _: None) -> None:
        items = self._to_mark()
        self._stack.append({})
        self._update(items)

    def _append(self, _: None) -> None:
        self._extend(self._take(1))

    def _appends(self, _: None) -> None:
        self._extend(self._to_mark())

    def _setitem(self, _: None) -> None:
        self._update(self._take(2))

    def _setitems(self, _: None) -> None:
        self._update(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise _RefusedError("appends to something that is no list")
        self._stack[-1].extend(self._plain(item) for item in items)

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            # A tuple of tuples as key could take for ever to hash, and integers from 2⁶¹ - 1 on can be made to collide.
            plain = isinstance(key, str | bytes) or (isinstance(key, int) and abs(key) < 1 << 60)
            if not isinstance(target, dict) or not plain:
                raise _RefusedError("sets an item under a key that is no plain name")
            target[key] = self._plain(value)

    def _put(self, slot: int) -> None:
        value = self._stack[-1]
        if isinstance(value, _Pending):
            value.memo.append(slot)
        self._memo[slot] = value

    _binput = _long_binput = _put

    def _memoize(self, _: None) -> None:
        self._put(len(self._memo))

    def _get(self, slot: int) -> None:
        self._stack.append(self._memo[slot])

    _binget = _long_binget = _get

    def _global(self, argument: str) -> None:
        self._stack.append(_name(argument.replace(" ", ".")))

    def _stack_global(self, _: None) -> None:
        module, name = self._take(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise _DamagedError("a global has no name")
        self._stack.append(_name(f"{module}.{name}"))

    def _inst(self, argument: str) -> NoReturn:
        raise _RefusedError(f"makes an object of {said(argument.replace(' ', '.'))}")

    def _reduce(self, _: None) -> None:
        function, arguments = self._take(2)
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise _RefusedError("calls something that is no function of numpy")
        match function.meaning, arguments:
            case "reconstruct", (_Name("ndarray"), (0,), _):
                self._stack.append(_Pending(None, []))
            case "dtype", (str(code), *_):
                self._stack.append(_Pending(_dtype(code), []))
            case "scalar", (np.dtype() as dtype, raw):
                self._spend(dtype.itemsize)
                self._stack.append(self._array((), dtype, False, raw).item())
            case "from buffer", (raw, np.dtype() as dtype, tuple(shape), "C" | "F" as order):
                self._stack.append(self._array(shape, dtype, order == "F", raw))
            case "from buffer", (raw, np.dtype() as dtype, tuple(shape), "K", tuple(axes)):
                self._stack.append(self._array(shape, dtype, False, raw).transpose(axes))
            case "encode", (str(text), "latin1"):
                self._spend(len(text))
                self._stack.append(text.encode("latin1"))
            case "bytes", ():
                self._stack.append(b"")
            case _:
                raise _RefusedError(f"calls {function.meaning} in an unknown way")

    def _build(self, _: None) -> None:
        pending, state = self._take(2)
        if not isinstance(pending, _Pending) or not isinstance(state, tuple):
            raise _RefusedError("sets the state of something that is no array")
        built = self._built_array(state) if pending.dtype is None else _built_dtype(pending.dtype, state)
        for slot in pending.memo:
            self._memo[slot] = built
        self._stack.append(built)

    def _built_array(self, state: tuple[Any, ...]) -> NDArray[Any]:
        match state:
            case (1, tuple(shape), np.dtype() as dtype, bool(fortran), raw):
                return self._array(shape, dtype, fortran, raw)
        raise _RefusedError("holds an array in an unknown layout")

    def _array(self, shape: tuple[Any, ...], dtype: np.dtype[Any], fortran: bool, raw: Any) -> NDArray[Any]:
        if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < _MAX_LENGTH for n in shape):
            raise _DamagedError("an array has an impossible shape")
        order: Any = "F" if fortran else "C"
        if isinstance(raw, str):
            raw = raw.encode("latin1")  # Python 2's strings are bytes
        if dtype.kind == "O":
            self._spend(prod(shape))
            return _object_array(shape, raw, order)
        if not isinstance(raw, bytes | bytearray | _Span):
            raise _RefusedError("holds an array without its bytes")
        if prod(shape) * dtype.itemsize != len(raw):
            raise _DamagedError(f"an array of shape {shape} and type {dtype} holds {len(raw)} bytes")
        if isinstance(raw, _Span):
            array: NDArray[Any] = np.memmap(self._path, dtype, "r", raw.offset, shape, order)
        else:
            array = np.frombuffer(raw, dtype).reshape(shape, order=order)
        if dtype.kind == "U" and array.size and _code_points(array).max() >= 0x110000:
            raise _DamagedError("a text array holds what is no text")
        return array


def _code_points(array: NDArray[Any]) -> NDArray[np.uint32]:
    flat = array.reshape(-1, order="A")
    points: NDArray[np.uint32] = np.ndarray(
        (array.size * array.dtype.itemsize // 4,), np.dtype("u4").newbyteorder(array.dtype.byteorder), flat
    )
    return points


def _object_array(shape: tuple[int, ...], items: Any, order: Any) -> NDArray[Any]:
    if not isinstance(items, list) or prod(shape) != len(items):
        raise _DamagedError("an object array does not hold its objects")
    for item in items:
        if not isinstance(item, _ELEMENT):
            raise _RefusedError(f"holds an object array with a {type(item).__name__} in it")
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape, order=order)


def _name(dotted: str) -> _Name:
    if dotted not in _ADMITTED:
        raise _RefusedError(f"asks for {said(dotted)}")
    return _Name(_ADMITTED[dotted])


def _dtype(code: str) -> np.dtype[Any]:
    if not re.fullmatch(r"[<>|=]?([biuf][1248]|f16|[SU]\d{1,6}|O8?)", code):
        raise _RefusedError(f"holds an array of type {said(code)}")
    return np.dtype("O" if "O" in code else code)


def _built_dtype(dtype: np.dtype[Any], state: tuple[Any, ...]) -> np.dtype[Any]:
    match state:
        # Version, byte order, no sub-array, no field names, no fields, then size, alignment and flags.
        case (int(), "<" | ">" | "|" | "=" as order, None, None, None, int(), int(), int(), *_):
            return dtype if order in "|=" else dtype.newbyteorder(order)
    raise _RefusedError("holds an array of records")
