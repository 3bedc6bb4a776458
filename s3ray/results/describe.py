"""A dataset in words: `s3ray data show`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from s3ray.data.dataset import SPLITS, Dataset
from s3ray.data.facts import told_missing
from s3ray.data.multibench import FILES
from s3ray.data.names import listed
from s3ray.data.npz import opened_npz, read_npz
from s3ray.data.sources import DEFAULT_PAIR
from s3ray.data.standardize import standardized
from s3ray.results.published import SEEDS, fitting_means


def print_prepared(folder: Path, console: Console) -> bool:
    """Print what a prepared dataset holds; False if its files are not those that were prepared."""
    data = Dataset.open(folder)
    facts = data.facts
    source = facts.get("source", {})
    damaged = data.damaged()
    console.print(f"{folder.name}: {data.kind} data", style="bold")
    if source:
        console.print(f"  from {source['file']} ({source['bytes'] / 1e6:.0f} MB, sha256 {source['sha256'][:12]})")
        z_norm = "z-normalised" if facts["options"]["z_norm"] else "raw scale"
        console.print(f"  {facts['label_rule']}; {z_norm}")
    console.print("  features: " + ", ".join(f"{name} {width}" for name, width in data.features.items()))
    usual = tuple(data.features)[:2] if not source else DEFAULT_PAIR  # what sweeps take of it unless told otherwise
    fingerprint = Dataset.open(folder, usual).fingerprint()[:12]
    state = f"DAMAGED: {', '.join(damaged)}" if damaged else "all files are as they were prepared"
    console.print(f"  fingerprint {fingerprint} ({' + '.join(usual)}); {state}")
    console.print(_splits_table(data, facts.get("splits", {})))
    _print_missing(data, console)
    _print_warnings(data, console)
    if folder.name in FILES and source:
        for line in comparison(folder.name, facts["splits"], data.kind):
            console.print(f"  {line}")
    console.print()
    return not damaged


def print_npz(path: Path, console: Console) -> None:
    """Print what an `.npz` of the user's holds, and what is odd about it.

    Raises:
        UserError: what would be complained of if it were used; its arrays are printed before.
    """
    with opened_npz(path, "the path") as archive:
        console.print(f"{path}: user data", style="bold")
        for key, entry in archive.entries.items():
            console.print(f"  {key}: {entry}")
    data = standardized(read_npz(path.stem, path))  # as a sweep has it
    features = ", ".join(f"{name} {width}" for name, width in data.features.items())
    fingerprint = data.fingerprint()[:12]  # by which results know data that are taken whole
    console.print(f"  features: {features}; {data.classes} classes; fingerprint {fingerprint}")
    for line in data.facts.get("imported", {}).get("said", ()):
        console.print(f"  imported: {line}")
    table = Table(box=None, pad_edge=False)
    lengths = [f"{name} steps min/median/max" for name in data.features]
    for column in ("", "samples", *lengths, "samples per class", "majority"):
        table.add_column(column, justify="right" if column else "left")
    named = dict(enumerate(data.label_names))
    for name, split in data.splits.items():
        classes, counts = np.unique(split.labels, return_counts=True)
        table.add_row(
            f"  {name}",
            str(len(split)),
            *(_in_short(sequences.lengths) for sequences in split.modalities.values()),
            listed([f"{named.get(label, label)}: {count}" for label, count in zip(classes, counts, strict=True)]),
            f"{100 * data.majority_rate(name):.2f}%",
        )
    console.print(table)
    _print_missing(data, console)
    _print_warnings(data, console)
    console.print()


def _print_missing(data: Dataset, console: Console) -> None:
    if data.lacking:
        console.print(f"  {told_missing(data.lacking, {name: len(split) for name, split in data.splits.items()})}")


def _print_warnings(data: Dataset, console: Console) -> None:
    for warning in data.warnings:
        console.print(f"  warning: {warning}", style="yellow")


def _in_short(lengths: NDArray[np.int64]) -> str:
    return f"{lengths.min()}/{np.median(lengths):g}/{lengths.max()}"


def _splits_table(data: Dataset, facts: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    columns = ["", "samples", "known", "no text", "steps min/median/max", "positive", "neutral", "majority"]
    columns += ["truncated", *(f"{name} NaN, ±inf, ±1e18" for name in data.features)]
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    known = FILES[data.name].samples if data.name in FILES else {}
    for name in SPLITS:
        split = data.splits[name]
        # Modalities are aligned; those that a sample has are as long as the longest.
        lengths = np.max([sequences.lengths for sequences in split.modalities.values()], axis=0)
        read = facts.get(name, {})
        replaced = read.get("non_finite", {})
        table.add_row(
            f"  {name}",
            str(len(split)),
            str(known.get(name, "")),
            str(read.get("without_text", "")),
            _in_short(lengths),
            f"{100 * float(np.mean(split.labels == 1)):.1f}%" if data.classes == 2 else "",
            str(read.get("neutral", "")) if data.name in FILES and FILES[data.name].sentiment else "",
            f"{100 * data.majority_rate(name):.2f}%",
            str(read.get("truncated", "")),
            *(str(replaced.get(modality, "")) for modality in data.features),
        )
    return table


def comparison(name: str, splits: Mapping[str, Mapping[str, Any]], kind: str) -> list[str]:
    """How the file's sizes compare with the known ones, and with which reading the paper's means agree.

    A reading is which test samples count: all, those with text, those whose sentiment is not neutral either.
    Simulated data are not set beside the paper's means.
    """
    known, read = FILES[name].samples, {split: facts["samples"] for split, facts in splits.items()}
    lines = []
    if read == dict(known):
        lines.append("sizes are those known of the published file")
    else:
        expected = "/".join(str(known[split]) for split in SPLITS)
        lines.append(f"sizes differ from the published file's {expected}")
    if kind == "simulated":
        return [*lines, "simulated data are not compared with the paper's means"]
    test = splits["test"]
    with_text = test["samples"] - test["without_text"]
    readings = {"all test samples": test["samples"], "those with text (as prepared)": with_text}
    if FILES[name].sentiment:
        readings["those with text and a sentiment other than 0"] = with_text - test["neutral"]
    fits = {reading: fitting_means(name, samples) for reading, samples in readings.items() if samples}
    for reading, (fitting, means) in fits.items():
        lines.append(f"{reading}: {readings[reading]}; {fitting} of {means} printed means fit")
    best = max(fitting for fitting, _ in fits.values())
    winners = [reading for reading, (fitting, _) in fits.items() if fitting == best]
    if len({readings[reading] for reading in winners}) > 1:
        lines.append(
            f"the printed means cannot tell these apart: with {SEEDS} seeds and so many samples any two-digit mean fits"
            if 100 / (SEEDS * min(readings[reading] for reading in fits)) <= 0.01
            else "the printed means cannot tell these apart"
        )
    else:
        lines.append(f"the printed means fit best: {' = '.join(winners)}")
    if FILES[name].sentiment:
        lines.append("label >= 0 or > 0 changes no size, so the means say nothing about it")
    return lines
