"""Paths as people type them, and folders that outlast a power failure."""

from __future__ import annotations

import os
from pathlib import Path

from s3ray.errors import UserError


def local_path(text: Path | str, option: str) -> Path:
    """A path as people type it: `~` is their home.

    Args:
        option: what complaints name, such as `--data`.

    Raises:
        UserError: nothing is given, or somebody's home who is not known.
    """
    if not str(text).strip():
        raise UserError(f"{option}: is empty; name a file or folder, or leave the option out")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{option} {text}: there is no such home; write the path in full, or set HOME") from error


def project_folder(name: str) -> Path:
    """A folder that lies beside the package in a checkout, and is part of it in a wheel (setup.py)."""
    package = Path(__file__).parent
    within = package / name
    return within if within.is_dir() else package.parent / name


def sync_folder(folder: Path) -> None:
    """Write a folder's names to the disk: a file whose name is only in memory is gone after a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_made_folders(folder: Path) -> None:
    """Make a folder and those above it that are not there, and write their names to the disk."""
    if folder.is_dir():
        return
    sync_made_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)
