"""Tables 4 and 5: parameter shares, which take no rows but models counted."""

from __future__ import annotations

import pandas as pd

from s3ray.results.collect import Results
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.parameter_tables import parameter_table


def _tables(results: Results) -> dict[str, Table]:
    table4, table5 = (parameter_table(number, all_layers=True) for number in (4, 5))
    return {
        "table4": Table(
            table4.drop(columns="all_layers_percent"),  # which counts all layers anyway
            "Table 4: router parameters",
            "Counted on instantiated models; the paper's table digit for digit.",
        ),
        "table5": Table(
            _by_ratio(table5, "active_parameters_percent"),
            "Table 5: active parameters",
            "Percent of the active parameters at p = 1, as the paper counts them: the attention of all layers, the "
            "experts of one.",
        ),
        "table5_all_layers": Table(
            _by_ratio(table5, "all_layers_percent"),
            "Table 5: active parameters, all layers",
            "The honest count: the experts of every layer.",
        ),
    }


def _by_ratio(table: pd.DataFrame, column: str) -> pd.DataFrame:
    wide = table.pivot_table(
        index=["dataset", "granularity"], columns="preservation_ratio", values=column, aggfunc="first", sort=False
    )
    return wide.rename(columns=lambda ratio: f"p {ratio}").reset_index().rename_axis(columns=None)


EXHIBIT = Exhibit(name="tables4_5", title="Tables 4 and 5: parameters", reads=(), tables=_tables)
