"""All that a store knows of a cell that failed or is at work, in lines for people. No Ray here."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from s3ray.errors import UserError, meant
from s3ray.execution.ledger import Attempt, Ledger, PlannedCell, PlanRecord, Told, calls, shown
from s3ray.execution.status import committed_of, missing_of
from s3ray.execution.tensorboard import last_rows
from s3ray.store import Store, standing


@dataclass(frozen=True, slots=True)
class Entry:
    """A cell in a call's record."""

    run: str
    record: PlanRecord
    cell: PlannedCell
    ledger: Ledger

    @property
    def is_begun(self) -> bool:
        """Whether anything happened to it."""
        known = (self.ledger.attempts(self.cell.identity), self.ledger.errors(self.cell.identity))
        return any(known) or self.cell.identity in self.ledger.failures()


def entries(store: Store) -> list[Entry]:
    """All cells that calls set out to run and left a record of, of the newest call first."""
    found = []
    for run in calls(store):
        ledger = Ledger(store, run)
        if (record := ledger.planned()) is not None:
            found += [Entry(run, record, cell, ledger) for cell in record.cells or ledger.added()]
    return found


def explained(store: Store, label: str) -> list[str]:
    """What is known of the cell that `label` means, in each call in which something happened to it.

    Raises:
        UserError: it is not known which one is meant, or the store cannot be read.
    """
    with store.explained("read", "check the place and your access to it"):
        known = entries(store)
        if not known:
            raise UserError(f"{store.option} {store.uri}: no sweep is at work on it or has left a failed cell")
        name = meant(label, dict.fromkeys(entry.cell.cell for entry in known), "a cell that failed or is at work")
        own = [entry for entry in known if entry.cell.cell == name]
        begun = [entry for entry in own if entry.is_begun]
        return [line for entry in begun or own[:1] for line in _told(store, entry)]


def _told(store: Store, entry: Entry) -> Iterator[str]:
    record, cell, ledger = entry.record, entry.cell, entry.ledger
    failure = ledger.failures().get(cell.identity)
    committed = committed_of(store, [cell])
    missing = missing_of(cell, committed)
    yield f"{cell.cell}: {record.name}, since {shown(record.started)}, {record.who}"
    if not missing:
        yield "  done: all of it is in the store"
    elif failure is not None:
        yield f"  given up: {failure}"
    yield f"  {len(cell.runs) - len(missing)} of {len(cell.runs)} stage runs are there" + (
        f", the next is {missing[0].label}" if missing else ""
    )
    yield f"  kept in {store.address('runs', entry.run)}, Ray's logs of the call in {record.logs}"
    attempts, errors, notes = ledger.attempts(cell.identity), ledger.errors(cell.identity), ledger.notes(cell.pack)
    if not attempts:
        yield "  none of its stages has begun"
        yield from _errors([*errors.values(), *notes.values()], "    ")
    for (number, attempt), following in zip(attempts.items(), [*[*attempts.values()][1:], None], strict=False):
        yield f"  attempt {number}: {shown(attempt.at)}, began with {_reached(attempt)}"
        for worker in attempt.workers:
            # Train's own lie in a folder of their own; a worker's id is in the names of all its files.
            files = f"files *{worker['worker']}* in it and in train/"
            yield f"    on node {worker['node'][:12]}, Ray's logs: {worker['logs']}, {files}"
        if following is not None:
            yield f"    reached {_reached(following)}"
        elif missing and failure is None and (claim := standing(store, missing[0].claim)) and claim.owner:
            yield f"    at work, or was: {missing[0].label} is claimed by {claim.who}"
        elif missing:
            step = store.checkpoint_step(missing[0]) or 0
            yield f"    ended in {missing[0].label}" + (f", its last checkpoint at step {step}" if step else "")
        own = errors.get(number)
        if own is not None:
            yield from _errors([own], "    ")
        if own is None or not own.cause.startswith("DivergedError"):  # after which its group goes on with other cells
            last = following.notes if following else max(notes, default=0)
            later = [told for note, told in notes.items() if attempt.notes < note <= last]
            if following is None and failure is not None:
                later = later[:1] + [note for note in later[1:] if failure.startswith(note.cause)]
            yield from _errors([note for note in later if own is None or note.cause != own.cause], "    worker group: ")
    if missing:
        rows = last_rows(store, cell.cell, cell.dataset, missing[0].label, missing[0].identity)
        if rows:
            yield f"  the last steps of {missing[0].label} that were kept:"
            yield from _table(rows)


def _reached(attempt: Attempt) -> str:
    left, step = attempt.progress.split("-")
    return f"{attempt.stage}, {left} stage runs missing" + (f", a checkpoint at step {step}" if int(step) else "")


def _errors(errors: Sequence[Told], before: str) -> Iterator[str]:
    """Each with its traceback; those alike once."""
    for cause, group in groupby(errors, key=lambda told: told.cause):
        alike = list(group)
        yield f"{before}{cause}" + (f" ({len(alike)} times)" if len(alike) > 1 else "")
        if text := alike[-1].traceback.strip():
            yield textwrap.indent(text, "      ")


def _table(rows: list[dict[str, float]]) -> Iterator[str]:
    """Loss and terms per step; entropies and shares, of a modality each, are in TensorBoard."""
    names = [name for name in rows[-1] if "/" not in name]
    for line in [names, *([f"{row[name]:.6g}" for name in names] for row in rows)]:
        yield "    " + "".join(f"{field:>12}" for field in line)
