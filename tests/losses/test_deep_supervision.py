"""Deep supervision: MONAI's sum, masks that keep their area, what a checkpoint remembers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import degenerate_masks, lesion
from torch import Tensor, nn

from ultrarefiner.checkpoints.settings import describe
from ultrarefiner.losses import (
    AGBCELoss,
    BinaryCrossEntropyLoss,
    DeepSupervision,
    DiceBCELoss,
    DiceLoss,
    FocalLoss,
    annotation_guided_bce_loss,
    binary_cross_entropy_loss,
)
from ultrarefiner.types import MultiScaleLogits

quick = settings(deadline=None, max_examples=10)
seeds = st.integers(0, 10_000)


def draw(seed: int, batch: int = 2, side: int = 16, scales: int = 4) -> tuple[MultiScaleLogits, Tensor, Tensor]:
    """Logits whose side doubles from scale to scale; a random target and another annotation."""
    generator = torch.Generator().manual_seed(seed)

    def noise(size: int) -> Tensor:
        return torch.randn(batch, 1, size, size, generator=generator, dtype=torch.float64)

    sides = tuple(noise(side >> step) for step in range(scales - 1, 0, -1))
    return MultiScaleLogits(noise(side), sides), (noise(side) > 0).double(), (noise(side) > 0).double()


class Spy(nn.Module):
    """Keeps the masks that it is shown."""

    def __init__(self, compares: bool = True) -> None:
        super().__init__()
        self.compares_annotations = compares
        self.seen: list[tuple[Tensor, ...]] = []

    def forward(self, logits: Tensor, *masks: Tensor) -> Tensor:
        self.seen.append(masks)
        return logits.sum()


def shrunk(mask: Tensor, *size: int) -> Tensor:
    """What a loss is shown on an output of that size."""
    spy = Spy(compares=False)
    DeepSupervision(spy)(MultiScaleLogits(torch.zeros_like(mask), (mask.new_zeros(*mask.shape[:2], *size),)), mask)
    return spy.seen[0][0]


@pytest.mark.parametrize(("ours", "weights"), [(DiceLoss(), None), (DiceBCELoss(), (0.125, 0.25, 0.5, 1.0))])
def test_it_is_monai_s(ours: nn.Module, weights: tuple[float, ...] | None) -> None:
    from monai.losses import DeepSupervisionLoss

    output, _, _ = draw(0)
    # Blocks of 8 pixels: here MONAI's nearest pixel and the covered area are the same.
    target = (torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(1)) > 0).double()
    target = target.repeat_interleave(8, -1).repeat_interleave(8, -2)
    oracle = DeepSupervisionLoss(ours, weight_mode="same", weights=weights)  # takes the nearest pixel, in float32
    expected = oracle([*output.side_logits, output.logits], target)
    actual = DeepSupervision(ours, weights)(output, target).float()
    torch.testing.assert_close(actual, expected)


@given(seed=seeds, weights=st.lists(st.floats(0, 3), min_size=4, max_size=4))
@quick
def test_it_is_the_weighted_sum(seed: int, weights: list[float]) -> None:
    output, target, other = draw(seed)
    losses = [DiceLoss(), AGBCELoss(kernel_size=2), FocalLoss(), AGBCELoss(weight=4.0)]
    expected = torch.zeros((), dtype=torch.float64)
    for logits, loss, weight in zip([*output.side_logits, output.logits], losses, weights, strict=True):
        side = logits.shape[-1]
        masks = [(torch.nn.functional.adaptive_avg_pool2d(mask, side) >= 0.5).double() for mask in (target, other)]
        expected = expected + weight * loss(logits, *(masks if isinstance(loss, AGBCELoss) else masks[:1]))
    torch.testing.assert_close(DeepSupervision(losses, weights)(output, target, other), expected)


@given(seed=seeds)
@settings(deadline=None, max_examples=4)
def test_the_gradient_is_the_derivative(seed: int) -> None:
    output, target, other = draw(seed, batch=1, side=8, scales=3)
    loss = DeepSupervision([DiceLoss(), BinaryCrossEntropyLoss(), AGBCELoss()], (0.5, 2.0, 1.0))
    inputs = [logits.requires_grad_() for logits in (*output.side_logits, output.logits)]

    def total(*scales: Tensor) -> Tensor:
        return loss(MultiScaleLogits(scales[-1], scales[:-1]), target, other)

    assert torch.autograd.gradcheck(total, inputs)


def test_a_batch_is_each_image_alone() -> None:
    output, target, other = draw(0, batch=3)
    loss = DeepSupervision(AGBCELoss(reduction="none"))
    together = loss(output, target, other)
    assert together.shape == (3, 1)
    for image in range(3):
        one = slice(image, image + 1)
        alone = MultiScaleLogits(output.logits[one], tuple(side[one] for side in output.side_logits))
        torch.testing.assert_close(loss(alone, target[one], other[one])[0], together[image])


def test_the_paper_s_loss() -> None:
    output, target, other = draw(0)
    expected = annotation_guided_bce_loss(output.logits, target, other, weight=12.0, kernel_size=4)
    for logits in output.side_logits:
        expected = expected + binary_cross_entropy_loss(logits, shrunk(target, *logits.shape[-2:]))
    torch.testing.assert_close(DeepSupervision.paper()(output, target, other), expected)
    assert not torch.allclose(DeepSupervision.paper(weight=3.0)(output, target, other), expected)
    two = MultiScaleLogits(output.logits, output.side_logits[1:])
    assert DeepSupervision.paper(sides=2)(two, target, other) < expected


def test_the_published_code_s_loss() -> None:
    output, target, other = draw(0)
    expected = torch.zeros((), dtype=torch.float64)
    for kernel_size, logits in enumerate([*output.side_logits, output.logits], 1):
        masks = [shrunk(mask, *logits.shape[-2:]) for mask in (target, other)]
        expected = expected + annotation_guided_bce_loss(logits, *masks, weight=4.0, kernel_size=kernel_size)
    torch.testing.assert_close(DeepSupervision.published_code()(output, target, other), expected)
    assert not torch.allclose(DeepSupervision.published_code(weight=12.0)(output, target, other), expected)


@pytest.mark.parametrize("side", [28, 56, 112])
def test_a_mask_keeps_its_area(side: int) -> None:
    # A regression test of the published code's resizing: bilinear, then the fractions cut off.
    generator = torch.Generator().manual_seed(0)
    numbers = torch.rand(40, 4, generator=generator).tolist()
    masks = torch.stack(
        [lesion(224, 224, (70 + 80 * a, 70 + 80 * b), (25 + 35 * c, 25 + 35 * d)) for a, b, c, d in numbers]
    )
    area = masks.sum((-2, -1))
    kept = shrunk(masks[:, None], side, side).sum((-2, -1))[:, 0] * (224 / side) ** 2 / area
    assert kept.mean().item() == pytest.approx(1, abs=0.015)  # of pixels covered to exactly a half, at 1/2
    assert (kept - 1).abs().max() < 0.05
    published = nn.functional.interpolate(masks[:, None], (side, side), mode="bilinear").floor()
    lost = 1 - published.sum((-2, -1))[:, 0] * (224 / side) ** 2 / area
    assert lost.mean() > 0.025


@given(
    seed=seeds,
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    new_size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
)
@settings(deadline=None, max_examples=25)
def test_a_pixel_is_1_where_half_of_it_is_covered(seed: int, size: tuple[int, int], new_size: tuple[int, int]) -> None:
    mask = (torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(seed)) < 0.5).float()
    # Every pixel repeated to the least common raster, then counted.
    rasters = [math.lcm(old, new) for old, new in zip(size, new_size, strict=True)]
    fine = np.kron(mask[0, 0].numpy(), np.ones([raster // old for raster, old in zip(rasters, size, strict=True)]))
    blocks = [raster // new for raster, new in zip(rasters, new_size, strict=True)]
    counts = fine.reshape(new_size[0], blocks[0], new_size[1], blocks[1]).sum((1, 3))
    expected = torch.from_numpy(2 * counts >= blocks[0] * blocks[1]).float()[None, None]
    assert torch.equal(shrunk(mask, *new_size), expected)


@pytest.mark.parametrize("name", list(degenerate_masks()))
def test_degenerate_masks(name: str) -> None:
    mask = degenerate_masks()[name]
    small = shrunk(mask, 3, 4)
    assert small.unique().tolist() in ([0.0], [1.0], [0.0, 1.0])
    assert small.any() == (name in {"full", "ring", "floor of 0.05"})
    output = MultiScaleLogits(torch.zeros_like(mask), (torch.zeros_like(small),))
    assert DeepSupervision.paper(sides=1)(output, mask, mask).isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    output, target, other = draw(0)
    half = MultiScaleLogits(output.logits.to(dtype), tuple(side.to(dtype) for side in output.side_logits))
    wide = MultiScaleLogits(half.logits.float(), tuple(side.float() for side in half.side_logits))
    loss = DeepSupervision.published_code()
    actual = loss(half, target.to(dtype), other.to(dtype))
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, loss(wide, target.float(), other.float()))


def test_a_mask_is_resized_once_for_each_size_and_not_at_its_own() -> None:
    spy = Spy()
    target, other = torch.rand(2, 1, 1, 8, 8).round()
    sides = (torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    DeepSupervision(spy)(MultiScaleLogits(torch.zeros(1, 1, 8, 8), sides), target, other)
    (first, first_other), (second, second_other), (last, last_other) = spy.seen
    assert first is second
    assert first_other is second_other
    assert last is target
    assert last_other is other


def test_only_a_loss_that_compares_is_told_the_other_annotation() -> None:
    output, target, other = draw(0, scales=2)
    deaf, listening = Spy(compares=False), Spy()
    DeepSupervision([deaf, listening])(output, target, other)
    assert len(deaf.seen[0]) == 1
    assert len(listening.seen[0]) == 2
    plain = DeepSupervision(BinaryCrossEntropyLoss())
    assert torch.equal(plain(output, target, other), plain(output, target))


def test_it_says_whether_it_compares_annotations() -> None:
    assert DeepSupervision.paper().compares_annotations
    assert DeepSupervision.published_code().compares_annotations
    assert DeepSupervision(AGBCELoss()).compares_annotations
    assert not DeepSupervision(BinaryCrossEntropyLoss()).compares_annotations
    assert not DeepSupervision([DiceLoss(), DiceBCELoss()]).compares_annotations
    nested = DeepSupervision.paper(sides=1)
    assert getattr(nested, "compares_annotations", False)


def test_a_module_list_is_a_sequence() -> None:
    output, target, _ = draw(0, scales=2)
    losses = [DiceLoss(), BinaryCrossEntropyLoss()]
    expected = DeepSupervision(losses)(output, target)
    assert torch.equal(DeepSupervision(nn.ModuleList(losses))(output, target), expected)


def test_no_side_output_is_the_loss_alone() -> None:
    output, target, _ = draw(0, scales=1)
    assert torch.equal(DeepSupervision(DiceLoss())(output, target), DiceLoss()(output.logits, target))


def test_different_options_are_described_differently() -> None:
    one = AGBCELoss()
    kinds = [
        DeepSupervision(one),
        DeepSupervision([one]),
        DeepSupervision(one, (1.0,)),
        DeepSupervision(one, (2.0,)),
        DeepSupervision(AGBCELoss(kernel_size=3)),
        DeepSupervision(AGBCELoss(weight=4.0)),
        DeepSupervision.paper(),
        DeepSupervision.paper(weight=4.0),
        DeepSupervision.paper(sides=2),
        DeepSupervision.published_code(),
        DeepSupervision.published_code(weight=12.0),
        DeepSupervision(BinaryCrossEntropyLoss()),
    ]
    described = [repr(describe(kind)) for kind in kinds]
    assert len(set(described)) == len(kinds)
    assert describe(DeepSupervision.paper()) == describe(DeepSupervision.paper())
    assert describe(DeepSupervision([DiceLoss(), one], (0.5, 1.0))) == {
        "class": "DeepSupervision",
        "loss": [
            {"class": "DiceLoss", "smooth": 1.0, "reduction": "mean"},
            {"class": "AGBCELoss", "weight": 12.0, "kernel_size": 4, "reduction": "mean"},
        ],
        "weights": [0.5, 1.0],
    }


@pytest.mark.usefixtures("unhooked")
def test_it_compiles_to_one_graph() -> None:
    output, target, other = draw(0)
    loss = DeepSupervision.published_code()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(output, target, other), loss(output, target, other))


@pytest.mark.parametrize(
    ("loss", "weights", "got"),
    [
        ([DiceLoss(), DiceLoss()], (1.0,), r"a sequence of 2 and weights=\(1.0,\)"),
        ([], None, "a sequence of 0 and weights=None"),
        (DiceLoss(), (), r"1 module and weights=\(\)"),
    ],
)
def test_losses_and_weights_that_do_not_match_are_refused(loss: object, weights: object, got: str) -> None:
    with pytest.raises(ValueError, match=rf"loss must be one module or a sequence.*as many numbers; got {got}\."):
        DeepSupervision(loss, weights)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_negative_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"weights\[1\] must be a finite number of at least 0; got {weight}"):
        DeepSupervision(DiceLoss(), (1.0, weight))


@pytest.mark.usefixtures("unhooked")
def test_a_plain_tensor_is_refused() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"output must be MultiScaleLogits.*got Tensor. Build .*deep_supervision=True"):
        DeepSupervision(DiceLoss())(mask, mask)


@pytest.mark.parametrize(
    ("loss", "expected"), [(DeepSupervision.paper(), 4), (DeepSupervision(DiceLoss(), (1.0, 1.0)), 2)]
)
def test_another_number_of_outputs_is_refused(loss: DeepSupervision, expected: int) -> None:
    output, target, other = draw(0, scales=3)
    sentence = (
        rf"output must have {expected} scales, one for each loss or weight; got 3 \(2 side outputs and the mask\)"
    )
    with pytest.raises(ValueError, match=sentence):
        loss(output, target, other)


def test_a_missing_annotation_is_refused() -> None:
    output, target, _ = draw(0)
    with pytest.raises(ValueError, match=r"other_annotation must be given, because a loss compares it.*got None. Pass"):
        DeepSupervision.paper()(output, target)


@pytest.mark.usefixtures("unhooked")
def test_other_shapes_are_refused() -> None:
    output, target, other = draw(0)
    with pytest.raises(ValueError, match=r"other_annotation must have the shape of the target.*got \(2, 1, 8, 16\)"):
        DeepSupervision.paper()(output, target, other[..., :8, :])
    with pytest.raises(ValueError, match=r"target must have the shape of the logits.*got \(1, 1, 2, 2\)"):
        DeepSupervision.paper()(output, target[:1], other[:1])
