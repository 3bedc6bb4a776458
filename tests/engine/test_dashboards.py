"""What a sweep shows of itself on a real head: Prometheus metrics, Train runs; and what Grafana asks for."""

import json
import math
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import ray.dashboard.modules.metrics.dashboards as ray_dashboards

from heads import Head
from s3ray.store import Store
from s3ray.sweep import Plan

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana" / "dashboards" / "s3ray.json"
SERIES = re.compile(r"^(?P<name>\w+)\{(?P<tags>.*)\} (?P<value>\S+)$", re.MULTILINE)
OURS = ("sweep", "dataset", "state", "stage", "granularity", "modality", "kind", "le")  # Ray adds its own


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as response:
        return response.read().decode()


def scrape(head: Head) -> tuple[dict[tuple[str, ...], float], set[str]]:
    """{(metric, tag values…): value} of every s3ray metric, from where Prometheus would be sent; and all names."""
    discovery = json.loads((head.folder / "prom_metrics_service_discovery.json").read_text())
    text = ""
    for target in (target for group in discovery for target in group["targets"]):
        with suppress(OSError):  # still starting
            text += get(f"http://{target}/metrics")
    series = {}
    for match in SERIES.finditer(text):
        if match["name"].startswith("ray_s3ray_"):
            tags = dict(re.findall(r'(\w+)="([^"]*)"', match["tags"]))
            series[match["name"], *(tags[tag] for tag in OURS if tag in tags)] = float(match["value"])
    return series, {match["name"] for match in SERIES.finditer(text)}


@pytest.fixture(scope="module")
def finished(
    head: Head, tiny_sweep: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[tuple[str, ...], float], set[str], Plan, Any]:
    """Last value of every series while the tiny sweep ran, all names, the sweep's plan, and the Train runs."""
    storage = tmp_path_factory.mktemp("storage")
    process = subprocess.Popen(
        [sys.executable, tiny_sweep.__file__, str(storage)],
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    series, names = {}, set()
    deadline = time.monotonic() + 600
    while process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.5)
        found = scrape(head)
        series |= found[0]
        names |= found[1]
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert [line for line in output.splitlines()[1:] if not line.startswith("[")] == []  # metrics print nothing
    found = scrape(head)
    runs = json.loads(head.get("/api/train/v2/runs/v1")[1])["train_runs"]
    return series | found[0], names | found[1], tiny_sweep.tiny_plan(Store(str(storage))), runs


STAGES = ["specialization", "selection suff+min", "sparsification none", "sparsification suff+min"]


@pytest.mark.ray
@pytest.mark.slow
def test_metrics_say_what_happened(finished: Any, head: Head) -> None:
    series, _, plan, _ = finished
    cells = {state: series["ray_s3ray_cells", "tiny", "digits", state] for state in ("done", "failed", "cached")}
    assert cells == {"done": 2, "failed": 0, "cached": 0}
    for stage in STAGES:
        # A curve is said as one: the probe at p = 1 and Sparsification at the others.
        own = {"sparsification": ("probe", "sparsification")}.get(stage.split()[0], (stage.split()[0],))
        said = [run for cell in plan.cells for run in cell.runs if run not in cell.floors.values()]  # by themselves
        runs = [run for run in said if run.stage.name in own]
        assert series["ray_s3ray_stage_duration_seconds_count", "tiny", "digits", stage] == 2
        seconds = [plan.committed[run.identity].seconds for run in runs]
        total = sum(series["ray_s3ray_stage_seconds_total", "tiny", "digits", s] for s in STAGES if s[:9] == stage[:9])
        assert total == pytest.approx(sum(seconds), rel=1e-6)
    experts = plan.cells[0].training.config.model.experts
    entropies = {key[2:]: value for key, value in series.items() if key[0] == "ray_s3ray_router_entropy_nats"}
    assert entropies.keys() == {
        ("digits", stage, "2", modality, kind)
        for stage in STAGES[:2]
        for modality in ("rows", "columns")
        for kind in ("local", "global")
    }
    assert all(0.0 <= entropy <= math.log(experts) for entropy in entropies.values())
    deadline = time.monotonic() + 60  # gauges of a sweep that is over go away
    while any(key[0] == "ray_s3ray_cells" for key in scrape(head)[0]):
        assert time.monotonic() < deadline
        time.sleep(1.0)


@pytest.mark.ray
@pytest.mark.slow
def test_train_runs_are_in_the_dashboard(finished: Any) -> None:
    runs = finished[-1]
    assert [run["status"] for run in runs] == ["FINISHED"] * 2
    assert sorted(run["name"][:8] for run in runs) == ["pack-000", "pack-001"]


def queried_metrics() -> set[str]:
    board = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    expressions += [entry["definition"] for entry in board["templating"]["list"] if "definition" in entry]
    return {name for text in expressions for name in re.findall(r"\b(?:ray|autoscaler)_\w+", text)}


@pytest.mark.ray
@pytest.mark.slow
def test_grafana_asks_for_all_our_metrics_and_for_no_others(finished: Any) -> None:
    exported = {re.sub("_(sum|count|created)$", "", name) for name in finished[1] if name.startswith("ray_s3ray_")}
    asked = {name for name in queried_metrics() if name.startswith("ray_s3ray_")}
    assert asked == exported - {"ray_s3ray_stage_duration_seconds"}


def test_the_rest_that_grafana_asks_for_is_rays() -> None:
    folder = Path(ray_dashboards.__path__[0])
    known = "".join(path.read_text() for path in folder.glob("*.py"))
    rays = {name for name in queried_metrics() if not name.startswith("ray_s3ray_")}
    assert len(rays) == 9
    assert [name for name in sorted(rays) if not re.search(rf"\b{name}\b", known)] == []


def test_panels_do_not_overlap_and_name_no_data_source_of_their_own() -> None:
    board = json.loads(DASHBOARD.read_text())
    covered = [
        (x, y)
        for box in (panel["gridPos"] for panel in board["panels"])
        for x in range(box["x"], box["x"] + box["w"])
        for y in range(box["y"], box["y"] + box["h"])
    ]
    assert len(covered) == len(set(covered))
    assert max(x for x, _ in covered) == 23
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"${datasource}"}
