"""`s3ray audit`: whether a storage still holds what was committed to it."""

from __future__ import annotations

from typing import Annotated

import typer

from s3ray.cli.console import user_errors
from s3ray.cli.options import DEFAULT_STORAGE, StorageOption, open_store


def audit(
    storage: StorageOption = DEFAULT_STORAGE,
    sample: Annotated[
        int, typer.Option("--sample", metavar="K", min=0, help="Compute K committed stage runs again, and compare.")
    ] = 0,
) -> None:
    """Read all results, datasets and tables of a storage and compare them with their digests.

    What is damaged is set aside, and the next run of its sweep computes or publishes it again. Exit codes: 0; 3 if
    anything is wrong.
    """
    with user_errors():
        from s3ray.execution.audit import audit as audit_store

        found = audit_store(open_store(storage), sample)
        for line in found.lines():
            print(line)
    if not found.holds:
        raise SystemExit(3)
