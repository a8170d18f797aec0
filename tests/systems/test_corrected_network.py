"""CorrectedNetwork: any network's answer, made once, corrected at every click; and the parts below both adapters."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from ultrarefiner.refinement import GRUCorrection, WrittenClicks
from ultrarefiner.sam import build_sam
from ultrarefiner.systems import (
    AtSize,
    CorrectedNetwork,
    InteractiveModel,
    InteractiveSession,
    SAMRefiner,
    UltraRefiner,
)
from ultrarefiner.systems.answered_rounds import AnsweredRound, AnsweredRounds
from ultrarefiner.systems.click_correction import correct_at_clicks, raster_position, raster_size
from ultrarefiner.types import Clicks, MultiScaleLogits

SIZES = {2: (20, 30), 3: (6, 10, 12)}


class Coarse(nn.Module):
    """Its logits are the first channel; it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, images):
        self.asked += 1
        return 4 * images[:, :1]


def busy_correction(dimensions=2, **options) -> GRUCorrection:
    torch.manual_seed(1)
    made = GRUCorrection(**{"points": 12, "hidden": 8, "radius": 4.0, "dimensions": dimensions, **options})
    for name, parameter in made.named_parameters():
        if "head" in name:
            nn.init.normal_(parameter, std=0.5)
    return made


def noise(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


def some_clicks(dimensions, count):
    places = [tuple((7 * index + 3 * axis) % side for axis, side in enumerate(SIZES[dimensions])) for index in range(5)]
    return Clicks.at(places[:count], positive=[True, False, False, True, False][:count])


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("options", [{}, {"correction_side": 9}, {"cache_bytes": 0}, {"cache_bytes": 5000}])
def test_clicks_ask_nothing_and_undo_is_exact(dimensions, options) -> None:
    network, image = Coarse(), noise(1, *SIZES[dimensions])
    model = CorrectedNetwork(network, busy_correction(dimensions), **options)
    assert isinstance(model, InteractiveModel)
    session, answers = InteractiveSession(model, image), []
    assert torch.equal(session.logits, 4 * image), "the network's answer, before the first click"
    clicks = some_clicks(dimensions, 5)
    for place, positive in zip(clicks.positions[0], clicks.positive[0].tolist(), strict=True):
        session.click(place, positive)
        answers.append(session.logits.clone())
        assert session.logits.shape == image.shape
    assert network.asked == 1
    assert session._state.rounds.bytes <= model.cache_bytes
    assert not any(torch.equal(one, other) for one, other in pairwise(answers))
    assert torch.equal(model(image, clicks=clicks), answers[-1])
    for earlier in reversed(answers[:-1]):
        session.undo()
        assert torch.equal(session.logits, earlier)
    session.click(clicks.positions[0, 3], True)
    session.undo()
    assert torch.equal(session.logits, answers[0])
    session.undo()
    assert torch.equal(session.logits, 4 * image)
    assert torch.equal(session.mask, image > 0)
    assert session.history == ()
    assert network.asked == 2
    assert torch.equal(model.segment(session._state, None, None), 4 * image)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_it_is_the_correction_over_the_clicks_one_by_one(dimensions) -> None:
    image, correction = noise(1, *SIZES[dimensions]), busy_correction(dimensions)
    logits, state, written = 4 * image[None], None, torch.zeros(1, *SIZES[dimensions], dtype=torch.bool)
    clicks = some_clicks(dimensions, 4)
    with torch.no_grad():
        for index in range(4):
            parts = (clicks.positions, clicks.positive, clicks.valid)
            made = correction(logits, Clicks(*(part[:, index : index + 1] for part in parts)), state)
            logits, state, written = made.logits, made.state, written | made.written[0]
    found = CorrectedNetwork(Coarse(), correction)(image, clicks=clicks)
    assert torch.equal(found, logits[0])
    changed = found != 4 * image
    assert changed.any()
    assert not (changed & ~written).any()


def test_a_fresh_correction_changes_nothing_on_any_raster() -> None:
    image, fresh = noise(1, 20, 30), GRUCorrection(points=5, hidden=4, dimensions=2)
    for side in (None, 7, 30, 90):
        found = CorrectedNetwork(Coarse(), fresh, correction_side=side)(image, clicks=some_clicks(2, 3))
        assert torch.equal(found, 4 * image)


def test_on_a_raster_the_change_is_brought_back_where_it_was_made() -> None:
    correction = GRUCorrection(points=1, hidden=2, dimensions=2, radius=1.0).requires_grad_(False)
    nn.init.ones_(correction.value_head.bias)
    logits = noise(1, 1, 60, 80) - 9.0
    logits[..., 32:36, 68:72] = 0.0  # where both the most uncertain and the wrong point are
    logits[..., 33, 70] = -0.1
    found = correct_at_clicks(correction, logits, (((33, 70), True),), side=20)
    assert found.raster_logits.shape == (1, 1, 15, 20)
    change = (found.logits - logits)[0, 0]
    rows, columns = torch.nonzero(change.abs() > 1e-4).T
    # The click lies in the raster's (8, 17), which covers rows 32 to 35 and columns 68 to 71.
    assert raster_position((33, 70), (60, 80), (15, 20)) == (8, 17)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 37, 66, 73)
    assert change.max() == pytest.approx(0.875**2, abs=1e-4)
    again = correct_at_clicks(
        correction, logits, (((33, 70), True),), side=20, state=found.state, earlier=found.raster_logits
    )
    torch.testing.assert_close((again.logits - logits)[0, 0], 2 * change)


def test_a_rasters_shape() -> None:
    assert raster_size((512, 512, 30), 64) == (64, 64, 4)
    assert raster_size((3, 1000), 10) == (1, 10)
    assert raster_size((5, 4), 10) == (10, 8)


@pytest.mark.parametrize("kind", ["other raster", "deep supervision", "at size", "ultrarefiner", "half"])
def test_answers_of_many_kinds(kind) -> None:
    image, clicks = torch.rand(1, 20, 30, generator=torch.Generator().manual_seed(0)), some_clicks(2, 2)
    torch.manual_seed(0)
    half = nn.Conv2d(1, 1, 3, padding=1).to(torch.bfloat16)
    networks = {
        "other raster": nn.Sequential(Coarse(), nn.AvgPool2d(2)),
        "deep supervision": Deep(),
        "at size": AtSize(Coarse(), 16),
        "ultrarefiner": UltraRefiner(coarse=nn.Conv2d(1, 1, 1), refiner=SAMRefiner(build_sam("tiny", image_size=32))),
        "half": half,
    }
    model = CorrectedNetwork(networks[kind].eval(), busy_correction())
    coarse = model(image)
    assert coarse.shape == image.shape
    assert coarse.dtype == torch.float32
    if kind == "deep supervision":
        assert torch.equal(coarse, 4 * image)
    if kind == "ultrarefiner":
        assert torch.equal(coarse, networks[kind](image[None]).refined_logits[0].detach())
    assert not torch.equal(model(image, clicks=clicks), coarse)


class Deep(Coarse):
    def forward(self, images):
        return MultiScaleLogits(super().forward(images), (images[..., ::2, ::2],))


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            torch.zeros(1, 4, 4, 4),
            "a channel and 2 axes with at least one voxel, as many as the correction is for, but it is of the shape",
        ),
        (torch.zeros(4, 4), "add a channel with"),
        (torch.zeros(1, 0, 4), "at least one voxel"),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), "must be floating point"),
        ("image", "image must be a tensor, a channel and 2 axes, but it is a str"),
        ([1, 2], "a list; make one of an array with torch.from_numpy"),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), r"torch.uint8; convert it with \.float\(\)"),
    ],
)
def test_images_that_are_none(image, message) -> None:
    with pytest.raises(ValueError, match=message):
        CorrectedNetwork(Coarse(), busy_correction()).start(image)


@pytest.mark.usefixtures("unhooked")
def test_images_that_are_none_for_a_correction_of_any_dimensions() -> None:
    model = CorrectedNetwork(Coarse(), WrittenClicks(count=5))
    for image in ([1, 2], None):
        with pytest.raises(ValueError, match="image must be a tensor, a channel and 2 or 3 axes"):
            model.start(image)
    with pytest.raises(ValueError, match="a channel and 2 or 3 axes with at least one voxel"):
        model.start(torch.zeros(4, 4))


@pytest.mark.usefixtures("unhooked")
def test_answers_that_are_not_one_mask() -> None:
    for network, came in ((nn.Conv2d(1, 3, 1), r"\(1, 3, 8, 8\)"), (nn.Flatten(), r"\(1, 64\)")):
        with pytest.raises(ValueError, match=f"network must answer one image with logits of one mask.*{came}"):
            CorrectedNetwork(network, busy_correction()).start(torch.zeros(1, 8, 8))


@pytest.mark.usefixtures("unhooked")
def test_boxes_and_clicks_that_are_none() -> None:
    model = CorrectedNetwork(Coarse(), busy_correction())
    session = InteractiveSession(model, torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="box must be None for Coarse, which takes no prompt"):
        session.box((0, 0, 3, 3))
    assert session.history == ()
    session.click((1, 1))
    with pytest.raises(ValueError, match="clicks must lie inside"):
        model(torch.zeros(1, 8, 8), clicks=Clicks.at([(8, 0)], positive=[True]))
    with pytest.raises(ValueError, match="correction_side must be None or at least 1"):
        CorrectedNetwork(Coarse(), busy_correction(), correction_side=0)


def test_rounds_go_from_the_nearest_that_is_kept_and_the_oldest_go_first() -> None:
    made = []

    def ask(told, before):
        made.append(len(told))
        return AnsweredRound(torch.zeros(1, 1, 5, 5) + (0 if before is None else before.logits) + len(told))

    told = tuple(((index, index), True) for index in range(4))
    rounds = AnsweredRounds(cache_bytes=250)  # two of 100 bytes
    assert rounds.after(None, told, ask, first=1).logits[0, 0, 0, 0] == 10
    assert (made, len(rounds), rounds.bytes) == ([1, 2, 3, 4], 2, 200)
    made.clear()
    rounds.after(None, told[:3], ask, first=1)
    assert made == []
    rounds.after((0, 0, 1, 1), told[:1], ask, first=0)  # drops the fourth, asked for before the third
    assert made == [0, 1]
    made.clear()
    assert rounds.after(None, told[:2], ask, first=1).logits[0, 0, 0, 0] == 3
    assert made == [1, 2]
    with pytest.raises(ValueError, match="told must hold at least 1 clicks"):
        rounds.after(None, (), ask, first=1)
    with pytest.raises(ValueError, match="cache_bytes must be at least 0"):
        AnsweredRounds(cache_bytes=-1)


@pytest.mark.parametrize("size", [(20, 24), (6, 10, 12)])
def test_clicks_may_simply_be_written(size: tuple[int, ...]) -> None:
    network = nn.Conv2d(3, 1, 1) if len(size) == 2 else nn.Conv3d(3, 1, 1)
    nn.init.constant_(network.weight, 0.0)
    nn.init.constant_(network.bias, -1.0)
    session = InteractiveSession(CorrectedNetwork(network, WrittenClicks(count=5, radius=4.0)), torch.rand(3, *size))
    middle = tuple(side // 2 for side in size)
    session.click(middle)
    assert session.mask.sum() == 5
    assert session.mask[(0, *middle)]
    session.click(middle, positive=False)
    assert not session.mask.any()
