"""What memory a worker needs, as measured, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.engine.preflight import Capacity, Execution, check_memory
from s3ray.errors import UserError
from s3ray.store import Store
from s3ray.sweep import Plan, Study, Sweep, make_plan
from s3ray.sweep.memory import at_once, largest, refusal

TWO_VIEWS: Mapping[str, Any] = {
    "model": {"width": 64, "dropout": 0.2},
    "specialization": {"views": "dropout"},
}


def _plan(tmp_path: Path, steps: int, features: int, samples: int = 64, **overrides: Any) -> Plan:
    """Of one cell over two modalities of zeros, of which memory holds one row."""

    def split(count: int) -> Split:
        rows = np.broadcast_to(np.zeros(features, np.float32), (count * steps, features))
        own = Sequences(rows, np.arange(count + 1) * steps, standardized=True)
        return Split({"left": own, "right": own}, np.arange(count) % 2)

    class Light(Dataset):
        def fingerprint(self) -> str:
            return f"{steps} steps of {features} features"

    data = Light("own", "user", split(samples), split(samples // 3), split(samples // 3))
    sweep = Sweep("one", lambda study: [study.cell("own", 8, study.batch_sizes("own")[0], 0)], ("none",))
    return make_plan(
        sweep, Study.of({"own": data}, None, {"batch_sizes": [min(64, samples)], **overrides}), Store(str(tmp_path))
    )


# Beside the measured peak (MB) of a process of its own, 0.3 GB of libraries left out: of training; of encoding.
MEASURED = [
    (50, 100, {}, 64, 209),
    (50, 10_000, {}, 64, 462),
    (200, 100, {}, 64, 544),
    (600, 100, {}, 64, 1444),
    (1250, 100, {}, 64, 2680),
    (1250, 1000, {}, 64, 3236),
    (600, 100, TWO_VIEWS, 64, 4460),
    (1250, 100, TWO_VIEWS, 64, 8821),
    (1250, 100, {"batch_sizes": [16]}, 256, 2031),
]


@pytest.mark.parametrize(("steps", "features", "overrides", "samples", "megabytes"), MEASURED)
def test_it_is_what_was_measured(
    tmp_path: Path, steps: int, features: int, overrides: Any, samples: int, megabytes: int
) -> None:
    needed, _ = largest(_plan(tmp_path, steps, features, samples, **overrides))
    libraries = 300 * 2**20
    assert 0.8 < needed / (megabytes * 2**20 + libraries) < 1.35


def test_what_does_not_fit_is_refused_in_a_sentence_that_says_what_would(tmp_path: Path) -> None:
    plan = _plan(tmp_path, 1250, 100, **TWO_VIEWS)
    with pytest.raises(
        UserError,
        match=r"^own χ=8 batch=64 seed=0: a worker needs 9.4 GB of memory, 4 GB are free; take --max-steps 400, a "
        r"smaller batch \(batch_sizes in --config\), fewer features or a machine with more$",
    ):
        check_memory(plan, Execution(), Capacity(2, 0, 1, is_local=True, memory=(4e9,)))
    assert "--max-steps" not in refusal(plan, [1e8])  # not even ten steps would fit
    assert "--max-steps" not in refusal(_plan(tmp_path, 1, 100), [1e8])
    check_memory(plan, Execution(), Capacity(2, 0, 1, memory=(4e9, 12e9)))
    check_memory(plan, Execution(), Capacity(2, 0, 1))  # not known
    check_memory(plan, Execution(gpus_per_worker=1), Capacity(2, 1, 1, memory=(4e9,)))


def test_a_plan_with_nothing_to_run_needs_nothing(tmp_path: Path) -> None:
    nothing = make_plan(Sweep("none"), Study({}), Store(str(tmp_path)))
    assert (largest(nothing), refusal(nothing, [1.0])) == ((0, None), "")


def test_only_as_many_groups_run_at_a_time_as_memory_holds() -> None:
    assert [at_once(3e9, nodes) for nodes in ([2e9], [3e9], [20e9], [4e9, 7e9])] == [0, 1, 6, 3]
    assert at_once(3e9, [20e9], workers=4) == 1
    assert at_once(0.0, [20e9]) > 100
    machine = Capacity(8, 0, 1, is_local=True, memory=(20e9,))
    assert machine.slots(Execution(memory_per_worker=3e9)) == 6
    assert machine.slots(Execution(memory_per_worker=3e9, workers_per_trial=2)) == 3
    assert machine.slots(Execution()) == 8
