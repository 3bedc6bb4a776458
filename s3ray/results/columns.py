"""The columns of a sweep's tables, as `Results` holds them and `rows.parquet` and its like do."""

from __future__ import annotations

from collections.abc import Mapping

_DATA = {
    "kind": "where the data come from: multibench, simulated, embedded or user",
    "modalities": "their names, joined by +",
    "label_rule": "how classes follow from stored labels, where that is a choice",
}
_CELL = {
    "dataset": "name of the dataset",
    "method": "s3, or a prior method",
    "granularity": "χ; 1 of prior methods' dense encoders",
    "batch_size": "samples per training step, of all workers together",
    "seed": "of the cell",
    "scale": "paper or smoke: whose settings it ran with",
    "reading": "what of the settings is other than usual; empty if nothing is",
    **_DATA,
    "branch": "S3's Selection variant, `none` without Selection; of a prior method its output",
}
_RUN = {"identity": "hash of the stage run that measured it"}
PROVENANCE = {
    **_RUN,
    "data_fingerprint": "hash of the data",
    "committed_at": "when it was committed, UTC",
    "code_revision": "commit of the code that ran",
    "s3ray": "version",
    "torch": "version",
    "scikit_learn": "version",
    "ray": "version",
    "python": "version",
    "machine": "kind of machine: type and instruction set or compute capability",
    "hardware": "processor or accelerator",
    "workers": "of the group that ran it",
    "environment": "digest of the packages that it ran with, listed in the store's environments/",
}
_RATIO = {"preservation_ratio": "p: share of (token, expert) pairs that is kept"}

_CORRECT = "which samples the probe gets right: a bit each, in order, as numpy.packbits packs them"
_METRICS = {
    "balanced_accuracy": "mean of recalls over the classes of the split, 0 to 1; this and the next three are missing "
    "where the row was computed before metrics were stored",
    "macro_f1": "mean of F1 over the classes of labels and predictions, 0 to 1",
    "weighted_f1": "the same, weighted by the samples of each class",
    "auroc": "of the second of two classes, else mean over classes of each against the rest, 0 to 1; missing where the "
    "split lacks a class",
}
_ACC2 = {
    "acc2_nonnegative": "share of samples of which the probe tells whether their sentiment is ≥ 0, 0 to 1; missing "
    "without sentiment scores, as the next two are",
    "acc2_nonzero": "of samples with a sentiment other than 0 the share of which it tells whether it is > 0",
    "scores_fingerprint": "hash of the data with these scores, as they were when results were collected",
}
_PRESENT = {
    "accuracy_complete": "of the samples that lack no modality, 0 to 1; this and the next two are empty where none of "
    "the split lacks any, and this where all do",
    "samples_complete": "how many these are",
    "accuracy_lacking": "of the samples that lack a modality, by its name, and how many they are: a JSON object",
}
_POINT = {
    **_RATIO,
    "split": "valid or test",
    "accuracy": "share of samples that the probe gets right, 0 to 1",
    "samples": "of the split",
    "spread": "distance of the representations from their mean over their length, 0 (all are equal) to 1; missing "
    "where the row was computed before it was measured",
    "correct": _CORRECT,
    **_METRICS,
    **_ACC2,
    **_PRESENT,
    "pairs_kept": "(token, expert) pairs computed, over layers and modalities",
    "pairs_routed": "the same before pruning",
    "encode_seconds": "to encode the split",
    "probe_seconds": "to fit the probe on train",
    "probe_converged": "whether it did",
    "active_parameters": "at this p, the experts of every layer counted",
    "active_parameters_paper": "at this p as the paper counts: the attention of all layers, the experts of one",
}

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "rows": {
        "sweep": "its name",
        **_CELL,
        **_POINT,
        "training_seconds": "of Specialization, or of a prior method's training",
        "selection_seconds": "of Selection; NaN without",
        "curve_seconds": "of the whole curve",
        "trained_stage": "stage of the model that was probed",
        "trained_identity": "hash of that stage's run",
        "mae": "mean absolute error of sentiments that a ridge regression predicts from the same representations; "
        "measured on request alone, as the next two are",
        "pearson_r": "correlation of these predictions with the sentiments, -1 to 1; missing where either is constant",
        "collapsed": "why the row means nothing: all representations equal, or all tokens on one expert; else empty",
        "sentiment_identity": "hash of the stage run that measured both",
        **PROVENANCE,
    },
    "controls": {
        "sweep": "its name",
        **_CELL,
        "control": "what is held against the curve. Of the same share of pairs those kept at random, with the smallest "
        "weights, or with the largest contribution (weight times norm of the expert's output); no expert: p = 0, the "
        "same for all branches; untrained: the encoder before training, at p = 1",
        **_POINT,
        **PROVENANCE,
    },
    "references": {
        "dataset": _CELL["dataset"],
        "scale": _CELL["scale"],
        **_DATA,
        "reference": "majority class: always the most frequent training class; raw features: the probe on "
        "features averaged over steps, of all modalities; raw NAME: of one; raw means and deviations: both, of all; "
        "what is missing: on which modalities a sample lacks",
        "split": "valid or test",
        "accuracy": "0 to 1",
        "samples": "of the split",
        "correct": _CORRECT,
        **_METRICS,
        **_ACC2,
        **_PRESENT,
        "probe_converged": "whether the probe did",
        "seconds": "of the stage",
        **PROVENANCE,
    },
    "entropies": {
        **_CELL,
        "step": "of Selection, from 0",
        "entropy": "of the router, in nats",
        "scope": "local: of each token's distribution over experts; global: of the batch's mean distribution",
        "modality": "whose router",
        **_RUN,
    },
    "contributions": {
        **_CELL,
        "after": "initialisation, Specialization, or Selection: on the batch of the first or last step",
        "modality": "whose encoder",
        "layer": "from 0",
        "share": "variance that the experts add to the residual stream over the stream's behind them",
        **_RUN,
    },
    "factors": {
        **_CELL,
        **_RATIO,
        "quantity": "R2, share of variance (0 to 1), an energy distance or coefficient, a bound in nats, …; of the "
        "tokens that express the factor routing weight and share of pairs kept (0 to 1)",
        "factor": "name of the simulation's factor; empty where the quantity belongs to none",
        "factor_kind": "shared, shared by two, unique or nuisance, and relevant or other for the task; empty likewise",
        "modality": "whose representation was read; both: all of them side by side",
        "split": "valid or test",
        "value": "of the quantity",
        "samples": "of the split, those that have what is read; of a bound the samples per batch; of a routing weight "
        "or a share of pairs kept the tokens that express the factor",
        "layer": "from 0, of a routing weight or a share of pairs kept; else missing",
        **_RUN,
    },
    "modalities": {
        **_CELL,
        **_RATIO,
        "split": "valid or test",
        "modality": "whose representation was probed, or left out",
        "alone": "accuracy of a probe of its representation, 0 to 1",
        "without": "accuracy of a probe of all others' side by side; missing where there is no other",
        "samples": "of the split",
        "pairs_kept": "share of its (token, expert) pairs that is computed, over layers; missing without routing",
        **_RUN,
    },
    "missing": {
        **_CELL,
        **_RATIO,
        "missing": "probability with which a sample of any split was made to lack each of its modalities; one stays",
        "share_missing": "of the split's (sample, modality) pairs that are missing in truth, 0 to 1",
        "split": "valid or test",
        "accuracy": "share of samples that a probe gets right which was fitted on as incomplete a train split, 0 to 1",
        "samples": "of the split",
        "probe_converged": "whether the probe did",
        **_RUN,
    },
}
