"""Every setting with its type, its value and what it is: for `s3ray config`, and for the reference in the docs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from s3ray.configuration import comments
from s3ray.settings.overrides import override
from s3ray.settings.scales import SCALES, declared_by_methods
from s3ray.settings.settings import Settings


class Setting(NamedTuple):
    """A field of a `--config` file.

    Attributes:
        path: dotted, as `--config` has it.
        kind: its type, in words.
        value: None where it is left open.
        comment: what it is, on one line.
    """

    path: str
    kind: str
    value: Any
    comment: str

    @property
    def table(self) -> str:
        """The table that it stands in; of those above the first, none."""
        return self.path.rpartition(".")[0]


def reference(settings: Any, *path: str) -> Iterator[Setting]:
    """Every field of settings, those of a table before its tables: defaults, if they are `Settings()`."""
    hints, told = get_type_hints(type(settings)), comments(type(settings))
    tables = []
    for field in dataclasses.fields(settings):
        value, place = getattr(settings, field.name), (*path, field.name)
        if dataclasses.is_dataclass(value):
            tables.append((value, place))
        else:
            yield Setting(".".join(place), _kind(hints[field.name]), value, told[field.name])
    for table, place in tables:
        yield from reference(table, *place)


def table_comments(settings: Any, *path: str) -> Iterator[tuple[str, str]]:
    """Every table's dotted path, and what it is."""
    for field in dataclasses.fields(settings):
        if dataclasses.is_dataclass(value := getattr(settings, field.name)):
            yield ".".join((*path, field.name)), comments(type(settings))[field.name]
            yield from table_comments(value, *path, field.name)


def of_scale(scale: str) -> Settings:
    """A scale's defaults, before what a dataset or a `--config` file changes."""
    tables = {**SCALES[scale], "method": declared_by_methods(scale)}
    return override(Settings(), tables, f"scale {scale}")


def as_toml(settings: Settings, scale: str) -> str:
    """Settings as a `--config` file that makes them again, each field with what it is.

    Where a value is not the scale's default, the comment has that too. What is left open, which TOML cannot say, stands
    there as a comment.
    """
    default = {setting.path: setting.value for setting in reference(of_scale(scale))}
    titles, lines, table = dict(table_comments(settings)), [], ""
    for setting in reference(settings):
        if setting.table != table:
            table = setting.table
            lines += ["", f"[{table}]  # {titles[table]}"]
        name = setting.path.rpartition(".")[2]
        other = default[setting.path]
        told = "  # " + setting.comment
        if "|" in setting.kind and '"' not in setting.comment:
            told += f" One of {setting.kind.removeprefix('list of: ')}."
        if other != setting.value:
            told += f" Default: {shown(other)}."
        lines.append((f"# {name} =" if setting.value is None else f"{name} = {shown(setting.value)}") + told)
    return "\n".join([*lines, ""])


def shown(value: Any) -> str:
    """A value as TOML has it."""
    return "left open" if value is None else json.dumps(value, ensure_ascii=False)


_KINDS = {bool: "true or false", int: "integer", float: "number", str: "text"}


def _kind(hint: Any) -> str:
    if get_origin(hint) is UnionType:
        return f"{_kind(get_args(hint)[0])}, may be left out"
    if get_origin(hint) is tuple:
        return f"list of: {_kind(get_args(hint)[0])}"
    if get_origin(hint) is Literal:
        return " | ".join(map(shown, get_args(hint)))
    return _KINDS[hint]
