"""check_no_nan and check_answer: values that are none are said in a sentence."""

from __future__ import annotations

import pytest
import torch

from ultrarefiner.ops.checks import check_answer, check_no_nan


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_answer_is_finite(dtype) -> None:
    check_answer(torch.full((1, 1, 2), -5e4).to(dtype))
    check_answer(torch.ones(0).to(dtype))
    for bad, came in ((torch.nan, "NaN"), (torch.inf, "infinity"), (-torch.inf, "infinity")):
        with pytest.raises(ValueError, match=f"the answer must be finite, but it holds {came}; look for NaN in the we"):
            check_answer(torch.tensor([0.0, bad, 1.0]).to(dtype), "the answer")


def test_an_accelerator_is_not_waited_for() -> None:
    """On the meta device there are no values: reading one raises."""
    check_answer(torch.zeros(1, 1, 2, device="meta"))
