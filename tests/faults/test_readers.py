"""Readers on files and words that nobody meant: a right value or one sentence, never another exception.

Half of what is tried is a *valid variation*, which must be accepted with its value: other orders, types, layouts. A few
hundred per reader in every run, 10,000 with the marker `faults`.
"""

import copy
import hashlib
import io
import json
import math
import os
import pickle
import random
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import torch as safetensors

import calls
import tiny_sweep
from command_line import SWEEPS, s3ray
from s3ray.configuration import document
from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.data.multibench.pickled import read_pickle
from s3ray.data.npz import read_npz
from s3ray.digests import signed
from s3ray.errors import UserError
from s3ray.execution.logs import explained
from s3ray.execution.status import Watch
from s3ray.model import ModelConfig, Ragged, ThresholdPruning, build_model
from s3ray.model.exported import load_model
from s3ray.results import Results
from s3ray.settings import read_all, settings_for
from s3ray.store import Marker, Store
from tiny_data import tiny_dataset
from toy_runs import toy_run

SEED = int(os.environ.get("S3RAY_SEED", 20260727))  # without one the same in every run
# What stands where something else should.
JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, 10**400, 1.5, -0.0, math.nan, math.inf, "", "x", "../../x", "\0", "\x1b[31m",
    "\udcff", "ü" * 300, [], [[]], {}, {"x": {}}, [None], ["a", 1], {"": 0},
)  # fmt: skip


def mutated(draw: random.Random, content: bytes) -> bytes:
    """Up to four edits, each of which replaces some bytes by others; or the content cut short."""
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(content) + 1)
        replaced = draw.randbytes(draw.randint(0, 3))
        content = content[:start] + replaced + content[start + draw.randint(0, 3) :]
    return content[: draw.randrange(len(content) + 1)] if draw.random() < 0.2 else content


def changed(draw: random.Random, value: Any) -> Any:
    """A copy of plain values, one of which is another, or gone, or new."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        for key in list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
            places.append((part, key))
            walk(part[key])

    walk(value)
    part, key = draw.choice(places)
    match draw.randrange(4):
        case 0 if isinstance(part, dict):
            del part[key]
        case 1 if isinstance(part, dict):
            part[draw.choice(["", "more", "x" * 99])] = draw.choice(JUNK)
        case 2 if isinstance(part[key], int | float) and not isinstance(part[key], bool):
            part[key] = part[key] + draw.choice([-1, 1, 10**20, 0.5])
        case _:
            part[key] = draw.choice(JUNK)
    return value


def shuffled(draw: random.Random, value: Any) -> Any:
    """The same, the keys of tables in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(draw, entry)) for key, entry in value.items()]
        return dict(draw.sample(items, len(items)))
    return [shuffled(draw, entry) for entry in value] if isinstance(value, list) else value


def as_json(draw: random.Random, value: Any) -> bytes:
    """In one of the ways to write it."""
    separators = draw.choice([None, (",", ":"), (" , ", "  :\n")])
    text = json.dumps(value, indent=draw.choice([None, 0, 1, 7, "\t"]), separators=separators)
    return (draw.choice(["", "\n", " \t"]) + text + draw.choice(["", "\n\n"])).encode()


KINDS = ["U3", "S2", "c8", "?", "M8[s]", "V4", "O"]

# A reader on one input: reads, and says whether what came is right. `valid`: it must be.
Try = Callable[[], bool]
Reader = Callable[[random.Random, bool, Path], Try]


def npz(draw: random.Random, valid: bool, folder: Path) -> Try:
    rng = np.random.default_rng(draw.getrandbits(32))
    names = draw.sample(["text", "audio", "A", "b_2", "left"], draw.randint(1, 3))
    classes = draw.randint(2, 4)
    sequential, lengths = {name: draw.random() < 0.5 for name in names}, {}
    widths = {name: draw.randint(1, 4) for name in names}
    arrays: dict[str, Any] = {}
    for split, count in (("train", 2 * classes + draw.randint(2, 5)), ("valid", classes + 2), ("test", classes + 1)):
        kind = draw.choice([np.int64, np.int8, np.uint16, ">i4"])
        arrays[f"{split}_label"] = (np.arange(count) % classes).astype(kind)
        for name in names:
            shape = (count, 3, widths[name]) if sequential[name] else (count, widths[name])
            kind = draw.choice([np.float32, np.float64, ">f4", np.float16])
            order: Any = draw.choice("CF")
            arrays[f"{split}_{name}"] = np.asarray(rng.normal(size=shape), dtype=kind, order=order)
            if sequential[name] and lengths.setdefault(name, draw.random() < 0.5):
                arrays[f"{split}_{name}_length"] = rng.integers(1, 4, count).astype(draw.choice([np.int64, np.uint8]))
    if draw.random() < 0.3:
        arrays["label_names"] = np.array([f"class {number}" for number in range(classes)])
    if not valid and draw.random() < 0.5:
        key = draw.choice(list(arrays))
        match draw.randrange(6):
            case 0:
                arrays[f"{key}{draw.choice(['', '_', 's', '_length', 'x'])}"] = arrays.pop(key)
            case 1:
                arrays[key] = arrays[key].astype(draw.choice(["S9", "O"] if key == "label_names" else KINDS))
            case 2:
                arrays[key] = arrays[key][: draw.randrange(3)]
            case 3:
                arrays[key] = arrays[key][..., None]
            case 4:
                arrays[key] = np.full_like(arrays[key], draw.choice([0, 1, 127]))
            case 5:
                arrays[key] = np.array(draw.choice([math.nan, 3, "x", b"y", None]))
    buffer = io.BytesIO()
    items = dict(draw.sample(list(arrays.items()), len(arrays)))
    # Object arrays are pickled, which nothing reads.
    (np.savez_compressed if draw.random() < 0.5 else np.savez)(buffer, **items)
    content = buffer.getvalue()
    if not valid and draw.random() < 0.5:
        content = _archive_changed(draw, content) if draw.random() < 0.5 else mutated(draw, content)
    path = folder / "data.npz"
    path.write_bytes(content)

    def read() -> bool:
        data = read_npz("data", path)
        first, width = names[0], widths[names[0]]
        return (
            set(data.features.items()) == set(widths.items())
            and data.classes == classes
            and [len(split) for split in data.splits.values()]
            == [len(arrays[f"{split}_label"]) for split in ("train", "valid", "test")]
            and np.allclose(data.train.modalities[first].values[0], arrays[f"train_{first}"][:1].reshape(-1, width)[0])
        )

    return read


def _archive_changed(draw: random.Random, content: bytes) -> bytes:
    """The archive whole, one member's bytes changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        victim = draw.choice(old.namelist())
        for name in old.namelist():
            member = old.read(name)
            new.writestr(name, mutated(draw, member[:128]) + member[128:] if name == victim else member)
    return buffer.getvalue()


def pickles(draw: random.Random, valid: bool, folder: Path) -> Try:
    rng = np.random.default_rng(draw.getrandbits(32))

    def value(depth: int) -> Any:
        leaf = [
            lambda: draw.choice([None, True, 0, -1, 2**40, 0.5, math.inf, "", "text ü", b"", b"bytes"]),
            lambda: rng.normal(size=draw.choice([(), (0,), (3,), (2, 3), (9000,)])).astype(draw.choice("fd")),
            lambda: rng.integers(0, 9, 4).astype(draw.choice(["i1", ">i4", "u8", "?"])),
            lambda: np.array(["a", "bcd"], dtype=draw.choice(["U3", "O", "S3"])),
            lambda: np.float32(draw.random()),
        ]
        nested = [
            lambda: {f"key {n}": value(depth - 1) for n in range(draw.randint(0, 4))},
            lambda: [value(depth - 1) for _ in range(draw.randint(0, 4))],
            # A tuple of arrays is refused.
            lambda: tuple(draw.choice([1, "a", None, (2.5, "b")]) for _ in range(draw.randint(0, 4))),
        ]
        return draw.choice(nested if depth else leaf)() if depth < 3 else {"top": value(depth - 1)}

    expected = value(3)
    content = pickle.dumps(expected, draw.randint(2, 5))
    if not valid:
        odd = [lambda: slice(3), lambda: {1, 2}, lambda: complex(1, 2), lambda: Path("x"), lambda: _deep(draw)]
        content = mutated(draw, content) if draw.random() < 0.8 else pickle.dumps([draw.choice(odd)()], 4)
    path = folder / "data.pkl"
    path.write_bytes(content)
    return lambda: _same(read_pickle(path), expected)


def _deep(draw: random.Random) -> Any:
    value: Any = draw.choice([(), [], 1])
    for _ in range(draw.randint(1, 400)):
        value = (value,) if draw.random() < 0.9 else [value]
    return value


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, np.ndarray):
        alike = isinstance(found, np.ndarray) and found.shape == expected.shape
        return alike and found.dtype == expected.dtype and found.tolist() == expected.tolist()
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and list(found) == list(expected)
            and all(_same(found[key], entry) for key, entry in expected.items())
        )
    if isinstance(expected, list | tuple):
        alike = type(found) is type(expected) and len(found) == len(expected)
        return alike and all(_same(one, other) for one, other in zip(found, expected, strict=True))
    return bool(found == expected)


SETTINGS: Mapping[str, Callable[[random.Random], Any]] = {
    "batch_sizes": lambda draw: draw.sample([16, 32, 64, 100], draw.randint(1, 3)),
    "seeds": lambda draw: draw.sample(range(9), draw.randint(1, 4)),
    "margin": lambda draw: draw.choice([0, 0.5, 2, 1e3]),
    "max_steps": lambda draw: draw.randint(1, 50),
    "model.layers": lambda draw: draw.randint(1, 4),
    "model.positions": lambda draw: draw.choice(["none", "sinusoidal"]),
    "specialization.temperature": lambda draw: draw.choice([1, 0.07, 1e-2]),
    "specialization.optimizer.epochs": lambda draw: draw.randint(1, 500),
    "selection.optimizer.learning_rate": lambda draw: draw.choice([1e-4, 3e-3, 1]),
    "sparsification.ratios": lambda draw: [1.0, *draw.sample([0.1, 0.5, 0.25], draw.randint(1, 3))],
    "probe.inverse_regularization": lambda draw: draw.choice([0.1, 10, 1e5]),
}


def toml(draw: random.Random, valid: bool, folder: Path) -> Try:
    given = {name: SETTINGS[name](draw) for name in draw.sample(list(SETTINGS), draw.randint(0, 6))}
    if not valid and given and draw.random() < 0.6:
        name = draw.choice(list(given))
        value = given.pop(name)
        given[draw.choice([name, f"{name}s", f"{name}.more", "dataset", f"dataset.{name}"])] = draw.choice(
            [value, "", [], [[]], [value], {}, -1, 0, 2**70, 1e-50, True, "none", math.nan, math.inf, {"x": 1}]
        )
    lines = [f"{_dotted(draw, name)} = {_toml(draw, value)}" for name, value in given.items()]
    sections = [] if draw.random() < 0.5 else [f"[dataset.digits]\nmargin = {draw.choice(['1', '0.5'])}\n"]
    comments = [draw.choice(["", "# comment [x]\n", "\r\n"]) for _ in lines]
    text = "".join(f"{comment}{line}\n" for comment, line in zip(comments, lines, strict=True)) + "".join(sections)
    content = (b"\xef\xbb\xbf" if draw.random() < 0.1 else b"") + text.encode()
    if not valid and draw.random() < 0.6:
        content = mutated(draw, content) if draw.random() < 0.9 else draw.choice([b"a = ", b""]) + b"[" * 9999
    path = folder / "settings.toml"
    path.write_bytes(content)

    def read() -> bool:
        settings = settings_for("digits", "smoke", read_all([str(path)]))
        for name, expected in given.items():
            if name not in SETTINGS or (name == "margin" and sections):  # what stands for it is not read back
                continue
            found: Any = settings
            for part in name.split("."):
                found = getattr(found, part)
            if (list(found) if isinstance(found, tuple) else found) != expected:
                return False
        return True

    return read


def _dotted(draw: random.Random, name: str) -> str:
    return draw.choice([".", " . "]).join(f'"{part}"' if draw.random() < 0.2 else part for part in name.split("."))


def _toml(draw: random.Random, value: Any) -> str:
    if isinstance(value, list):
        end = ",]" if value and draw.random() < 0.3 else "]"
        return "[" + ",\n".join(_toml(draw, entry) for entry in value) + end
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(draw, entry)}" for key, entry in value.items()) + "}"
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def command_line(draw: random.Random, valid: bool, folder: Path) -> Try:
    options = {
        "--datasets": ["digits", "digits,latent_factors", " digits , digits"],
        "--scale": ["smoke", "paper"],
        "--storage": [str(folder / "store"), f"file://{folder}/store"],
        "--metric": ["macro_f1", "accuracy"],
        "--format": ["json"],
    }
    given = {"--format": "json"} | {name: draw.choice(options[name]) for name in draw.sample(list(options), 3)}
    given["--storage"] = given.get("--storage", str(folder / "store"))
    words = [[name, value] if draw.random() < 0.5 else [f"{name}={value}"] for name, value in given.items()]
    sweep = "tables4_5_parameters.py" if draw.random() < 0.9 else "figure6_no_selection.py"  # which plans cells
    words.append([str(SWEEPS / sweep)])
    command = ["plan", *(word for pair in draw.sample(words, len(words)) for word in pair)]
    if not valid:
        strange = ["", "--", "-", "\x1b[31m", "--datasets", "--datasets=,", "--dataset=a", "--dataset=a=b", "--nosuch"]
        strange += ["--storage=s3://[", "--storage=~nobody", "--storage=nosuch://x", "--data=/dev/null", "--scale=x"]
        strange += ["--modalities=", "--config=/dev/null", f"--config={folder}", "--max-steps=0", "--granularity=-1"]
        strange += ["--storage=s3://u:p@b", "--dataset=\udcff=x", "--metric=x", "--max-steps=9", "a\0b", "--storage=\0"]
        for _ in range(draw.randint(1, 3)):
            command.insert(draw.randrange(1, len(command) + 1), draw.choice(strange))
        if draw.random() < 0.3:
            command.remove(draw.choice(command))

    def run() -> bool:
        result = s3ray(*command)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if result.exit_code == 0:
            return not valid or json.loads(result.stdout)["cells"]["total"] >= 0
        said = result.stderr.strip()
        assert result.exit_code == 2, said
        assert said.isprintable() if said.startswith("error: ") else "Error" in said, said
        raise UserError("as it should")

    return run


RUN = toy_run()


def markers(draw: random.Random, valid: bool, folder: Path) -> Try:
    store = Store(str(folder / "store"))
    files = {draw.choice(["rows.parquet", "weights.safetensors"]): draw.randbytes(9) for _ in range(draw.randint(0, 2))}
    store.drop("artifacts")
    provenance = {"torch": "2", "workers": draw.randint(1, 9), "machine": "cpu x86_64"}
    store.commit(RUN, files, seconds=draw.choice([0, 1, 2.5, 1e6]), provenance=provenance)
    place = ("artifacts", RUN.stage.name, RUN.identity, "commit.json")
    expected = store.marker(RUN)
    assert expected is not None
    told = json.loads(store.read(*place))
    damaged = signed(changed(draw, told)) if draw.random() < 0.8 else changed(draw, told)
    content = as_json(draw, shuffled(draw, told if valid else damaged))
    if not valid and draw.random() < 0.5:
        damaged, content = None, mutated(draw, content)
    store.write(content, *place)

    def read() -> bool:
        found = store.marker(RUN)
        assert found in (None, Marker.of(content, RUN.stage.name, RUN.identity))
        if found is None:
            raise UserError("counts as none")
        if not valid:  # what is of its type may have been changed: the numbers that nothing else says
            assert found.document == RUN.document
            assert found.seconds >= 0
            assert found.workers >= 1
            assert all(store.artifact(RUN, name, found) == files[name] for name in found.files)
        return not valid or found == expected

    return read


def manifests(draw: random.Random, valid: bool, folder: Path) -> Try:
    place = folder / "data"
    if not place.exists():
        tiny_dataset().save(place)
        (folder / "manifest.json").write_bytes((place / "manifest.json").read_bytes())
    told = json.loads((folder / "manifest.json").read_bytes())
    content = as_json(draw, shuffled(draw, told if valid else changed(draw, told)))
    (place / "manifest.json").write_bytes(content if valid or draw.random() < 0.5 else mutated(draw, content))
    expected = tiny_dataset()

    def read() -> bool:
        data = Dataset.open(place)
        return DataFacts.of(data) == DataFacts.of(expected) and data.name == "tiny"

    return read


def results(draw: random.Random, valid: bool, folder: Path) -> Try:
    store = Store(str(folder / "store"))
    rows = pd.DataFrame({"seed": range(draw.randint(1, 4)), "accuracy": draw.random(), "reading": ""})
    info = {
        "sweep": "grid",
        "study": "grid-01234567",
        "title": "t",
        "exhibits": ["table1"],
        "datasets": {},
        "plan": {"x": [1, 2.5]},
    }
    empty = {name: pd.DataFrame() for name in ("controls", "references", "entropies", "contributions", "factors")}
    Results(rows, **empty, modalities=pd.DataFrame(), missing=pd.DataFrame(), info=info).save(store)
    name = "info.json" if valid or draw.random() < 0.7 else "rows.parquet"
    content = store.read("results", "grid-01234567", name)
    if name == "info.json":
        told = json.loads(content)
        content = as_json(draw, shuffled(draw, told if valid else changed(draw, told)))
    if not valid and (name != "info.json" or draw.random() < 0.5):
        content = mutated(draw, content)
    store.write(content, "results", "grid-01234567", name)

    def read() -> bool:
        found = Results.load(store)
        assert {key: entry for key, entry in found.info.items() if key != "files"} == info
        return found.rows.equals(rows) and found.controls.empty

    return read


def ledgers(draw: random.Random, valid: bool, folder: Path) -> Try:
    """What a call keeps, as `s3ray status` and `s3ray logs` read it."""
    store = Store(str(folder / "store"))
    store.drop("runs")
    plan = tiny_sweep.tiny_plan(store, seeds=2)
    run, ledger = calls.begun(store, plan)
    cell = plan.cells[0]
    ledger.error(cell, calls.attempted(ledger, cell), "OSError: disk", "Traceback:")
    ledger.note("pack-000", "ActorDiedError: the worker died")
    ledger.fail(cell, "OSError: disk")
    ledger.end()
    if valid:
        tables = [("plan.json",), ("attempts", cell.identity, "000001")]
        for place in tables:
            told = json.loads(store.read("runs", run, *place))
            store.write(as_json(draw, shuffled(draw, told)), "runs", run, *place)
    else:
        victim = draw.choice(sorted(filter(Path.is_file, (folder / "store" / "runs" / run).rglob("*"))))
        content = victim.read_bytes()
        is_table = victim.name == "plan.json" or victim.parent.parent.name == "attempts"
        as_table = is_table and draw.random() < 0.5
        victim.write_bytes(as_json(draw, changed(draw, json.loads(content))) if as_table else mutated(draw, content))

    def read() -> bool:
        (call,) = Watch(store).look()
        lines = explained(store, str(cell.cell))
        assert all(isinstance(line, str) for line in lines)
        return call.failed == {str(cell.cell): "OSError: disk"} and any("attempt 1: " in line for line in lines)

    return read


def exported(draw: random.Random, valid: bool, folder: Path) -> Try:
    """A model of two modalities, the order of whose columns is not that of a table's keys."""
    place, shape = folder / "model", ModelConfig(width=8, layers=1, granularity=2, expansion=2, ffn_multiple=2)
    model, generator = build_model(shape, {"left": 3, "b": 2}, seed=0), torch.Generator().manual_seed(0)
    weights = safetensors.save(model.state_dict())
    ratio = draw.choice([0.0, 0.4, 1.0])
    scaled = draw.random() < 0.5
    told = {
        "format": "s3ray model",
        "version": 1,
        "model": document(shape),
        "modalities": [
            {"name": "left", "features": 3, "mean": [0.0] * 3 if scaled else None, "deviation": [1.0, 1.0, 1.0]}
            | {"most_steps": draw.choice([None, 4]), "padded_steps": None},
            {"name": "b", "features": 2, "mean": None, "deviation": None, "most_steps": None, "padded_steps": None},
        ],
        "limit": 5.0,
        "missing": draw.choice(["declared", "zeros"]),
        "on_sphere": True,
        "pruning": {"ratio": ratio, "scope": draw.choice(["layer", "model"])}
        | {"thresholds": {"b": [0.2], "left": [0.2]} if ratio == 0.4 else {}},
        "files": {"model.safetensors": hashlib.sha256(weights).hexdigest()},
    }
    content = as_json(draw, shuffled(draw, signed(told if valid else changed(draw, told))))
    place.mkdir(exist_ok=True)
    (place / "config.json").write_bytes(content if valid or draw.random() < 0.5 else mutated(draw, content))
    (place / "model.safetensors").write_bytes(weights if valid or draw.random() < 0.7 else mutated(draw, weights))
    batch = {name: torch.randn(2, 3, width, generator=generator) for name, width in (("left", 3), ("b", 2))}

    def read() -> bool:
        z = load_model(place)(batch)
        pruning = ThresholdPruning(ratio=ratio, pool=1, least={"left": [0.2], "b": [0.2]}) if ratio < 1.0 else None
        ragged = {name: Ragged(x.flatten(0, 1), torch.tensor([3, 3])) for name, x in batch.items()}
        return torch.equal(z, model.encode(ragged, pruning=pruning).joined(on_sphere=True))

    return read


READERS: Mapping[str, Reader] = {
    "npz": npz,
    "pickle": pickles,
    "toml": toml,
    "command line": command_line,
    "markers": markers,
    "manifests": manifests,
    "results": results,
    "ledgers": ledgers,
    "exported": exported,
}


def _try(name: str, number: int, folder: Path) -> bool:
    """Whether the value was right; UserError in one line is as good where the input is not valid."""
    draw, valid = random.Random(f"{SEED} {name} {number}"), number % 2 == 0
    read = READERS[name](draw, valid, folder)
    try:
        right = read()
    except UserError as error:
        return not valid and str(error).isprintable()
    return right or not valid


def _assert_all_hold(name: str, count: int, folder: Path) -> None:
    wrong = []
    for number in range(count):
        try:
            if not _try(name, number, folder):
                wrong.append(f"{number}: a valid variation is refused or read as another value")
        except Exception as error:
            wrong.append(f"{number}: {type(error).__name__}: {error}")
    assert wrong == [], f"{len(wrong)} of {count} with seed {SEED}"


@pytest.mark.parametrize(("name", "count"), [(name, 20 if name == "command line" else 200) for name in READERS])
def test_a_few_hundred_inputs(name: str, count: int, tmp_path: Path) -> None:
    _assert_all_hold(name, count, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("name", READERS)
def test_ten_thousand_inputs(name: str, tmp_path: Path) -> None:
    _assert_all_hold(name, 10_000, tmp_path)
