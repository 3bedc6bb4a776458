"""Declarations are found by looking at a package's modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3ray.registry import declared

THING = "class Thing:\n    def __init__(self, name): self.name = name\n\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an importable package `things` that is still empty."""
    folder = tmp_path / "things"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "things"]:
        del sys.modules[name]


def declare(package: Path, module: str, name: str) -> None:
    (package / f"{module}.py").write_text(f"{THING}THING = Thing({name!r})\n")


def test_an_empty_package_declares_nothing(package: Path) -> None:
    assert declared("things", "THING") == {}


def test_every_file_is_a_declaration_in_the_order_of_names(package: Path) -> None:
    declare(package, "a", "second")
    declare(package, "b", "first")
    (package / "shared.py").write_text("OTHER = 1\n")
    found: dict[str, object] = declared("things", "THING")
    assert list(found) == ["first", "second"]
    assert found["second"] is sys.modules["things.a"].THING


def test_a_name_that_two_files_declare_names_both(package: Path) -> None:
    declare(package, "a", "same")
    declare(package, "b", "same")
    with pytest.raises(ValueError, match=r"^things: a\.py and b\.py both declare 'same'; rename one THING$"):
        declared("things", "THING")
