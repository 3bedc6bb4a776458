"""`simulate`: its files are what pickle would have written, and hold what the real files are known to hold."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3ray.data.multibench.layout import check_ids, checked_splits
from s3ray.data.multibench.pickled import read_pickle
from s3ray.data.multibench.simulate import content_like, simulate
from s3ray.errors import UserError

SPLITS = ("train", "valid", "test")
MODALITIES = ("vision", "audio", "text")
KEYS = (*MODALITIES, "labels", "id")


@dataclass(frozen=True)
class Facts:
    """A row of data-formats.md, and the sizes of the splits of a smaller file."""

    file: str
    samples: int
    sizes: tuple[int, int, int]  # train, valid, test: `samples` in the published proportions
    steps: int
    widths: tuple[int, int, int]  # vision, audio, text
    types: tuple[str, str, str]
    published: tuple[int, int, int]
    megabytes: int

    @property
    def sentiment(self) -> bool:
        return self.file.startswith("mos")


FACTS = {
    # 500 · 229/2199 = 52.07, 500 · 686/2199 = 155.98; more than 256 in train, so that chunks meet.
    "mosi": Facts("mosi_data.pkl", 500, (292, 52, 156), 50, (20, 5, 300), ("<f8", "<f8", "<f4"), (1284, 229, 686), 154),
    # 60 · 1869/22777 = 4.92, 60 · 4643/22777 = 12.23
    "mosei": Facts("mosei_senti_data.pkl", 60, (43, 5, 12), 50, (35, 74, 300), ("<f8",) * 3, (16265, 1869, 4643), 3726),
    # 60 · 1034/10166 = 6.10, 60 · 1058/10166 = 6.24
    "ur_funny": Facts("humor.pkl", 60, (48, 6, 6), 20, (371, 81, 300), ("<f8",) * 3, (8074, 1034, 1058), 1223),
    # 40 · 138/690 = 8
    "mustard": Facts("sarcasm.pkl", 40, (24, 8, 8), 50, (371, 81, 300), ("<f8",) * 3, (414, 138, 138), 208),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulated")


@pytest.fixture(scope="module", params=FACTS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def facts(name: str) -> Facts:
    return FACTS[name]


@pytest.fixture(scope="module")
def path(name: str, facts: Facts, folder: Path) -> Path:
    return simulate(name, facts.samples, folder)


@pytest.fixture(scope="module")
def content(path: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """As Python's own pickle reads it."""
    with path.open("rb") as file:
        yield pickle.load(file)


def test_the_file_has_its_usual_name(path: Path, facts: Facts, folder: Path) -> None:
    assert path == folder / facts.file


def _anew(array: Any) -> Any:
    """An array like those the authors pickled: its type is numpy's own object, not the one that was unpickled."""
    return np.frombuffer(array.tobytes(), array.dtype.str).reshape(array.shape)


def test_the_bytes_are_those_of_pickle_and_numpy_1(path: Path, content: dict[str, dict[str, Any]]) -> None:
    anew = {split: {key: _anew(content[split][key]) for key in KEYS} for split in SPLITS}
    expected = pickle.dumps(anew, 3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert path.read_bytes() == expected


def test_splits_and_keys(content: dict[str, dict[str, Any]]) -> None:
    assert tuple(content) == SPLITS
    assert [tuple(arrays) for arrays in content.values()] == [KEYS] * 3


def test_shapes_and_types(content: dict[str, dict[str, Any]], facts: Facts) -> None:
    for split, size in zip(SPLITS, facts.sizes, strict=True):
        arrays = content[split]
        for key, width, code in zip(MODALITIES, facts.widths, facts.types, strict=True):
            assert arrays[key].shape == (size, facts.steps, width)
            assert arrays[key].dtype.str == code
        assert arrays["labels"].shape == ((size, 1, 1) if facts.sentiment else (size, 1))
        assert arrays["labels"].dtype.kind == "f"


def test_labels(content: dict[str, dict[str, Any]], name: str, facts: Facts) -> None:
    for arrays in content.values():
        labels = arrays["labels"].reshape(-1)
        assert (labels > 0).any()
        assert (labels <= 0).any()
        if facts.sentiment:
            assert np.abs(labels).max() <= 3
        else:
            assert set(labels.tolist()) == ({0.0, 1.0} if name == "ur_funny" else {-1.0, 1.0})
    if facts.sentiment:
        labels = content["train"]["labels"]
        assert len(np.unique(labels)) > 5
        assert 0 < np.count_nonzero(labels == 0) < len(labels) / 2


def test_ids(content: dict[str, dict[str, Any]], name: str, facts: Facts) -> None:
    seen: set[Any] = set()
    for split, size in zip(SPLITS, facts.sizes, strict=True):
        ids = content[split]["id"]
        assert ids.dtype.kind == ("S" if name == "mosi" else "U")
        assert ids.shape == ((size, 3) if facts.sentiment else (size,))
        rows = [tuple(row) for row in ids.reshape(size, -1).astype("U").tolist()]
        assert all(row[0].startswith("simulated") for row in rows)
        if facts.sentiment:
            assert all(float(start) < float(end) for _, start, end in rows)
        seen.update(rows)
    assert len(seen) == facts.samples


def test_what_is_not_finite(content: dict[str, dict[str, Any]]) -> None:
    for arrays in content.values():
        assert np.isnan(arrays["vision"]).any()
        assert not np.isinf(arrays["vision"]).any()
        assert np.isneginf(arrays["audio"]).any()
        assert not np.isnan(arrays["audio"]).any()
        assert not np.isposinf(arrays["audio"]).any()
        assert np.isfinite(arrays["text"]).all()
        for key in ("vision", "audio"):
            assert np.isfinite(arrays[key]).mean() > 0.999


def test_zero_rows_are_on_the_left(content: dict[str, dict[str, Any]], facts: Facts) -> None:
    for arrays in content.values():
        has_text = (arrays["text"] != 0).any(axis=2)
        lengths = has_text.sum(axis=1)
        assert np.array_equal(has_text, np.arange(facts.steps) >= facts.steps - lengths[:, None])
        assert lengths.max() == facts.steps
        assert lengths.min() == 0, "every sample has text"
        assert 0.2 * facts.steps < lengths.mean() < 0.7 * facts.steps
        for key in ("vision", "audio"):
            assert not arrays[key][~has_text].any()


def test_some_steps_with_text_lack_a_modality(content: dict[str, dict[str, Any]]) -> None:
    has_text = (content["train"]["text"] != 0).any(axis=2)
    silent = {key: ~(content["train"][key] != 0).any(axis=2) & has_text for key in ("vision", "audio")}
    for key, steps in silent.items():
        assert 0.005 < steps.sum() / has_text.sum() < 0.05, key
    assert (silent["vision"] != silent["audio"]).any()


def _difference(arrays: dict[str, Any], key: str) -> Any:
    """Mean of the positive samples' steps minus that of the others, per feature."""
    positive = arrays["labels"].reshape(-1) > 0
    values = np.nan_to_num(arrays[key].astype("f8"), neginf=0.0)
    present = (arrays["text"] != 0).any(axis=2)
    return values[positive][present[positive]].mean(axis=0) - values[~positive][present[~positive]].mean(axis=0)


def test_the_class_shows_in_every_modality(folder: Path) -> None:
    path = simulate("mosi", 500, folder / "classes", seed=3)
    content = pickle.loads(path.read_bytes())
    for key in MODALITIES:
        train, test = _difference(content["train"], key), _difference(content["test"], key)
        # Noise alone would make the two independent: a cosine of 0 ± 1/√features, 0.45 for audio's 5.
        assert train @ test / np.linalg.norm(train) / np.linalg.norm(test) > 0.9, key


def test_the_reader_takes_it_and_says_that_it_is_simulated(
    path: Path, content: dict[str, dict[str, Any]], name: str
) -> None:
    found = read_pickle(path)
    splits = checked_splits(path, found)
    assert check_ids(path, splits) == ([], "simulated")
    for split in SPLITS:
        for key in KEYS:
            assert found[split][key].dtype == content[split][key].dtype
            assert found[split][key].tobytes() == content[split][key].tobytes()


def test_the_published_number_of_samples_gives_the_published_splits_and_size(name: str, facts: Facts) -> None:
    planned = content_like(name, sum(facts.published))
    assert tuple(len(planned[split]["labels"]) for split in SPLITS) == facts.published
    assert tuple(len(planned[split]["id"]) for split in SPLITS) == facts.published
    assert round(sum(arrays[key].nbytes for arrays in planned.values() for key in MODALITIES) / 1e6) == facts.megabytes


def test_the_smallest_file_has_two_samples_of_both_classes_in_each_split(name: str, tmp_path: Path) -> None:
    content = pickle.loads(simulate(name, 6, tmp_path).read_bytes())
    for arrays in content.values():
        assert len(arrays["text"]) == 2
        assert sorted((arrays["labels"].reshape(-1) > 0).tolist()) == [False, True]
        assert (arrays["text"] != 0).any(axis=(1, 2)).any()


@pytest.mark.parametrize("samples", [5, 1, 0, -1])
def test_too_few_samples(samples: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^--samples {samples}: give at least 6") as error:
        simulate("mosi", samples, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_array_that_such_a_pickle_cannot_hold_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    def written(what: str, done: int, total: int) -> None:
        pytest.fail("something was written")

    # BINBYTES: 4 bytes of length. 65000 · 16265/22777 · 50 · 300 · 8 bytes of text are 5.6 GB.
    with pytest.raises(UserError, match="--samples 65000") as error:
        simulate("mosei", 65_000, tmp_path, progress=written)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mosi_data.pkl").write_bytes(b"the real one")
    with pytest.raises(UserError, match=r"mosi_data\.pkl: is there already .*; choose another --output"):
        simulate("mosi", 20, tmp_path)
    assert (tmp_path / "mosi_data.pkl").read_bytes() == b"the real one"
    assert os.listdir(tmp_path) == ["mosi_data.pkl"]


def test_a_link_to_nothing_stays(tmp_path: Path) -> None:
    (tmp_path / "mosi_data.pkl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is there already"):
        simulate("mosi", 20, tmp_path)
    assert os.listdir(tmp_path) == ["mosi_data.pkl"]


def test_what_arrives_meanwhile_stays(tmp_path: Path) -> None:
    def arrive(what: str, done: int, total: int) -> None:
        (tmp_path / "mosi_data.pkl").write_bytes(b"the real one")

    with pytest.raises(UserError, match="is there already"):
        simulate("mosi", 20, tmp_path, progress=arrive)
    assert (tmp_path / "mosi_data.pkl").read_bytes() == b"the real one"
    assert os.listdir(tmp_path) == ["mosi_data.pkl"]


@pytest.mark.parametrize("exception", [KeyboardInterrupt, OSError])
def test_nothing_is_left_of_an_interrupted_file(exception: type[BaseException], tmp_path: Path) -> None:
    calls: list[int] = []

    def interrupt(what: str, done: int, total: int) -> None:
        assert len(os.listdir(tmp_path)) == 1
        assert not (tmp_path / "mosi_data.pkl").exists()
        calls.append(done)
        if done > total / 2:
            raise exception

    with pytest.raises(exception):
        simulate("mosi", 20, tmp_path, progress=interrupt)
    assert len(calls) > 2
    assert os.listdir(tmp_path) == []


def test_the_file_is_complete_when_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def spied(function: Any) -> Any:
        def spy(source: Any, target: Any, **options: Any) -> None:
            sizes.append(os.stat(source).st_size)
            function(source, target, **options)

        return spy

    for moved in ("replace", "rename", "link"):
        monkeypatch.setattr(os, moved, spied(getattr(os, moved)))
    path = simulate("mosi", 20, tmp_path)
    assert sizes == [path.stat().st_size]


def test_progress_grows_to_the_total(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = simulate("mosi", 600, tmp_path, progress=lambda what, done, total: told.append((done, total)))
    done, totals = [done for done, _ in told], {total for _, total in told}
    # Train has 350 samples: two chunks in each of three modalities; the other splits one each.
    assert len(done) == 6 + 3 + 3
    assert done == sorted(set(done))
    (total,) = totals
    assert done[-1] == pytest.approx(total, rel=1e-3)
    assert path.stat().st_size == pytest.approx(total, rel=1e-3)


def test_deterministic_in_its_seed(tmp_path: Path) -> None:
    def raw(folder: str, seed: int, **options: Any) -> bytes:
        return simulate("mosi", 30, tmp_path / folder, seed=seed, **options).read_bytes()

    assert raw("a", 0) == raw("b", 0, progress=lambda what, done, total: None)
    one, other = pickle.loads(raw("c", 1)), pickle.loads(raw("d", 2))
    for split in SPLITS:
        for key in (*MODALITIES, "labels"):
            assert one[split][key].tobytes() != other[split][key].tobytes()


def test_splits_and_samples_differ(content: dict[str, dict[str, Any]]) -> None:
    for key in MODALITIES:
        last = np.concatenate([arrays[key][:, -1, :4] for arrays in content.values()])
        present = last[np.isfinite(last).all(axis=1) & last.any(axis=1)]
        assert len(np.unique(present, axis=0)) == len(present) > 0.8 * len(last)


def test_modalities_are_drawn_apart(content: dict[str, dict[str, Any]]) -> None:
    # Deviation 1/√250 = 0.063 between independent ones.
    values = [np.nan_to_num(content["train"][key][0].reshape(-1)[:250], neginf=0.0) for key in MODALITIES]
    assert np.abs(np.corrcoef(values)[np.triu_indices(3, 1)]).max() < 0.3
