"""The notebook runs from start to end on a finished sweep, and shows what it promises."""

import copy
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
import torch
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

import s3ray
from s3ray.data.embedded.latent_factors import LatentFactorsConfig, latent_factors
from s3ray.execution import run_cell

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
    data = latent_factors(LatentFactorsConfig(train=256, valid=128, test=128))
    once = {"optimizer": {"epochs": 1}}
    overrides = {
        "batch_sizes": [64],
        "specialization": once,
        "selection": once,
        "sparsification": {"ratios": [1.0, 0.5, 0.1]},
    }
    study = s3ray.study([data], overrides=overrides)
    sweep = s3ray.load_sweep(ROOT / "sweeps" / "table1_figure5.py")
    for cell in s3ray.plan(sweep, study, store).cells:
        run_cell(cell, data, store.store, lambda event: None, device=torch.device("cpu"), checkpoint_interval=1e9)
    assert s3ray.run(s3ray.plan(sweep, study, store), store).failures == {}  # nothing is left but to write
    return Path(store.store.base)


@pytest.fixture(scope="module")
def outputs(committed: NotebookNode, finished: Path) -> list[Any]:
    """Per code cell its outputs, after a run over the finished sweep."""
    notebook = copy.deepcopy(committed)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}  # where it runs when it is opened there
    environment = {**os.environ, "S3RAY_STORAGE": str(finished)}
    with tempfile.TemporaryDirectory(prefix="s3r", dir="/tmp") as folder:  # a short path, for sockets in it
        # No TCP: its ports are chosen before the kernel takes them, and other tests start servers meanwhile.
        kernel = AsyncKernelManager(transport="ipc", connection_file=f"{folder}/kernel.json")
        client = NotebookClient(notebook, km=kernel, timeout=300, resources=resources)
        try:
            client.execute(env=environment)  # raises if a cell does
        except DeadKernelError:
            process = getattr(kernel.provisioner, "process", None)
            pytest.fail(f"the kernel ended with {process and process.returncode}")  # minus the signal, if one ended it
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def texts(outputs: list[Any]) -> list[str]:
    """What a cell printed and showed, as plain text."""
    return [output["text"] if "text" in output else output["data"]["text/plain"] for output in outputs]


def test_the_committed_notebook_has_no_outputs(committed: NotebookNode) -> None:
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_no_cell_fails_or_warns(outputs: list[Any]) -> None:
    assert all(outputs)
    kinds = {(output.output_type, output.get("name", "")) for cell in outputs for output in cell}
    assert kinds <= {("stream", "stdout"), ("execute_result", ""), ("display_data", "")}


def test_it_says_what_data_it_reads(outputs: list[Any]) -> None:
    (text,) = texts(outputs[0])
    assert text == "table1 figure5 {'latent_factors': 'simulated'}\n"


def test_it_draws_the_figures(outputs: list[Any]) -> None:
    drawing = next(cell for cell in outputs if any("image/png" in output.get("data", {}) for output in cell))
    names = ["controls_latent_factors_batch_64", "figure5_batch_64", "contributions_batch_64"]
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
