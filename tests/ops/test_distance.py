"""Distances against scipy: whole numbers where it can be, any spacing, any shape, and what is full or empty."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from strategies import degenerate_masks, lesion
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ultrarefiner.ops import distance, distance_transform, signed_distance, squared_distance_transform

quick = settings(deadline=None, max_examples=25)


@st.composite
def hard_masks(draw: st.DrawFn) -> Tensor:
    """Masks (b, k, h, w) or (b, k, d, h, w) of every density, each with at least one pixel outside."""
    flat = st.tuples(st.integers(1, 40), st.integers(1, 57))
    long = st.sampled_from([(3, 100), (100, 3), (70, 65)])
    deep = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 15))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *draw(st.one_of(flat, long, deep)))
    density = draw(st.sampled_from([0.02, 0.2, 0.5, 0.9, 0.98, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    mask = torch.rand(shape, generator=generator) < density
    outside = torch.randint(mask[0, 0].numel(), shape[:2], generator=generator)
    mask.flatten(2).scatter_(2, outside[..., None], 0)
    return mask


def by_scipy(mask: Tensor, spacing: tuple[float, ...] | None = None) -> Tensor:
    """scipy's distance of each mask, one at a time, float64."""
    found = [distance_transform_edt(one.numpy(), sampling=spacing) for one in mask.flatten(0, 1)]
    return torch.from_numpy(np.stack(found)).view(mask.shape)


@given(mask=hard_masks())
@quick
def test_squares_are_those_of_scipy_as_whole_numbers(mask: Tensor) -> None:
    found = squared_distance_transform(mask)
    assert found.dtype == torch.float32
    assert torch.equal(found.long(), by_scipy(mask).square().round().long())
    assert torch.equal(found, found.round())
    assert torch.equal(distance_transform(mask), found.sqrt())


@given(mask=hard_masks(), sizes=st.tuples(*[st.floats(0.1, 5)] * 3))
@quick
def test_with_spacing(mask: Tensor, sizes: tuple[float, ...]) -> None:
    spacing = sizes[: mask.ndim - 2]
    expected = by_scipy(mask, spacing)
    torch.testing.assert_close(distance_transform(mask, spacing).double(), expected, rtol=1e-6, atol=0)
    isotropic = distance_transform(mask, sizes[:1] * len(spacing))
    torch.testing.assert_close(isotropic, distance_transform(mask) * sizes[0])


@pytest.mark.parametrize("spacing", [None, (1.0, 0.7)], ids=["whole", "spacing"])
@pytest.mark.parametrize("kind", ["smooth", "one hole", "hole in a corner", "noise", "empty"])
def test_large_masks_where_few_parabolas_are_tried(kind: str, spacing: tuple[float, ...] | None) -> None:
    """Longer than a short line: the way by tiles."""
    mask = torch.ones(1, 1, 150, 190, dtype=torch.bool)
    if kind == "smooth":
        mask = torch.stack([lesion(150, 190, (70, 100), (30, 50)), 1 - lesion(150, 190, (20, 170), (15, 40))])[None] > 0
    elif kind == "noise":
        mask = torch.rand(1, 2, 150, 190, generator=torch.Generator().manual_seed(0)) < 0.99
    elif kind == "empty":
        mask[:] = False
    else:
        mask[..., -1 if "corner" in kind else 61, -1 if "corner" in kind else 77] = False
    found, expected = distance_transform(mask, spacing).double(), by_scipy(mask, spacing)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    if spacing is None:
        assert torch.equal(squared_distance_transform(mask).double(), expected.square().round())


@pytest.mark.parametrize("shape", [(1, 1024), (1024, 1), (1030, 1027), (2, 5000), (1, 20_000)])
def test_long_lines_are_exact(shape: tuple[int, int]) -> None:
    """Beyond 2**24 float32 would skip whole numbers; beyond 2**15 an int16 would overflow."""
    mask = torch.ones(1, 1, *shape, dtype=torch.bool)
    mask[..., 0, 0] = False
    y, x = (torch.arange(size) for size in shape)
    found = squared_distance_transform(mask)
    assert torch.equal(found[0, 0].long(), (y[:, None] ** 2 + x**2))
    assert found.dtype == (torch.float64 if (shape[0] - 1) ** 2 + (shape[1] - 1) ** 2 > 2**24 else torch.float32)
    assert distance_transform(mask).dtype == torch.float32


@pytest.mark.parametrize("name", list(degenerate_masks()))
def test_degenerate(name: str) -> None:
    mask = degenerate_masks()[name]
    found, signed = distance_transform(mask), signed_distance(mask)
    if name == "full":
        assert (found == math.inf).all()
        assert (signed == -math.inf).all()
    else:
        torch.testing.assert_close(found.double(), by_scipy(mask > 0.5))
        assert torch.equal(signed < 0, mask > 0.5)
    if not (mask > 0.5).any():
        assert (found == 0).all()
        assert (signed == math.inf).all()


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0), (1.0, 3.0)])
def test_one_pixel_is_empty_or_full(spacing: tuple[float, float] | None) -> None:
    pixel = torch.tensor([True, False]).view(2, 1, 1, 1)
    assert distance_transform(pixel, spacing).flatten().tolist() == [math.inf, 0]
    assert signed_distance(pixel, spacing).flatten().tolist() == [-math.inf, math.inf]


@pytest.mark.parametrize("spacing", [None, (2.0, 2.0, 2.0), (3.0, 0.5, 1.0)])
def test_a_full_mask_beside_others_in_one_batch(spacing: tuple[float, ...] | None) -> None:
    volumes = torch.rand(3, 2, 5, 8, 7, generator=torch.Generator().manual_seed(0)) < 0.9
    volumes[1, 0] = True
    # No pixel outside in a whole plane.
    volumes[0, 0, :3] = True
    found = distance_transform(volumes, spacing)
    assert (found[1, 0] == math.inf).all()
    expected = by_scipy(volumes, spacing)
    expected[1, 0] = math.inf
    torch.testing.assert_close(found.double(), expected)


@given(mask=hard_masks())
@quick
def test_batch_is_each_mask(mask: Tensor) -> None:
    found = signed_distance(mask)
    each = [[signed_distance(mask[b : b + 1, k : k + 1])[0, 0] for k in range(mask.shape[1])] for b in range(len(mask))]
    assert torch.equal(found, torch.stack([torch.stack(row) for row in each]))


@given(mask=hard_masks(), spaced=st.booleans())
@quick
def test_signed_distance_is_signed_by_membership_and_odd_under_complement(mask: Tensor, spaced: bool) -> None:
    spacing = (0.5, 2.0, 3.0)[: mask.ndim - 2] if spaced else None
    found = signed_distance(mask, spacing)
    assert torch.equal(found < 0, mask)
    assert (found != 0).all()
    assert torch.equal(signed_distance(~mask, spacing), -found)
    half = 0.25 if spaced else 0.5
    assert found.abs().min() >= half
    torch.testing.assert_close(half - found[mask], distance_transform(mask, spacing)[mask])


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.5), (1.0, 0.5)])
def test_a_disc_is_where_geometry_says(spacing: tuple[float, float]) -> None:
    y = ((torch.arange(96) + 0.5) * spacing[0])[:, None]
    x = (torch.arange(120) + 0.5) * spacing[1]
    analytic = ((y - 45 * spacing[0]) ** 2 + (x - 62 * spacing[1]) ** 2).sqrt() - 25 * spacing[0]
    found = signed_distance((analytic <= 0)[None, None], spacing)[0, 0]
    away = analytic < 20 * spacing[0]
    assert (found - analytic)[away].abs().max() < 0.7 * max(spacing)


@pytest.mark.parametrize("spacing", [None, (1.0, 0.7)], ids=["whole", "spacing"])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, spacing: tuple[float, ...] | None) -> None:
    mask = torch.rand(3, 2, 70, 41, generator=torch.Generator().manual_seed(0)) < 0.97
    expected = distance_transform(mask, spacing)
    for elements, short, tile in ((1, 64, 16), (1000, 8, 16), (1, 8, 8), (5000, 8, 24)):
        monkeypatch.setattr(distance, "_CPU_ELEMENTS", elements)
        monkeypatch.setattr(distance, "_CPU_GROUP", elements)
        monkeypatch.setattr(distance, "_SHORT_LINE", short)
        monkeypatch.setattr(distance, "_TILE", tile)
        assert torch.equal(distance_transform(mask, spacing), expected)


@pytest.mark.parametrize("largest", [0, 100_000])
def test_without_room_for_whole_numbers(monkeypatch: pytest.MonkeyPatch, largest: int) -> None:
    """0: everything in floating point; 100,000: whole numbers, only the packed ones in floating point."""
    mask = torch.rand(2, 1, 90, 110, generator=torch.Generator().manual_seed(0)) < 0.99
    mask[1] = True
    expected = squared_distance_transform(mask)
    monkeypatch.setattr(distance, "_LARGEST_INTEGER", largest)
    assert torch.equal(squared_distance_transform(mask), expected)


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            # A view that repeats elements makes none.
            if isinstance(tensor, Tensor) and 0 not in tensor.stride():
                self.elements = max(self.elements, tensor.numel())
        return made


@pytest.mark.parametrize("size", [(150, 150), (60, 300)])
def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    monkeypatch.setattr(distance, "_CPU_ELEMENTS", 5000)
    mask = torch.rand(2, 2, *size, generator=torch.Generator().manual_seed(0)) < 0.99
    with Largest() as largest:
        distance_transform(mask)
    assert largest.elements <= 1.1 * mask.numel()


@pytest.mark.parametrize("shape", [(2, 1, 70, 90), (1, 2, 7, 9, 80)])
def test_the_way_of_an_accelerator(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.98
    expected = squared_distance_transform(mask)
    monkeypatch.setattr(distance, "_envelope", lambda lines: distance._every_parabola(lines, 3000))
    assert torch.equal(squared_distance_transform(mask), expected)


@pytest.mark.parametrize("spacing", [None, (1.0, 2.0)])
def test_nothing_off_the_cpu_is_read(spacing: tuple[float, float] | None) -> None:
    """A tensor without data cannot be read, so a hidden wait for the device fails here."""
    found = signed_distance(torch.empty(2, 1, 80, 100, device="meta"), spacing)
    assert found.shape == (2, 1, 80, 100)
    assert found.dtype == torch.float32


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("spacing", [None, (1.0, 0.7)])
def test_cuda_answers_as_a_cpu_and_does_not_wait(spacing: tuple[float, float] | None) -> None:
    mask = torch.rand(3, 2, 150, 130, generator=torch.Generator().manual_seed(0)) < 0.99
    mask[1, 1] = True
    there = mask.cuda()
    signed_distance(there, spacing)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = signed_distance(there, spacing)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), signed_distance(mask, spacing), rtol=1e-5 if spacing else 0, atol=0)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64]
)
def test_every_dtype_of_mask(dtype: torch.dtype) -> None:
    hard = lesion(20, 30, (9, 14), (5, 8))[None, None]
    mask = (hard * 255 if dtype == torch.uint8 else hard).to(dtype)
    found = distance_transform(mask)
    assert found.dtype == torch.float32
    assert torch.equal(found, distance_transform(hard > 0))
    assert torch.equal(signed_distance(mask), signed_distance(hard > 0))


def test_soft_masks_are_cut_above_one_half_and_carry_no_gradient() -> None:
    soft = torch.tensor([[[[0.2, 0.5, 0.51, 1.0]]]], requires_grad=True)
    found = distance_transform(soft)
    assert found.tolist() == [[[[0, 0, 1, 2]]]]
    assert not found.requires_grad
    assert not signed_distance(soft).requires_grad


def test_a_batch_of_nothing() -> None:
    assert distance_transform(torch.zeros(0, 1, 8, 8)).shape == (0, 1, 8, 8)
    assert signed_distance(torch.zeros(2, 0, 4, 8, 8)).shape == (2, 0, 4, 8, 8)


def test_the_mask_that_came_in_stays() -> None:
    mask = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    before = mask.clone()
    signed_distance(mask)
    assert torch.equal(mask, before)
    turned = mask.transpose(-1, -2)
    assert torch.equal(distance_transform(turned), distance_transform(mask).transpose(-1, -2))
    assert distance_transform(turned).is_contiguous()


@pytest.mark.parametrize("transform", [distance_transform, squared_distance_transform, signed_distance])
class TestSentences:
    @pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (1, 1, 2, 2, 2, 2)])
    def test_rank(self, transform, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"mask must be \(b, k, h, w\) or \(b, k, d, h, w\), but its shape is"):
            transform(torch.zeros(shape))

    @pytest.mark.parametrize("spacing", [(1.0,), (1.0, 1.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (math.nan, 1.0), ()])
    def test_spacing(self, transform, spacing: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match=r"spacing must hold one positive, finite number for each of the mask's 2"):
            transform(torch.zeros(1, 1, 8, 8), spacing)

    def test_nan(self, transform) -> None:
        with pytest.raises(ValueError, match="mask must not hold NaN, but it does"):
            transform(torch.full((1, 1, 2, 2), math.nan))
