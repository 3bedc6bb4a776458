"""s3ray: distributed sweeps on Ray for S3 (Specialization, Selection, Sparsification, arXiv 2605.03348).

    store = s3ray.open_store("storage")
    store.rows()                                          # a frame; s3ray.COLUMNS says what stands in it
    model = store.model(dataset="digits", granularity=8, seed=0, batch_size=64, branch="suff+min")
    model.encode(batch, preservation_ratio=0.4)
    store.export("folder", 0.4, dataset="digits", granularity=8, seed=0, batch_size=64, branch="suff+min")
    s3ray.load_model("folder")(batch)     # needs torch and safetensors alone

    data = s3ray.dataset("mine", train=(x, y), valid=…, test=…)   # x: values per modality
    data = s3ray.Dataset.from_frame("mine", frame, label="activity", group="subject")
    plan = s3ray.plan(sweep, s3ray.study([data]), store)
    s3ray.run(plan, store)

Importing it is cheap: what a name needs is imported when the name is used.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from s3ray.api.finished import FinishedStore, open_store
    from s3ray.api.model import Model
    from s3ray.api.running import Ran, plan, run, study
    from s3ray.data.arrays import from_arrays as dataset
    from s3ray.data.dataset import Dataset, Split
    from s3ray.errors import UserError
    from s3ray.model.exported import ExportedModel, load_model
    from s3ray.results.collect import Results
    from s3ray.results.columns import COLUMNS
    from s3ray.sweep import Cell, Plan, Study, Sweep, load_sweep, union
    from s3ray.sweep.budget import Budget

__all__ = [
    "COLUMNS",
    "Budget",
    "Cell",
    "Dataset",
    "ExportedModel",
    "FinishedStore",
    "Model",
    "Plan",
    "Ran",
    "Results",
    "Split",
    "Study",
    "Sweep",
    "UserError",
    "__version__",
    "dataset",
    "load_model",
    "load_sweep",
    "open_store",
    "plan",
    "run",
    "study",
    "union",
]

_HOMES = {
    "s3ray.api.finished": ("FinishedStore", "open_store"),
    "s3ray.api.model": ("Model",),
    "s3ray.api.running": ("Ran", "plan", "run", "study"),
    "s3ray.data.dataset": ("Dataset", "Split"),
    "s3ray.errors": ("UserError",),
    "s3ray.model.exported": ("ExportedModel", "load_model"),
    "s3ray.results.collect": ("Results",),
    "s3ray.results.columns": ("COLUMNS",),
    "s3ray.sweep": ("Cell", "Plan", "Study", "Sweep", "load_sweep", "union"),
    "s3ray.sweep.budget": ("Budget",),
}
_PLACES = {name: (module, name) for module, names in _HOMES.items() for name in names}
_PLACES["dataset"] = ("s3ray.data.arrays", "from_arrays")


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    value: object = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
