"""What is found of a search: studies made up so that one setting decides."""

from pathlib import Path

import pytest

import made_up_study
from s3ray.search.findings import load_searches
from s3ray.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(str(tmp_path_factory.mktemp("searched")))
    made_up_study.fill(store)
    return store


def test_every_trial_is_listed_the_best_first(store: Store) -> None:
    (found,) = load_searches(store)
    table = found.trials
    assert table["outcome"].value_counts().to_dict() == {"all seeds": 4, "stopped": 7, "diverged": 1}
    best = table.iloc[0]
    assert (best["trial"], best["seeds"], best["accuracy"], best["p"]) == (0, 3, 78.0, 0.5)
    assert best[made_up_study.TEMPERATURE] == 0.04
    # Those after one seed come after those after three, however lucky they were.
    assert table["seeds"].tolist() == [3] * 4 + [1] * 7 + [0]
    assert found.title == "latent_factors (simulated data, smoke scale)"
    assert "χ = 8, batch size 64, seeds 0, 1, 2" in found.note
    assert "optimistic" in found.note


def test_what_decides_is_most_important_and_stopped_trials_count(store: Store) -> None:
    (found,) = load_searches(store)
    (heading, importance), (_, parallel), (_, history) = found.figures
    assert "11 trials" in heading
    assert heading.endswith("a hint at best")
    shares = dict(zip(importance.data[0].y, importance.data[0].x, strict=True))
    assert shares["specialization<br>temperature"] > 0.6
    lines = [trace for trace in parallel.data if trace.mode == "lines"]
    assert len(lines) == 11
    # The mean over all seeds, and the best so far; NaN for trials that were stopped.
    assert [y for y in history.data[0].y if y == y] == [0.78, 0.77, 0.76, 0.75]


def test_a_damaged_journal_is_left_out_and_a_cut_one_said(store: Store, tmp_path: Path) -> None:
    """One study that cannot be read does not keep the others out of the report."""
    whole = (Path(store.base) / "search" / "made-up" / "journal.log").read_bytes()
    lines = whole.splitlines(keepends=True)
    mended = b"".join(line for line in lines if b'"scale"' not in line and b'"seeds"' not in line)
    copies = {
        "mended": mended,
        "cut": whole[:-5],
        "damaged": whole.replace(b"{", b"!", 1),
        "empty": b"",
        "whole": whole,
    }
    for name, content in copies.items():
        (tmp_path / "search" / name).mkdir(parents=True)
        (tmp_path / "search" / name / "journal.log").write_bytes(content.replace(b"made-up", name.encode()))
    said: list[str] = []
    found = load_searches(Store(str(tmp_path)), said.append)
    assert [study.name for study in found] == ["search_cut", "search_mended", "search_whole"]
    assert found[0].note.endswith("The journal's last line was cut short and is left out.")
    assert found[1].title == "latent_factors (simulated data, unknown scale)"
    folder = tmp_path / "search"
    assert said[0] == f"{folder}/cut/journal.log: its last line was cut short and is left out"
    assert said[1].startswith(f"{folder}/damaged/journal.log: line 1 is damaged; ")
    assert len(said) == 2
