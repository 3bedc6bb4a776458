"""Tables 4 and 5 from instantiated models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from s3ray.data.multibench import FILES
from s3ray.data.sources import DEFAULT_PAIR
from s3ray.errors import UserError, nearest
from s3ray.model.parameters import ParameterCount, count_parameters
from s3ray.settings import PAPER_DATASETS, settings_for
from s3ray.stages.sparsification import PRESERVATION_RATIOS

GRANULARITIES = (2, 4, 8)


def parameter_table(number: int, *, all_layers: bool = False, modalities: Sequence[str] = DEFAULT_PAIR) -> pd.DataFrame:
    """Table 4 (router share) or 5 (active share), in the columns and digits of the published one.

    Args:
        all_layers: add the honest count, in which the experts of every layer are active. Table 4 counts
            every layer already, so the two agree there.
        modalities: whose encoders are counted; the paper's by default.

    Raises:
        UserError: no modality, one of them twice, or one that a dataset does not have.
    """
    if not modalities or len(set(modalities)) < len(modalities):
        raise UserError(f"--modalities {','.join(modalities)}: name different modalities, such as vision,audio,text")
    lines = []
    for dataset in PAPER_DATASETS:
        for granularity in GRANULARITIES:
            model = replace(settings_for(dataset, "paper").model, granularity=granularity)
            widths = FILES[dataset].widths
            if unknown := [name for name in modalities if name not in widths]:
                raise UserError(
                    f"--modalities: {dataset} has no modality {unknown[0]!r}; {nearest(unknown[0], widths)}"
                )
            count = count_parameters(model, {name: widths[name] for name in modalities})
            line = {"dataset": dataset, "granularity": str(granularity)}
            lines += _table4(line, count, all_layers) if number == 4 else _table5(line, count, all_layers)
    return pd.DataFrame(lines)


def _table4(line: dict[str, str], count: ParameterCount, all_layers: bool) -> list[dict[str, str]]:
    share = f"{100 * count.router_share:.4f}"
    return [line | {"router_parameters_percent": share} | ({"all_layers_percent": share} if all_layers else {})]


def _table5(line: dict[str, str], count: ParameterCount, all_layers: bool) -> list[dict[str, str]]:
    lines = []
    for ratio in PRESERVATION_RATIOS[1:]:
        shares = {"active_parameters_percent": f"{100 * count.active_share(ratio, 'paper'):.2f}"}
        if all_layers:
            shares["all_layers_percent"] = f"{100 * count.active_share(ratio, 'all_layers'):.2f}"
        lines.append(line | {"preservation_ratio": f"{ratio:g}"} | shares)
    return lines
