"""The notebooks run from start to end on finished sweeps, and show what they promise.

Outputs that are stored are written anew by `S3RAY_UPDATE_GOLDEN=1 python -m pytest tests/test_notebook.py`.
"""

import copy
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import nbformat
import pandas as pd
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

import s3ray
from s3ray.data.embedded import EMBEDDED
from s3ray.data.embedded.latent_factors import LatentFactorsConfig, latent_factors
from short_sweep import fill

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
NOTEBOOK = ROOT / "notebooks" / "pruning_curves.ipynb"


@pytest.fixture(scope="module")
def committed() -> NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with the sweep of Table 1 and Figure 5 on a small simulation, trained for one epoch."""
    store = s3ray.open_store(tmp_path_factory.mktemp("store"))
    data = latent_factors(LatentFactorsConfig(train=128, valid=64, test=64))
    once = {"optimizer": {"epochs": 1}}
    overrides = {
        "batch_sizes": [64],
        "specialization": once,
        "selection": once,
        "sparsification": {"ratios": [1.0, 0.5, 0.1]},
    }
    fill(store, s3ray.load_sweep(ROOT / "sweeps" / "table1_figure5.py"), [data], overrides)
    return Path(store.store.base)


def run(
    notebook: NotebookNode, folder: Path, storage: Path | None = None, before: Mapping[str, str] = MappingProxyType({})
) -> NotebookNode:
    """A copy of a notebook, executed in a folder.

    Args:
        before: code that is run, unseen, before the cells that have a word in them.
    """
    notebook = copy.deepcopy(notebook)
    paths = [str(ROOT), str(ROOT / "tests" / "shared"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "S3RAY_STORAGE": str(storage), "PYTHONPATH": os.pathsep.join(paths)}
    environment |= {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="s3r", dir="/tmp") as short:  # a short path, for sockets in it
        # No TCP: its ports are chosen before the kernel takes them, and other tests start servers meanwhile.
        kernel = AsyncKernelManager(transport="ipc", connection_file=f"{short}/kernel.json")
        resources = {"metadata": {"path": str(folder)}}
        client = NotebookClient(
            notebook, km=kernel, timeout=300, resources=resources, record_timing=False, coalesce_streams=True
        )
        try:
            with client.setup_kernel(env=environment):
                for index, cell in enumerate(notebook.cells):
                    for code in (code for word, code in before.items() if word in cell.source):
                        client.execute_cell(nbformat.v4.new_code_cell(code), index, store_history=False)
                    client.execute_cell(cell, index)  # raises if the cell does
        except DeadKernelError:
            process = getattr(kernel.provisioner, "process", None)
            pytest.fail(f"the kernel ended with {process and process.returncode}")  # minus the signal, if one ended it
    return notebook


@pytest.fixture(scope="module")
def outputs(committed: NotebookNode, finished: Path) -> list[Any]:
    """Per code cell its outputs, after a run over the finished sweep."""
    notebook = run(committed, NOTEBOOK.parent, finished)  # where it runs when it is opened there
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def texts(outputs: list[Any]) -> list[str]:
    """What a cell printed and showed, as plain text."""
    return [output["text"] if "text" in output else output["data"]["text/plain"] for output in outputs]


def test_the_committed_notebook_has_the_outputs_of_make_sweep(committed: NotebookNode) -> None:
    """Those of a whole run of it, from start to end; what its cells come to is tested on a smaller sweep."""
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert all(cell.outputs for cell in code)
    (text,) = texts(code[0].outputs)
    assert text == "figure3 batch size {'digits': 'embedded', 'latent_factors': 'simulated'}\n"


def test_no_cell_fails_or_warns(outputs: list[Any]) -> None:
    assert all(outputs)
    kinds = {(output.output_type, output.get("name", "")) for cell in outputs for output in cell}
    assert kinds <= {("stream", "stdout"), ("execute_result", ""), ("display_data", "")}


def test_it_says_what_data_it_reads(outputs: list[Any]) -> None:
    (text,) = texts(outputs[0])
    assert text == "table1 figure5 {'latent_factors': 'simulated'}\n"


def test_it_draws_the_figures(outputs: list[Any]) -> None:
    drawing = next(cell for cell in outputs if any("image/png" in output.get("data", {}) for output in cell))
    figures = ("controls_latent_factors", "figure5", "figure5_differences", "contributions")
    names = [f"{figure}_batch_64" for figure in figures]
    assert any(all(name in text for name in names) for text in texts(drawing))
    assert sum("image/png" in output.get("data", {}) for output in drawing) == len(names)


def html_table(output: Any) -> list[dict[str, str]]:
    """Header and rows of a frame as a notebook shows it, without its index."""
    rows = re.findall(r"<tr.*?</tr>", output["data"]["text/html"], re.DOTALL)
    header, *lines = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row)[1:] for row in rows]
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_it_gives_p_star_and_the_verdicts(outputs: list[Any], finished: Path) -> None:
    best, verdicts = (html_table(cell[0]) for cell in outputs[-2:])
    (path,) = finished.glob("results/*/rows.parquet")
    rows = pd.read_parquet(path)
    assert len(rows) == 3 * 3 * 2 * 3 * 2  # χ, seeds, branches, ratios, splits
    means = rows.groupby(["granularity", "branch", "split", "preservation_ratio"])["accuracy"].mean().unstack()
    assert len(best) == len(verdicts) == 3 * 2
    for shown, verdict in zip(best, verdicts, strict=True):
        curve = int(shown["granularity"]), shown["branch"]
        valid, test = means.loc[(*curve, "valid")], means.loc[(*curve, "test")]
        # Of equally good ratios the larger; a mean of three differs from its like by rounding alone.
        p_star = 0.5 if valid[0.5] > valid[0.1] - 1e-9 else 0.1
        assert float(shown["p_star"]) == p_star
        assert float(shown["test"]) == pytest.approx(test[p_star], abs=1e-6)  # six digits are shown
        assert float(shown["gain"]) == pytest.approx(test[p_star] - test[1.0], abs=1e-6)
        assert (shown["n"], verdict["n"], float(verdict["p_star"])) == ("3", "3", p_star)
        assert verdict["verdict"] in ("peak inside", "falling", "rising", "flat", "undecided")
        assert float(verdict["gain_smallest"]) == pytest.approx(test[p_star] - test[0.1], abs=1e-6)


STORED = ("inside_the_router", "your_own_data", "use_a_trained_encoder")
# What `s3ray.run` does with Ray.
COMPUTE = "from short_sweep import compute\ncompute(plan, store)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `notebooks/` and a storage that has of `make sweep` what the stored notebooks ask for."""
    place = tmp_path_factory.mktemp("place")
    (place / "notebooks").mkdir()
    asked = {
        "granularities": [8],
        "batch_sizes": [64],
        "seeds": [0],
        "sparsification": {"ratios": [1.0, 0.5], "controls": []},
    }
    data = [EMBEDDED[name].load() for name in ("digits", "latent_factors")]
    store = s3ray.open_store(place / "storage")
    fill(store, s3ray.load_sweep(ROOT / "sweeps" / "figure3_batch_size.py"), data, asked)
    return place


@pytest.fixture(scope="module", params=STORED)
def stored_and_executed(request: pytest.FixtureRequest, place: Path) -> tuple[NotebookNode, NotebookNode]:
    """A notebook with its stored outputs, and as it comes out now; `S3RAY_UPDATE_GOLDEN=1` stores that."""
    file = ROOT / "notebooks" / f"{request.param}.ipynb"
    stored = nbformat.read(file, as_version=4)
    executed = run(stored, place / "notebooks", before={"s3ray.run(": COMPUTE})
    executed.metadata = stored.metadata
    text = nbformat.writes(executed).replace(str(place), "~/s3ray") + "\n"
    if os.environ.get("S3RAY_UPDATE_GOLDEN"):
        file.write_text(text)
        stored = nbformat.read(file, as_version=4)
    return stored, nbformat.reads(text, as_version=4)


def shown(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Of every output its kind and its text; digests are left out."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    found = []
    for output, text in zip(outputs, texts(outputs), strict=True):
        kind = "figure" if "image/png" in output.get("data", {}) else output.output_type
        text = re.sub(r"-[0-9a-f]{8}\b", "", text)
        if kind == "stream" and found and found[-1][0] == "stream":  # lines come together or one by one
            found[-1] = (kind, found[-1][1] + text)
        else:
            found.append((kind, text))
    return found


def test_stored_outputs_are_those_that_the_code_makes(
    stored_and_executed: tuple[NotebookNode, NotebookNode],
) -> None:
    """What has a number in it another processor may change: of that the kind."""
    stored, executed = (
        [(kind, "" if re.search(r"\d", text) else text) for kind, text in shown(notebook)]
        for notebook in stored_and_executed
    )
    assert any(kind == "figure" for kind, _ in stored)
    assert executed == stored


def test_stored_notebooks_ran_from_start_to_end_without_a_warning(
    stored_and_executed: tuple[NotebookNode, NotebookNode],
) -> None:
    for notebook in stored_and_executed:
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
        assert all(output.get("name") != "stderr" for cell in code for output in cell.outputs)


def test_stored_notebooks_use_the_public_api_alone(stored_and_executed: tuple[NotebookNode, NotebookNode]) -> None:
    """And say what their data are."""
    stored, _ = stored_and_executed
    source = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "code")
    assert not re.search(r"from s3ray|import s3ray\.|store\.store", source)
    assert set(re.findall(r"s3ray\.(\w+)", source)) <= set(s3ray.__all__)
    prose = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    assert re.search(r"\*\*(embedded|simulated) data", prose)
