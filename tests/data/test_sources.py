"""From the command line's names, assignments and folder to datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s3ray.config import UserError
from s3ray.data.sources import resolve_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds mosi.npz and own.npz; mosi's labels are 0 and 1, own's 4 and 5. And a file that is neither."""
    for name, first in (("own", 4), ("mosi", 0)):
        arrays = {}
        for split in ("train", "valid", "test"):
            arrays[f"{split}_a"] = arrays[f"{split}_b"] = np.ones((2, 3))
            arrays[f"{split}_label"] = np.array([first, first + 1])
        np.savez(tmp_path / f"{name}.npz", **arrays)
    (tmp_path / "notes.txt").write_text("not data")
    return tmp_path


def _names(*arguments: object) -> list[str]:
    return [source.name for source in resolve_sources(*arguments)]  # type: ignore[arg-type]


def test_nothing_asked_for_means_the_embedded_ones() -> None:
    assert _names([], [], None) == ["digits", "latent_factors"]


def test_names_keep_their_order_and_count_once() -> None:
    assert _names(["latent_factors", "digits", "latent_factors"], [], None) == ["latent_factors", "digits"]


def test_a_folder_alone_means_its_files(folder: Path) -> None:
    assert _names([], [], folder) == ["mosi", "own"]


def test_names_choose_among_folder_and_embedded(folder: Path) -> None:
    assert _names(["digits", "own"], [], folder) == ["digits", "own"]


def test_assignments_come_on_top_of_names(folder: Path) -> None:
    assert _names(["digits"], [f"mine={folder / 'own.npz'}"], None) == ["digits", "mine"]
    assert _names([], [f"mine={folder / 'own.npz'}"], None) == ["mine"]


def test_sources_load_what_they_name(folder: Path) -> None:
    mosi, mine = resolve_sources(["mosi"], [f"mine={folder / 'own.npz'}"], folder)
    assert mine.load().name == "mine"
    assert mine.load().train.labels.tolist() == [4, 5]
    assert mosi.load().train.labels.tolist() == [0, 1]


def test_an_assignment_wins_over_the_folder(folder: Path) -> None:
    (source,) = resolve_sources(["mosi"], [f"mosi={folder / 'own.npz'}"], folder)
    assert source.load().train.labels.tolist() == [4, 5]


def test_a_path_may_hold_equals_signs(folder: Path) -> None:
    (folder / "own.npz").rename(folder / "a=b.npz")
    (source,) = resolve_sources([], [f"own={folder / 'a=b.npz'}"], None)
    assert source.load().name == "own"


def test_files_are_read_only_when_loaded(tmp_path: Path) -> None:
    (source,) = resolve_sources([], [f"own={tmp_path / 'absent.npz'}"], None)
    with pytest.raises(UserError, match=r"absent\.npz: no such file"):
        source.load()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digts", ["'digts'", "did you mean 'digits'?", "latent_factors"]),
        ("mosei", ["mosei is not prepared", "mosei_senti_data.pkl", "s3ray data prepare", "--data DIR"]),
        ("zzz", ["'zzz'", "known: digits, latent_factors"]),
    ],
)
def test_unknown_names_suggest_the_nearest(name: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        resolve_sources([name], [], None)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("assignment", ["own.npz", "=own.npz", "own=", "my-own=own.npz", ""])
def test_malformed_assignments(assignment: str) -> None:
    with pytest.raises(UserError, match=r"^--dataset .*: must read NAME=PATH .+; rewrite it$"):
        resolve_sources([], [assignment], None)


def test_a_folder_that_is_none_or_holds_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--data .*absent: not a folder; "):
        resolve_sources([], [], tmp_path / "absent")
    with pytest.raises(UserError, match=r"^--data .*notes\.txt: not a folder; "):
        resolve_sources([], [], folder / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^--data .*empty: holds no prepared dataset and no NAME\.npz file; "):
        resolve_sources([], [], tmp_path / "empty")
