"""`s3ray export`: a trained model as a folder that needs neither its store nor this package's other dependencies.

What stands in the folder, and its reader: `s3ray/model/exported.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import torch
from safetensors import torch as safetensors
from scipy import stats

import s3ray
from s3ray.api.model import Model
from s3ray.data.dataset import Dataset
from s3ray.data.padding import padded
from s3ray.data.standardize import LARGEST
from s3ray.errors import UserError, printable
from s3ray.model import Pruning, S3Model
from s3ray.model.exported import CARD, CONFIG, FORMAT, VERSION, WEIGHTS, exported_config
from s3ray.results import Results
from s3ray.results.formatting import markdown, percent, without_tags
from s3ray.results.statistics import CONFIGURATION, best_ratios, summarize
from s3ray.stages.encode import with_thresholds
from s3ray.stages.probe import probed
from s3ray.store import Marker, Store
from s3ray.sweep import Cell

_CELL = ("dataset", "method", "granularity", "batch_size", "seed", "scale", "reading")
_RANKED, _FIXED = "ranked within a batch", "fixed thresholds"
_ENDS = {0.0: "no expert", 1.0: "unpruned"}  # where both keep the same


def cells_of(results: Results) -> list[Cell]:
    """The cells that a sweep has rows of."""
    if results.rows.empty:
        raise UserError("export: the sweep has no rows; run it again")
    lines = results.rows[[*_CELL]].drop_duplicates().itertuples(index=False)
    return [Cell(**dict(zip(_CELL, line, strict=True))) for line in lines]


def check_free(target: Store) -> None:
    """UserError unless a folder can be written and has nothing of others that an export would replace."""
    target.check_writable()
    with target.explained("read", "check the place and your access to it"):
        there = set(target.names())
        mine = CONFIG in there and _is_mine(target)
    if not mine and (others := sorted(there & {CARD, CONFIG, WEIGHTS})):
        raise UserError(f"{target.address(others[0])}: is somebody's own; choose another folder for the export")


def _is_mine(target: Store) -> bool:
    try:
        exported_config(target.read(CONFIG), target.uri)
    except UserError:
        return False
    return True


def export(
    store: Store,
    results: Results,
    curve: pd.DataFrame,
    marker: Marker,
    model: Model,
    target: Store,
    ratio: float | None,
) -> str:
    """Write a trained model; the address of its card.

    Args:
        curve: of `results.rows` those of the model's branch.
        marker: of its last training.
        ratio: p; None: p*, or 1 without a curve.

    Raises:
        UserError: of `FinishedStore.export`.
    """
    row = curve.iloc[0]
    cell = Cell(**{name: row[name] for name in _CELL})
    encoders = model.module.encoders_alone(model.probe.output)
    if not isinstance(encoders, S3Model):
        raise UserError(
            f"export: {cell}: what is probed of {cell.method}'s {row['branch']} is more than an encoder per modality, "
            f"which is what an export holds; export an s3 cell or a method such as clip, supcon or cross_entropy"
        )
    chosen = ratio is None
    p = _best(results, row) if ratio is None else float(ratio)
    pruning = Pruning(ratio=p, pool=model.pool, scope=model.scope)  # which checks the ratio
    if p < 1.0 and encoders is not model.module:
        raise UserError(f"export: {cell}: a prior method's encoders are dense and are not pruned; leave the ratio at 1")
    content = results.info["datasets"][cell.dataset]["content"]
    least: Mapping[str, Any] = {}
    scores: list[dict[str, Any]] = []
    measured = curve[(curve["preservation_ratio"] == p) & curve["accuracy"].notna()]
    name = _ENDS.get(p, _RANKED)
    if len(measured):
        scores += [_score(name, line) for _, line in measured.iterrows()]
    if not len(measured) or 0.0 < p < 1.0:
        published = store.fetch_dataset(content).seen(truth=False, scores=False)
        data = padded(published) if model.padded else published
        if not len(measured):
            scores += _scores(name, model, data, pruning)
        if 0.0 < p < 1.0:
            fixed = with_thresholds(encoders, data.train, pruning)
            least = fixed.least
            scores += _scores(_FIXED, model, data, fixed)
    config = {
        "format": FORMAT,
        "version": VERSION,
        "model": _shape(store, marker),
        "modalities": [_input(model, name) for name in model.modalities],
        "limit": LARGEST,
        "missing": model.missing,
        "on_sphere": model.probe.on_sphere,
        "pruning": {"ratio": p, "is_p_star": chosen and p < 1.0, "scope": model.scope, "pool": model.pool}
        | {"thresholds": least},
        "classes": int(marker.inputs["classes"]) if marker.inputs else 0,
        "parameters": model.parameters.total,
        "accuracies": scores,
        "source": {
            "study": results.study,
            **{name: getattr(cell, name) for name in _CELL},
            "kind": row["kind"],
            "branch": row["branch"],
            "collapsed": row["collapsed"],
            "stage": marker.stage,
            "identity": marker.identity,
            "attempt": marker.attempt,
            "data": marker.document["data"],
            "committed_at": marker.committed_at,
            "provenance": dict(marker.provenance),
        },
        "versions": {"s3ray": s3ray.__version__, "torch": str(torch.__version__)},
    }
    weights = {name: tensor.contiguous() for name, tensor in encoders.state_dict().items()}
    files: dict[str, bytes | str] = {
        WEIGHTS: safetensors.save(weights),
        CARD: _card(config, str(cell), _seeds(results, row, p)),
    }
    with target.explained("written", "make room or choose a place you may write to"):
        target.write_folder(files, config, listing=CONFIG)
    return target.address(CARD)


def _best(results: Results, row: pd.Series[Any]) -> float:
    """p* of the row's configuration, over all its seeds; 1 where only that was probed."""
    best = best_ratios(_alike(results, row))
    return float(best["p_star"].iloc[0]) if len(best) else 1.0


def _alike(results: Results, row: pd.Series[Any]) -> pd.DataFrame:
    """The rows of all seeds of a row's configuration."""
    rows = results.rows
    return rows[(rows[CONFIGURATION] == row[CONFIGURATION]).all(axis=1)]


def _shape(store: Store, marker: Marker) -> Any:
    """The document of the encoders' `ModelConfig`, which the run has that built them."""
    while marker.parent_stage is not None:
        above = store.marker_of(marker.parent_stage, marker.document["parent"])
        assert above is not None, "the marker counts, so its parent's does"
        marker = above
    return marker.document["config"]["model"]


def _input(model: Model, name: str) -> dict[str, Any]:
    standardizer = model.standardizers.get(name)
    return {
        "name": name,
        "features": int(model.features[name]),
        **(standardizer.plain if standardizer else {"mean": None, "deviation": None}),
        "most_steps": model.max_steps.get(name),
        "padded_steps": model.padded.get(name),
    }


def _scores(pruning: str, model: Model, data: Dataset, how: Pruning) -> list[dict[str, Any]]:
    """What the sweep's probe reaches that is fitted on the training split pruned alike."""
    measured = probed(
        model.module,
        data,
        model.probe.classifier,
        output=model.probe.output,
        on_sphere=model.probe.on_sphere,
        pruning=how if how.ratio < 1.0 else None,
    )
    return [_score(pruning, row) for row in measured.rows]


def _score(pruning: str, row: Mapping[str, Any] | pd.Series[Any]) -> dict[str, Any]:
    """Of one split the accuracy with its 95 % Wilson score interval over samples, and what is active."""
    samples = int(row["samples"])
    interval = stats.binomtest(round(row["accuracy"] * samples), samples).proportion_ci(0.95, "wilson")
    return {
        "pruning": pruning,
        "split": row["split"],
        "accuracy": float(row["accuracy"]),
        "low": float(interval.low),
        "high": float(interval.high),
        "samples": samples,
        "active_parameters": round(row["active_parameters"]),
    }


def _seeds(results: Results, row: pd.Series[Any], p: float) -> str:
    """What all seeds of the configuration reach, of which this model is one; empty if the sweep did not measure p."""
    means = summarize(_alike(results, row))
    means = means[(means["preservation_ratio"] == p) & (means["split"] == "test")]
    if means.empty:
        return ""
    (mean,) = means.to_dict("records")
    interval = f" (95 % interval {percent(mean['low'])} to {percent(mean['high'])})" if mean["n"] > 1 else ""
    seeds = f"{mean['n']} seeds" if mean["n"] > 1 else "the one seed"
    whose = f"The mean on test over {seeds} of this configuration, as the sweep pruned,"
    return f"{whose} is {percent(mean['mean'])}{interval}."


def _card(config: Mapping[str, Any], cell: str, seeds: str) -> str:
    """What the model is, what it reaches, how it is used, what to mind."""
    source, pruning, modalities = config["source"], config["pruning"], config["modalities"]
    standardized = any(own["mean"] for own in modalities)
    p, kind = pruning["ratio"], f"{source['kind']} data"
    widths = ", ".join(f"{own['name']} ({own['features']} features)" for own in modalities)
    chosen = " (p\\*, chosen on validation)" if pruning["is_p_star"] else ""
    kept = f"p = {p:g}{chosen}: that share of the (token, expert) pairs is computed" if p < 1.0 else "p = 1: unpruned"
    table = pd.DataFrame(
        {
            "pruning": score["pruning"],
            "split": {"valid": "validation"}.get(score["split"], score["split"]),
            "accuracy, %": percent(score["accuracy"]),
            "95 % interval": f"{percent(score['low'])} to {percent(score['high'])}",
            "n (samples)": score["samples"],
            "active parameters": score["active_parameters"],
        }
        for score in config["accuracies"]
    )
    as_given = "as they were before the sweep standardised them" if standardized else "as the sweep's data held them"
    steps = {own["name"]: min(4, own["padded_steps"] or 4) for own in modalities}
    batch = ", ".join(f'"{own["name"]}": torch.randn(2, {steps[own["name"]]}, {own["features"]})' for own in modalities)
    lines = [
        f"# {cell}, {source['branch']}",
        "",
        f"Encoders of {widths}, trained on {source['dataset']}: **{kind}**, {config['classes']} classes, "
        f"{source['scale']} scale. {kept}. {config['parameters']} parameters.",
        "",
        f"Accuracy on {kind} of a linear probe that is fitted on training representations pruned alike, with the 95 % "
        "Wilson interval over samples; active parameters are an expectation per token, with the experts of all layers:",
        "",
        markdown(table),
        *([seeds, ""] if seeds else []),
        "## Use",
        "",
        "```python",
        "import s3ray  # of its dependencies this needs torch and safetensors alone",
        "import torch",
        "",
        'model = s3ray.load_model("this folder")',
        "with torch.inference_mode():",
        f"    z = model({{{batch}}})  # samples {as_given}",
        "```",
        "",
        "## What to mind",
        "",
        *(f"- {sentence}" for sentence in _limits(config)),
        "",
        "## Where it comes from",
        "",
        f"Stage run {source['stage']} {source['identity']}, attempt {source['attempt']}, committed "
        f"{source['committed_at']}; data {source['data']}; study {source['study']}. Written by s3ray "
        f"{config['versions']['s3ray']} with torch {config['versions']['torch']}. `{CONFIG}` says the same for "
        "programs, and has the sha256 of the other files.",
        "",
    ]
    return without_tags(printable("\n".join(lines), keep="\n"))


def _limits(config: Mapping[str, Any]) -> Iterator[str]:
    source, pruning = config["source"], config["pruning"]
    yield "What it reaches is said of these data alone, and of one training. The probe is not enclosed."
    if source["kind"] in ("embedded", "simulated"):
        yield f"These are {source['kind']} data, which try the method out; they are not the paper's."
    if pruning["is_p_star"]:
        yield "p was chosen by accuracies on validation, which are too good by that much; those on test are not."
    if 0.0 < pruning["ratio"] < 1.0:
        yield (
            "In the sweep, pruning ranks the pairs of a batch, so that a sample's representation depends on its "
            "companions. Here it does not: by default a pair is kept whose weight reaches a threshold of its layer, "
            "taken on the training split at this p. Of equal weights all are kept, and of other data the share that "
            "is kept may differ from p. `model(batch, ranked=True)` ranks within the batch that it is given, as the "
            f"sweep did within {pruning['pool']} samples at a time."
        )
        yield (
            "A weight that lies within rounding of its threshold may be kept on one machine, and not on another: the "
            "sample's representation then differs by what that expert adds."
        )
    if config["missing"] == "zeros":
        yield "A sample whose values of a modality are all 0 counts as one that lacks it, as in its data."
    if source["collapsed"]:
        yield f"Its accuracy means nothing: {source['collapsed']}."
