"""A study's results in MLflow: a run for the study, with report and tables, and below it a run per cell.

    experiment s3ray/<sweep>
      <study>                                report, figures and tables as artifacts
        <cell> (<kind> data)                 settings as parameters; metrics, and all rows as rows.csv and controls.csv
          test_accuracy/<branch>             at step 1000 p: at p = 1 last, which MLflow's tables show
          training/…, selection <branch>/…   loss, its terms and router entropies per step

MLflow has no keys of its own: runs are found by their tags. What is in a run is told by a digest, written last, so that
another push leaves it alone, or completes it. A metric that is there with step, time and value is not added again by a
server with a database, and times are those of commits: what a push that was cut short has left is no harm.
"""

from __future__ import annotations

import datetime as dt
import functools
import importlib.util
import io
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

import s3ray
from s3ray.digests import digest_of
from s3ray.errors import UserError
from s3ray.execution.drift import ROWS
from s3ray.methods import S3
from s3ray.results.collect import Results
from s3ray.settings import flattened
from s3ray.store import Claims, DamagedError, HeldError, Marker, Store, holds_credentials
from s3ray.sweep import Cell
from s3ray.sweep.grid import JOINED

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_CELL = [field.name for field in fields(Cell)]
_STEPS = 250  # of a training that are pushed, evenly spaced: a server takes some 4,000 metrics a second
_TRAINING = "training"
_LONGEST = 6000  # characters of a parameter that MLflow takes
# MLflow takes these from the environment alone; what the user has set stays.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds until a server is said not to answer
    # A run that is asked for twice may be there twice; a push that failed is repeated as a whole.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True)
class Pushed:
    """What a push came to.

    Attributes:
        address: of the study's run in the browser.
        added, completed, unchanged: runs of cells.
        left_out: a sentence per damaged file, whose curves are not there.
    """

    address: str
    added: int
    completed: int
    unchanged: int
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        counts = {"added": self.added, "completed": self.completed, "there already": self.unchanged}
        cells = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none"
        return f"MLflow: {self.address} (cells: {cells})"


def check(uri: str) -> None:
    """UserError for what can be no server's address, one with credentials in it, or if MLflow is not installed."""
    example = "give a tracking server's, such as http://localhost:5000"
    try:
        parts = urlsplit(uri)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # what it is may hold credentials
        raise UserError(f"--mlflow: is no address; {example}") from None
    if "@" in uri or holds_credentials(parts):
        raise UserError(
            "--mlflow: the URI holds credentials, which dashboards would show; give them as MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD, or as MLFLOW_TRACKING_TOKEN"
        )
    if not is_address or parts.query or parts.fragment:
        shown = uri.partition("?")[0]  # of a parameter that nobody knows it is not known whether it is secret
        raise UserError(f"--mlflow {shown}: is no server's address; {example}")
    if importlib.util.find_spec("mlflow") is None:
        raise UserError("--mlflow: MLflow's client is not installed; pip install 'mlflow-skinny>=3.17,<4'")


def push(results: Results, store: Store, uri: str) -> Pushed:
    """Make MLflow hold a study: add the cells that it lacks, complete those that have more rows now.

    Two pushes of a study from one storage to one server go one after another; where the storage cannot be written, or
    the two have copies of it, nothing keeps them apart.

    Args:
        store: that has the study.
        uri: of a tracking server, http or https.

    Raises:
        UserError: of `check`; the server does not answer, refuses something, or another push is at work. What was
            pushed stays; pushing again goes on.
    """
    check(uri)
    uri = uri.rstrip("/")
    with _environment(_ENVIRONMENT), _explained(uri), _alone(results.study, store, uri) as holds:
        from mlflow import MlflowClient

        return _Push(MlflowClient(tracking_uri=uri), results, store, holds).run(uri)


@contextmanager
def _alone(study: str, store: Store, uri: str) -> Iterator[Callable[[], bool]]:
    """One push at a time, as long as what it yields says so; a storage that cannot be written has no say."""
    key = digest_of({"server": uri, "study": study})[:16]
    with ExitStack() as held:
        holds: Callable[[], bool] | None = None
        try:
            with suppress(OSError):
                holds = held.enter_context(Claims(store).hold(f"mlflow-{key}"))
        except HeldError as error:
            raise UserError(f"{study}: another push is at work on it ({error}); wait for it to end") from None
        yield holds or (lambda: True)


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """These variables, but for those that the user has set."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """UserError in one sentence for what the client raises of the server or of the way to it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise UserError(f"--mlflow {uri}: {_reason(error)}; check the address and the server") from error


def _reason(error: BaseException) -> str:
    """Of a failure the innermost cause, in one line: what the client says of a connection fills a screen."""
    causes = [error]
    while (inner := causes[-1].__cause__ or causes[-1].__context__) is not None and inner not in causes:
        causes.append(inner)
    for cause in reversed(causes):
        if isinstance(cause, TimeoutError):
            return "does not answer in time"
        if isinstance(cause, OSError) and cause.strerror and cause is not error:
            return f"cannot be reached ({cause.strerror})"
    line = " ".join(str(error).split()) or type(error).__name__
    return f"failed ({line[:200]}{'…' if len(line) > 200 else ''})"


class _Push:
    """One push of a study."""

    def __init__(self, client: MlflowClient, results: Results, store: Store, holds: Callable[[], bool]) -> None:
        """Ask the server what is there."""
        self.client, self.results, self.store, self.holds = client, results, store, holds
        self.experiment = self._experiment()
        self.there = self._there()
        self.left_out: list[str] = []

    def run(self, uri: str) -> Pushed:
        parent = self._study()
        counts = {"added": 0, "completed": 0, "unchanged": 0}
        for cell, rows in _by_cell(self.results.rows):
            if not self.holds():
                raise UserError(f"{self.results.study}: another push has taken over; wait for it to end")
            counts[self._cell(parent, cell, rows)] += 1
        address = f"{uri}/#/experiments/{self.experiment}/runs/{parent}"
        return Pushed(address, **counts, left_out=tuple(self.left_out))

    def _reading(self) -> AbstractContextManager[None]:
        return self.store.explained("read", "check the place and your access to it")

    def _experiment(self) -> str:
        """Of the sweep, or that which the environment names for MLflow."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or f"s3ray/{self.results.info['sweep']}"
        found = self.client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self.client.create_experiment(name))

    def _there(self) -> dict[tuple[str, str], Run]:
        """The study's runs by cell and identity, both empty of its own; of several, which a race left, the first."""
        found: dict[tuple[str, str], Run] = {}
        token: str | None = None
        while True:
            asked = f"tags.`s3ray.study` = '{self.results.study}'"
            page = self.client.search_runs([self.experiment], asked, order_by=["start_time DESC"], page_token=token)
            for run in page:
                tags = run.data.tags
                found[tags.get("s3ray.cell", ""), tags.get("s3ray.identity", "")] = run
            if not (token := page.token):
                return found

    def _study(self) -> str:
        """Its run, with its files."""
        info, digest = self.results.info, digest_of(self.results.info["files"])
        run = self.there.get(("", ""))
        if run is not None and run.data.tags.get("s3ray.content") == digest:
            return str(run.info.run_id)
        datasets = {name: facts["kind"] for name, facts in info["datasets"].items()}
        tags = {
            "s3ray.study": self.results.study,
            "s3ray.sweep": info["sweep"],
            "s3ray.version": s3ray.__version__,
            "s3ray.datasets": ", ".join(f"{name} ({kind} data)" for name, kind in datasets.items()),
            "mlflow.note.content": f"{info['title']}\n\nThe report is `index.html` among the artifacts.",
        }
        run = run or self.client.create_run(self.experiment, run_name=self.results.study, tags=tags)
        self._log(run, tags, flattened(info.get("overrides", {})))
        with tempfile.TemporaryDirectory(prefix="s3ray-push-") as scratch:
            for name in info["files"]:
                file = Path(scratch, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                with self._reading():
                    content = self.store.read_listed(info, name, "results", self.results.study)
                file.write_bytes(content)
            self.client.log_artifacts(run.info.run_id, scratch)
        self._finish(run, digest)
        return str(run.info.run_id)

    def _cell(self, parent: str, cell: Cell, rows: pd.DataFrame) -> str:
        """A cell's run: `added`, `completed` or `unchanged`."""
        controls = _of_cell(self.results.controls, cell)
        with self._reading():
            stages = self._stages(rows)
        training = stages.get(_TRAINING)
        identity = training.identity if training else rows["trained_identity"].iloc[0]
        digest = digest_of({"runs": sorted({*rows["identity"], *controls.get("identity", []), *stages})})
        tags = self._tags(cell, rows) | {"s3ray.identity": identity, "mlflow.parentRunId": parent}
        there = self.there.get((str(cell), identity))
        if there is not None and (tags | {"s3ray.content": digest}).items() <= there.data.tags.items():
            return "unchanged"
        damaged = len(self.left_out)
        began, ended = (_milliseconds(time) for time in (rows["committed_at"].min(), rows["committed_at"].max()))
        name = f"{cell} ({rows['kind'].iloc[0]} data)"
        run = there or self.client.create_run(self.experiment, start_time=began, run_name=name, tags=tags)
        self._log(run, tags, self._parameters(cell), [*_accuracies(rows), *self._curves(stages)])
        for name, table in (("rows", rows), ("controls", controls)):
            if len(table):
                text = table.drop(columns="correct", errors="ignore").to_csv(index=False)
                self.client.log_text(run.info.run_id, text, f"{name}.csv")
        self._finish(run, digest if len(self.left_out) == damaged else "", ended)
        return "completed" if there else "added"

    def _tags(self, cell: Cell, rows: pd.DataFrame) -> dict[str, str]:
        revisions = sorted(set(rows["code_revision"].dropna()))
        tags = {
            "s3ray.study": self.results.study,
            "s3ray.cell": str(cell),
            "s3ray.dataset": cell.dataset,
            "s3ray.kind": rows["kind"].iloc[0],
            "s3ray.method": cell.method,
            "s3ray.chi": str(cell.granularity),
            "s3ray.batch_size": str(cell.batch_size),
            "s3ray.seed": str(cell.seed),
            "s3ray.code_revision": ", ".join(revisions),
            "s3ray.version": ", ".join(sorted(set(rows["s3ray"].dropna()))),
            "mlflow.source.git.commit": revisions[0] if len(revisions) == 1 else "",  # shown as its version
        }
        return {name: value for name, value in tags.items() if value}

    def _parameters(self, cell: Cell) -> dict[str, Any]:
        """A cell, and the settings that its numbers depend on, by the names that `--config` takes."""
        settings = self.results.info["datasets"][cell.dataset]["settings"]
        if cell.method == S3:
            own = {name: table for name, table in settings.items() if name != "method"}
        else:  # trained as Specialization is, but for what its own table sets
            own = {name: settings[name] for name in ("model", "probe")}
            own["specialization"] = {"optimizer": settings["specialization"]["optimizer"]}
            own["method"] = {cell.method: settings["method"].get(cell.method, {})}
        found = flattened(own)
        for name in filter(None, cell.reading.split(JOINED)):
            found |= flattened(self.results.info["readings"].get(name, {}))
        return found | asdict(cell)

    def _stages(self, rows: pd.DataFrame) -> dict[str, Marker]:
        """What a cell trained, by what its curves are called."""
        found: dict[str, Marker] = {}
        trained = rows[["trained_stage", "trained_identity", "branch"]].drop_duplicates()
        for stage, identity, branch in trained.itertuples(index=False):
            if (marker := self.store.marker_of(stage, identity)) is None:
                continue  # its rows outlast it
            if marker.parent_stage is None:
                found[_TRAINING] = marker
                continue
            found[f"{stage} {branch}"] = marker
            parent = self.store.marker_of(marker.parent_stage, marker.document["parent"])
            found |= {_TRAINING: parent} if parent else {}
        return found

    def _curves(self, stages: Mapping[str, Marker]) -> Iterator[Metric]:
        """What training measured per step, at the time of its commit: that of a step is not known."""
        for name, marker in stages.items():
            try:
                with self._reading():
                    content = self.store.payload(marker, ROWS)
            except DamagedError as error:
                self.left_out.append(str(error))
                continue
            table = pd.read_parquet(io.BytesIO(content))
            shown = table.iloc[sorted({round(i) for i in np.linspace(0, len(table) - 1, min(len(table), _STEPS))})]
            when = _milliseconds(marker.committed_at)
            for column in shown.columns.drop("step"):
                for step, value in zip(shown["step"], shown[column], strict=True):
                    yield from _metric(f"{name}/{column}", value, when, int(step))

    def _log(
        self, run: Run, tags: Mapping[str, str], parameters: Mapping[str, Any], metrics: Sequence[Metric] = ()
    ) -> None:
        """In as few requests as the server takes: of 100 parameters, of 1,000 metrics. A parameter is never changed."""
        from mlflow.entities import Param, RunTag

        log = functools.partial(self.client.log_batch, run.info.run_id, synchronous=True)
        named = {_allowed(name): str(value)[:_LONGEST] for name, value in parameters.items()}
        values = [Param(name, value) for name, value in named.items() if name not in run.data.params]
        log(tags=[RunTag(name, value) for name, value in tags.items()])
        for first in range(0, len(values), 100):
            log(params=values[first : first + 100])
        for first in range(0, len(metrics), 1000):
            log(metrics=metrics[first : first + 1000])

    def _finish(self, run: Run, digest: str, ended: int | None = None) -> None:
        """All is there: said last."""
        self.client.set_terminated(run.info.run_id, end_time=ended)
        self.client.set_tag(run.info.run_id, "s3ray.content", digest)


def _by_cell(rows: pd.DataFrame) -> Iterator[tuple[Cell, pd.DataFrame]]:
    for values, own in rows.groupby(_CELL, sort=False) if len(rows) else ():
        named: dict[str, Any] = dict(zip(_CELL, values, strict=True))
        yield Cell(**named), own


def _of_cell(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    for name, value in asdict(cell).items() if len(table) else ():
        table = table[table[name] == value]
    return table


def _accuracies(rows: pd.DataFrame) -> Iterator[Metric]:
    """Per branch and split, at step 1000 p."""
    columns = ["split", "branch", "preservation_ratio", "accuracy", "committed_at"]
    for split, branch, ratio, accuracy, committed_at in rows[columns].to_numpy().tolist():
        yield from _metric(f"{split}_accuracy/{branch}", accuracy, _milliseconds(committed_at), round(1000 * ratio))


def _metric(name: str, value: Any, when: int, step: int) -> Iterator[Metric]:
    """None of a value that is missing."""
    from mlflow.entities import Metric

    if value is not None and not math.isnan(value):
        yield Metric(_allowed(name), float(value), when, step)


def _allowed(name: str) -> str:
    """MLflow's names have letters, digits and few signs."""
    return re.sub(r"[^\w./ -]", "_", name)[:250]


def _milliseconds(time: str) -> int:
    return round(1000 * dt.datetime.fromisoformat(time).timestamp())
