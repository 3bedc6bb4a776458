"""Changes to settings: nested tables as TOML files have them, checked field by field."""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from s3ray.errors import UserError, nearest
from s3ray.paths import local_path

_T = TypeVar("_T")

# What a float32 holds without losing digits.
_SMALLEST, _LARGEST = 1.2e-38, 3.4e38


def override(instance: _T, changes: Mapping[str, Any], where: str) -> _T:
    """A copy of a (nested) dataclass with `changes` applied.

    Raises UserError for a field that does not exist, a value of the wrong type or out of range; `where` names the
    file or table the changes came from.
    """
    return replaced(instance, typed(type(instance), changes, where), lambda path: where)


def replaced(instance: _T, changes: Mapping[str, Any], where: Callable[[Sequence[str]], str], *path: str) -> _T:
    """`instance` with changes of the right types; `where` tells for the path of a table where it came from."""
    fields = {
        name: replaced(getattr(instance, name), value, where, *path, name) if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
    try:
        changed: _T = dataclasses.replace(cast(Any, instance), **fields)
    except UserError as error:
        raise UserError(f"{where(path)}: {_dotted(*path)}{error}") from None
    return changed


def _dotted(*path: str) -> str:
    return f"{'.'.join(path)}: " if path else ""


def typed(root: type, changes: Mapping[str, Any], where: str, *path: str) -> dict[str, Any]:
    """`changes` as the fields of a dataclass take them; `path` leads from `root` to it."""
    hints = get_type_hints(reduce(lambda kind, name: get_type_hints(kind)[name], path, root))
    fields: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in hints:
            remedy = _where_it_belongs(name, value, root, hints, *path)
            raise UserError(f"{where}: {_dotted(*path)}unknown field {name!r}; {remedy}")
        if not dataclasses.is_dataclass(hints[name]):
            fields[name] = _coerced(hints[name], value, f"{where}: {'.'.join([*path, name])}")
        elif isinstance(value, Mapping):
            fields[name] = typed(root, value, where, *path, name)
        else:
            raise UserError(f"{where}: {_dotted(*path)}{name!r} must be a table of fields, not {_shown(value)}")
    return fields


def _where_it_belongs(name: str, value: Any, root: type, hints: Mapping[str, Any], *path: str) -> str:
    """The remedy for a field that a table does not have: a near name, or the table that has it."""
    if isinstance(value, Mapping) and value and set(value) <= get_type_hints(root).keys():
        return f"settings of one dataset stand in [dataset.{name}]"
    own = [key for key in value if key in hints] if isinstance(value, Mapping) else []
    if own and path:
        return f"{', '.join(own)} {'stands' if len(own) == 1 else 'stand'} in [{'.'.join(path)}] itself"
    if not difflib.get_close_matches(name, hints, n=1, cutoff=0.5) or name in {path[-1] for path in _paths(root)}:
        every = list(_paths(root))
        (close,) = difflib.get_close_matches(name, {path[-1] for path in every}, n=1, cutoff=0.75) or [""]
        found = [".".join(path) + (", above the first [table]" if len(path) == 1 else "") for path in every]
        near = [text for text, path in zip(found, every, strict=True) if path[-1] == close]
        if near:
            here = difflib.get_close_matches(name, hints, n=1, cutoff=0.75)
            return f"did you mean {' or '.join(dict.fromkeys([*here, *near]))}?"
    return nearest(name, hints)


def _paths(kind: type, *path: str) -> Iterator[tuple[str, ...]]:
    """Every field below a dataclass, tables included, but for those that may be left open: they stand in for others."""
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is UnionType:
            continue
        yield (*path, name)
        if dataclasses.is_dataclass(hint):
            yield from _paths(cast(type, hint), *path, name)


_TOML = {bool: "a boolean", int: "an integer", float: "a float", str: "a string"}
_LISTS = {int: "integers, such as [1, 2]", float: "numbers, such as [1.0, 0.5]"}


def _expected(hint: Any) -> str:
    """What a field takes, as someone who writes TOML knows it."""
    if get_origin(hint) is not tuple:
        return _TOML[hint]
    item = get_args(hint)[0]
    return f"a list of {_LISTS[item] if item in _LISTS else f'names, such as {list(get_args(item)[:2])}'}"


# What people mean by values that there are not, where the nearest name is not it.
_REMEDIES = {
    "sparsification.controls": {
        "ranked": "is the curve itself, which is always measured; name what it is held against",
        "all": "is no control; name each",
    }
}


def _coerced(hint: Any, value: Any, at: str) -> Any:
    kind = get_origin(hint) or hint
    if kind is UnionType:  # what may also be left open
        return _coerced(get_args(hint)[0], value, at)
    if kind is Literal:
        if value not in get_args(hint):
            for path, remedies in _REMEDIES.items():
                if at.endswith(path) and isinstance(value, str) and value in remedies:
                    known = ", ".join(sorted(get_args(hint)))
                    raise UserError(f"{at}: {_shown(value)} {remedies[value]}; known: {known}")
            raise UserError(f"{at}: unknown value {_shown(value)}; {nearest(str(value), get_args(hint))}")
        return value
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(_coerced(get_args(hint)[0], item, at) for item in value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{at}: {value} is not finite; give a number")
        if value and not _SMALLEST <= abs(value) <= _LARGEST:
            raise UserError(f"{at}: {_shown(value)} is beyond what a float32 holds; give 0 or 1.2e-38 to 3.4e38")
        return float(value)
    if type(value) is not kind:
        one = kind is tuple and type(value) is get_args(hint)[0]
        remedy = f"write [{_shown(value)}]" if one else "correct the value"
        raise UserError(f"{at}: expected {_expected(hint)}, got {_shown(value)}; {remedy}")
    return value


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else reprlib.repr(value)


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables united; where both have a value, the second's."""
    both = {
        key: merged(first[key], value) if isinstance(value, Mapping) and isinstance(first.get(key), Mapping) else value
        for key, value in second.items()
    }
    return {**first, **both}


def flattened(table: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """Nested tables as values by their dotted path."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= flattened(value, *path, name) if isinstance(value, Mapping) else {".".join([*path, name]): value}
    return found


def read_overrides(path: Path | str) -> dict[str, Any]:
    """Read a `--config` TOML file, a path or a URI; UserError if it is missing or is not TOML."""
    at = f"--config {path}"
    if not str(path).strip():
        raise UserError("--config: is empty; name a TOML file, or leave the option out")
    try:
        content = _read(str(path))
        if len(content) > _LARGEST_FILE:
            raise UserError(f"{at}: is larger than {_LARGEST_FILE // 2**20} MB, which no settings are; check the path")
        overrides = tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise UserError(f"{at}: cannot be read ({reason}); check the path") from error
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # not TOML, not text, an integer of thousands of digits
        reason = "a key stands twice: " if "overwrite" in str(error) else ""
        raise UserError(f"{at}: not valid TOML ({reason}{error}); correct the file") from error
    tables = overrides.get("dataset", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UserError(f"{at}: dataset must hold tables [dataset.NAME.…], not {_shown(tables)}; correct the file")
    return overrides


def read_all(paths: Sequence[str]) -> dict[str, Any]:
    """What `--config` files override together, of two values the later; nothing without any."""
    return reduce(merged, map(read_overrides, paths), {})


_LARGEST_FILE = 2**20  # bytes; what is read of a file at most


def _read(path: str) -> bytes:
    content: bytes
    if "://" in path:
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem

        try:
            filesystem, name = FileSystem.from_uri(path)
            with filesystem.open_input_stream(name) as stream:
                content = stream.read(_LARGEST_FILE + 1)
        except (ArrowException, ValueError) as error:
            raise OSError(str(error)) from error
        return content
    with local_path(path, "--config").open("rb") as file:
        return file.read(_LARGEST_FILE + 1)
