from typing import Any

import pytest

from s3ray.results.parameter_tables import parameter_table
from s3ray.results.published import published_table


@pytest.mark.parametrize(("number", "entries"), [(4, 12), (5, 108)])
def test_the_published_table_is_reproduced_digit_for_digit(number: Any, entries: Any) -> None:
    table = parameter_table(number)
    assert table.to_numpy().tolist() == published_table(number).to_numpy().tolist()
    assert len(table) == entries


def test_the_honest_count_stands_beside_it() -> None:
    table = parameter_table(5, all_layers=True)
    assert list(table.columns)[-2:] == ["active_parameters_percent", "all_layers_percent"]
    # Five layers of experts shrink with p instead of one: less is left.
    assert (table["all_layers_percent"].astype(float) < table["active_parameters_percent"].astype(float)).all()
