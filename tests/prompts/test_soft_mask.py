"""The extractor: the seed's formulas on the upsampled mask, gradients, degenerate masks, and no dead knob."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import degenerate_masks, lesion, soft_masks
from torch import Tensor
from torch.nn import functional

from ultrarefiner.ops import pad_frame
from ultrarefiner.prompts import (
    BoxBackground,
    Centroid,
    DifferentiablePromptExtractor,
    FarCorner,
    MeanShift,
)
from ultrarefiner.types import Prompts

RULES = [Centroid(), Centroid(gamma=2.0), MeanShift(), BoxBackground(), FarCorner()]


def seed_formulas(probability: Tensor, size: int = 1024, softness: float = 5.12) -> tuple[Tensor, Tensor, Tensor]:
    """The seed's formulas, plainly, on one mask upsampled to SAM's frame: both points and the box, in indices."""
    mask = functional.interpolate(probability[None, None].double(), (size, size), mode="bilinear")[0, 0]
    grid = torch.arange(size, dtype=torch.float64)
    x, y = grid[None, :], grid[:, None]
    mass = mask.sum()
    centre = torch.stack([(mask * x).sum() / mass, (mask * y).sum() / mass])
    deviation = torch.stack(
        [
            ((mask * (x - centre[0]) ** 2).sum() / mass).sqrt(),
            ((mask * (y - centre[1]) ** 2).sum() / mass).sqrt(),
        ]
    )
    low, high = (centre - 2.5 * deviation).clamp(min=-0.5), (centre + 2.5 * deviation).clamp(max=size - 0.5)
    edges = [
        torch.sigmoid((line - a) / softness) * torch.sigmoid((b - line) / softness)
        for line, a, b in ((x, low[0], high[0]), (y, low[1], high[1]))
    ]
    background = (1 - mask) * edges[0] * edges[1]
    negative = torch.stack([(background * x).sum(), (background * y).sum()]) / background.sum()
    return centre, negative, torch.cat([low, high])


@given(
    side=st.sampled_from([(56, 56), (112, 224), (224, 224), (300, 500)]),
    radius=st.floats(0.08, 0.3),
    aspect=st.floats(0.4, 1.6),
    place=st.tuples(st.floats(0.35, 0.65), st.floats(0.35, 0.65)),
    blur=st.booleans(),
)
@settings(deadline=None, max_examples=15)
def test_agrees_with_the_seed_on_the_upsampled_mask(
    side: tuple[int, int], radius: float, aspect: float, place: tuple[float, float], blur: bool
) -> None:
    height, width = side
    hard = lesion(height, width, (place[0] * height, place[1] * width), (radius * height, radius * aspect * width))[
        None, None
    ]
    mask = functional.avg_pool2d(hard, 5, 1, 2, count_include_pad=False) if blur else hard
    prompts = DifferentiablePromptExtractor(image_size=1024)(mask)
    positive, negative, box = seed_formulas(mask[0, 0])
    assert (prompts.points[0, 0, 0] - positive).abs().max() < 0.5
    assert (prompts.points[0, 0, 1] - negative).abs().max() < 0.5
    assert (prompts.boxes[0, 0] - box).abs().max() < 0.5


def test_the_mask_prompt_is_the_seeds() -> None:
    mask = torch.rand(1, 1, 256, 256)
    logits = DifferentiablePromptExtractor(image_size=1024)(mask).mask_logits
    torch.testing.assert_close(logits, (mask * 2 - 1) * 10)
    coarse = torch.rand(1, 1, 100, 160)
    expected = functional.interpolate(coarse, (256, 256), mode="bilinear", antialias=True) * 20 - 10
    torch.testing.assert_close(
        DifferentiablePromptExtractor(image_size=1024)(coarse).mask_logits, expected, atol=1e-4, rtol=0
    )


def test_gaussian_reflects_at_the_border() -> None:
    full = torch.ones(1, 1, 64, 64)
    logits = DifferentiablePromptExtractor(image_size=256, mask_style="gaussian")(full).mask_logits
    assert logits.min() > 9.99


def test_padding_of_the_frame_is_background() -> None:
    frame = pad_frame((50, 100), 256)
    prompts = DifferentiablePromptExtractor(image_size=256)(torch.ones(1, 1, 50, 100), frame)
    assert (prompts.mask_logits[0, 0, :31] > 9.9).all()
    assert (prompts.mask_logits[0, 0, 32:] == -10).all()
    torch.testing.assert_close(prompts.points[0, 0, 0], torch.tensor([127.5, 63.5]))


@pytest.mark.parametrize("style", ["direct", "gaussian", None])
@pytest.mark.parametrize(
    ("positive", "negative"), list(itertools.product([*RULES[:3], None], [*RULES[3:], None]))[::2], ids=repr
)
@given(
    mask=soft_masks(images=1, masks=2, side=10),
    floor=st.sampled_from([0.0, 0.01]),
    sigmas=st.sampled_from([None, 1.5, 2.5]),
    pad=st.booleans(),
)
@settings(deadline=None, max_examples=2)
def test_gradcheck_of_every_style_and_option(
    mask: Tensor, style: str, positive: object, negative: object, floor: float, sigmas: float | None, pad: bool
) -> None:
    extractor = DifferentiablePromptExtractor(
        image_size=32,
        mask_style=style,
        positive=positive,
        negative=negative,
        sigmas=sigmas,
        floor=floor,
        logit_scale=3.0,
        blur_sigma=0.03,
    )
    frame = pad_frame(mask.shape[-2:], 32) if pad else None

    def tensors(x: Tensor) -> tuple[Tensor, ...]:
        prompts = extractor(x, frame)
        return tuple(t for t in (prompts.points, prompts.boxes, prompts.mask_logits) if t is not None)

    if tensors(mask):
        assert torch.autograd.gradcheck(tensors, mask.requires_grad_(), atol=1e-4)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(mask=soft_masks(images=1, masks=1, side=12))
@settings(deadline=None, max_examples=6)
def test_gradcheck_of_every_rule(mask: Tensor, rule: object) -> None:
    extractor = DifferentiablePromptExtractor(image_size=64, mask_style=None, positive=rule, negative=None)
    assert torch.autograd.gradcheck(lambda x: extractor(x).points, mask.requires_grad_(), atol=1e-4)


def same(first: Prompts, second: Prompts) -> None:
    for one, two in zip(vars(first).values(), vars(second).values(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


@given(mask=soft_masks(images=3, masks=3))
@settings(deadline=None, max_examples=10)
def test_a_batch_equals_each_element(mask: Tensor) -> None:
    extractor = DifferentiablePromptExtractor(image_size=64, positive=MeanShift(), mask_style="gaussian")
    whole = extractor(mask)
    for b, k in itertools.product(range(mask.shape[0]), range(mask.shape[1])):
        alone = extractor(mask[b : b + 1, k : k + 1])
        same(alone, Prompts(*(t[b : b + 1, k : k + 1] for t in vars(whole).values() if t is not None)))
    same(extractor(mask.flip(0, 1)), Prompts(*(t.flip(0, 1) for t in vars(whole).values() if t is not None)))


@pytest.mark.parametrize("name", list(degenerate_masks()))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rule", [Centroid(), Centroid(gamma=3.0), MeanShift()], ids=repr)
def test_degenerate_masks_are_defined_and_finite(name: str, dtype: torch.dtype, rule: object) -> None:
    mask = degenerate_masks()[name].to(dtype).requires_grad_()
    extractor = DifferentiablePromptExtractor(image_size=64, positive=rule, mask_style="gaussian")
    prompts = extractor(mask)
    (prompts.points.sum() + prompts.boxes.sum() + prompts.mask_logits.sum()).backward()
    assert prompts.points.dtype == torch.float32
    for tensor in (prompts.points, prompts.boxes, prompts.mask_logits, mask.grad):
        assert torch.isfinite(tensor).all()
    assert prompts.valid.item() == ("empty" not in name)
    if "empty" in name:
        assert prompts.labels.tolist() == [[[-1, -1]]]
        assert (prompts.mask_logits == -10).all()
        assert mask.grad.abs().max() == 0


@pytest.mark.parametrize("rule", [BoxBackground(), FarCorner()], ids=repr)
def test_a_full_mask_has_no_background_point(rule: object) -> None:
    prompts = DifferentiablePromptExtractor(image_size=64, negative=rule)(torch.ones(1, 1, 32, 32))
    assert prompts.labels.tolist() == [[[1, -1]]]


def test_rounding_below_zero_does_no_harm() -> None:
    mask = torch.full((1, 1, 100, 100), -1.7e-5)
    mask[..., 50, 50:56] = 1
    prompts = DifferentiablePromptExtractor()(mask)
    assert torch.isfinite(prompts.boxes).all()


def value_at(mask: Tensor, point: Tensor, size: int) -> float:
    x, y = ((point + 0.5) * torch.tensor([mask.shape[-1], mask.shape[-2]]) / size).floor().long().tolist()
    return mask[0, 0, y, x].item()


@pytest.mark.parametrize("name", ["two lesions", "ring", "border", "one row", "one pixel"])
def test_mean_shift_ends_inside_where_the_centroid_may_not(name: str) -> None:
    mask = degenerate_masks()[name]
    points = [
        DifferentiablePromptExtractor(image_size=256, positive=rule)(mask).points[0, 0, 0]
        for rule in (MeanShift(), Centroid())
    ]
    assert value_at(mask, points[0], 256) == 1
    if name in ("two lesions", "ring"):
        assert value_at(mask, points[1], 256) == 0


def test_mean_shift_follows_its_lesion() -> None:
    mask = lesion(64, 64, (20, 20), (9, 9))[None, None].requires_grad_()
    point = DifferentiablePromptExtractor(image_size=64, positive=MeanShift())(mask).points[0, 0, 0]
    assert (point - 19.5).abs().max() < 1.5
    point[0].backward()
    assert mask.grad[0, 0, 20, 24] > 0 > mask.grad[0, 0, 20, 15]


def test_a_floor_undoes_what_a_uniform_probability_does_to_the_box() -> None:
    clean = lesion(256, 256, (128, 128), (25, 25))[None, None]
    dirty = clean.clamp(min=0.01)
    width = [
        (DifferentiablePromptExtractor(floor=floor)(mask).boxes[0, 0] * torch.tensor([-1.0, 0, 1, 0])).sum().item()
        for mask, floor in ((clean, 0.0), (dirty, 0.0), (dirty, 0.01))
    ]
    assert width[1] > 3 * width[0]
    assert width[2] == pytest.approx(width[0], abs=0.5)


@pytest.mark.parametrize(
    "change",
    [
        {"mask_style": "gaussian"},
        {"mask_style": None},
        {"positive": Centroid(gamma=2.0)},
        {"positive": MeanShift(bandwidth=0.05)},
        {"positive": MeanShift(steps=0)},
        {"positive": None},
        {"negative": FarCorner()},
        {"negative": BoxBackground(softness=0.05)},
        {"negative": None},
        {"sigmas": 2.0},
        {"sigmas": None},
        {"logit_scale": 5.0},
        {"blur_sigma": 0.05, "mask_style": "gaussian"},
        {"floor": 0.05},
        {"minimum_probability": 0.999},
    ],
    ids=str,
)
def test_every_knob_changes_the_result(change: dict[str, object]) -> None:
    generator = torch.Generator().manual_seed(3)
    mask = 0.9 * lesion(32, 32, (13, 18), (6, 9)) + 0.08 * torch.rand(32, 32, generator=generator)
    plain = (
        {"image_size": 128, "positive": MeanShift()}
        if isinstance(change.get("positive"), MeanShift)
        else {"image_size": 128}
    )
    if "blur_sigma" in change:
        plain["mask_style"] = "gaussian"
    before = DifferentiablePromptExtractor(**plain)
    after = DifferentiablePromptExtractor(**{**plain, **change})
    with pytest.raises(AssertionError):
        same(before(mask[None, None]), after(mask[None, None]))
    assert before.settings() != after.settings()


def test_autocast_does_not_narrow_coordinates() -> None:
    mask = lesion(224, 224, (100, 130), (30, 20))[None, None]
    extractor = DifferentiablePromptExtractor(positive=MeanShift())
    with torch.autocast("cpu", torch.bfloat16):
        narrow = extractor(mask)
    same(narrow, extractor(mask))


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (torch.zeros(8, 8), r"probability must be \(b, k, h, w\).*\(8, 8\).*mask\[None, None\]"),
        (torch.zeros(1, 1, 0, 8), r"at least one pixel"),
        (
            torch.zeros(1, 1, 8, 8, dtype=torch.uint8),
            r"floating point in \[0, 1\], but its dtype is torch.uint8",
        ),
        (
            torch.full((1, 1, 8, 8), 7.0),
            r"must lie in \[0, 1\], but its values span \[7, 7\]; apply torch.sigmoid",
        ),
        (torch.full((1, 1, 8, 8), torch.nan), r"must not hold NaN"),
        (torch.full((1, 1, 8, 8), torch.inf), r"must lie in \[0, 1\]"),
    ],
)
def test_wrong_masks_get_a_sentence(mask: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DifferentiablePromptExtractor()(mask)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mask_style": "distance"}, "mask_style must be 'direct', 'gaussian' or None, but it is 'distance'"),
        ({"floor": 0.2}, "floor is 0.2 and minimum_probability is 0.1. Lower the floor"),
        ({"sigmas": -1.0}, "must be above 0, but they are -1.0, 10.0"),
        ({"positive": lambda geometry: None}, "positive must be a point rule that is a dataclass"),
    ],
)
def test_wrong_options_get_a_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DifferentiablePromptExtractor(**options)


@pytest.mark.parametrize("rule", [lambda: MeanShift(bandwidth=0.0), lambda: BoxBackground(softness=0.0)])
def test_widths_of_zero_are_refused(rule: object) -> None:
    with pytest.raises(ValueError, match=r"must be above 0, a share of SAM's frame, but it is 0.0"):
        rule()


def test_steps_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be at least 0, but it is -1"):
        MeanShift(steps=-1)


def test_gamma_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gamma must be at least 1.*it is 0.5"):
        Centroid(gamma=0.5)
