"""What a function reads of a configuration, attribute by attribute."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any


class Reads:
    """Wraps a configuration so that every field that is read of it, however deep, is noted as a dotted path."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def of(self, config: Any, prefix: str = "") -> Any:
        """`config` with its reading noted; still an instance of its class."""
        kind, noted = type(config), self.paths
        fields = {field.name for field in dataclasses.fields(config)}
        values = {name: self._value(getattr(config, name), f"{prefix}{name}") for name in fields}

        class Watched(kind):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                pass

            def __getattribute__(self, name: str) -> Any:
                if name in fields:
                    if not dataclasses.is_dataclass(values[name]):
                        noted.add(f"{prefix}{name}")
                    return values[name]
                return super().__getattribute__(name)

        return Watched()

    def _value(self, value: Any, path: str) -> Any:
        return self.of(value, f"{path}.") if dataclasses.is_dataclass(value) else value


def hashed(config: Any) -> set[str]:
    """The dotted paths of all that makes up a configuration's part of an identity.

    A field that was added later is among them at its neutral value, too, where its absence says what it is.
    """
    return set(_leaves(config))


def _leaves(config: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"
