"""The notebook runs from start to end on a finished sweep, and shows what it promises."""

import copy
import os
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient

from s3ray.results import Results
from s3ray.sweep import load_sweep

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
NOTEBOOK = ROOT / "notebooks" / "pruning_curves.ipynb"


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def outputs(committed, tmp_path_factory):
    """Per code cell its outputs, after a run over results of Figure 3 that are known by formula (made_up.py)."""
    made_up = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "results" / "made_up.py")))
    folder = tmp_path_factory.mktemp("store")
    sweep = load_sweep(ROOT / "sweeps" / "figure3_batch_size.py")
    overrides = {"batch_sizes": [64], "sparsification": {"ratios": [1.0, 0.5, 0.1]}}
    plan, store = made_up.finished(sweep, ["digits", "latent_factors"], folder, overrides=overrides)
    Results.collect(plan, store).save(store)
    notebook = copy.deepcopy(committed)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}  # where it runs when it is opened there
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources)
    client.execute(env={**os.environ, "S3RAY_STORAGE": str(folder)})  # raises if a cell does
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def texts(outputs):
    """What a cell printed and showed, as plain text."""
    return [output["text"] if "text" in output else output["data"]["text/plain"] for output in outputs]


def test_the_committed_notebook_has_no_outputs(committed):
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_no_cell_fails_or_warns(outputs):
    assert all(outputs)
    kinds = {(output.output_type, output.get("name", "")) for cell in outputs for output in cell}
    assert kinds <= {("stream", "stdout"), ("execute_result", ""), ("display_data", "")}


def test_it_says_what_data_it_reads(outputs):
    (text,) = texts(outputs[0])
    assert text == "figure3 batch size {'digits': 'embedded', 'latent_factors': 'simulated'}\n"


def test_it_draws_the_figures(outputs):
    drawing = next(cell for cell in outputs if any("image/png" in output.get("data", {}) for output in cell))
    assert "['figure3_digits', 'figure3_latent_factors']" in texts(drawing)
    assert sum("image/png" in output.get("data", {}) for output in drawing) == 2


def html_table(output):
    """Header and rows of a frame as a notebook shows it, without its index."""
    rows = re.findall(r"<tr.*?</tr>", output["data"]["text/html"], re.DOTALL)
    header, *lines = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row)[1:] for row in rows]
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_it_gives_p_star_and_the_verdicts(outputs):
    best, verdicts = (html_table(cell[0]) for cell in outputs[-2:])
    chosen = {"dataset": "digits", "granularity": "8", "branch": "suff+min"}
    (found,) = [line for line in best if chosen.items() <= line.items()]
    # 60 + .64 + 4; Selection gives 2 more at p = 1, 7 more at p = .5.
    assert (found["p_star"], found["test"], found["test_full"], found["gain"]) == ("0.5", "0.7164", "0.6664", "0.05")
    (found,) = [line for line in verdicts if chosen.items() <= line.items()]
    assert found["verdict"] == "peak inside"
