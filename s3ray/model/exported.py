"""A trained model in a folder of its own: reading and running it needs torch and safetensors alone.

    model.safetensors   the encoders' weights
    README.md           its card, for people
    config.json         all else that it takes to encode a sample, where it comes from, the sha256 of the other two

`s3ray export` writes it (`s3ray/api/export.py`).

Shape suffixes: B samples, S steps, T valid tokens, F input features, D width.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor, nn

from s3ray.configuration import MANY, document, restored
from s3ray.digests import digest_of
from s3ray.errors import UserError, nearest
from s3ray.model.batch import Ragged
from s3ray.model.config import ModelConfig
from s3ray.model.encoder import S3Model
from s3ray.model.pruning import Pruning, Scope, ThresholdPruning
from s3ray.paths import local_path

FORMAT, VERSION = "s3ray model", 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


@dataclass(frozen=True, slots=True)
class Input:
    """How a modality's samples become what its encoder reads.

    Attributes:
        features: width.
        mean_F, deviation_F: what brings features to mean 0 and deviation 1, float32; None: they stay as they are. A
            deviation is infinite where training held the feature constant.
        most_steps: longer sequences are subsampled to so many steps.
        padded_steps: sequences are padded with zeros to so many steps, which are routed.
    """

    features: int
    mean_F: Tensor | None
    deviation_F: Tensor | None
    most_steps: int | None
    padded_steps: int | None

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Input:
        """What config.json says of a modality; ValueError and the like for what it never says."""
        given = (plain["most_steps"], plain["padded_steps"])
        steps = [count for count in given if count is not None]
        if any(type(count) is not int or count < 1 for count in (plain["features"], *steps)):
            raise ValueError
        if plain["features"] * max(steps, default=1) > MANY:  # of a sample that nobody has
            raise ValueError
        mean_F = deviation_F = None
        if plain["mean"] is not None:
            mean_F = torch.tensor(plain["mean"], dtype=torch.float32)
            deviation = [math.inf if own is None else own for own in plain["deviation"]]
            deviation_F = torch.tensor(deviation, dtype=torch.float32)
            if not mean_F.shape == deviation_F.shape == (plain["features"],):
                raise ValueError
        return cls(plain["features"], mean_F, deviation_F, *given)


class ExportedModel(nn.Module):
    """A trained model as a module of torch: `module(batch)`; `to(device)` moves it.

    Attributes:
        config: what config.json says, where the model comes from included.
        encoders: of all modalities.
        ratio: p, the share of (token, expert) pairs that is kept.
    """

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.config = config
        # A list, since its order is that of the columns, and JSON's tables have none.
        self._inputs = {plain["name"]: Input.of(plain) for plain in config["modalities"]}
        shape = restored(ModelConfig, config["model"])
        if document(shape) != config["model"] or len(self._inputs) != len(config["modalities"]):
            raise ValueError
        # Of made-up numbers of layers none is built that the weights do not have.
        attentions = sum(name.endswith(".attention.qkv.weight") for name in weights)
        if attentions != shape.layers * len(self._inputs) or {w.dtype for w in weights.values()} != {torch.float32}:
            raise ValueError
        with torch.device("meta"):
            self.encoders = S3Model(shape, {name: own.features for name, own in self._inputs.items()})
        self.encoders.load_state_dict(dict(weights), assign=True)
        pruning = config["pruning"]
        self._scope, least = pruning["scope"], pruning["thresholds"]
        self._thresholds = ThresholdPruning(ratio=pruning["ratio"], pool=1, least=least)
        wanted = dict.fromkeys(self._inputs, shape.layers) if 0.0 < self.ratio < 1.0 else {}
        numbers = [self.ratio, config["limit"], *(value for own in least.values() for value in own)]
        if not (
            {name: len(own) for name, own in least.items()} == wanted
            and all(type(number) is float and 0.0 <= number < math.inf for number in numbers)
            and self._scope in get_args(Scope)
            and config["missing"] in ("declared", "zeros")
            and isinstance(config["on_sphere"], bool)
        ):
            raise ValueError

    @property
    def ratio(self) -> float:
        return self._thresholds.ratio

    @property
    def modalities(self) -> tuple[str, ...]:
        """In the order of the columns of a representation."""
        return tuple(self._inputs)

    def forward(self, batch: Mapping[str, Any], *, ranked: bool = False) -> Tensor:
        """Represent samples, given as they were before the sweep standardised, cut or padded them.

        Args:
            batch: per modality (B, F), (B, S, F), B tensors (S, F) of different lengths, 0 where the sample lacks the
                modality, or `Ragged`; tensors, or what `torch.as_tensor` takes. Other modalities are left aside.
            ranked: prune as the sweep did, by rank among the pairs of this batch: a sample's representation then
                depends on its companions. Else by the fixed thresholds of config.json, and it does not.

        Returns:
            (B, D), the modalities' representations side by side.

        Raises:
            UserError: a modality is not given, has another width or values that are not finite; samples differ in
                number; one lacks every modality.
        """
        parameter = next(self.parameters())
        samples = {name: self._samples(name, batch) for name in self._inputs}
        if len({len(own) for own in samples.values()}) > 1 or not next(iter(samples.values())):
            found = ", ".join(f"{len(own)} of {name}" for name, own in samples.items())
            raise UserError(f"batch: holds {found}; give every modality the same samples, one or more")
        for sample, own in enumerate(zip(*samples.values(), strict=True)):
            if not any(len(x_SF) for x_SF in own):
                raise UserError(f"batch: sample {sample} has none of {', '.join(samples)}; drop it")
        ragged = {}
        for name, own in samples.items():
            lengths_B = torch.tensor([len(x_SF) for x_SF in own])
            ragged[name] = Ragged(torch.cat(own), lengths_B).to(parameter.device, parameter.dtype)
        pruning: Pruning | None = self._thresholds if self.ratio < 1.0 else None
        if pruning and ranked:
            pruning = Pruning(ratio=self.ratio, pool=len(lengths_B), scope=self._scope)
        return self.encoders.encode(ragged, pruning=pruning).joined(self.config["on_sphere"])

    def _samples(self, name: str, batch: Mapping[str, Any]) -> list[Tensor]:
        """A modality's samples (S, F) as its encoder reads them."""
        if name not in batch:
            raise UserError(f"batch: lacks modality {name!r}, which the model encodes; {nearest(name, batch)}")
        given, kind = batch[name], self._inputs[name]
        if isinstance(given, Ragged):
            given = given.values_TF.split(given.lengths_B.tolist())
        samples = [torch.as_tensor(x, dtype=torch.float32) for x in given]
        samples = [x[None] if x.ndim == 1 and len(x) else x for x in samples]
        for x_SF in samples:
            if x_SF.ndim != 2 or x_SF.shape[1] != kind.features:
                raise UserError(
                    f"batch: a sample of {name} has the shape {tuple(x_SF.shape)}, the model was trained with "
                    f"{kind.features} features; give (steps, {kind.features})"
                )
        if not all(bool(x_SF.isfinite().all()) for x_SF in samples):
            raise UserError(f"batch: {name} has values that are not finite; replace them")
        return [self._known(name, x_SF, kind) for x_SF in samples]

    def _known(self, name: str, x_SF: Tensor, kind: Input) -> Tensor:
        """A sample as the sweep's data held it (`s3ray.data`: arrays, subsample, standardize, padding)."""
        if self.config["missing"] == "zeros" and not x_SF.any():
            x_SF = x_SF[:0]
        steps, most = len(x_SF), kind.most_steps
        if most and steps > most:
            x_SF = x_SF[(2 * torch.arange(most, device=x_SF.device) + 1) * steps // (2 * most)]
        if kind.mean_F is not None and kind.deviation_F is not None:
            mean_F, deviation_F = kind.mean_F.to(x_SF.device), kind.deviation_F.to(x_SF.device)
            x_SF = ((x_SF - mean_F) / deviation_F).clamp(-self.config["limit"], self.config["limit"])
        if kind.padded_steps and len(x_SF):
            if len(x_SF) > kind.padded_steps:
                raise UserError(
                    f"batch: {name} has a sequence of {len(x_SF)} steps, and the model routes padding up to the "
                    f"{kind.padded_steps} of its data; cut it"
                )
            x_SF = nn.functional.pad(x_SF, (0, 0, 0, kind.padded_steps - len(x_SF)))
        return x_SF


def load_model(folder: Path | str) -> ExportedModel:
    """The model that `s3ray export` has written to a folder, on the CPU.

    Nothing in the folder is run, and nothing in it is believed without a look: it may come from strangers.

    Raises:
        UserError: it is no such folder, damaged, of another version, or cannot be read.
    """
    place = local_path(folder, "load_model")
    plain = exported_config(_read(place / CONFIG), str(place))
    content = _read(place / WEIGHTS)
    damaged = UserError(f"{place}: {WEIGHTS} is not what was exported with its {CONFIG}; export the model again")
    if plain["files"].get(WEIGHTS) != hashlib.sha256(content).hexdigest():
        raise damaged
    try:
        return ExportedModel(plain, safetensors.load(content)).eval()
    # Its digests are right, so somebody has made it up.
    except (
        SafetensorError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise damaged from error


def exported_config(content: bytes, place: str) -> dict[str, Any]:
    """What a config.json of an export says.

    Raises:
        UserError: it is another program's, damaged, or of another version.
    """
    try:
        plain = json.loads(content)
        is_ours = isinstance(plain, dict) and plain.get("format") == FORMAT
    except (ValueError, RecursionError):
        is_ours = False
    if not is_ours:
        raise UserError(f"{place}: its {CONFIG} is none that s3ray export wrote; name a folder that it wrote")
    if plain.get("version") != VERSION:
        raise UserError(
            f"{place}: is of version {str(plain.get('version'))[:20]} of exported models, and this s3ray reads version "
            f"{VERSION}; take the s3ray that wrote it, or export the model again"
        )
    try:
        is_whole = plain["digest"] == digest_of(plain) and isinstance(plain["files"], dict)
    except (KeyError, ValueError, RecursionError):
        is_whole = False
    if not is_whole:
        raise UserError(f"{place}: its {CONFIG} is damaged or was changed by hand; export the model again")
    known: dict[str, Any] = plain
    return known


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{file.parent}: has no {file.name}; name a folder that s3ray export wrote") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); check the place and your access to it") from error
