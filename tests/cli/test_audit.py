"""`s3ray audit` as users meet it."""

from __future__ import annotations

from pathlib import Path

from command_line import assert_one_sentence, s3ray
from s3ray.store import Store
from toy_runs import commit, toy_run


def test_a_storage_without_anything(tmp_path: Path) -> None:
    result = s3ray("audit", "--storage", tmp_path / "nothing", "--sample", 2)
    assert (result.exit_code, result.output) == (0, f"nothing is stored at {tmp_path / 'nothing'} yet\n")


def test_faults_are_a_line_each_and_exit_code_3(tmp_path: Path) -> None:
    store, runs = Store(str(tmp_path)), [toy_run(seed) for seed in range(3)]
    for run in runs:
        commit(store, run, {"a.bin": b"payload", "b.bin": b"payload"})
    result = s3ray("audit", "--storage", tmp_path)
    assert result.exit_code == 0
    counted = "3 results, 6 files, 0 datasets read and compared"
    assert result.output.splitlines() == [counted, "all is as it was committed"]
    marker = store.marker(runs[1])
    assert marker is not None
    damaged = Path(store.path("artifacts", marker.stage, marker.identity, marker.attempt, "b.bin"))
    damaged.write_bytes(b"PAYLOAD")
    result = s3ray("audit", "--storage", tmp_path)
    assert result.exit_code == 3
    counted, fault, verdict = result.output.splitlines()
    assert counted.startswith("2 results, 4 files")
    assert fault == f"{damaged}: damaged, and set aside as {marker.attempt}.damaged; run again to compute it again"
    assert verdict == "1 fault"
    result = s3ray("audit", "--storage", tmp_path)  # nobody has computed it again
    assert result.exit_code == 3
    assert "1 found damaged earlier and set aside as .damaged" in result.output


def test_a_storage_that_cannot_be_read(tmp_path: Path) -> None:
    assert_one_sentence(s3ray("audit", "--storage", "nosuch://x"), "not a storage URI")
