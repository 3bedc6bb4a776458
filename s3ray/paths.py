"""Paths as people type them."""

from __future__ import annotations

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
