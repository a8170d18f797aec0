"""InteractiveSession: what was said, the way back, and models of two methods."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ultrarefiner.networks import build_segvol
from ultrarefiner.refinement import GRUCorrection
from ultrarefiner.systems import Interaction, InteractiveSession, VolumeSegmenter
from ultrarefiner.types import Clicks


class Painter:
    """A model for any number of axes: a box is 1, an object click adds 2, another takes 4."""

    def __init__(self) -> None:
        self.started = 0
        self.fails = False

    def start(self, volume):
        self.started += 1
        return volume

    def segment(self, state, box, clicks):
        if self.fails:
            raise RuntimeError("no answer")
        logits = torch.full((1, *state.shape[1:]), -1.0)
        axes = state.ndim - 1
        if box is not None:
            logits[(0, *(slice(box[axis], box[axis + axes] + 1) for axis in range(axes)))] += 2
        for place, positive in zip(clicks.positions[0].tolist(), clicks.positive[0].tolist(), strict=True):
            logits[(0, *place)] += 2 if positive else -4
        return logits


@pytest.mark.parametrize("axes", [2, 3])
def test_boxes_and_clicks_in_any_order_and_back(axes) -> None:
    model = Painter()
    session = InteractiveSession(model, torch.zeros(1, *(4, 5, 6)[:axes]))
    assert session.mask.shape == (1, *(4, 5, 6)[:axes])
    assert not session.mask.any()
    assert session.probability.sum() == 0
    assert session.logits is None
    session.click((3,) * axes)
    assert session.mask.sum() == 1
    session.box((0,) * axes + (1,) * axes)
    assert session.mask.sum() == 2**axes + 1
    session.click((0,) * axes, positive=False)
    assert session.mask.sum() == 2**axes
    session.box((2,) * axes + (2,) * axes)
    assert session.drawn_box == (2,) * (2 * axes)
    assert session.mask.sum() == 2
    assert session.history[-2:] == (
        Interaction("click", (0,) * axes, False),
        Interaction("box", (2,) * (2 * axes)),
    )
    assert session.clicks.positions.tolist() == [[[3] * axes, [0] * axes]]
    assert session.clicks.positive.tolist() == [[True, False]]
    session.undo()
    assert session.mask.sum() == 2**axes
    assert session.drawn_box == (0,) * axes + (1,) * axes
    for _ in range(3):
        session.undo()
    assert session.history == ()
    assert session.drawn_box is None
    assert session.clicks.positions.shape == (1, 0, axes)
    assert not session.mask.any()
    with pytest.raises(ValueError, match="nothing to take back"):
        session.undo()
    assert model.started == 1


def test_probability_and_mask_are_the_logits() -> None:
    session = InteractiveSession(Painter(), torch.zeros(1, 3, 3, 3))
    session.box((0, 0, 0, 1, 1, 1))
    torch.testing.assert_close(session.probability, session.logits.sigmoid())
    assert torch.equal(session.mask, session.probability > 0.5)


def test_an_answer_that_fails_leaves_all_as_it_was() -> None:
    model = Painter()
    session = InteractiveSession(model, torch.zeros(1, 4, 4, 4))
    session.click((1, 1, 1))
    before, model.fails = session.logits, True
    with pytest.raises(RuntimeError, match="no answer"):
        session.click((2, 2, 2))
    with pytest.raises(RuntimeError, match="no answer"):
        session.box((0, 0, 0, 1, 1, 1))
    assert session.logits is before
    assert len(session.history) == 1
    assert session.drawn_box is None


def test_the_spacing_gives_the_objects_size() -> None:
    volume, image = torch.zeros(1, 4, 4, 4), torch.zeros(3, 4, 4)
    cases = [(volume, None, 8.0), (volume, (5.0, 2.0, 1.0), 0.08), (image, (5.0, 2.0), 40.0)]
    cases += [(volume, np.array([5.0, 2.0, 1.0]), 0.08), (image, torch.tensor([5.0, 2.0]), 40.0)]
    cases += [(image, tuple(np.float32([5.0, 2.0])), 40.0)]
    for pixels, spacing, expected in cases:
        session = InteractiveSession(Painter(), pixels, spacing=spacing)
        session.box((0, 0, 0, 1, 1, 1) if pixels is volume else (0, 0, 1, 1))
        assert session.object_size == pytest.approx(expected)


@pytest.mark.parametrize("size", [(8, 16, 16), (11, 20, 35), (1, 40, 40)])
def test_with_segvol_clicks_encode_nothing_and_undo_is_exact(size) -> None:
    torch.manual_seed(0)
    network, passes = build_segvol("tiny", volume_size=(8, 16, 16)).eval(), []
    network.image_encoder.register_forward_hook(lambda *_: passes.append(1))
    correction = GRUCorrection(points=20, hidden=8)
    torch.nn.init.normal_(correction.value_head.weight)
    session = InteractiveSession(VolumeSegmenter(network, correction), torch.rand(1, *size), spacing=(3.0, 1.0, 1.0))
    last = tuple(side - 1 for side in size)
    session.box((0, 0, 0, *last))
    encoded, answers = len(passes), [session.logits.clone()]
    for voxel, positive in (((0, 8, 8), True), ((0, 3, 12), False), (last, True)):
        session.click(voxel, positive)
        answers.append(session.logits.clone())
        assert not torch.equal(answers[-1], answers[-2])
    assert len(passes) == encoded
    fresh = VolumeSegmenter(network, correction)(session._state.volume, box=(0, 0, 0, *last), clicks=session.clicks)
    assert torch.equal(fresh, answers[-1])
    encoded = len(passes)
    for expected in reversed(answers[:-1]):
        session.undo()
        assert torch.equal(session.logits, expected)
    session.click((0, 8, 8), True)
    assert torch.equal(session.logits, answers[1])
    session.undo()
    session.undo()
    session.click((0, 8, 8), True)
    assert session.logits.isfinite().all()
    session.box((0, 0, 0, *last))
    assert torch.equal(session.logits, answers[1])
    assert len(passes) <= encoded + len(session._state.windows)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("volume", "options", "message"),
    [
        (torch.zeros(4, 4), {}, "volume must be"),
        (torch.zeros(1, 0, 4, 4), {}, "at least one voxel"),
        ("volume", {}, "a str; add the channel"),
        (np.zeros((4, 4, 4)), {}, r"a ndarray; convert it with torch.from_numpy\(volume\)"),
        (torch.zeros(1, 4, 4, 4, dtype=torch.complex64), {}, "volume must hold real numbers, .* torch.complex64"),
        (torch.tensor([[[[0.0, float("nan")]]]]), {}, "NaN"),
        (torch.zeros(1, 4, 4, 4), {"spacing": (1.0, 1.0)}, "spacing must be 3 numbers"),
        (torch.zeros(1, 4, 4, 4), {"spacing": (1.0, 1.0, 0.0)}, "above 0"),
        (torch.zeros(1, 4, 4, 4), {"spacing": (1.0, 1.0, float("nan"))}, "above 0"),
        (torch.zeros(1, 4, 4, 4), {"spacing": 1.0}, "spacing must be 3 numbers above 0, .* but it is 1.0; pass None"),
        (torch.zeros(1, 4, 4, 4), {"spacing": (1.0, None, 1.0)}, r"but it is \(1.0, None, 1.0\)"),
        (torch.zeros(1, 4, 4, 4), {"spacing": "111"}, "but it is '111'"),
        (torch.zeros(1, 4, 4, 4), {"spacing": (True, 1.0, 1.0)}, "above 0"),
        (torch.zeros(1, 4, 4, 4), {"spacing": torch.ones(2, 2)}, "spacing must be 3 numbers"),
    ],
)
def test_volumes_that_are_none(volume, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        InteractiveSession(Painter(), volume, **options)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("position", "came"),
    [
        ((0, 0, 4), r"\(0, 0, 4\)"),
        ((-1, 0, 0), r"\(-1, 0, 0\)"),
        ((0, 0), r"\(0, 0\)"),
        ((0.5, 0, 0), r"\(0.5, 0, 0\)"),
        ("abc", "'abc'"),
        ((True, True, False), r"\(True, True, False\)"),
        (np.array([True, True, False]), r"\[True, True, False\] of bool"),
        (np.array([1.0, 2.0, 3.0]), r"\[1.0, 2.0, 3.0\] of float64"),
        (torch.tensor([1.0, 2.0, 3.0]), r"\[1.0, 2.0, 3.0\] of torch.float32"),
    ],
)
def test_clicks_outside(position, came) -> None:
    session = InteractiveSession(Painter(), torch.zeros(1, 4, 4, 4))
    with pytest.raises(ValueError, match=rf"position must be 3 whole numbers.* but it is {came}; it counts voxels"):
        session.click(position)
    assert session.history == ()


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    "positive", [1, 0, -1, "negative", None, 0.3, torch.tensor(1), np.int8(0), torch.tensor([True])]
)
def test_labels_are_not_guessed_at(positive) -> None:
    session = InteractiveSession(Painter(), torch.zeros(1, 4, 4, 4))
    with pytest.raises(ValueError, match="positive must be True, for the object, or False, for what is not, but it is"):
        session.click((0, 0, 0), positive)
    assert session.history == ()


@pytest.mark.parametrize(
    "given",
    [
        lambda *numbers: list(numbers),
        lambda *numbers: np.array(numbers),
        lambda *numbers: np.array(numbers, dtype=np.uint8),
        lambda *numbers: torch.tensor(numbers, dtype=torch.int32),
        lambda *numbers: [np.int64(number) for number in numbers],
        lambda *numbers: list(torch.tensor(numbers)),
    ],
)
@pytest.mark.parametrize("truth", [bool, np.bool_, torch.tensor])
def test_whole_numbers_and_truths_of_every_kind(given, truth) -> None:
    session = InteractiveSession(Painter(), torch.zeros(1, 4, 4, 4))
    session.box(given(0, 1, 2, 3, 3, 3))
    session.click(given(1, 2, 3), truth(True))
    session.click(given(3, 2, 1), truth(False))
    expected = Interaction("box", (0, 1, 2, 3, 3, 3)), Interaction("click", (1, 2, 3), True)
    assert session.history == (*expected, Interaction("click", (3, 2, 1), False))
    assert all(type(number) is int for one in session.history for number in one.voxels)
    assert session.history[2].positive is False


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 4, 3, 3), (2, 0, 0, 1, 3, 3), (0, 0, 3, 3), (0.0, 0, 0, 1, 1, 1), (0, 0, 0, 1, 1, True), None, "000111"],
)
def test_boxes_that_are_none(box) -> None:
    session = InteractiveSession(Painter(), torch.zeros(1, 4, 4, 4))
    with pytest.raises(ValueError, match="box must be 6 whole numbers"):
        session.box(box)
    session.box(torch.tensor([0, 0, 0, 1, 1, 1]))
    session.click(torch.tensor([3, 3, 3]))
    assert isinstance(session.clicks, Clicks)
    assert session.mask.sum() == 9


class Listener(Painter):
    """A text says how many voxels of the first row are the object; prompts are painted on them."""

    def start(self, volume, *, text=None):
        return super().start(volume), text

    def segment(self, state, box, clicks):
        volume, text = state
        logits = super().segment(volume, box, clicks)
        logits.view(-1)[: int(text or 0)] += 2
        return logits


def test_a_text_is_answered_at_once_and_after_all_is_undone() -> None:
    session = InteractiveSession(Listener(), torch.zeros(1, 4, 4, 4), text=3)
    assert session.history == ()
    assert session.mask.sum() == 3
    alone = session.logits.clone()
    session.click((3, 3, 3))
    assert session.mask.sum() == 4
    session.undo()
    assert torch.equal(session.logits, alone)
    with pytest.raises(ValueError, match="nothing to take back"):
        session.undo()
    assert InteractiveSession(Listener(), torch.zeros(1, 4, 4, 4)).logits is None


def test_a_model_without_ears_takes_no_text() -> None:
    model = Painter()
    with pytest.raises(ValueError, match=r"text must be None for Painter, whose start\(\) takes none"):
        InteractiveSession(model, torch.zeros(1, 4, 4, 4), text=3)
    assert model.started == 0


def test_segvol_listens_to_text_in_a_session() -> None:
    torch.manual_seed(0)
    model = VolumeSegmenter(build_segvol("tiny", volume_size=(8, 16, 16)).eval())
    volume, (text, other) = torch.rand(1, 10, 20, 24), torch.randn(2, 1, 96)
    session = InteractiveSession(model, volume, text=text)
    alone = session.logits.clone()
    assert torch.equal(alone, model(volume, text=text))
    assert not torch.allclose(alone, model(volume, text=other))
    session.box((1, 2, 3, 8, 18, 20))
    assert torch.equal(session.logits, model(volume, box=(1, 2, 3, 8, 18, 20), text=text))
    assert not torch.allclose(session.logits, model(volume, box=(1, 2, 3, 8, 18, 20)))
    session.undo()
    assert torch.equal(session.logits, alone)


def test_a_model_that_needs_no_prompt_is_shown_before_the_first() -> None:
    model = Painter()
    model.answers_unprompted = True
    session = InteractiveSession(model, torch.zeros(1, 4, 4))
    assert torch.equal(session.logits, torch.full((1, 4, 4), -1.0))
    session.click((1, 1))
    session.undo()
    assert torch.equal(session.logits, torch.full((1, 4, 4), -1.0))
    model.fails = True
    with pytest.raises(RuntimeError, match="no answer"):
        InteractiveSession(model, torch.zeros(1, 4, 4))
