"""Ragged layouts: T tokens in a row against (B, S) with padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s3ray.model.batch import Layout, Ragged
from s3ray.model.config import Pooling

# Three samples of lengths 2, 1, 3 hold tokens 1 … 6.
LENGTHS = torch.tensor([2, 1, 3])
TOKENS = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])
PADDED = torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0], [4.0, 5.0, 6.0]])[:, :, None]


def test_places_of_tokens() -> None:
    layout = Layout(LENGTHS)
    assert (layout.longest, layout.tokens, layout.uniform) == (3, 6, False)
    assert layout.sample_T.tolist() == [0, 0, 1, 2, 2, 2]
    assert layout.position_T.tolist() == [0, 1, 0, 0, 1, 2]
    assert layout.valid_PS.tolist() == [[True, True, False], [True, False, False], [True, True, True]]


def test_pad_fills_with_zeros_and_unpad_inverts_it() -> None:
    layout = Layout(LENGTHS)
    assert torch.equal(layout.pad(TOKENS), PADDED)
    assert torch.equal(layout.unpad(PADDED), TOKENS)


def test_unpad_never_reads_padding() -> None:
    padded = PADDED.masked_fill(~Layout(LENGTHS).valid_PS[:, :, None], float("nan"))
    assert torch.equal(Layout(LENGTHS).unpad(padded), TOKENS)


# Samples of the tokens 1 2, 3, and 4 5 6.
@pytest.mark.parametrize(("pooling", "z"), [("mean", [1.5, 3.0, 5.0]), ("first", [1, 3, 4]), ("last", [2, 3, 6])])
def test_pooling_is_of_valid_tokens(pooling: Pooling, z: list[float]) -> None:
    assert torch.equal(Layout(LENGTHS).pool(TOKENS, pooling)[:, 0], torch.tensor(z))


def test_batch_without_padding() -> None:
    layout = Layout(torch.tensor([2, 2]))
    assert layout.uniform
    assert layout.pad(TOKENS[:4]).tolist() == [[[1.0], [2.0]], [[3.0], [4.0]]]
    assert layout.pool(TOKENS[:4], "mean").tolist() == [[1.5], [3.5]]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_round_trip_for_any_lengths(lengths: list[int]) -> None:
    """Samples without tokens are no part of what is padded, and pooled to 0."""
    layout = Layout(torch.tensor(lengths))
    x_TD = torch.arange(1, 1 + sum(lengths) * 2.0).view(-1, 2)
    padded = layout.pad(x_TD)
    assert padded.shape == (sum(length > 0 for length in lengths), max(lengths), 2)
    assert torch.equal(layout.unpad(padded), x_TD)
    nothing = torch.zeros(2)
    samples = x_TD.split(lengths)
    means = torch.stack([sample.mean(0) if len(sample) else nothing for sample in samples])
    torch.testing.assert_close(layout.pool(x_TD, "mean"), means)
    poolings: list[tuple[Pooling, int]] = [("first", 0), ("last", -1)]
    for pooling, place in poolings:
        ends = torch.stack([sample[place] if len(sample) else nothing for sample in samples])
        assert torch.equal(layout.pool(x_TD, pooling), ends)
    assert layout.sample_T.tolist() == [i for i, length in enumerate(lengths) for _ in range(length)]
    assert layout.position_T.tolist() == [place for length in lengths for place in range(length)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ragged_to_converts_values_and_keeps_lengths(dtype: torch.dtype) -> None:
    moved = Ragged(TOKENS, LENGTHS).to(torch.device("cpu"), dtype)
    assert moved.values_TF.dtype == dtype
    assert moved.lengths_B.tolist() == [2, 1, 3]
