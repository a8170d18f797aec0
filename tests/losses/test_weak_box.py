"""Losses that need boxes alone: golden numbers, plain loops over pixels, whole pixels, degenerate boxes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ultrarefiner.losses import (
    BandTightBoxLoss,
    BoxRegressionLoss,
    EmptyLoss,
    LogBarrier,
    PixelSizeLoss,
    SizeLoss,
    TightBoxLoss,
    WeakBoxLoss,
    band_tight_box_loss,
    box_regression_loss,
    empty_loss,
    log_barrier,
    paper_weak_box_loss,
    pixel_size_loss,
    size_loss,
    tight_box_loss,
)

quick = settings(deadline=None, max_examples=8)
seeds = st.integers(0, 10_000)
every_loss = pytest.mark.parametrize(
    "loss", [empty_loss, tight_box_loss, band_tight_box_loss, size_loss, pixel_size_loss]
)
every_module = pytest.mark.parametrize(
    "loss",
    [
        EmptyLoss(),
        TightBoxLoss(),
        BandTightBoxLoss(),
        SizeLoss(),
        PixelSizeLoss(),
        WeakBoxLoss(),
        paper_weak_box_loss(),
    ],
    ids=lambda loss: type(loss).__name__,
)


def psi(x: float, t: float = 5.0) -> float:
    if x <= -1 / t**2:
        return -math.log(-x) / t
    return t * x - math.log(1 / t**2) / t + 1 / t


def plain(name: str, logits: list[list[float]], box: list[float], share: float = 1.0) -> float:
    """Each formula for one mask, pixel by pixel, with Python's own numbers."""
    height, width = len(logits), len(logits[0])
    xs = [x for x in range(width) if round(box[0]) <= x < round(box[2])]
    ys = [y for y in range(height) if round(box[1]) <= y < round(box[3])]
    p = [[1 / (1 + math.exp(-z)) for z in row] for row in logits]
    area = len(xs) * len(ys)
    if name == "empty_loss":
        out = [-math.log(1 - p[y][x]) for y in range(height) for x in range(width) if not (x in xs and y in ys)]
        return sum(out) / len(out) if out else 0.0
    if area == 0:
        return 0.0
    if name == "tight_box_loss":
        rows = sum(max(p[y][x] for x in xs) for y in ys)
        columns = sum(max(p[y][x] for y in ys) for x in xs)
        return psi(share * len(ys) - rows) + psi(share * len(xs) - columns)
    if name == "band_tight_box_loss":
        total = 0.0
        for start in range(0, len(ys), 5):
            band = ys[start : start + 5]
            total += psi(len(band) - sum(p[y][x] for y in band for x in xs))
        for start in range(0, len(xs), 5):
            band = xs[start : start + 5]
            total += psi(len(band) - sum(p[y][x] for y in ys for x in band))
        return total
    if name == "size_loss":
        filled = sum(p[y][x] for y in ys for x in xs) / area
        return psi(0.01 - filled) + psi(filled - 0.99)
    mass = sum(map(sum, p))
    return (psi(0.5 * area - mass) + psi(mass - 0.9 * area)) / area


@st.composite
def cases(draw: st.DrawFn, *, side: int = 14) -> tuple[Tensor, Tensor]:
    """Logits (b, k, h, w) and boxes of every kind: within, across the border, without, inverted, of part pixels."""
    b, k = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    height, width = draw(st.integers(1, side)), draw(st.integers(1, side))
    generator = torch.Generator().manual_seed(draw(seeds))
    logits = 2 * torch.randn(b, k, height, width, generator=generator, dtype=torch.float64)
    corners = torch.rand(b, k, 2, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    corners = corners * torch.tensor([width, height], dtype=torch.float64)
    ordered = corners.sort(-2).values if draw(st.booleans()) else corners
    return logits, ordered.flatten(-2)


def golden(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """The 8 x 8 grid of the facts: 0.7 inside the box, 0.3 outside."""
    probability = torch.full((1, 1, 8, 8), 0.3, dtype=dtype)
    probability[..., 2:6, 2:6] = 0.7
    return probability.logit(), torch.tensor([[[2.0, 2.0, 6.0, 6.0]]], dtype=dtype)


@pytest.mark.parametrize(
    ("x", "expected"),
    [(-2.0, -0.1386), (-1.0, 0.0), (-0.49, 0.1427), (-0.04, 0.6438), (0.0, 0.8438), (0.5, 3.3438)],
)
def test_the_barrier_has_the_published_values(x: float, expected: float) -> None:
    value = LogBarrier(t=5.0)(torch.tensor(x, dtype=torch.float64)).item()
    assert value == pytest.approx(expected, abs=5e-5)
    assert value == pytest.approx(psi(x), abs=1e-12)


def test_the_losses_have_the_published_values() -> None:
    logits, box = golden()
    assert EmptyLoss()(logits, box).item() == pytest.approx(0.356675, abs=1e-6)
    # The published number is a float32 sum: 1e-6 of it is the last digit that it has.
    assert TightBoxLoss()(logits, box).item() == pytest.approx(13.687549, rel=1e-6)
    assert TightBoxLoss()(logits, box).item() == pytest.approx(12 + 2 * psi(0), abs=1e-12)
    assert SizeLoss()(logits, box).item() == pytest.approx(0.321788, abs=1e-6)
    predicted = 8 * torch.tensor([[[0.2, 0.2, 0.8, 0.8]]], dtype=torch.float64)
    regression = BoxRegressionLoss()(predicted, box, (8, 8))
    assert regression.item() == pytest.approx(0.0025, abs=1e-9)
    # The published total leaves the tightness out and adds the box.
    total = WeakBoxLoss(tight_weight=0.0)(logits, box) + regression
    assert total.item() == pytest.approx(0.362393, abs=1e-6)
    documented = WeakBoxLoss()(logits, box).item()
    assert documented == pytest.approx(0.356675 + 1e-4 * 13.687549 + 0.01 * 0.321788, abs=1e-6)


@given(x=st.floats(-5, 3), t=st.floats(0.5, 20))
@quick
def test_the_barrier_is_its_formula_and_has_its_slope(x: float, t: float) -> None:
    value = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    price = log_barrier(value, t=t)
    price.backward()
    assert price.item() == pytest.approx(psi(x, t), abs=1e-9)
    assert value.grad is not None
    assert value.grad.item() == pytest.approx(-1 / (t * x) if x <= -1 / t**2 else t, rel=1e-9)


def test_the_barrier_has_no_step_and_no_kink_at_the_bend() -> None:
    for t in (0.5, 5.0, 20.0):
        bend = -1 / t**2
        x = torch.tensor([bend * (1 + 1e-9), bend, bend * (1 - 1e-9)], dtype=torch.float64, requires_grad=True)
        price = log_barrier(x, t=t)
        price.sum().backward()
        assert price.detach().diff().abs().max() < 1e-7
        torch.testing.assert_close(x.grad, torch.full_like(x, t))


def test_the_barrier_keeps_its_gradient_finite_far_from_the_bend() -> None:
    x = torch.tensor([-1e30, -1.0, 0.0, 1e30], requires_grad=True)
    log_barrier(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert log_barrier(torch.tensor(math.nan), margin=1.0).isnan()


@every_module
@given(case=cases(side=4))
@settings(deadline=None, max_examples=3)
def test_the_gradient_is_the_derivative(loss: nn.Module, case: tuple[Tensor, Tensor]) -> None:
    logits, boxes = case
    assert torch.autograd.gradcheck(lambda z: loss(z, boxes), logits.requires_grad_())


def test_the_gradient_of_barrier_and_box_regression_is_the_derivative() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_barrier, x)
    assert torch.autograd.gradcheck(lambda z: log_barrier(z, margin=0.5), x)
    boxes = torch.tensor([[[1.0, 2.0, 5.0, 4.0], [0.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    predicted = torch.rand(1, 2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: box_regression_loss(p, boxes, (6, 9), reduction="none"), predicted)


@every_loss
@given(case=cases())
@quick
def test_the_vectorised_form_is_a_plain_loop(loss: Callable[..., Tensor], case: tuple[Tensor, Tensor]) -> None:
    logits, boxes = case
    values = loss(logits, boxes, reduction="none")
    for image in range(logits.shape[0]):
        for mask in range(logits.shape[1]):
            expected = plain(loss.__name__, logits[image, mask].tolist(), boxes[image, mask].tolist())
            assert values[image, mask].item() == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(loss(logits, boxes), values.mean())


@given(case=cases(), share=st.floats(0.05, 1))
@quick
def test_the_share_of_the_sides_is_the_formula_s(case: tuple[Tensor, Tensor], share: float) -> None:
    logits, boxes = case[0][:1, :1], case[1][:1, :1]
    expected = plain("tight_box_loss", logits[0, 0].tolist(), boxes[0, 0].tolist(), share)
    assert tight_box_loss(logits, boxes, share=share).item() == pytest.approx(expected, abs=1e-9)


@every_loss
@given(case=cases())
@quick
def test_a_batch_is_each_mask_alone(loss: Callable[..., Tensor], case: tuple[Tensor, Tensor]) -> None:
    logits, boxes = case
    together = loss(logits, boxes, reduction="none")
    for image in range(logits.shape[0]):
        for mask in range(logits.shape[1]):
            one = (slice(image, image + 1), slice(mask, mask + 1))
            torch.testing.assert_close(loss(logits[one], boxes[one]), together[image, mask])


@every_loss
def test_edges_are_rounded_where_cutting_would_move_them(loss: Callable[..., Tensor]) -> None:
    # Edges that were divided by the width of 300 and multiplied by it again: many come back below the whole number.
    edge = torch.arange(301, dtype=torch.float32)
    back = edge / 300 * 300
    moved = (back.to(torch.int64) != edge).nonzero().flatten()
    moved = moved[(moved > 2) & (moved < 299)]
    assert len(moved) > 0
    logits = torch.randn(1, len(moved), 6, 300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def boxes(x0: Tensor) -> Tensor:
        one = torch.ones_like(x0)
        return torch.stack([x0, one, 300 * one, 4 * one], -1)[None].double()

    whole = loss(logits, boxes(edge[moved]), reduction="none")
    torch.testing.assert_close(loss(logits, boxes(back[moved]), reduction="none"), whole, rtol=0, atol=0)
    cut = loss(logits, boxes(back[moved].floor()), reduction="none")
    assert (cut != whole).all()


@every_module
def test_an_empty_box_asks_for_an_empty_mask_and_nothing_else(loss: nn.Module) -> None:
    boxes = torch.tensor(
        [[0.0, 0.0, 0.0, 0.0], [3.0, 1.0, 3.0, 5.0], [5.0, 5.0, 2.0, 2.0], [20.0, 0.0, 30.0, 4.0], [1.2, 1.0, 1.4, 3.0]]
    )[None]
    logits = torch.zeros(1, 5, 6, 8, requires_grad=True)
    value = loss(logits, boxes)
    value.backward()
    assert logits.grad is not None
    clears = isinstance(loss, EmptyLoss | WeakBoxLoss)
    assert value.item() == pytest.approx(math.log(2) if clears else 0.0)
    torch.testing.assert_close(logits.grad, torch.full_like(logits, 0.5 / logits.numel() if clears else 0.0))


@every_module
@pytest.mark.parametrize("level", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize(
    "box",
    [(0.0, 0.0, 8.0, 6.0), (-5.0, -5.0, 50.0, 50.0), (-4.0, 3.0, 2.0, 90.0), (2.0, 2.0, 3.0, 3.0)],
    ids=["the frame", "beyond the frame", "partly outside", "one pixel"],
)
def test_degenerate_boxes_stay_finite(loss: nn.Module, box: tuple[float, ...], level: float) -> None:
    logits = torch.full((1, 1, 6, 8), level, requires_grad=True)
    value = loss(logits, torch.tensor([[box]]))
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_box_is_cut_off_at_the_frame() -> None:
    logits = torch.randn(1, 1, 6, 8, generator=torch.Generator().manual_seed(1))
    across, within = torch.tensor([[[-4.0, 3.0, 2.0, 90.0]]]), torch.tensor([[[0.0, 3.0, 2.0, 6.0]]])
    for loss in (WeakBoxLoss(), paper_weak_box_loss()):
        torch.testing.assert_close(loss(logits, across), loss(logits, within), rtol=0, atol=0)
    assert empty_loss(logits, torch.tensor([[[0.0, 0.0, 8.0, 6.0]]])).item() == 0.0


def test_only_pixels_on_their_side_of_the_box_count() -> None:
    logits = torch.randn(1, 1, 7, 9, generator=torch.Generator().manual_seed(2), requires_grad=True)
    box = torch.tensor([[[2.0, 1.0, 7.0, 5.0]]])
    inside = torch.zeros(7, 9, dtype=torch.bool)
    inside[1:5, 2:7] = True
    for loss in (EmptyLoss(), TightBoxLoss(), BandTightBoxLoss(), SizeLoss()):
        (gradient,) = torch.autograd.grad(loss(logits, box), logits)
        allowed = ~inside if isinstance(loss, EmptyLoss) else inside
        assert (gradient[0, 0][~allowed] == 0).all()
        assert (gradient[0, 0][allowed] != 0).any()
        assert (gradient[0, 0] <= 0).all() or isinstance(loss, EmptyLoss | SizeLoss)
    (gradient,) = torch.autograd.grad(pixel_size_loss(logits, box), logits)
    assert (gradient != 0).all()


def gradient_of(loss: nn.Module, logits: Tensor, box: Tensor) -> Tensor:
    logits = logits.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, box), logits)
    return gradient


def test_a_constraint_met_by_a_margin_has_no_gradient() -> None:
    box = torch.tensor([[[4.0, 4.0, 20.0, 16.0]]])
    ellipse = torch.full((1, 1, 20, 24), -120.0)
    ellipse[..., 5:15, 6:18] = 3.0  # fills 120 of 192 pixels; 10 of 12 rows, 12 of 16 columns
    # Outside: certain enough that the probability rounds to 0.
    assert (gradient_of(EmptyLoss(), ellipse, box) == 0).all()
    # The others: with a margin, in the unit of each, the gradient is exactly 0; as published it is not.
    full = ellipse.clone()
    full[..., 4:16, 4:20] = 3.0
    flat = [
        (TightBoxLoss(share=0.7, barrier=LogBarrier(margin=0.2)), TightBoxLoss(share=0.7), ellipse),
        (BandTightBoxLoss(barrier=LogBarrier(margin=1.0)), BandTightBoxLoss(), full),
        (SizeLoss(barrier=LogBarrier(margin=0.1)), SizeLoss(), ellipse),
        (PixelSizeLoss(barrier=LogBarrier(margin=1.0)), PixelSizeLoss(), ellipse),
    ]
    for with_margin, published, logits in flat:
        assert (gradient_of(with_margin, logits, box) == 0).all()
        assert (gradient_of(published, logits, box) != 0).any()
    # Met, but by less than the margin, and broken: the gradient of the published form.
    near = [
        (SizeLoss(barrier=LogBarrier(margin=0.6)), SizeLoss(), ellipse),
        (BandTightBoxLoss(barrier=LogBarrier(margin=1.0)), BandTightBoxLoss(), torch.full_like(full, -5.0)),
        (TightBoxLoss(share=0.7, barrier=LogBarrier(margin=0.2)), TightBoxLoss(share=0.7), -ellipse.abs() / 40),
    ]
    for with_margin, published, logits in near:
        gradient = gradient_of(with_margin, logits, box)
        assert (gradient != 0).any()
        torch.testing.assert_close(gradient, gradient_of(published, logits, box))
    # The whole sum, every part met by a margin.
    weak = WeakBoxLoss(
        tight=TightBoxLoss(share=0.7, barrier=LogBarrier(margin=0.2)), size=SizeLoss(barrier=LogBarrier(margin=0.1))
    )
    assert (gradient_of(weak, ellipse, box) == 0).all()


def test_a_margin_of_one_keeps_the_price_from_falling_below_0() -> None:
    x = torch.linspace(-9, 3, 50)
    assert log_barrier(x).min() < -0.3
    assert log_barrier(x, margin=1.0).min() == 0
    torch.testing.assert_close(log_barrier(x, margin=1.0)[x > -1], log_barrier(x)[x > -1])


@pytest.mark.parametrize(
    ("plain_loss", "changed"),
    [
        (LogBarrier(), LogBarrier(t=2.0)),
        (LogBarrier(), LogBarrier(margin=0.3)),
        (TightBoxLoss(), TightBoxLoss(share=0.5)),
        (TightBoxLoss(), TightBoxLoss(barrier=LogBarrier(t=2.0))),
        (BandTightBoxLoss(), BandTightBoxLoss(width=2)),
        (BandTightBoxLoss(), BandTightBoxLoss(barrier=LogBarrier(t=2.0))),
        (SizeLoss(), SizeLoss(low=0.2)),
        (SizeLoss(), SizeLoss(high=0.8)),
        (SizeLoss(), SizeLoss(barrier=LogBarrier(t=2.0))),
        (PixelSizeLoss(), PixelSizeLoss(low=0.2)),
        (PixelSizeLoss(), PixelSizeLoss(high=0.8)),
        (PixelSizeLoss(), PixelSizeLoss(barrier=LogBarrier(t=2.0))),
        (WeakBoxLoss(), WeakBoxLoss(tight_weight=1.0)),
        (WeakBoxLoss(), WeakBoxLoss(size_weight=1.0)),
        (WeakBoxLoss(), WeakBoxLoss(empty=SizeLoss())),
        (WeakBoxLoss(), WeakBoxLoss(tight=BandTightBoxLoss())),
        (WeakBoxLoss(), WeakBoxLoss(size=PixelSizeLoss())),
        (WeakBoxLoss(), paper_weak_box_loss()),
    ],
)
def test_each_option_changes_the_result(plain_loss: nn.Module, changed: nn.Module) -> None:
    given_ = (torch.tensor([-2.0, 1.0]),) if isinstance(plain_loss, LogBarrier) else golden()
    assert not torch.equal(plain_loss(*given_), changed(*given_))


@pytest.mark.parametrize("kind", [EmptyLoss, TightBoxLoss, BandTightBoxLoss, SizeLoss, PixelSizeLoss])
def test_the_values_of_each_mask_can_be_had(kind: Callable[..., nn.Module]) -> None:
    logits, box = golden()
    assert kind(reduction="none")(logits, box).shape == (1, 1)


def test_the_sum_is_the_weighted_sum_of_its_parts() -> None:
    logits, box = golden()
    parts = EmptyLoss(reduction="none"), BandTightBoxLoss(reduction="none"), PixelSizeLoss(reduction="none")
    weak = WeakBoxLoss(empty=parts[0], tight=parts[1], size=parts[2])
    each = [part(logits, box) for part in parts]
    torch.testing.assert_close(weak(logits, box), each[0] + 1e-4 * each[1] + 0.01 * each[2])
    torch.testing.assert_close(paper_weak_box_loss()(logits, box), weak(logits, box).mean())


def test_the_bands_tile_the_box_and_are_asked_for_their_own_width() -> None:
    # Published sides go from first to last pixel: 12 lines are w = 11, two bands of 5, and r = 1 with the bound 2.
    box = torch.tensor([[[0.0, 0.0, 12.0, 1.0]]], dtype=torch.float64)
    logits = torch.full((1, 1, 1, 12), -math.log(3), dtype=torch.float64)  # p = 0.25
    expected = 2 * psi(5 * 0.75) + psi(2 * 0.75) + psi(1 - 12 * 0.25)
    assert band_tight_box_loss(logits, box).item() == pytest.approx(expected)


def test_a_predicted_box_is_scaled_by_its_frame() -> None:
    true = torch.tensor([[[10.0, 5.0, 20.0, 15.0]], [[0.0, 0.0, 0.0, 0.0]]], requires_grad=True)
    predicted = (true.detach() + torch.tensor([4.0, 0.0, 0.0, 1.0])).requires_grad_()
    value = box_regression_loss(predicted, true, (10, 40), reduction="none")
    torch.testing.assert_close(value, torch.tensor([[(0.1**2 + 0.1**2) / 4], [0.0]]))
    value.sum().backward()
    assert true.grad is None
    assert predicted.grad is not None
    assert (predicted.grad[0] != 0).sum() == 2
    assert (predicted.grad[1] == 0).all()


@every_module
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(loss: nn.Module, dtype: torch.dtype) -> None:
    # A mask of 512 x 512 ones overflows float16, whose largest number is 65504.
    logits = torch.full((1, 1, 512, 512), 2.0, dtype=dtype, requires_grad=True)
    box = torch.tensor([[[3.0, 5.0, 501.0, 400.0]]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = loss(logits, box)
    result.backward()
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, loss(logits.detach().double(), box.double()).float())
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert loss(logits.detach().double(), box.double()).dtype == torch.float64


@every_module
def test_no_value_is_read_off_an_accelerator(loss: nn.Module) -> None:
    # Tensors on the meta device have no values: reading one, as .item() or a loop over a box would, raises.
    assert loss(torch.zeros(2, 2, 33, 40, device="meta"), torch.zeros(2, 2, 4, device="meta")).shape == ()
    boxes = torch.zeros(2, 2, 4, device="meta")
    assert box_regression_loss(boxes, boxes, (33, 40)).shape == ()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_module
def test_an_accelerator_gives_the_same_and_is_not_waited_for(loss: nn.Module) -> None:
    logits, boxes = torch.randn(2, 2, 33, 40), 40 * torch.rand(2, 2, 4)
    there = logits.cuda().requires_grad_(), boxes.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = loss(*there)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.cpu(), loss(logits, boxes))


@pytest.mark.usefixtures("unhooked")
@every_loss
def test_other_shapes_and_nan_are_refused(loss: Callable[..., Tensor]) -> None:
    boxes = torch.zeros(1, 2, 4)
    with pytest.raises(ValueError, match=r"logits must be \(b, k, h, w\).*got shape \(4, 4\).*logits\[:, None\]"):
        loss(torch.zeros(4, 4), boxes)
    with pytest.raises(ValueError, match=r"boxes must be \(b, k, 4\) = \(1, 2, 4\).*got shape \(1, 4\)"):
        loss(torch.zeros(1, 2, 4, 4), boxes[:, 0])
    with pytest.raises(ValueError, match=r"boxes must be numbers.*got NaN.*empty box \(0, 0, 0, 0\)"):
        loss(torch.zeros(1, 2, 4, 4), boxes * math.nan)
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'none'; got 'sum'"):
        loss(torch.zeros(1, 2, 4, 4), boxes, reduction="sum")


@pytest.mark.usefixtures("unhooked")
def test_a_box_regression_without_a_frame_or_a_box_for_each_is_refused() -> None:
    boxes = torch.zeros(1, 2, 4)
    with pytest.raises(ValueError, match=r"size must be \(height, width\) of the frame.*got \(0, 8\)"):
        box_regression_loss(boxes, boxes, (0, 8))
    with pytest.raises(ValueError, match=r"boxes must be \(b, k, 4\) = \(1, 2, 4\).*got shape \(1, 1, 4\)"):
        box_regression_loss(boxes, boxes[:, :1], (8, 8))
    with pytest.raises(ValueError, match=r"predicted_boxes must be \(b, k, 4\) = \(1, 2, 4\).*got shape \(1, 2\)"):
        box_regression_loss(boxes[..., 0], boxes, (8, 8))


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_barrier_s_numbers_are_above_0(value: float) -> None:
    with pytest.raises(ValueError, match=r"t must be a finite number above 0.*got .*The paper's is 5"):
        LogBarrier(t=value)
    with pytest.raises(ValueError, match=r"margin must be a finite number above 0, or None.*got .*pixels, or shares"):
        log_barrier(torch.zeros(1), margin=value)


def test_options_out_of_range_are_refused() -> None:
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=rf"share must be in \(0, 1\].*got {share}"):
            TightBoxLoss(share=share)
    with pytest.raises(ValueError, match=r"width must be a whole number of at least 1.*got 0"):
        BandTightBoxLoss(width=0)
    for kind in (SizeLoss, PixelSizeLoss):
        with pytest.raises(ValueError, match=r"0 <= low < high <= 1; got low=0.5 and high=0.4"):
            kind(low=0.5, high=0.4)
    with pytest.raises(ValueError, match=r"tight_weight must be a finite number of at least 0; got -1\.0"):
        WeakBoxLoss(tight_weight=-1.0)
