"""Configuration: one frozen dataclass per concern, resolved per (scale, dataset).

Everything here is data. A scale is a switch on the same settings, never another code path; whatever
the paper leaves open is a named field with a default, marked *(ours)* in its comment.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from s3ray.errors import UserError, nearest
from s3ray.paths import local_path

Positions = Literal["none", "sinusoidal"]
Activation = Literal["identity", "gelu", "tanh"]
Views = Literal["same", "dropout"]
# What a trained model is probed as: for S3 a Selection variant, for FactorCL its embeddings or its projections.
Branch = Literal["none", "suff+min", "suff", "min", "emb", "proj"]
# How encoders are trained: S3's Specialization, the prior methods of Table 2, and two that use labels throughout.
Method = Literal["s3", "clip", "factorcl", "focal", "jointopt", "disentangledssl", "supcon", "cross_entropy"]
PRESERVATION_RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def method_branches(method: Method) -> tuple[Branch, ...]:
    """What a prior method's encoders are probed as."""
    return ("emb", "proj") if method == "factorcl" else ("none",)


# What a float32 holds without losing digits, and what checkpoints, tables and libraries hold of integers.
_SMALLEST, _LARGEST = 1.2e-38, 3.4e38
_MANY = 2**31 - 1
_LARGEST_SEED = 2**63 - 1
_MOST_PARAMETERS = 10**11


def _whole(config: Any, *names: str) -> None:
    for name in names:
        if not 1 <= getattr(config, name) <= _MANY:
            raise UserError(f"{name} {getattr(config, name)} must lie between 1 and {_MANY}; correct it")


def _not_negative(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) >= 0:
            raise UserError(f"{name} {getattr(config, name)} is negative; give 0 or more")


def _positive(config: Any, **examples: float) -> None:
    for name, example in examples.items():
        if not getattr(config, name) > 0:
            raise UserError(f"{name} {getattr(config, name)} must be positive; try {example:g}")


def _listed(config: Any, *names: str) -> None:
    """Lists that are fanned out over: one entry or more, each once."""
    for name in names:
        values = getattr(config, name)
        if not values:
            raise UserError(f"{name} is empty; give one or more, or leave it out for the scale's own")
        for value in values:
            if values.count(value) > 1:
                raise UserError(f"{name} {list(values)} has {value} more than once; give each once")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One encoder per modality; the parameter counts of the paper's Tables 4 and 5 fix this shape."""

    width: int = 256
    layers: int = 5
    granularity: int = 8  # χ = FFN width / expert width (Eq. 21); top-k = χ
    expansion: int = 8  # ρ (Eq. 22)
    ffn_multiple: int = 4
    heads: int = 8  # (ours)
    positions: Positions = "none"  # (ours) parameter-free, added after the input projection
    router_activation: Activation = "identity"  # (ours) between the router's two linear maps
    dropout: float = 0.0  # (ours) on the residual branches; needed by views="dropout"

    def __post_init__(self) -> None:
        _whole(self, "width", "layers", "granularity", "expansion", "ffn_multiple", "heads")
        if self.ffn_width % self.granularity:
            raise UserError(
                f"granularity {self.granularity} does not divide the FFN width {self.ffn_width}; "
                f"choose a divisor such as 2, 4 or 8"
            )
        if self.width % 4 or self.expert_width % 4:
            raise UserError(
                f"width {self.width} and expert width {self.expert_width} must be multiples of 4 "
                f"for the grouped matrix product; raise width or lower granularity"
            )
        if self.width % self.heads:
            raise UserError(f"heads {self.heads} does not divide width {self.width}; choose a divisor")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"dropout {self.dropout} is outside [0, 1); choose a fraction")
        if (parameters := 2 * self.layers * self.expansion * self.width * self.ffn_width) > _MOST_PARAMETERS:
            raise UserError(
                f"width {self.width}, layers {self.layers}, expansion {self.expansion} and ffn_multiple "
                f"{self.ffn_multiple} make {parameters:.0e} parameters per encoder, more than a worker holds; "
                f"lower them"
            )

    @property
    def ffn_width(self) -> int:
        return self.ffn_multiple * self.width

    @property
    def expert_width(self) -> int:
        return self.ffn_width // self.granularity

    @property
    def experts(self) -> int:
        return self.expansion * self.granularity

    @property
    def top_k(self) -> int:
        return self.granularity


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay to zero. All of it (ours): the paper names none."""

    epochs: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup: float = 0.05  # share of the steps
    gradient_clip: float = 1.0  # largest global norm

    def __post_init__(self) -> None:
        _whole(self, "epochs")
        if not 0.0 <= self.warmup < 1.0:
            raise UserError(f"warmup {self.warmup} is outside [0, 1); give a share of the steps")
        _positive(self, learning_rate=1e-3, gradient_clip=1.0)
        _not_negative(self, "weight_decay")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecializationConfig:
    """Weights of Eqs. 27 and 93."""

    optimizer: OptimizerConfig = OptimizerConfig(epochs=100, learning_rate=1e-4)
    temperature: float = 0.1
    lambda_rep: float = 1.0
    lambda_dsc: float = 1.0
    lambda_aux: float = 0.02
    lambda_imp: float = 1.0
    lambda_load: float = 1.0
    lambda_local: float = 1.0
    lambda_global: float = 1.0
    views: Views = "same"  # "same" as printed in Eq. 25; "dropout": two stochastic passes (ours)

    def __post_init__(self) -> None:
        _positive(self, temperature=0.1)
        _not_negative(self, *(f.name for f in dataclasses.fields(self) if f.name.startswith("lambda_")))


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionConfig:
    """Weights of Eq. 33; a branch switches its two terms on and off (Table 3)."""

    optimizer: OptimizerConfig = OptimizerConfig(epochs=50, learning_rate=1e-3)
    temperature: float = 0.1
    lambda_suff: float = 1.0
    lambda_min: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, temperature=0.1)
        _not_negative(self, "lambda_suff", "lambda_min")

    def for_branch(self, branch: Branch) -> SelectionConfig:
        """The same settings with the terms the branch leaves out at weight 0."""
        return dataclasses.replace(
            self,
            lambda_suff=self.lambda_suff if "suff" in branch else 0.0,
            lambda_min=self.lambda_min if "min" in branch else 0.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsificationConfig:
    """The pool of (token, expert) pairs that is ranked is one evaluation batch, per layer and modality."""

    ratios: tuple[float, ...] = PRESERVATION_RATIOS
    batch_size: int = 256

    def __post_init__(self) -> None:
        _listed(self, "ratios")
        if not all(0.0 <= p <= 1.0 for p in self.ratios) or 1.0 not in self.ratios or len(self.ratios) < 2:
            raise UserError(
                f"ratios {list(self.ratios)} must lie in [0, 1], and hold 1.0 and at least one smaller; try 1.0 … 0.1"
            )
        _whole(self, "batch_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """scikit-learn logistic regression on the standardised representations of both modalities."""

    inverse_regularization: float = 1.0
    max_iterations: int = 1000
    on_sphere: bool = True  # (ours) probe the l2-normalised z that the losses see

    def __post_init__(self) -> None:
        _whole(self, "max_iterations")
        _positive(self, inverse_regularization=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineConfig:
    """What the prior methods of Table 2 need beside Specialization's optimizer, which is their budget too."""

    temperature: float = 0.07
    critic_width: int = 512  # FactorCL: hidden units of a critic
    orthogonality: float = 1.0  # λ of FOCAL, DisentangledSSL and JointOpt
    private_weight: float = 1.0  # a of FOCAL and JointOpt
    alignment: float = 1.0  # β of DisentangledSSL
    concentration: float = 1000.0  # κ of DisentangledSSL's von Mises-Fisher noise

    def __post_init__(self) -> None:
        _whole(self, "critic_width")
        _positive(self, temperature=0.07, concentration=1000.0)
        _not_negative(self, "orthogonality", "private_weight", "alignment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a (scale, dataset) pair fixes; a cell adds method, χ, batch size and seed."""

    model: ModelConfig = ModelConfig()
    specialization: SpecializationConfig = SpecializationConfig()
    selection: SelectionConfig = SelectionConfig()
    sparsification: SparsificationConfig = SparsificationConfig()
    probe: ProbeConfig = ProbeConfig()
    baseline: BaselineConfig = BaselineConfig()
    # What the grids fan out over. A finished grid grows by adding to these: only what is new runs.
    granularities: tuple[int, ...] = (2, 4, 8)
    seeds: tuple[int, ...] = (0, 1, 2)
    # Of Figure 3 and the full grid. The first is that of all other artefacts (ours): the paper names none.
    batch_sizes: tuple[int, ...] = (256, 64, 128, 512)
    margin: float = 1.5  # points of accuracy within which a result counts as equal to the paper's (ours)

    def __post_init__(self) -> None:
        _listed(self, "granularities", "seeds", "batch_sizes")
        _not_negative(self, "margin")
        if min(self.seeds) < 0 or max(self.seeds) > _LARGEST_SEED:
            raise UserError(f"seeds {list(self.seeds)} must lie between 0 and 2^63 - 1; choose others")
        if self.specialization.views == "dropout" and self.model.dropout == 0.0:
            raise UserError("specialization.views 'dropout' needs two passes that differ; set model.dropout above 0")

    def for_granularity(self, granularity: int) -> Settings:
        return dataclasses.replace(self, model=dataclasses.replace(self.model, granularity=granularity))

    def for_cell(self, cell: Cell) -> Settings:
        """The cell's granularity; for a prior method a dense model of as many active parameters."""
        settings = self.for_granularity(cell.granularity)
        if cell.method == "s3":
            return settings
        return dataclasses.replace(settings, model=dataclasses.replace(settings.model, expansion=1))


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """One point of the grid. Its encoders are trained once; its branches share them.

    A prior method's encoders are dense: granularity 1.
    """

    dataset: str
    method: Method = "s3"
    granularity: int
    batch_size: int
    seed: int
    scale: str

    def __str__(self) -> str:
        kind = f"χ={self.granularity}" if self.method == "s3" else self.method
        return f"{self.dataset} {kind} batch={self.batch_size} seed={self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Settings for any dataset, with presets for those that need their own."""

    base: Mapping[str, Any]
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_T = TypeVar("_T")


def override(instance: _T, changes: Mapping[str, Any], where: str) -> _T:
    """A copy of a (nested) dataclass with `changes` applied.

    Raises UserError for a field that does not exist, a value of the wrong type or out of range; `where` names the
    file or table the changes came from.
    """
    return _replaced(instance, _typed(type(instance), changes, where), lambda path: where)


def _replaced(instance: _T, changes: Mapping[str, Any], where: Callable[[Sequence[str]], str], *path: str) -> _T:
    """`instance` with changes of the right types; `where` tells for the path of a table where it came from."""
    fields = {
        name: _replaced(getattr(instance, name), value, where, *path, name) if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
    try:
        changed: _T = dataclasses.replace(cast(Any, instance), **fields)
    except UserError as error:
        raise UserError(f"{where(path)}: {_dotted(*path)}{error}") from None
    return changed


def _dotted(*path: str) -> str:
    return f"{'.'.join(path)}: " if path else ""


def _typed(root: type, changes: Mapping[str, Any], where: str, *path: str) -> dict[str, Any]:
    """`changes` as the fields of a dataclass take them; `path` leads from `root` to it."""
    hints = get_type_hints(reduce(lambda kind, name: get_type_hints(kind)[name], path, root))
    fields: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in hints:
            remedy = _where_it_belongs(name, value, root, hints)
            raise UserError(f"{where}: {_dotted(*path)}unknown field {name!r}; {remedy}")
        if not dataclasses.is_dataclass(hints[name]):
            fields[name] = _coerced(hints[name], value, f"{where}: {'.'.join([*path, name])}")
        elif isinstance(value, Mapping):
            fields[name] = _typed(root, value, where, *path, name)
        else:
            raise UserError(f"{where}: {_dotted(*path)}{name!r} must be a table of fields, not {_shown(value)}")
    return fields


def _where_it_belongs(name: str, value: Any, root: type, hints: Mapping[str, Any]) -> str:
    """The remedy for a field that a table does not have: a near name, or the table that has it."""
    if root is Settings and isinstance(value, Mapping) and value and set(value) <= get_type_hints(Settings).keys():
        return f"settings of one dataset stand in [dataset.{name}]"
    if not difflib.get_close_matches(name, hints, n=1, cutoff=0.5) or name in {path[-1] for path in _paths(root)}:
        every = list(_paths(root))
        (close,) = difflib.get_close_matches(name, {path[-1] for path in every}, n=1, cutoff=0.75) or [""]
        found = [".".join(path) + (", above the first [table]" if len(path) == 1 else "") for path in every]
        near = [text for text, path in zip(found, every, strict=True) if path[-1] == close]
        if near:
            here = difflib.get_close_matches(name, hints, n=1, cutoff=0.75)
            return f"did you mean {' or '.join(dict.fromkeys([*here, *near]))}?"
    return nearest(name, hints)


def _paths(kind: type, *path: str) -> Iterator[tuple[str, ...]]:
    """Every field below a dataclass, tables included."""
    for name, hint in get_type_hints(kind).items():
        yield (*path, name)
        if dataclasses.is_dataclass(hint):
            yield from _paths(cast(type, hint), *path, name)


_TOML = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", tuple: "an array"}


def _coerced(hint: Any, value: Any, at: str) -> Any:
    kind = get_origin(hint) or hint
    if kind is Literal:
        if value not in get_args(hint):
            raise UserError(f"{at}: unknown value {_shown(value)}; {nearest(str(value), get_args(hint))}")
        return value
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(_coerced(get_args(hint)[0], item, at) for item in value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{at}: {value} is not finite; give a number")
        if value and not _SMALLEST <= abs(value) <= _LARGEST:
            raise UserError(f"{at}: {_shown(value)} is beyond what a float32 holds; give 0 or 1.2e-38 to 3.4e38")
        return float(value)
    if type(value) is not kind:
        one = kind is tuple and type(value) is get_args(hint)[0]
        remedy = f"write [{_shown(value)}]" if one else "correct the value"
        raise UserError(f"{at}: expected {_TOML[kind]}, got {_shown(value)}; {remedy}")
    return value


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else reprlib.repr(value)


# The paper's architecture and grids. Epochs and learning rates are open in the paper.
_PAPER = Scale(
    base={},
    presets={
        # 414 training samples: a batch of 512 does not exist, and 384 stands for it.
        "mustard": {"model": {"width": 128}, "batch_sizes": (128, 64, 256, 384)},
        "digits": {"model": {"positions": "sinusoidal"}},
        "latent_factors": {"model": {"positions": "sinusoidal"}},
    },
)

# The same configuration, small enough for two cores. Chosen on validation accuracy (docs/decisions.md).
_SMOKE = Scale(
    base={
        "model": {"width": 32, "layers": 2, "heads": 1},
        "specialization": {
            "optimizer": {"epochs": 8, "learning_rate": 5e-3, "warmup": 0.1},
            "temperature": 0.2,
            "lambda_local": 0.3,
        },
        "selection": {"optimizer": {"epochs": 6, "learning_rate": 8e-3, "warmup": 0.1}, "temperature": 0.5},
        "baseline": {"temperature": 0.2, "critic_width": 64, "orthogonality": 0.01},
        "batch_sizes": (64, 128),
    },
    presets={
        "digits": {"model": {"positions": "sinusoidal"}, "probe": {"inverse_regularization": 0.05}},
        "latent_factors": {
            "specialization": {"optimizer": {"epochs": 6, "learning_rate": 4e-3}, "lambda_local": 2.0},
            "selection": {"optimizer": {"learning_rate": 3e-3}},
        },
    },
)

SCALES: Mapping[str, Scale] = MappingProxyType({"paper": _PAPER, "smoke": _SMOKE})

# The paper's datasets default to its scale; everything else to the scale that a laptop finishes.
PAPER_DATASETS = ("mosei", "mosi", "ur_funny", "mustard")


def default_scale(dataset: str) -> str:
    return "paper" if dataset in PAPER_DATASETS else "smoke"


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables united; where both have a value, the second's."""
    both = {
        key: merged(first[key], value) if isinstance(value, Mapping) and isinstance(first.get(key), Mapping) else value
        for key, value in second.items()
    }
    return {**first, **both}


def settings_for(
    dataset: str, scale: str, overrides: Mapping[str, Any] | None = None, source: str = "--config"
) -> Settings:
    """Resolve the settings of a dataset at a scale.

    Args:
        dataset: name, as in `--datasets` or `--dataset NAME=PATH`.
        scale: a key of SCALES.
        overrides: the content of a `--config` file: tables named as the fields of Settings, and
            `[dataset.NAME.…]` for one dataset alone.
        source: what complaints call `overrides`.

    Raises:
        UserError: unknown scale or field, or a value its field refuses.
    """
    if scale not in SCALES:
        raise UserError(f"--scale: unknown scale {scale!r}; {nearest(scale, SCALES)}")
    given = dict(overrides or {})
    # Those of other datasets may be for another call; what they say is looked at all the same.
    tables = {
        name: _typed(Settings, table, f"{source} [dataset.{name}]") for name, table in given.pop("dataset", {}).items()
    }
    settings = override(Settings(), SCALES[scale].base, f"scale {scale}")
    settings = override(settings, SCALES[scale].presets.get(dataset, {}), f"scale {scale}, {dataset}")
    general, special = _typed(Settings, given, source), tables.get(dataset, {})

    def where(path: Sequence[str]) -> str:
        """Whose values a table that does not hold together has; together, so that each may complete the other."""
        table: Any = reduce(lambda t, name: t.get(name, {}), path, special)
        return f"{source} [dataset.{dataset}]" if table else source

    return _replaced(settings, merged(general, special), where)


def read_overrides(path: Path | str) -> dict[str, Any]:
    """Read a `--config` TOML file, a path or a URI; UserError if it is missing or is not TOML."""
    at = f"--config {path}"
    if not str(path).strip():
        raise UserError("--config: is empty; name a TOML file, or leave the option out")
    try:
        content = _read(str(path))
        if len(content) > _LARGEST_FILE:
            raise UserError(f"{at}: is larger than {_LARGEST_FILE // 2**20} MB, which no settings are; check the path")
        overrides = tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise UserError(f"{at}: cannot be read ({reason}); check the path") from error
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # not TOML, not text, an integer of thousands of digits
        reason = "a key stands twice: " if "overwrite" in str(error) else ""
        raise UserError(f"{at}: not valid TOML ({reason}{error}); correct the file") from error
    tables = overrides.get("dataset", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UserError(f"{at}: dataset must hold tables [dataset.NAME.…], not {_shown(tables)}; correct the file")
    return overrides


_LARGEST_FILE = 2**20  # bytes; what is read of a file at most


def _read(path: str) -> bytes:
    content: bytes
    if "://" in path:
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem

        try:
            filesystem, name = FileSystem.from_uri(path)
            with filesystem.open_input_stream(name) as stream:
                content = stream.read(_LARGEST_FILE + 1)
        except (ArrowException, ValueError) as error:
            raise OSError(str(error)) from error
        return content
    with local_path(path, "--config").open("rb") as file:
        return file.read(_LARGEST_FILE + 1)
