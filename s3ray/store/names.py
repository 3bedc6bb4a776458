"""What calls ask for, said before they look for it: nothing that is named so is ever deleted.

    results/<study>/names.json         what a sweep over these data with these settings asks for
    runs/<run>/names.json              what one call asks for, while it goes on
    search/<study>/names/<cell>.json   what a search has tried
    claims/gc/doomed-….json            what a `s3ray gc` is about to delete

A call writes what it asks for; then it waits for a `s3ray gc` that is at work to end; only then does it look. `s3ray
gc` claims the store from others of its kind; only then does it read what is named. So of the two one sees the other: a
call finds nothing that is deleted afterwards.

A gc that was cut off, or stands still, may have requests under way that are carried out later. So whoever comes after
it writes the markers of what is named anew, with the same content: those requests delete a version that is no more.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from s3ray.digests import digest_of, signed
from s3ray.stages.stage import StageRun
from s3ray.store.claims import RENEW_SECONDS, Claims, standing
from s3ray.store.marker import Marker
from s3ray.store.store import Store

# Stage, and identity of the parent, by identity. Whoever names a run names its ancestors, too.
Names: TypeAlias = Mapping[str, tuple[str, str | None]]
FILE = "names.json"
GC = "gc"  # its claim


def names_of(runs: Iterable[StageRun]) -> dict[str, tuple[str, str | None]]:
    return {run.identity: (run.stage.name, run.parent.identity if run.parent else None) for run in runs}


def write_names(store: Store, names: Names, *file: str) -> None:
    store.write(json.dumps(signed({"runs": names})), *file, durable=True)


def read_names(store: Store, *file: str) -> dict[str, tuple[str, str | None]] | None:
    """None if the file is not there, or damaged."""
    try:
        plain = json.loads(store.read(*file))
        if plain["digest"] != digest_of(plain):
            return None
        return {identity: (str(stage), parent) for identity, (stage, parent) in plain["runs"].items()}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def await_gc(store: Store, names: Names, waiting: Callable[[str], object] = lambda who: None) -> bool:
    """Wait until no `s3ray gc` is at work. To be called after `names` were written, and before they are looked for.

    Args:
        waiting: told once whose gc is waited for.

    Returns:
        Whether one has ever been there: then what was looked for earlier may be gone.
    """
    if not store.names("claims", GC):
        return False
    claims, told = Claims(store), False
    while not claims.free(GC):
        claim = standing(store, GC)
        if not told and claim is not None:
            waiting(claim.who)
            told = True
        time.sleep(RENEW_SECONDS)
    spare(store, names)
    return True


def doom(store: Store, names: Names) -> str:
    """Say what is about to be deleted; the name of the file in the folder of gc's claim."""
    file = f"doomed-{uuid.uuid4().hex}.json"
    write_names(store, names, "claims", GC, file)
    return file


def doomed(store: Store) -> list[str]:
    """The files of gcs that did not end as they should, or are at work."""
    return [name for name in store.names("claims", GC) if name.startswith("doomed-")]


def spare(store: Store, names: Names) -> None:
    """Of what a gc that was cut off was about to delete, save what is named from its late requests."""
    listed = {identity for file in doomed(store) for identity in read_names(store, "claims", GC, file) or ()}
    for identity in sorted(listed & names.keys()):
        stage = names[identity][0]
        key = f"artifacts/{stage}/{identity}/commit.json"
        there = store.conditional.read(key)
        if there is not None and Marker.of(there[0], stage, identity) is not None:
            store.conditional.replace(key, there[0] + b"\n", there[1])
