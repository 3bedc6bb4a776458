import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3ray.sweep import make_packs

MINUTE = 60.0


def test_a_long_cell_is_a_pack_of_its_own() -> None:
    assert sorted(make_packs(["a", "b", "c"], [20 * MINUTE] * 3, slots=1)) == [["a"], ["b"], ["c"]]


def test_short_cells_share_a_pack_per_slot() -> None:
    # 40 cells of 5 s are 200 s: one pack would do, but two slots want one each.
    packs = make_packs(list(range(40)), [5.0] * 40, slots=2)
    assert [len(pack) for pack in packs] == [20, 20]


def test_the_number_of_packs_is_a_multiple_of_the_slots() -> None:
    # 30 minutes of work in packs of 10 would be 3; with 2 slots the fourth keeps the second slot busy.
    assert len(make_packs(list(range(60)), [30.0] * 60, slots=2)) == 4


def test_no_cells_no_packs() -> None:
    assert make_packs([], [], slots=4) == []


@given(st.lists(st.floats(0.1, 3000.0), min_size=1, max_size=40), st.integers(1, 8))
def test_every_cell_is_in_exactly_one_pack_and_the_load_is_even(seconds: float, slots: int) -> None:
    packs = make_packs(list(range(len(seconds))), seconds, slots=slots)
    assert sorted(cell for pack in packs for cell in pack) == list(range(len(seconds)))
    assert len(packs) >= min(slots, len(seconds))
    loads = [sum(seconds[cell] for cell in pack) for pack in packs]
    assert loads == pytest.approx(sorted(loads, reverse=True))
    # Greedy list scheduling: no pack exceeds the mean by more than the longest cell.
    assert max(loads) <= sum(seconds) / len(packs) + max(seconds) + 1e-6
