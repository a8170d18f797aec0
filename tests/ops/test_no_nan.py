"""check_no_nan: values that are none are said in a sentence, wherever they lie."""

from __future__ import annotations

import pytest
import torch

from ultrarefiner.ops.checks import check_no_nan


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.bool]
)
def test_numbers_pass(dtype) -> None:
    check_no_nan(torch.ones(1, 2, 3, 4).to(dtype))
    check_no_nan(torch.ones(0).to(dtype))
    if dtype.is_floating_point:
        check_no_nan(torch.tensor([torch.inf, -torch.inf]).to(dtype))
        with pytest.raises(ValueError, match="scan must not hold NaN, but it does; replace it by"):
            check_no_nan(torch.tensor([0.0, torch.nan]).to(dtype), "scan")


def test_complex_numbers_do_not() -> None:
    with pytest.raises(ValueError, match=r"volume must hold real numbers, but its dtype is torch\.complex64"):
        check_no_nan(torch.ones(2, dtype=torch.complex64))
