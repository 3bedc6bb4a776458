"""`s3ray audit`, `s3ray certify`: whether a storage holds what was committed to it, for oneself and for strangers."""

from __future__ import annotations

from typing import Annotated

import typer

from s3ray.cli.console import user_errors
from s3ray.cli.options import DEFAULT_STORAGE, StorageOption, SweepNameOption, open_store


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


def certify(
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="Folder or URI that gets the certificate.")],
    sweep: SweepNameOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    sample: Annotated[
        int, typer.Option("--sample", metavar="K", min=0, help="Compute K committed stage runs again, and compare.")
    ] = 3,
) -> None:
    """Write a folder that lets a stranger check a sweep's numbers: rows, runs, data, code, packages behind each.

    Its README.md says how. Exit codes: 0; 3 if the storage is not as it was committed.
    """
    with user_errors():
        from s3ray.api.certificate import certify as certify_sweep
        from s3ray.api.finished import FinishedStore

        target = open_store(output, "OUTPUT")
        target.check_writable()
        written, found = certify_sweep(FinishedStore(open_store(storage)), target, sweep, sample)
        for line in found.lines():
            print(line)
        print(written)
    if not found.holds:
        raise SystemExit(3)
