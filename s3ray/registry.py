"""What the modules of a package declare: adding a declaration is adding a file, and no list is extended."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any, TypeVar

_Declared = TypeVar("_Declared")


def declared(package: str, attribute: str) -> dict[str, _Declared]:
    """The objects called `attribute` in a package's modules, by their `name`, in its order.

    A module without one is no declaration, and may be what several of them share.

    Raises:
        ValueError: two modules declare the same name.
    """
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(import_module(package).__path__)):
        declaration = getattr(import_module(f"{package}.{module}"), attribute, None)
        if declaration is None:
            continue
        other = places.setdefault(declaration.name, module)
        if other != module:
            raise ValueError(
                f"{package}: {other}.py and {module}.py both declare {declaration.name!r}; rename one {attribute}"
            )
        found[declaration.name] = declaration
    return dict(sorted(found.items()))
