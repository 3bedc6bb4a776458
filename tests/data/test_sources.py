"""From the command line's names, assignments and folder to datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3ray.data import EMBEDDED
from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.data.sources import load_sources, prepared_datasets, resolve_sources
from s3ray.errors import UserError


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


def test_a_variation_is_there_for_whom_asks() -> None:
    assert not EMBEDDED["latent_factors_large"].usual
    assert _names(["latent_factors_large"], [], None) == ["latent_factors_large"]


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


def test_one_name_for_two_files_is_refused(folder: Path, tmp_path: Path) -> None:
    own, mosi = folder / "own.npz", folder / "mosi.npz"
    with pytest.raises(UserError, match=rf"^--dataset mosi={own}: mosi is the name of {mosi} too; give one of them"):
        resolve_sources(["mosi"], [f"mosi={own}"], folder)
    with pytest.raises(UserError, match=rf"^--dataset mine={mosi}: mine is the name of {own} too; give one of them"):
        resolve_sources([], [f"mine={own}", f"mine={mosi}"], None)
    # One file given twice is one file.
    (source,) = resolve_sources(["mosi"], [f"mosi={mosi}", f"mosi={mosi}"], folder)
    assert source.load().train.labels.tolist() == [0, 1]


def test_the_name_of_an_embedded_dataset_is_taken(folder: Path) -> None:
    (folder / "own.npz").rename(folder / "digits.npz")
    taken = "digits is the name of an embedded dataset; give yours another name$"
    for names in ([], ["digits"]):
        with pytest.raises(UserError, match=rf"^--dataset digits={folder / 'digits.npz'}: {taken}"):
            resolve_sources(names, [f"digits={folder / 'digits.npz'}"], None)
        with pytest.raises(UserError, match=rf"^--data {folder}: {taken}"):
            resolve_sources(names, [], folder)
    assert [source.name for source in resolve_sources(["mosi"], [], folder)] == ["mosi"]  # the file is not asked for


def test_a_call_that_names_nothing_takes_the_sweeps_own(folder: Path) -> None:
    def names(*arguments: Any) -> list[str]:
        return [source.name for source in resolve_sources(*arguments, None, ("uneven_factors", "digits"))]

    assert names([], [], None) == ["uneven_factors", "digits"]
    assert names(["latent_factors"], [], None) == ["latent_factors"]
    assert "uneven_factors" not in names([], [], folder)


def test_home_in_an_assignment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    (source,) = resolve_sources([], ["mine=~/own.npz"], None)
    assert source.load().train.labels.tolist() == [4, 5]
    with pytest.raises(UserError, match=r"^--dataset mine ~nobody-here/own\.npz: there is no such home"):
        resolve_sources([], ["mine=~nobody-here/own.npz"], None)


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
        ("zzz", ["'zzz'", f"known: {', '.join(EMBEDDED)}"]),
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
    with pytest.raises(
        UserError, match=r"^--data .*empty: holds no prepared dataset and no NAME\.npz file \(found nothing\); "
    ):
        resolve_sources([], [], tmp_path / "empty")


def _save_prepared(folder: Path, name: str) -> None:
    """2 / 2 / 2 samples of one step: vision has 2 features, audio 3, text 4, all of value 2, 3 or 4."""
    modalities = {
        key: Sequences.from_padded(np.full((2, width), width))
        for key, width in {"vision": 2, "audio": 3, "text": 4}.items()
    }
    splits = {split: Split(modalities, np.array([0, 1])) for split in ("train", "valid", "test")}
    Dataset(name, "multibench", **splits).save(folder / name)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Holds prepared mustard, mosi, mosei and another; own.npz; mosi's raw file; what a killed conversion left."""
    folder = tmp_path / "prepared"
    for name in ("mustard", "another", "mosi", "mosei"):
        _save_prepared(folder, name)
    (folder / "mosei").rename(folder / ".mosei-x1")
    _save_prepared(folder, "mosei")
    (folder / "notes").mkdir()
    (folder / "mosi_data.pkl").touch()
    arrays = {f"{s}_{key}": np.ones((2, 3)) for s in ("train", "valid", "test") for key in ("a", "b")}
    np.savez(folder / "own.npz", **arrays, **{f"{s}_label": np.array([0, 1]) for s in ("train", "valid", "test")})
    return folder


def test_prepared_datasets_come_in_the_papers_order(prepared: Path) -> None:
    assert list(prepared_datasets(prepared)) == ["mosei", "mosi", "mustard", "another"]
    assert prepared_datasets(prepared)["mosi"] == prepared / "mosi"
    assert prepared_datasets(prepared / "absent") == {}


def test_a_folder_alone_means_what_is_prepared_and_its_files(prepared: Path) -> None:
    assert _names([], [], prepared) == ["mosei", "mosi", "mustard", "another", "own"]


def test_names_choose_among_prepared_and_others(prepared: Path) -> None:
    assert _names(["own", "mustard", "digits"], [], prepared) == ["own", "mustard", "digits"]


def test_prepared_datasets_are_seen_through_vision_and_text(prepared: Path) -> None:
    (source,) = resolve_sources(["mosi"], [], prepared)
    data = source.load()
    assert (data.name, list(data.features.items())) == ("mosi", [("vision", 2), ("text", 4)])


@pytest.mark.parametrize(
    ("modalities", "features"),
    [
        (("text", "vision"), [("text", 4), ("vision", 2)]),
        (("audio", "text"), [("audio", 3), ("text", 4)]),
        (["vision", "audio"], [("vision", 2), ("audio", 3)]),
        (["audio"], [("audio", 3)]),
        (["audio", "text", "vision"], [("audio", 3), ("text", 4), ("vision", 2)]),
    ],
)
def test_modalities_are_taken_in_their_order(
    modalities: list[str], features: list[tuple[str, int]], prepared: Path
) -> None:
    mosi, own = resolve_sources(["mosi", "own"], [], prepared, modalities)
    data = mosi.load()
    for split in data.splits.values():
        assert [(name, sequences.features) for name, sequences in split.modalities.items()] == features
        assert [float(sequences.values[0, 0]) for sequences in split.modalities.values()] == [f for _, f in features]
    assert own.load().features == {"a": 3, "b": 3}  # brings its own two


def test_the_order_of_the_pair_is_part_of_the_data(prepared: Path) -> None:
    (one,), (other,) = (
        resolve_sources(["mosi"], [], prepared, pair) for pair in (("text", "audio"), ("audio", "text"))
    )
    assert one.load().fingerprint() != other.load().fingerprint()


def test_a_modality_that_was_not_prepared(prepared: Path) -> None:
    (source,) = resolve_sources(["mosi"], [], prepared, ("vision", "txt"))
    with pytest.raises(UserError) as error:
        source.load()
    assert str(error.value) == (
        f"{prepared / 'mosi'}: has no modality 'txt'; did you mean 'text'? known: audio, text, vision"
    )


@pytest.mark.parametrize("modalities", [(), ("text", "text"), ("text", "vision", "text")])
def test_modalities_are_some_and_different(modalities: tuple[str, ...], prepared: Path) -> None:
    with pytest.raises(UserError) as error:
        resolve_sources([], [], prepared, modalities)
    assert str(error.value) == f"--modalities {','.join(modalities)}: name different modalities, such as vision,text"


def test_a_pair_of_ones_own_or_of_nothing(prepared: Path) -> None:
    with pytest.raises(UserError, match=r"^--modalities audio,text: is for your own and prepared .* --data DIR$"):
        resolve_sources([], [], None, ("audio", "text"))
    (own,) = resolve_sources([], [f"own={prepared / 'own.npz'}"], None, ("b", "a"))
    assert list(own.load().features) == ["b", "a"]
    (own,) = resolve_sources([], [f"own={prepared / 'own.npz'}"], None, ("a", "c"))
    with pytest.raises(UserError, match=r"^--modalities: .*own\.npz has no modality 'c'; .*known: a, b$"):
        own.load()


def test_a_file_and_a_prepared_dataset_of_the_same_name(prepared: Path) -> None:
    (prepared / "own.npz").rename(prepared / "mustard.npz")
    assert list(load_sources(resolve_sources(["mosi"], [], prepared))[0]) == ["mosi"]
    with pytest.raises(UserError, match=r"holds mustard\.npz and a prepared mustard; rename one of them$"):
        load_sources(resolve_sources(["mustard"], [], prepared))


def test_a_name_that_cannot_be_shown_is_refused(prepared: Path) -> None:
    (prepared / "own.npz").rename(prepared / "\x1b[31mown.npz")
    with pytest.raises(UserError, match=r"'\\x1b\[31mown' has characters that cannot be shown in its name; rename it$"):
        resolve_sources([], [], prepared)


@pytest.mark.parametrize("bad", [1, 2, 5])
def test_a_bad_one_in_a_folder_is_said_and_the_good_ones_are_loaded(bad: int, prepared: Path) -> None:
    (prepared / "own.npz").write_text("not data")
    for name in list(prepared_datasets(prepared))[: bad - 1]:
        (prepared / name / "manifest.json").write_text('{"format": 2, "modalities": 5}')
    sources = resolve_sources([], [], prepared)
    if bad == 5:
        with pytest.raises(UserError, match=r"mosei/manifest\.json: damaged .+; prepare the dataset again$"):
            load_sources(sources)
        return
    loaded, left_out = load_sources(sources)
    assert list(loaded) == ["mosei", "mosi", "mustard", "another"][bad - 1 :]
    assert len(left_out) == bad
    assert left_out[-1].endswith(f"(left out; going on with {', '.join(loaded)})")
    with pytest.raises(UserError, match=r"own\.npz: "):  # asked for by name
        load_sources(resolve_sources(["mustard", "own"], [], prepared))


def test_a_file_or_a_prepared_dataset_in_place_of_a_folder(prepared: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"own\.npz: not a folder; give the file with --dataset own=.+own\.npz$"):
        resolve_sources([], [], folder / "own.npz")
    with pytest.raises(UserError, match=r"mosi: is one prepared dataset; give its folder: --data .+prepared$"):
        resolve_sources([], [], prepared / "mosi")
    with pytest.raises(UserError, match=r"mosi_data\.pkl: not a folder; run s3ray data prepare --root .+prepared and"):
        resolve_sources([], [], prepared / "mosi_data.pkl")


def test_an_assignment_and_a_prepared_dataset_of_the_same_name(prepared: Path) -> None:
    with pytest.raises(
        UserError, match=rf"mosi is the name of {prepared / 'mosi'} too; give one of them another name$"
    ):
        resolve_sources(["mosi"], [f"mosi={prepared / 'own.npz'}"], prepared)


@pytest.mark.parametrize("raw", ["mosi_data.pkl", "humor.pkl", "mosei.hdf5"])
def test_a_folder_of_raw_files_says_how_to_prepare_them(raw: str, tmp_path: Path) -> None:
    (tmp_path / raw).touch()
    with pytest.raises(UserError) as error:
        resolve_sources([], [], tmp_path)
    assert str(error.value) == f"--data {tmp_path}: {raw} is not prepared; run s3ray data prepare --root {tmp_path}"


def test_a_dataset_of_the_paper_that_is_not_prepared_there(prepared: Path) -> None:
    with pytest.raises(UserError) as error:
        resolve_sources(["mosi", "ur_funny"], [], prepared)
    assert str(error.value) == (
        f"--datasets: ur_funny is not prepared in --data {prepared}; put humor.pkl into a folder DIR, "
        f"run s3ray data prepare --root DIR, and give --data DIR"
    )


def test_prepared_datasets_are_opened_only_when_loaded(prepared: Path) -> None:
    (prepared / "mosi" / "manifest.json").write_text("")
    _, source = resolve_sources(["mosei", "mosi"], [], prepared)
    with pytest.raises(UserError, match=r"mosi/manifest\.json: damaged .+; prepare the dataset again"):
        source.load()
