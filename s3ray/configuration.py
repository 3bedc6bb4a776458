"""What configurations have in common: frozen dataclasses that check themselves, and the part of them that is hashed.

A configuration lives beside the code that reads it. What a stage is given is what its identity is made of
(`document`), so a field that nothing reads has no place in it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Mapping
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from s3ray.errors import UserError

MANY = 2**31 - 1  # what checkpoints, tables and libraries hold of integers
_NEUTRAL = "neutral"
_T = TypeVar("_T")


def added(default: _T, *, neutral: _T) -> _T:
    """A field that a configuration has got after results were stored under it.

    Where its value is `neutral`, the field is left out of the identity, as it was before: what was computed without
    the field stays valid. `neutral` is the value that does what was done before; it is written out, and stays when
    the default changes.
    """
    return dataclasses.field(default=default, metadata={_NEUTRAL: neutral})


def comments(kind: type[Any]) -> dict[str, str]:
    """What the `Attributes:` sections of a dataclass and of its bases say of each field, on one line.

    Nothing where docstrings are left out (`python -OO`).
    """
    found: dict[str, str] = {}
    for parent in kind.__mro__:
        section = inspect.cleandoc(parent.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        for name, text in re.findall(r"^    (\w+): (.+(?:\n {5,}.+)*)", section, re.MULTILINE):
            found.setdefault(name, " ".join(text.split()))
    return dict.fromkeys((field.name for field in dataclasses.fields(kind)), "") | found


def document(config: Any) -> dict[str, Any]:
    """A configuration as plain values, for its identity: nested mappings of what JSON knows.

    Where a float is declared, 1 and 1.0 are one.

    Raises:
        UserError: a value is not of the type that its field declares.
    """
    kind: Any = type(config)
    hints = _hints(kind)
    plain = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if _NEUTRAL in field.metadata and value == field.metadata[_NEUTRAL]:
            continue
        try:
            plain[field.name] = _plain(hints[field.name], value)
        except UserError as error:
            raise UserError(f"{field.name}: {error}") from None
    return plain


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _plain(hint: Any, value: Any) -> Any:
    """A value as its field declares it; what is not of that type would be computed with, but not be what is hashed."""
    if dataclasses.is_dataclass(value):
        return document(value)
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind is UnionType:
        matching = [option for option in arguments if isinstance(value, get_origin(option) or option)]
        kind, arguments = (matching or [float])[0], get_args((matching or [float])[0])
        kind = get_origin(kind) or kind
    if kind is tuple and isinstance(value, tuple):
        items = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        return [_plain(item, entry) for item, entry in zip(items, value, strict=True)]
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) + 0.0  # there is one zero
    if kind is Literal and value in arguments:
        return value
    if type(value) in (bool, int, str, NoneType) and kind in (type(value), None, Any):
        return value
    raise UserError(f"{value!r} of type {type(value).__name__} is no {getattr(kind, '__name__', kind)}; convert it")


def restored(kind: type[_T], plain: Mapping[str, Any], types: Mapping[str, type[Any]] = MappingProxyType({})) -> _T:
    """The configuration whose `document` is `plain`.

    Args:
        types: of fields that `kind` leaves open.
    """
    fields: Any = kind
    hints = _hints(fields)
    values = {}
    for field in dataclasses.fields(fields):
        if field.name not in plain:
            values[field.name] = field.metadata[_NEUTRAL]
            continue
        hint, value = types.get(field.name, hints[field.name]), plain[field.name]
        nested = next((h for h in (hint, *getattr(hint, "__args__", ())) if dataclasses.is_dataclass(h)), None)
        if isinstance(value, Mapping) and nested is not None:
            values[field.name] = restored(cast(Any, nested), value)
        else:
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def check_whole(config: Any, *names: str) -> None:
    """UserError unless these fields lie between 1 and 2^31 - 1."""
    for name in names:
        if not 1 <= getattr(config, name) <= MANY:
            raise UserError(f"{name} {getattr(config, name)} must lie between 1 and {MANY}; correct it")


def check_not_negative(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise UserError(f"{name} {getattr(config, name)} is negative; give 0 or more")


def check_positive(config: Any, **examples: float) -> None:
    """UserError unless these fields are positive; their examples are what to try instead."""
    for name, example in examples.items():
        if not getattr(config, name) > 0:
            raise UserError(f"{name} {getattr(config, name)} must be positive; try {example:g}")


def check_listed(config: Any, *names: str) -> None:
    """UserError unless these lists, which are fanned out over, have one entry or more, each once."""
    for name in names:
        if not getattr(config, name):
            raise UserError(f"{name} is empty; give one or more, or leave it out for the scale's own")
    check_distinct(config, *names)


def check_distinct(config: Any, *names: str) -> None:
    """UserError if an entry of these lists stands twice."""
    for name in names:
        values = getattr(config, name)
        for value in values:
            if values.count(value) > 1:
                raise UserError(f"{name} {list(values)} has {value} more than once; give each once")
