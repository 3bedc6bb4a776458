"""Files with the structure of MultiBench's, byte for byte, and made-up content.

For trying the pipeline and measuring it without the real data. Ids start with `simulated`, so that what is
prepared from such a file says what it is.
"""

from __future__ import annotations

import io
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from s3ray.data.dataset import SPLITS
from s3ray.data.multibench.files import FILES, MODALITIES, SIMULATED
from s3ray.errors import UserError

# Python 3.6, whose default this was, wrote the files; their sizes tell the types.
_PROTOCOL = 3
_CHUNK_SAMPLES = 256
# (scale, offset) of a modality's features: vision comes at raw scale.
_SCALES = {"vision": (20.0, 5.0), "audio": (1.0, 0.0), "text": (0.4, 0.0)}


def content_like(name: str, samples: int, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """What `simulate` writes: per split labels, ids, and in place of each modality's array what makes its bytes.

    Raises:
        UserError: `samples` is below 6, or more than such a file can hold.
    """
    known = FILES[name]
    if samples < 2 * len(SPLITS):
        raise UserError(f"--samples {samples}: give at least {2 * len(SPLITS)}, two for each split")
    total = sum(known.samples.values())
    sizes = {split: max(2, round(samples * known.samples[split] / total)) for split in ("valid", "test")}
    sizes["train"] = samples - sum(sizes.values())
    widest = max(known.widths.values())
    if sizes["train"] * known.steps * widest * 8 >= 1 << 32:
        raise UserError(f"--samples {samples}: more than such a file can hold, 4 GiB an array; give fewer")
    rng = np.random.default_rng(seed)
    drawn = {split: _Split.draw(name, sizes[split], rng) for split in SPLITS}
    return {
        split: {key: _Payload(drawn[split], key) for key in MODALITIES}
        | {"labels": drawn[split].labels, "id": _ids(name, split, sizes[split])}
        for split in SPLITS
    }


def simulate(
    name: str, samples: int, output: Path, *, seed: int = 0, progress: Callable[[str, int, int], None] | None = None
) -> Path:
    """Write a file like dataset `name`'s to `output`, under its name.

    What the real files are known to hold occurs here too: zero rows on the left, some samples without any
    text, -inf in audio, NaN in vision, steps whose audio or vision is all zero, labels of exactly 0. The class
    shows in every modality, weakly.

    Args:
        samples: in all; the splits keep the real one's proportions, each has at least 2.

    Raises:
        UserError: the file is there already (it may be the real one), or `samples` is below 6.
    """
    content = content_like(name, samples, seed=seed)
    target = output / FILES[name].names[0]
    if os.path.lexists(target):
        raise _occupied(target)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"no folder can be made there ({error.strerror})"
        raise UserError(f"{output}: {reason}; choose another --output") from error
    with tempfile.NamedTemporaryFile(dir=output, prefix=f".{target.name}-", delete=False) as file:
        try:
            _dump(content, file, progress)
            file.flush()
            Path(file.name).chmod(0o644)
            os.link(file.name, target)  # fails if something has come there meanwhile
        except FileExistsError:
            raise _occupied(target) from None
        finally:
            Path(file.name).unlink(missing_ok=True)
    return target


def _occupied(target: Path) -> UserError:
    return UserError(f"{target}: is there already and may be the real one; choose another --output")


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """What a split's samples are drawn from; the features follow chunk by chunk."""

    name: str
    lengths: NDArray[np.int64]  # steps with text; 0: none
    labels: NDArray[Any]
    seed: int

    @classmethod
    def draw(cls, name: str, samples: int, rng: np.random.Generator) -> _Split:
        known = FILES[name]
        # Sentences: most are short, a few fill every step.
        lengths = np.clip(np.round(rng.lognormal(np.log(0.4 * known.steps), 0.55, samples)), 1, known.steps)
        lengths[rng.random(samples) < 0.002] = 0
        lengths[0] = known.steps
        if samples > 2:
            lengths[1] = 0  # without text, once at least
        negative = 0.0 if name == "ur_funny" else -1.0
        if known.sentiment:
            labels = np.clip(np.round(3 * rng.normal(0.3, 1.1, samples)) / 3, -3, 3).reshape(-1, 1, 1)
            labels = labels.astype(np.float32)
        else:
            labels = np.where(rng.random((samples, 1)) < 0.5, 1.0, negative)
        labels[-2], labels[-1] = 1, negative  # both classes, however small the split
        return cls(name, lengths.astype(np.int64), labels, int(rng.integers(2**32)))

    def shape(self, modality: str) -> tuple[int, int, int]:
        return len(self.lengths), FILES[self.name].steps, FILES[self.name].widths[modality]

    def chunks(self, modality: str) -> Iterator[NDArray[np.float32]]:
        """(≤ 256, steps, features) at a time."""
        samples, steps, features = self.shape(modality)
        index = MODALITIES.index(modality)
        scale, offset = _SCALES[modality]
        direction = np.random.default_rng(index).normal(size=features).astype(np.float32)
        positive = (self.labels.reshape(-1) > 0).astype(np.float32)
        for start in range(0, samples, _CHUNK_SAMPLES):
            rng = np.random.default_rng([self.seed, index, start])
            lengths = self.lengths[start : start + _CHUNK_SAMPLES]
            values = rng.standard_normal((len(lengths), steps, features), dtype=np.float32)
            signal = 0.3 * (positive[start : start + _CHUNK_SAMPLES] - 0.5)
            values += signal[:, None, None] * direction
            values = scale * values + np.float32(offset)
            if modality != "text":
                values[rng.random((len(lengths), steps)) < 0.02] = 0.0
                odd = (-np.inf, 1e-4) if modality == "audio" else (np.nan, 1e-6)
                values[rng.random(values.shape, dtype=np.float32) < odd[1]] = odd[0]
                values[0, -1, 0] = odd[0]
            padding = np.arange(steps) < steps - lengths[:, None]
            values[padding] = 0.0
            yield values


class _Payload:
    """An array of the file whose bytes are made while they are written."""

    def __init__(self, split: _Split, modality: str) -> None:
        self.split, self.modality = split, modality
        # 154 MB of mosi_data.pkl are float64 vision and audio and float32 text; the other files are float64.
        self.dtype = np.dtype("f4" if split.name == "mosi" and modality == "text" else "f8")

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.split.shape(self.modality))) * self.dtype.itemsize


def _ids(name: str, split: str, samples: int) -> NDArray[Any]:
    """Rows (video, start, end) for the sentiment sets, as mosi's bytes and mosei's text; names for the others."""
    if not FILES[name].sentiment:
        return np.array([f"{SIMULATED}_{split}_{i:05d}" for i in range(samples)])
    rows = [
        [f"{SIMULATED}_{split}_{i // 10:04d}", f"{7.5 * (i % 10):.2f}", f"{7.5 * (i % 10) + 7:.2f}"]
        for i in range(samples)
    ]
    return np.array(rows, dtype="S" if name == "mosi" else "U")


class _Pickler(pickle.Pickler):
    """Pickles `_Payload` as the array it stands for, its bytes replaced by a numbered marker."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, _PROTOCOL)
        self.payloads: list[_Payload] = []

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, _Payload):
            return NotImplemented
        reduction: Any = np.empty(0).__reduce__()
        marker = _marker(len(self.payloads))
        self.payloads.append(value)
        return *reduction[:2], (1, value.split.shape(value.modality), value.dtype, False, marker)


def _marker(number: int) -> bytes:
    return b"\x00payload %04d\x00" % number


def _dump(content: Any, file: Any, progress: Callable[[str, int, int], None] | None) -> None:
    """Pickle `content` as numpy 1 did, without ever holding a payload in memory."""
    skeleton = io.BytesIO()
    pickler = _Pickler(skeleton)
    pickler.dump(content)
    stream = skeleton.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    total, done = sum(payload.nbytes for payload in pickler.payloads), 0
    for number, payload in enumerate(pickler.payloads):
        marker = _marker(number)
        # SHORT_BINBYTES and the marker's length give way to BINBYTES and the payload's.
        place = stream.index(b"C" + bytes([len(marker)]) + marker)
        before, stream = stream[:place], stream[place + 2 + len(marker) :]
        file.write(before + b"B" + payload.nbytes.to_bytes(4, "little"))
        for chunk in payload.split.chunks(payload.modality):
            file.write(chunk.astype(payload.dtype).data)
            done += chunk.size * payload.dtype.itemsize
            if progress:
                progress("writing", done, total)
    file.write(stream)
