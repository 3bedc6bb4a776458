"""Configuration: one frozen dataclass per concern, resolved per (scale, dataset).

Everything here is data. A scale is a switch on the same settings, never another code path; whatever
the paper leaves open is a named field with a default, marked *(ours)* in its comment.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

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


class UserError(ValueError):
    """Bad input. One sentence that says what is wrong, where, and what to do about it."""


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The sentence's remedy for a mistyped name: the closest candidate first, then all of them."""
    names = sorted(candidates)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    suggestion = f"did you mean {close[0]!r}? " if close else ""
    return f"{suggestion}known: {', '.join(names)}"


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
        for name in ("width", "layers", "granularity", "expansion", "ffn_multiple", "heads"):
            if getattr(self, name) < 1:
                raise UserError(f"model: {name} {getattr(self, name)} is below 1; choose a positive number")
        if self.ffn_width % self.granularity:
            raise UserError(
                f"model: granularity {self.granularity} does not divide the FFN width {self.ffn_width}; "
                f"choose a divisor such as 2, 4 or 8"
            )
        if self.width % 4 or self.expert_width % 4:
            raise UserError(
                f"model: width {self.width} and expert width {self.expert_width} must be multiples of 4 "
                f"for the grouped matrix product; raise width or lower granularity"
            )
        if self.width % self.heads:
            raise UserError(f"model: heads {self.heads} does not divide width {self.width}; choose a divisor")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"model: dropout {self.dropout} is outside [0, 1); choose a fraction")

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
        if self.epochs < 1:
            raise UserError(f"optimizer: epochs {self.epochs} is below 1; train for at least one")
        if self.learning_rate <= 0:
            raise UserError(f"optimizer: learning_rate {self.learning_rate} must be positive; try 1e-3")
        if not 0.0 <= self.warmup < 1.0:
            raise UserError(f"optimizer: warmup {self.warmup} is outside [0, 1); give a share of the steps")
        if self.gradient_clip <= 0:
            raise UserError(f"optimizer: gradient_clip {self.gradient_clip} must be positive; try 1.0")


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
        if self.temperature <= 0:
            raise UserError(f"specialization: temperature {self.temperature} must be positive; try 0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionConfig:
    """Weights of Eq. 33; a branch switches its two terms on and off (Table 3)."""

    optimizer: OptimizerConfig = OptimizerConfig(epochs=50, learning_rate=1e-3)
    temperature: float = 0.1
    lambda_suff: float = 1.0
    lambda_min: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UserError(f"selection: temperature {self.temperature} must be positive; try 0.1")

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
        inside = all(0.0 <= p <= 1.0 for p in self.ratios)
        if not inside or 1.0 not in self.ratios or len(set(self.ratios)) < max(2, len(self.ratios)):
            raise UserError(
                f"sparsification: ratios {self.ratios} must be distinct, lie in [0, 1], and hold 1.0 and at least "
                f"one smaller; try 1.0 … 0.1"
            )
        if self.batch_size < 1:
            raise UserError(f"sparsification: batch_size {self.batch_size} is below 1; try 256")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """scikit-learn logistic regression on the standardised representations of both modalities."""

    inverse_regularization: float = 1.0
    max_iterations: int = 1000
    on_sphere: bool = True  # (ours) probe the l2-normalised z that the losses see

    def __post_init__(self) -> None:
        if self.inverse_regularization <= 0 or self.max_iterations < 1:
            raise UserError(
                f"probe: inverse_regularization {self.inverse_regularization} and max_iterations "
                f"{self.max_iterations} must be positive; try 1.0 and 1000"
            )


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
        for name in ("temperature", "critic_width", "concentration"):
            if getattr(self, name) <= 0:
                raise UserError(f"baseline: {name} {getattr(self, name)} must be positive; see the defaults")


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

    Raises UserError for a field that does not exist or a value of the wrong type; `where` names the
    file or table the changes came from.
    """
    hints = get_type_hints(type(instance))
    fields: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in hints:
            raise UserError(f"{where}: unknown field {name!r}; {nearest(name, hints)}")
        current = getattr(instance, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, Mapping):
                raise UserError(f"{where}: {name!r} must be a table of fields, not {value!r}")
            fields[name] = override(current, value, f"{where}.{name}")
        elif get_origin(hints[name]) is Literal and value not in get_args(hints[name]):
            raise UserError(f"{where}.{name}: unknown value {value!r}; {nearest(str(value), get_args(hints[name]))}")
        else:
            fields[name] = _coerce(current, value, f"{where}.{name}")
    changed: _T = dataclasses.replace(cast(Any, instance), **fields)
    return changed


def _coerce(current: Any, value: Any, where: str) -> Any:
    if isinstance(current, tuple) and isinstance(value, list | tuple):
        return tuple(_coerce(current[0], item, where) for item in value)
    if isinstance(current, float) and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise UserError(f"{where}: {value} is not finite; give a number")
        return float(value)
    if type(current) is not type(value):
        raise UserError(f"{where}: expected {type(current).__name__}, got {value!r}; correct the value")
    return value


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


def settings_for(dataset: str, scale: str, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Resolve the settings of a dataset at a scale.

    Args:
        dataset: name, as in `--datasets` or `--dataset NAME=PATH`.
        scale: a key of SCALES.
        overrides: the content of a `--config` file: tables named as the fields of Settings, and
            `[dataset.NAME.…]` for one dataset alone.

    Raises:
        UserError: unknown scale or field, or a value its field refuses.
    """
    if scale not in SCALES:
        raise UserError(f"--scale: unknown scale {scale!r}; {nearest(scale, SCALES)}")
    changes = dict(overrides or {})
    per_dataset = changes.pop("dataset", {})
    settings = override(Settings(), SCALES[scale].base, f"scale {scale}")
    settings = override(settings, SCALES[scale].presets.get(dataset, {}), f"scale {scale}, {dataset}")
    settings = override(settings, changes, "--config")
    return override(settings, per_dataset.get(dataset, {}), f"--config dataset.{dataset}")


def read_overrides(path: Path | str) -> dict[str, Any]:
    """Read a `--config` TOML file, a path or a URI; UserError if it is missing or is not TOML."""
    try:
        overrides = tomllib.loads(_read(path).decode())
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise UserError(f"--config {path}: cannot be read ({reason}); check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: not valid TOML ({error}); correct the file") from error
    tables = overrides.get("dataset", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise UserError(f"--config {path}: dataset must hold tables [dataset.NAME.…], not {tables!r}; correct the file")
    return overrides


def _read(path: Path | str) -> bytes:
    if isinstance(path, str) and "://" in path:
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem

        try:
            filesystem, name = FileSystem.from_uri(path)
            content: bytes = filesystem.open_input_stream(name).read()
        except ArrowException as error:
            raise OSError(str(error)) from error
        return content
    return Path(path).read_bytes()
