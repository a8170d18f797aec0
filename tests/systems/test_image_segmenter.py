"""ImageSegmenter: against segment-anything's own predictor, a SAM that paints where it was told, and itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch import nn
from torch.nn import functional

from ultrarefiner.prompts import tight_object_box
from ultrarefiner.refinement import GRUCorrection, SoftSelection, select_uncertain
from ultrarefiner.sam import SAM, MedSAMInput, SAMInput, build_sam
from ultrarefiner.systems import ImageSegmenter, InteractiveModel, InteractiveSession
from ultrarefiner.types import Clicks

SIDE = 64


@pytest.fixture(scope="module")
def sam() -> SAM:
    torch.manual_seed(0)
    return build_sam("tiny", image_size=SIDE)


def busy_correction(**options) -> GRUCorrection:
    """One whose heads are not 0."""
    torch.manual_seed(1)
    made = GRUCorrection(**{"points": 12, "hidden": 8, "radius": 6.0, "dimensions": 2, **options})
    for name, parameter in made.named_parameters():
        if "head" in name:
            nn.init.normal_(parameter, std=0.5)
    return made


def picture(*size, seed=0):
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


class Painter:
    """SAM's three organs in one: its answer is 1 where its last point or the middle of its box is, in SAM's frame.

    Of three candidates the second one says it is best. A mask prompt is added to the answer.
    """

    image_embedding_size = (SIDE // 16, SIDE // 16)

    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.image_encoder, self.prompt_encoder, self.mask_decoder = nn.AvgPool2d(16), self, self.decide

    def get_dense_pe(self):
        return torch.zeros(1, 3, *self.image_embedding_size)

    def __call__(self, *, points, boxes, masks):
        self.told.append((points, boxes, masks))
        place = points[0][:, -1] if points is not None else (boxes[:, :2] + boxes[:, 2:]) / 2
        self.masks = masks
        return functional.pad(place, (0, 1))[:, None], torch.zeros(1, 3, *self.image_embedding_size)

    def decide(self, *, sparse_prompt_embeddings, multimask_output, **_):
        low = SIDE // 4
        x, y, _ = ((sparse_prompt_embeddings[0, 0] + 0.5) / 4).long().clamp(0, low - 1)
        logits = torch.full((1, 3 if multimask_output else 1, low, low), -10.0)
        logits[:, 1 if multimask_output else 0, y, x] = 40.0
        logits = logits if self.masks is None else logits + 0.1 * self.masks
        return logits, torch.tensor([[0.1, 0.9, 0.5]] if multimask_output else [[0.3]])


@pytest.mark.parametrize("size", [(48, 64), (64, 40), (30, 90), (150, 100), (64, 64)])
def test_box_and_clicks_are_what_segment_anythings_predictor_answers(sam, size) -> None:
    image, policy = picture(3, *size), sam.input_policy
    theirs = Sam(sam.image_encoder, sam.prompt_encoder, sam.mask_decoder).eval()
    predictor = SamPredictor(theirs)
    content = policy.frame(size).content
    resized = functional.interpolate(255 * image[None], content, mode="bilinear", antialias=True)
    predictor.set_torch_image(resized, size)
    places = [(5, 7), (size[0] - 1, size[1] - 2), (0, 20)]
    labels, box = [True, False, True], (3, 4, 20, 30)

    def placed(y, x):
        """The predictor scales pixel indices, and SAM adds half a pixel of its frame: that is given back here."""
        return [(at + 0.5) * ratio - 0.5 for at, ratio in ((x, content[1] / size[1]), (y, content[0] / size[0]))]

    def asked(some, corners, last):
        answer, iou, low = predictor.predict_torch(
            torch.tensor([[placed(*place) for place in places[:some]]]) if some else None,
            torch.tensor([labels[:some]]).int() if some else None,
            None if corners is None else torch.tensor([corners]),
            last,
            multimask_output=some == 1 and corners is None,
            return_logits=True,
        )
        best = iou[0].argmax()
        return answer[:, best], low[:, best : best + 1]

    corners = [*placed(box[0] - 0.5, box[1] - 0.5), *placed(box[2] + 0.5, box[3] + 0.5)]
    model = ImageSegmenter(sam)
    state = model.start(image)
    for drawn, told in ((None, None), (box, corners)):
        last = None
        for some in range(0 if told else 1, 4):
            expected, last = asked(some, told, last)
            clicks = Clicks.at(places[:some], positive=labels[:some]) if some else None
            torch.testing.assert_close(model.segment(state, drawn, clicks), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("policy", [SAMInput(SIDE), MedSAMInput(SIDE)])
@settings(deadline=None, max_examples=12)
@given(height=st.integers(1, 130), width=st.integers(1, 130), data=st.data())
def test_a_click_is_answered_where_it_is(policy, height, width, data) -> None:
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    model = ImageSegmenter(Painter(), input_policy=policy)
    logits = model(picture(1, height, width), clicks=Clicks.at([(y, x)], positive=[True]))
    assert logits.shape == (1, height, width)
    assert logits[0, y, x] > 0
    vertical, horizontal = policy.frame((height, width)).scale
    rows, columns = torch.nonzero(logits[0] > 0).float().T
    assert (rows - y).abs().max() * vertical <= 5.5 + vertical
    assert (columns - x).abs().max() * horizontal <= 5.5 + horizontal


@pytest.mark.parametrize("policy", [SAMInput(SIDE), MedSAMInput(SIDE)])
def test_a_box_ends_at_its_pixels_edges(policy) -> None:
    painter, size = Painter(), (32, 128)
    mask = torch.zeros(1, 1, *size)
    mask[..., 8:16, 64:96] = 1.0
    ImageSegmenter(painter, input_policy=policy)(
        picture(1, *size), box=tight_object_box(mask).boxes[0], clicks=Clicks.at([(10, 70)], positive=[False])
    )
    (x0, y0, x1, y1), (px, py) = painter.told[-1][1][0].tolist(), painter.told[-1][0][0][0, 0].tolist()
    up = SIDE / (size[0] if isinstance(policy, MedSAMInput) else size[1])
    assert (x0 + 0.5, x1 + 0.5) == pytest.approx((32, 48))
    assert (y0 + 0.5, y1 + 0.5) == pytest.approx((8 * up, 16 * up))
    assert (px + 0.5, py + 0.5) == pytest.approx((70.5 / 2, 10.5 * up))
    assert painter.told[-1][0][1].tolist() == [[0]]


def test_what_sam_is_told_of_earlier_answers() -> None:
    painter, image = Painter(), picture(1, SIDE, SIDE)
    clicks = Clicks.at([(3, 3), (40, 40), (20, 50)], positive=[True, True, False])
    found = ImageSegmenter(painter, input_policy=SAMInput(SIDE))(image, clicks=clicks)
    masks = [masks for _, _, masks in painter.told]
    assert [len(points[0][0]) for points, _, _ in painter.told] == [1, 2, 3]
    assert masks[0] is None
    # The second of three candidates went back, then the only one of the second round.
    assert masks[1][0, 0, 0, 0] == 40
    assert masks[1].sum() == 40 - 10 * (16 * 16 - 1)
    assert masks[2][0, 0, 10, 10] == pytest.approx(40 - 1)
    painter.told.clear()
    plain = ImageSegmenter(painter, input_policy=SAMInput(SIDE), previous_mask=False)(image, clicks=clicks)
    assert all(masks is None for _, _, masks in painter.told)
    assert not torch.equal(plain, found)


def test_only_a_single_click_is_ambiguous_and_the_selection_is_a_part() -> None:
    def low(prompts, **options):
        model = ImageSegmenter(Painter(), input_policy=SAMInput(SIDE), **options)
        return model(picture(1, SIDE, SIDE), **prompts)

    one = {"clicks": Clicks.at([(30, 30)], positive=[True])}
    assert low(one)[0, 30, 30] > 20
    assert low(one, selection=SoftSelection(100.0))[0, 30, 30] < 11
    boxed = {"box": (20, 20, 40, 40)}
    for prompts in (boxed, {**boxed, **one}):
        assert torch.equal(low(prompts), low(prompts, selection=SoftSelection(100.0)))


@pytest.mark.parametrize("size", [(37, 90), (1, 1), (200, 5)])
@pytest.mark.parametrize("options", [{}, {"redecode": False}, {"correction_side": 20}, {"cache_bytes": 0}])
def test_clicks_encode_nothing_and_undo_is_exact(sam, size, options) -> None:
    passes = []
    hook = sam.image_encoder.register_forward_hook(lambda *_: passes.append(1))
    model = ImageSegmenter(sam, busy_correction(), **options)
    assert isinstance(model, InteractiveModel)
    session = InteractiveSession(model, picture(3, *size))
    height, width = size
    session.click((height // 2, width // 3))
    answers = [session.logits]
    session.box((0, 0, height - 1, width - 1))
    answers.append(session.logits)
    for place, positive in (((0, 0), True), ((height - 1, width // 2), False), ((height // 2, width // 3), True)):
        session.click(place, positive)
        answers.append(session.logits)
    session.box((height // 3, width // 3, height // 2, width // 2))
    assert len(passes) == 1
    assert session._state.rounds.bytes <= model.cache_bytes
    kept = [answer.clone() for answer in answers]
    replaced = session.logits.clone()
    prompts = {"box": session.drawn_box, "clicks": session.clicks}
    assert torch.equal(model(picture(3, *size), **prompts), replaced)
    for earlier in reversed(kept):
        session.undo()
        assert torch.equal(session.logits, earlier)
    assert all(logits.shape == (1, *size) and logits.isfinite().all() for logits in kept)
    if size != (1, 1):
        assert not any(torch.equal(one, other) for one, other in pairwise(kept))
    assert len(passes) == 2
    hook.remove()


@pytest.mark.parametrize("redecode", [True, False])
def test_answers_are_the_prompts_alone_however_little_is_kept(sam, redecode) -> None:
    image, box = picture(1, 40, 64), (5, 6, 30, 50)
    places, labels = [(10, 12), (20, 30), (35, 60), (0, 0)], [True, True, False, False]
    told = [None, *(Clicks.at(places[:count], positive=labels[:count]) for count in range(1, 5))]
    answers = []
    for cache_bytes in (0, 25_000, 2**28):
        model = ImageSegmenter(sam, busy_correction(), redecode=redecode, cache_bytes=cache_bytes)
        state = model.start(image)
        found = [model.segment(state, box, told[count]) for count in (4, 0, 2, 3, 1, 4)]
        assert torch.equal(found[0], found[-1])
        found[0].zero_()  # the caller's own
        answers.append(found)
        assert torch.equal(model.segment(state, box, told[4]), found[-1])
        assert state.rounds.bytes <= cache_bytes
        assert len(state.rounds) == (0 if cache_bytes == 0 else 5 if cache_bytes == 2**28 else len(state.rounds))
    for one, *others in zip(*(found[1:] for found in answers), strict=True):
        assert all(torch.equal(one, other) for other in others)


def test_a_fresh_correction_changes_nothing_and_a_trained_one_only_what_it_writes(sam) -> None:
    image, clicks = picture(1, 50, 70), Clicks.at([(25, 30)], positive=[True])
    plain = ImageSegmenter(sam)(image, clicks=clicks)
    fresh = ImageSegmenter(sam, GRUCorrection(points=5, hidden=4, dimensions=2))(image, clicks=clicks)
    assert torch.equal(fresh, plain)
    correction = busy_correction()
    found = ImageSegmenter(sam, correction)(image, clicks=clicks)
    with torch.no_grad():
        expected = correction(plain[None], clicks)
    assert torch.equal(found, expected.logits[0])
    changed = found != plain
    assert changed.any()
    assert not (changed & ~expected.written[0]).any()
    assert changed.sum() < 4 * 2 * correction.points
    near_half = select_uncertain(plain[None].sigmoid(), count=correction.points, tau=correction.tau)
    assert near_half.valid.any() == expected.valid[:, : correction.points].any()


def test_the_correction_hears_the_clicks_by_the_rule_of_its_training(sam) -> None:
    image, box = picture(1, 50, 70), (10, 10, 40, 60)
    places, labels = [(25, 30), (5, 60), (44, 12)], [False, True, False]
    told = [Clicks.at(places[:count], positive=labels[:count]) for count in (1, 2, 3)]
    newest = [Clicks.at([place], positive=[label]) for place, label in zip(places, labels, strict=True)]
    correction, alone = busy_correction(), ImageSegmenter(sam)
    state, logits = None, alone(image, box=box)[None]
    with torch.no_grad():
        for new in newest:
            made = correction(logits, new, state)
            logits, state = made.logits, made.state
    for found in (ImageSegmenter(sam, correction, redecode=False), ImageSegmenter(sam, correction)):
        assert torch.equal(found(image, box=box, clicks=told[-1]), logits[0])
    state = None
    with torch.no_grad():
        for some in told:
            made = correction(alone(image, box=box, clicks=some)[None], some, state)
            state = made.state
    again = ImageSegmenter(sam, correction, redecode=True)
    assert torch.equal(again(image, box=box, clicks=told[-1]), made.logits[0])


def test_without_redecode_sam_hears_one_prompt() -> None:
    painter = Painter()
    model = ImageSegmenter(painter, busy_correction(), redecode=False, input_policy=SAMInput(SIDE))
    clicks = Clicks.at([(3, 3), (40, 40), (20, 50)], positive=[True, True, False])
    model(picture(1, SIDE, SIDE), clicks=clicks)
    assert [points[0].shape[1] for points, _, _ in painter.told] == [1]
    model(picture(1, SIDE, SIDE), box=(1, 1, 9, 9), clicks=clicks)
    assert painter.told[1][0] is None
    assert len(painter.told) == 2


@pytest.mark.parametrize("correction", [None, busy_correction()])
@pytest.mark.parametrize("redecode", [True, False])
def test_background_clicks_alone_ask_nothing_and_make_no_object(correction, redecode) -> None:
    if correction is None and not redecode:
        return
    painter = Painter()
    model = ImageSegmenter(painter, correction, redecode=redecode, input_policy=SAMInput(SIDE))
    session = InteractiveSession(model, picture(1, 40, 50))
    for place in ((3, 3), (30, 30)):
        session.click(place, positive=False)
        assert session.logits.shape == (1, 40, 50)
        assert session.logits.isfinite().all()
        assert not session.mask.any()
    assert painter.told == []
    session.click((20, 10))
    assert session.mask.any()
    assert painter.told[0][0][1].tolist() == [[0, 0, 1]]
    assert torch.equal(model(picture(1, 40, 50), clicks=session.clicks), session.logits)
    session.undo()
    assert not session.mask.any()
    session.box((2, 2, 20, 20))
    assert session.mask.any(), "a box is a prompt, whatever was clicked before"


def test_half_precision_and_float64(sam) -> None:
    clicks = Clicks.at([(20, 30), (3, 3)], positive=[True, False])
    whole = ImageSegmenter(sam)(picture(1, 40, 64), clicks=clicks)
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        other = build_sam("tiny", image_size=SIDE)
        other.load_state_dict(sam.state_dict())
        found = ImageSegmenter(other.to(dtype), busy_correction())(picture(1, 40, 64).double(), clicks=clicks)
        assert found.dtype == expected
        assert found.isfinite().all()
    plain = ImageSegmenter(other)(picture(1, 40, 64), clicks=clicks)
    torch.testing.assert_close(plain.float(), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(4, 5), r"image must be \(1, h, w\)"),
        (torch.zeros(5, 4, 3), "move channels first"),
        ("image", "a str"),
        (torch.zeros(1, 0, 5), "at least one pixel"),
        (torch.zeros(1, 4, 5, dtype=torch.uint8), "floating point"),
        (torch.full((1, 4, 5), float("nan")), "image must not hold NaN"),
        (torch.full((1, 4, 5), 255.0), r"image must lie in \[0, 1\]"),
    ],
)
def test_images_that_are_none(image, message) -> None:
    with pytest.raises(ValueError, match=message):
        ImageSegmenter(Painter(), input_policy=SAMInput(SIDE)).start(image)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("box", "clicks", "message"),
    [
        (None, None, "must be given a box or a click"),
        (None, Clicks.none(1, 2), "must be given a box or a click"),
        ((0, 0, 6, 4), None, "box must be 4 whole numbers"),
        ((2, 0, 1, 4), None, "box must be"),
        ((0, 0, 1), None, "box must be"),
        ((0.5, 0, 1, 1), None, "box must be"),
        ("abcd", None, "box must be"),
        (None, Clicks.at([(0, 8)], positive=[True]), r"one is at \(0, 8\)"),
        (None, Clicks.at([(-1, 0)], positive=[True]), r"one is at \(-1, 0\)"),
        (None, Clicks.at([(0, 0, 8)], positive=[True]), "into one volume or image of 2 axes"),
        (None, Clicks(*(torch.zeros(2, 1, 2).long(), *[torch.ones(2, 1).bool()] * 2)), "segment one at a time"),
    ],
)
def test_prompts_that_are_none(box, clicks, message) -> None:
    model = ImageSegmenter(Painter(), input_policy=SAMInput(SIDE))
    with pytest.raises(ValueError, match=message):
        model.segment(model.start(torch.zeros(1, 6, 8)), box, clicks)


def test_padding_among_clicks_is_not_heard() -> None:
    model = ImageSegmenter(Painter(), input_policy=SAMInput(SIDE))
    padded = Clicks(torch.tensor([[[3, 4], [-1, -1]]]), torch.ones(1, 2).bool(), torch.tensor([[True, False]]))
    image = torch.zeros(1, 6, 8)
    assert torch.equal(model(image, clicks=padded), model(image, clicks=Clicks.at([(3, 4)], positive=[True])))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "input_policy must be given"),
        ({"cache_bytes": -1}, "cache_bytes at least 0"),
        ({"correction_side": 0}, "correction_side must be None or at least 1"),
        ({"redecode": False}, "redecode must be True where correction is None"),
        ({"correction": GRUCorrection(points=1, hidden=1)}, "correction must be for 2 dimensions"),
    ],
)
def test_options_that_are_none(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        ImageSegmenter(Painter(), **options)
