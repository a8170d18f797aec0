"""The resampling matrices against torch's interpolate."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ultrarefiner.ops import apply_weights, linear_weights


@given(inputs=st.integers(1, 60), outputs=st.integers(1, 60), antialias=st.booleans())
@settings(deadline=None, max_examples=60)
def test_equals_interpolate(inputs: int, outputs: int, antialias: bool) -> None:
    row = torch.rand(1, 1, 1, inputs, dtype=torch.float64)
    weights = linear_weights(inputs, outputs, scale=outputs / inputs, like=row, antialias=antialias)
    expected = functional.interpolate(row, (1, outputs), mode="bilinear", antialias=antialias)
    torch.testing.assert_close(row[0, 0] @ weights.T, expected[0, 0], rtol=1e-9, atol=1e-9)


def test_rows_past_the_content_are_padding() -> None:
    weights = linear_weights(10, 16, scale=1.0, like=torch.zeros(1))
    assert torch.equal(weights[10:], torch.zeros(6, 10))
    torch.testing.assert_close(weights[:10], torch.eye(10))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_pictures_are_resampled_in_float32(dtype: torch.dtype) -> None:
    picture = torch.rand(2, 3, 8, 9).to(dtype)
    weights = linear_weights(8, 4, scale=0.5, like=picture, antialias=True)
    columns = linear_weights(9, 5, scale=5 / 9, like=picture)
    assert apply_weights(picture, weights, columns).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert apply_weights(picture, weights, columns).dtype == torch.float32


def test_gradcheck() -> None:
    picture = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    rows = linear_weights(5, 7, scale=1.3, like=picture)
    columns = linear_weights(6, 3, scale=0.5, like=picture, antialias=True)
    assert torch.autograd.gradcheck(lambda x: apply_weights(x, rows, columns), picture)
