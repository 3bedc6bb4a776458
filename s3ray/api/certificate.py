"""`s3ray certify`: a folder that lets a stranger check a sweep's numbers, without this package if need be.

README.md                        how to check a number, with one worked through
numbers.json                     every mean over seeds, with the stage runs behind it
rows.csv, controls.csv, …        what each of these runs measured
tables/                          the sweep's tables and figures, as they were written
runs/<stage>/<identity>/         of every stage run behind them its commit marker, and what it measured, step by step
                                 if it trained
data/<fingerprint>.json          the datasets that can be fetched: digests of all arrays, facts
environments/<digest>.txt        the packages that ran
models/<identity>.md             a card per trained model
audit.json                       what an audit of the store found, with runs computed again
ro-crate-metadata.json           the same for machines, as a Process Run Crate
certificate.json                 the sweep, and the sha256 of every other file; written last
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import pandas as pd

import s3ray
from s3ray.api.finished import FinishedStore
from s3ray.errors import DamagedError, UserError
from s3ray.execution.audit import Audit, audit, fingerprints
from s3ray.execution.drift import ROWS, rows_of
from s3ray.results import Results
from s3ray.results.formatting import markdown
from s3ray.results.statistics import CONFIGURATION
from s3ray.stages.factors import FACTORS
from s3ray.stages.missing import MISSING
from s3ray.stages.modalities import MODALITIES
from s3ray.stages.probe import PROBE
from s3ray.stages.reference import REFERENCE
from s3ray.stages.selection import SELECTION
from s3ray.stages.sentiment import SENTIMENT
from s3ray.stages.sparsification import SPARSIFICATION
from s3ray.stages.specialization import SPECIALIZATION
from s3ray.stages.stage import Stage
from s3ray.stages.untrained import UNTRAINED
from s3ray.store import Marker, Store

# The tables whose lines say which run measured them, and what names a mean of each.
_MEANS = {
    "rows": [*CONFIGURATION, "preservation_ratio", "split"],
    "controls": [*CONFIGURATION, "control", "preservation_ratio", "split"],
    "references": ["dataset", "scale", "reference", "split"],
}
# The tables that hold more: the stage behind a line, the column of what was measured, and what a run's rows call that.
_MORE: Mapping[str, tuple[Stage[Any] | None, str, str]] = {
    "factors": (FACTORS, "value", "value"),
    "modalities": (MODALITIES, "alone", "alone"),
    "missing": (MISSING, "accuracy", "accuracy"),
    "entropies": (SELECTION, "entropy", "(local|global)_entropy/.+"),
    "contributions": (None, "share", "expert_share/.+"),  # the line's `after` says which
}
_CONTENT = re.compile("[0-9a-f]{64}")
_PROFILE = "https://w3id.org/ro/wfrun/process/0.5"


def certify(
    finished: FinishedStore, output: Store, sweep: str | None = None, sample: int = 3, seed: int | None = None
) -> tuple[str, Audit]:
    """Write the certificate of a sweep's results.

    Args:
        sample: that many of the runs behind the numbers are computed again.
        seed: of drawing them; by default another each time. The certificate names it.

    Returns:
        Where its README is, and what the audit found: a certificate of a store with faults says so.

    Raises:
        UserError: there are no results, what is behind them is gone or is not what they say, the folder has somebody's
            own README.md, or it cannot be written.
    """
    store, results = finished.store, finished.results(sweep)
    with output.explained("written", "make room or choose a place you may write to"):
        if "README.md" in output.names() and "certificate.json" not in output.names():
            raise UserError(
                f"{output.address('README.md')}: is somebody's own; choose another folder for the certificate"
            )
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    with store.explained("read", "check the place and your access to it"):
        markers = _with_ancestors(store, dict.fromkeys(_measured_by(results)))
        found = audit(store, sample, random.Random(seed), among=markers.keys())
        _check(store, results, markers)
        numbers = list(_numbers(results))
        files = dict(_tables(store, results)) | dict(_behind(store, results, markers))
    files["numbers.json"] = json.dumps(numbers, indent=1, default=lambda number: number.item())  # NumPy's
    files["audit.json"] = json.dumps(_audited(found, seed), indent=1)
    files["README.md"] = _readme(results, numbers, markers, found, files)
    about = {
        "sweep": results.info["sweep"],
        "s3ray": s3ray.__version__,
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    files["ro-crate-metadata.json"] = json.dumps(_crate(about, files, markers.values()), indent=1)
    with output.explained("written", "make room or choose a place you may write to"):
        output.write_folder(files, about, listing="certificate.json")
    return output.address("README.md"), found


def _measured_by(results: Results) -> Iterator[tuple[str, str]]:
    """Stage and identity of every run that measured a line of a table."""
    for _, line in results.rows.iterrows():
        yield (PROBE if line["preservation_ratio"] == 1.0 else SPARSIFICATION).name, line["identity"]
        if isinstance(line["sentiment_identity"], str):
            yield SENTIMENT.name, line["sentiment_identity"]
    for _, line in results.controls.iterrows():
        yield (UNTRAINED if line["control"] == "untrained" else SPARSIFICATION).name, line["identity"]
    for _, line in results.references.iterrows():
        yield REFERENCE.name, line["identity"]
    for table, (stage, _, _) in _MORE.items():
        for _, line in results.frames[table].iterrows():
            yield (stage or (SELECTION if line["after"] == "Selection" else SPECIALIZATION)).name, line["identity"]


def _with_ancestors(store: Store, runs: Iterable[tuple[str, str]]) -> dict[str, Marker]:
    """Markers of these runs and of all that they stand on, by identity."""
    markers: dict[str, Marker] = {}
    wanted = list(runs)
    while wanted:
        read = store.parallel(lambda run: store.marker_of(*run), wanted)
        for (stage, identity), marker in zip(wanted, read, strict=True):
            if marker is None:
                raise UserError(
                    f"{store.address('artifacts', stage, identity)}: not there, or not whole, and the results stand on "
                    f"it; run the sweep again, then certify"
                )
            markers[identity] = marker
        above = {(str(m.parent_stage), str(m.document["parent"])) for m in markers.values() if m.parent_stage}
        wanted = sorted(run for run in above if run[1] not in markers)
    return markers


def _check(store: Store, results: Results, markers: Mapping[str, Marker]) -> None:
    """UserError unless the tables tell what their runs measured: a run may have been computed anew since.

    An accuracy over the splits must be the one of its own line. Of the tables that hold more, a number must be among
    those that its run measured.
    """
    read = store.parallel(lambda marker: rows_of(store.payload(marker, ROWS)).to_pylist(), markers.values())
    by_run = dict(zip(markers, read, strict=True))

    def refuse(table: str, identity: str) -> NoReturn:
        raise UserError(
            f"{store.address('results', results.study)}: {table} of run {identity[:12]} are not what the store "
            f"has of it now; run the sweep again, which writes its tables anew"
        )

    for table in _MEANS:
        for _, line in results.frames[table].iterrows():
            of = {name: line[name] for name in ("split", "reference") if name in line}
            rows = [row for row in by_run[line["identity"]] if of.items() <= row.items()]
            if [row["accuracy"] for row in rows] not in ([line["accuracy"]], [None]):
                refuse(table, line["identity"])
    for table, (_, column, named) in _MORE.items():
        frame = results.frames[table]
        for identity, lines in frame.groupby("identity") if len(frame) else ():
            measured = [item for row in by_run[str(identity)] for item in row.items()]
            numbers = {value for name, value in measured if re.fullmatch(named, name)}
            if not set(lines[column].dropna()) <= numbers:
                refuse(table, str(identity))


def _numbers(results: Results) -> Iterator[dict[str, Any]]:
    """Every mean over seeds, and what it is the mean of."""
    for table, names in _MEANS.items():
        frame = results.frames[table]
        for values, lines in frame.groupby(names, sort=False) if len(frame) else ():
            accuracies = lines["accuracy"].dropna()
            yield {
                "table": table,
                **dict(zip(names, values, strict=True)),
                "mean_accuracy": float(accuracies.mean()) if len(accuracies) else None,
                "n": len(accuracies),
                "runs": lines["identity"].tolist(),
            }


def _tables(store: Store, results: Results) -> Iterator[tuple[str, bytes | str]]:
    info = store.folder_info("results", results.study)
    for file in info["files"]:
        yield f"tables/{file}", store.read_listed(info, file, "results", results.study)
    for table in _MEANS:
        if len(frame := results.frames[table]):
            # Bits are for programs: rows.parquet among the tables has them.
            yield f"{table}.csv", frame.drop(columns="correct").to_csv(index=False)


def _behind(store: Store, results: Results, markers: Mapping[str, Marker]) -> Iterator[tuple[str, bytes | str]]:
    """What stands behind the tables: runs, models, data, packages."""
    for marker in markers.values():
        folder = f"runs/{marker.stage}/{marker.identity}"
        yield f"{folder}/commit.json", marker.content()
        yield f"{folder}/{ROWS}", store.payload(marker, ROWS)
        if marker.inputs is not None:
            yield f"models/{marker.identity}.md", _card(marker, results)
    read = {str(marker.document["data"]) for marker in markers.values()}
    for content in store.folders("data"):
        if not _CONTENT.fullmatch(content):  # being published, or set aside
            continue
        with suppress(DamagedError):  # the audit tells of it
            for fingerprint in sorted(read & fingerprints(store.fetch_dataset(content))):
                yield f"data/{fingerprint}.json", store.read("data", content, "manifest.json")
    for digest in sorted({marker.provenance["environment"] for marker in markers.values()}):
        yield f"environments/{digest}.txt", store.read("environments", f"{digest}.txt")


def _card(marker: Marker, results: Results) -> str:
    """A model card: what it is, what it was trained on, what it reaches, what to mind."""
    own = results.rows[results.rows["trained_identity"] == marker.identity]
    data = own[["dataset", "kind", "modalities"]].drop_duplicates().itertuples(index=False)
    of = "; ".join(f"{name} ({kind} data, {modalities})" for name, kind, modalities in data)
    means = own.pivot_table(index="preservation_ratio", columns="split", values="accuracy", sort=False)
    reached = [
        "Accuracy of a linear probe of its representations, by preservation ratio p:",
        "",
        markdown(_told(means)),
        "",
    ]
    lines = [
        f"# {marker.stage} {marker.identity[:12]}",
        "",
        f"Encoders of {of}." if of else "A model that others of this certificate start from.",
        f"Trained in {marker.seconds:.0f} s on {marker.machine} ({marker.workers} workers), committed "
        f"{marker.committed_at}. Inputs: {json.dumps(marker.inputs)}.",
        "",
        *(reached if of else []),
        "Mind: what it reaches is said of these data alone. Below p = 1 pairs of tokens and experts are ranked within "
        "a batch, so a sample's representation depends a little on the samples that it is encoded with.",
        "",
        "```json",
        json.dumps(marker.document, indent=1),
        "```",
        "",
    ]
    return "\n".join(lines)


def _told(means: pd.DataFrame) -> pd.DataFrame:
    return means.map(lambda mean: f"{mean:.4f}").rename_axis(index="p", columns=None).reset_index()


def _audited(found: Audit, seed: int) -> dict[str, Any]:
    told = {**dataclasses.asdict(found), "holds": found.holds, "seed": seed}
    plain: dict[str, Any] = json.loads(json.dumps(told), parse_constant=str)  # JSON has no word for infinity
    return plain


def _readme(
    results: Results,
    numbers: list[dict[str, Any]],
    markers: Mapping[str, Marker],
    found: Audit,
    files: Iterable[str],
) -> str:
    first = next((number for number in numbers if number["runs"]), None)
    data = {str(marker.document["data"]) for marker in markers.values()}
    absent = sorted(name[:12] for name in data if f"data/{name}.json" not in files)
    datasets = "; ".join(f"{name} ({about['kind']} data)" for name, about in results.info["datasets"].items())
    lines = [
        f"# Certificate of {results.info['sweep']}",
        "",
        f"Where the accuracies of `tables/` come from, written by s3ray {s3ray.__version__}. Data: {datasets}.",
        "",
        f"Audit of the store: {'all is as it was committed' if found.holds else 'FAULTS, see audit.json'}; "
        f"{found.results} results read and compared with their digests; of those behind these tables "
        f"{len(found.samples)} computed again and compared (`audit.json`).",
        *([f"Not in the store any more, and so not here: the data {', '.join(absent)}."] if absent else []),
        "",
        "## To check a number",
        "",
        "1. `certificate.json` has the sha256 of every other file: `sha256sum FILE` tells whether it is the one that "
        "was written.",
        "2. Find the mean in `numbers.json`: by dataset, method, χ (`granularity`), batch size, branch (the Selection "
        "loss), p (`preservation_ratio`) and split. `runs` are the stage runs behind it, one per seed.",
        "3. `runs/<stage>/<identity>/rows.parquet` is what such a run measured; its `accuracy` of that split is one of "
        "the numbers whose mean it is. `commit.json` beside it has the file's sha256.",
        "4. `commit.json` says what ran: `document` is all that its result depends on, and its `identity` is the "
        "sha256 of that document as JSON with sorted keys and without blanks. `document.parent` and `parent_attempt` "
        "name the run that it started from, which stands here, too.",
        "5. `document.data` is the fingerprint of the data; `data/` has the digests of their arrays, of which "
        "`Dataset.fingerprint` makes it. `provenance` names the code's revision, the machine, and the `environment`, "
        "whose packages `environments/` lists.",
        "",
        "Other metrics stand in the same rows. Tables of factors, entropies, contributions, modalities and what is "
        "missing (`tables/*.parquet`) name the run of each line in their column `identity`. Digests tell that nothing "
        "was changed since; who wrote it they do not tell.",
        "",
        "Verdicts, intervals and figures follow from these numbers by rules that stand in the source: "
        "`s3ray/results/statistics.py`, `controlled.py`, `crossed.py`.",
        "",
    ]
    if first is not None:
        marker = markers[first["runs"][0]]
        folder = f"runs/{marker.stage}/{marker.identity}"
        named = ", ".join(
            f"{k} {v}" for k, v in first.items() if k not in ("table", "runs", "mean_accuracy", "n") and v != ""
        )
        lines += [
            "## One worked through",
            "",
            f"{named}: {first['mean_accuracy']}, the mean of {first['n']}. Its first run:",
            "",
            "```",
            f"sha256sum {folder}/{ROWS}      # {marker.files[ROWS][1]}",
            f"python -c \"import pandas; print(pandas.read_parquet('{folder}/{ROWS}')[['split', 'accuracy']])\"",
            "python -c \"import hashlib, json; d = json.load(open('" + folder + "/commit.json'))['document']; "
            "print(hashlib.sha256(json.dumps(d, sort_keys=True, separators=(',', ':')).encode()).hexdigest())\"",
            f"# {marker.identity}",
            "```",
            "",
        ]
    return "\n".join(lines)


def _crate(about: Mapping[str, str], files: Mapping[str, bytes | str], markers: Iterable[Marker]) -> dict[str, Any]:
    """The folder as a Process Run Crate: the sweep is an action of s3ray, from data to tables."""
    ends = sorted(marker.committed_at for marker in markers)

    def refer(prefix: str) -> list[dict[str, str]]:
        return [{"@id": name} for name in sorted(files) if name.startswith(prefix)]

    tool, action = "https://pypi.org/project/s3ray/", f"#{about['sweep']}"
    graph: list[dict[str, Any]] = [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": f"Certificate of the sweep {about['sweep']}",
            "description": "Every number of a sweep of S3 with the runs, data, code and packages behind it.",
            "datePublished": about["at"],
            "license": "see the project's own",
            "conformsTo": {"@id": _PROFILE},
            "hasPart": [{"@id": name} for name in sorted(files)],
            "mentions": {"@id": action},
        },
        {"@id": _PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {"@id": tool, "@type": "SoftwareApplication", "name": "s3ray", "version": about["s3ray"]},
        {
            "@id": action,
            "@type": "CreateAction",
            "name": about["sweep"],
            "instrument": {"@id": tool},
            "object": refer("data/"),
            "result": refer("tables/"),
            "startTime": ends[0] if ends else about["at"],
            "endTime": ends[-1] if ends else about["at"],
        },
        *({"@id": name, "@type": "File", "name": name} for name in sorted(files)),
    ]
    return {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}
