"""VolumeSegmenter: against a network whose answer is known for every voxel, and SegVol on its own grid."""

from __future__ import annotations

import gc
import resource
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ultrarefiner.networks import build_segvol
from ultrarefiner.prompts import tight_object_box
from ultrarefiner.refinement import GRUCorrection, WrittenClicks
from ultrarefiner.systems import VolumeSegmenter, next_round
from ultrarefiner.systems.volume_windows import (
    WindowBoxes,
    enlarged_part,
    foreground_box,
    grid_box,
    grid_position,
    volume_box,
    window_box,
    window_starts,
)
from ultrarefiner.types import Clicks

GRID = (4, 6, 8)
AXES = st.tuples(*[st.integers(1, 19)] * 3)


class Known(nn.Module):
    """Its embedding is the view, its answer a function of that; it writes down what it was told."""

    volume_size = GRID

    def __init__(self, answer=lambda view: 8 * (view - 0.5)) -> None:
        super().__init__()
        self.answer, self.encoded, self.asked = answer, [], []

    def encode(self, volume):
        self.encoded.append(volume)
        return volume

    def decode(self, embedding, *, points=None, boxes=None, text=None):
        assert boxes is not None or text is not None or bool((points[1] == 1).any()), "background alone is no object"
        self.asked.append((embedding, points, None if boxes is None else tuple(boxes[0].int().tolist())))
        logits = self.answer(embedding).clone()
        for place, label in zip(*(part[0] for part in points), strict=True) if points is not None else ():
            logits[(0, 0, *place.long().tolist())] += 20.0 * (2 * int(label) - 1)
        return SimpleNamespace(mask_logits=logits)


def segvol(size=(8, 16, 16)):
    torch.manual_seed(0)
    return build_segvol("tiny", volume_size=size).eval()


def busy_correction(**options) -> GRUCorrection:
    """One whose heads are not 0."""
    torch.manual_seed(1)
    made = GRUCorrection(**{"points": 20, "hidden": 8, "radius": 3.0, **options})
    for name, parameter in made.named_parameters():
        if "head" in name:
            nn.init.normal_(parameter, std=0.5)
    return made


def whole_answer(volume):
    return functional.interpolate(8 * (shrunk(volume, GRID)[None] - 0.5), volume.shape[1:], mode="trilinear")[0]


def shrunk(volume, size):
    """By torch's antialiasing in 2-D, the slices as rows of a picture."""
    planes = functional.interpolate(volume, size[1:], mode="bilinear", antialias=True)
    rows = planes.flatten(2).movedim(1, -1)[:, None]
    one = functional.interpolate(rows.transpose(2, 3), (size[0], rows.shape[2]), mode="bilinear", antialias=True)
    return one[:, 0].unflatten(-1, size[1:])


def random_volume(size, seed=0):
    return torch.rand(1, *size, generator=torch.Generator().manual_seed(seed))


def test_a_volume_of_the_networks_size_gets_the_networks_answer() -> None:
    network, volume = segvol(), random_volume((8, 16, 16))
    box, clicks = (2, 3, 4, 6, 9, 12), Clicks.at([(4, 5, 6), (7, 0, 15)], positive=[True, False])
    with torch.no_grad():
        points = clicks.positions.float(), clicks.positive.long()
        expected = network(volume[None], points=points, boxes=torch.tensor([box])).mask_logits[0]
    found = VolumeSegmenter(network)(volume, box=box, clicks=clicks)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("redecode", [True, False])
def test_clicks_are_answered_as_in_training(redecode) -> None:
    from ultrarefiner.training.interaction import simulate_clicks

    network, correction, volume = segvol(), busy_correction(), random_volume((8, 16, 16))
    truth = torch.zeros(1, 1, 8, 16, 16)
    truth[..., 2:6, 4:12, 3:9] = 1.0
    boxes = tight_object_box(truth).boxes
    options = {"clicks": 3, "correction": correction, "redecode": redecode}
    with torch.no_grad():
        answers = simulate_clicks(network, network.encode(volume[None]), boxes, truth, **options)
    segmenter = VolumeSegmenter(network, correction, redecode=redecode)
    state = segmenter.start(volume)
    for answer in answers:
        found = segmenter.segment(state, boxes[0], answer.clicks)
        torch.testing.assert_close(found, answer.logits[0], atol=1e-4, rtol=1e-4)


@settings(deadline=None, max_examples=40)
@given(size=AXES, data=st.data())
def test_prompts_are_mapped_as_the_masks_they_stand_for(size, data) -> None:
    low = [data.draw(st.integers(0, side - 1)) for side in size]
    high = [data.draw(st.integers(first, side - 1)) for first, side in zip(low, size, strict=True)]
    mask = torch.zeros(1, 1, *size)
    mask[0, 0, low[0] : high[0] + 1, low[1] : high[1] + 1, low[2] : high[2] + 1] = 1.0
    small = functional.interpolate(mask, GRID, mode="nearest-exact")
    found = grid_box((*low, *high), size, GRID)
    along = [[first, last] for first, last in zip(found[:3], found[3:], strict=True)]
    assert all(0 <= first <= last < side for (first, last), side in zip(along, GRID, strict=True))
    if small.any():
        assert found == tuple(tight_object_box(small).boxes[0].tolist())
    place = grid_position(tuple(low), size, GRID)
    for index, cell, side, cells in zip(low, place, size, GRID, strict=True):
        assert cell <= (index + 0.5) * cells / side < cell + 1


def test_prompts_reach_the_network_in_its_own_voxels() -> None:
    network = Known()
    clicks = Clicks.at([(3, 5, 15), (0, 0, 0)], positive=[True, False])
    VolumeSegmenter(network)(torch.zeros(1, 8, 6, 16), box=(2, 1, 4, 5, 4, 9), clicks=clicks)
    boxes = [box for _, _, box in network.asked[:3]]
    assert boxes == [(1, 1, 2, 2, 4, 4)] * 3
    assert network.asked[0][1] is None
    coordinates, labels = network.asked[2][1]
    assert coordinates.tolist() == [[[1.0, 5.0, 7.0], [0.0, 0.0, 0.0]]]
    assert labels.tolist() == [[1, 0]]


@settings(deadline=None, max_examples=25)
@given(size=AXES, overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]), data=st.data())
def test_the_region_shows_the_volumes_own_voxels_and_the_rest_the_whole(size, overlap, data) -> None:
    low = [data.draw(st.integers(0, side - 1)) for side in size]
    box = (*low, *(data.draw(st.integers(first, side - 1)) for first, side in zip(low, size, strict=True)))
    volume = 0.4 * random_volume(size)  # nothing is above 0.5: the region is the box
    found = VolumeSegmenter(Known(), overlap=overlap)(volume, box=box)
    own = torch.zeros(1, *size, dtype=torch.bool)
    if any(side > length for side, length in zip(size, GRID, strict=True)):
        spans = []
        for first, last, side, length in zip(box[:3], box[3:], size, GRID, strict=True):
            if last - first + 1 < length:
                start = min(max(first - (length - (last - first + 1)) // 2, 0), max(side - length, 0))
                first, last = start, start + length - 1
            spans.append(slice(first, last + 1))
        own[(0, *spans)] = True
    expected = torch.where(own, 8 * (volume - 0.5), whole_answer(volume))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_windows_are_averaged_where_they_overlap() -> None:
    network, size = Known(lambda view: view.mean() + 0 * view), (5, 15, 21)
    volume, clicks = random_volume(size), Clicks.at([(0, 0, 0)], positive=[True])
    found = VolumeSegmenter(network)(volume, clicks=clicks)
    total, count = torch.zeros(size), torch.zeros(size)
    for start in {(z, y, x) for z in (0, 1) for y in (0, 3, 6, 9) for x in (0, 4, 8, 12, 13)}:
        here = tuple(slice(first, first + length) for first, length in zip(start, GRID, strict=True))
        total[here] += volume[0][here].mean()
        count[here] += 1
    assert count.min() > 0
    expected = total / count
    expected[0, 0, 0] += 20.0
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


def test_a_window_is_told_the_box_around_the_first_answer_in_it() -> None:
    volume = torch.zeros(1, 8, 12, 16)
    volume[0, 2:7, 3:11, 2:15] = 1.0
    network = Known()
    VolumeSegmenter(network)(volume, box=(0, 0, 0, 7, 11, 15))
    mask = whole_answer(volume) > 0
    starts = window_starts((0, 0, 0, 7, 11, 15), (8, 12, 16), GRID, overlap=0.5)
    told = iter(network.asked[1:])
    for z, y, x in starts:
        inside = mask[:, z : z + 4, y : y + 6, x : x + 8]
        if inside.any():
            view, _, box = next(told)
            assert box == tuple(tight_object_box(inside[None]).boxes[0].tolist())
            torch.testing.assert_close(view[0], volume[:, z : z + 4, y : y + 6, x : x + 8])
    assert next(told, None) is None


def test_one_window_is_told_the_users_box_and_the_clicks_in_it() -> None:
    network = Known()
    clicks = Clicks.at([(5, 7, 9), (0, 0, 0)], positive=[True, False])
    VolumeSegmenter(network)(torch.zeros(1, 8, 12, 16), box=(4, 6, 8, 6, 9, 12), clicks=clicks)
    assert len(network.encoded) == 2
    view, points, box = network.asked[-1]
    # Three slices lie in the middle of four, from 4 on; four rows in the middle of six, from 5; five columns from 7.
    assert box == (0, 1, 1, 2, 4, 5)
    assert points[0].tolist() == [[[1.0, 2.0, 2.0]]]
    assert view.shape == (1, 1, *GRID)


@pytest.mark.parametrize("redecode", [True, False])
def test_background_clicks_alone_ask_nothing_and_make_no_object(redecode) -> None:
    network, volume = Known(lambda view: 3 + 0 * view), random_volume((9, 9, 9))
    segmenter = VolumeSegmenter(network, busy_correction(), redecode=redecode)
    state = segmenter.start(volume)
    clicks = Clicks.at([(8, 8, 8), (1, 1, 1)], positive=[False, False])
    found = segmenter.segment(state, None, clicks)
    assert len(network.encoded) == 1
    assert network.asked == []
    assert found.shape == volume.shape
    assert found.isfinite().all()
    assert (found < 0).all()
    found = segmenter.segment(state, None, clicks.then(Clicks.at([(4, 4, 4)], positive=[True])))
    assert (found > 0).any()
    assert network.asked[0][1][1].tolist() == [[0, 0, 1]]
    assert torch.equal(segmenter(volume, clicks=clicks.then(Clicks.at([(4, 4, 4)], positive=[True]))), found)


@pytest.mark.parametrize("correction", [None, busy_correction(), WrittenClicks(count=3, radius=2.0)])
def test_a_background_click_where_nothing_was_found_adds_no_object(correction) -> None:
    volume = torch.zeros(1, 4, 6, 32)
    volume[..., :5] = 1.0
    network = Known()
    segmenter = VolumeSegmenter(network, correction, redecode=True)
    state = segmenter.start(volume)
    before = segmenter.segment(state, (0, 0, 0, 3, 5, 31))
    asked = len(network.asked)
    after = segmenter.segment(state, (0, 0, 0, 3, 5, 31), Clicks.at([(2, 3, 27)], positive=[False]))
    assert len(network.asked) == asked + 1, "the whole only"
    assert torch.equal(after[..., 20:] > 0, before[..., 20:] > 0)
    assert not (after[..., 20:] > 0).any()


def test_what_is_not_the_object_is_not_told_the_drawn_box_and_lies_in_zeros() -> None:
    volume = torch.zeros(1, 2, 6, 32)
    volume[..., :5] = 1.0
    network = Known()
    VolumeSegmenter(network)(volume, box=(0, 0, 0, 1, 5, 31))
    last = int((whole_answer(volume)[0, 0, 0] > 0).nonzero().max())
    assert [box for _, _, box in network.asked[1:]] == [(1, 0, 0, 2, 5, last), (1, 0, 0, 2, 5, last - 4)]
    assert all((view[0, 0, [0, 3]] == 0).all() for view, _, _ in network.asked[1:])


def test_a_text_is_a_prompt_and_goes_to_every_window() -> None:
    network, volume = segvol(), random_volume((9, 20, 30))
    first, second = (torch.randn(1, 96, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    segmenter = VolumeSegmenter(network)
    answers = [segmenter(volume, text=text) for text in (first, second, first)]
    assert torch.equal(answers[0], answers[2])
    assert not torch.equal(answers[0], answers[1])


@pytest.mark.parametrize("redecode", [True, False])
@pytest.mark.parametrize(
    ("cache_bytes", "size"),
    [(0, (9, 16, 20)), (3000, (9, 16, 20)), (2**30, (11, 20, 25)), (2**30, (3, 40, 9)), (2**30, (8, 16, 16))],
)
def test_click_by_click_is_from_scratch(redecode, cache_bytes, size) -> None:
    volume, options = random_volume(size), {"redecode": redecode, "cache_bytes": cache_bytes}
    segmenter = VolumeSegmenter(segvol(), busy_correction(), **options)
    box = (0, 4, 2, 2, 9, 6)
    where = [(1, 5, 5), (2, 15, 8), (0, 0, 0), (2, 6, 6)]
    clicks = [Clicks.at(where[: count + 1], positive=[True, True, False, True][: count + 1]) for count in range(4)]
    state = segmenter.start(volume)
    found = [segmenter.segment(state, box), *(segmenter.segment(state, box, told) for told in clicks)]
    assert not any(torch.equal(one, other) for one, other in pairwise(found))
    assert state.cached_bytes <= cache_bytes
    assert torch.equal(segmenter(volume, box=box, clicks=clicks[-1]), found[-1])
    assert torch.equal(segmenter.segment(state, box, clicks[1]), found[2])
    cleared = segmenter.segment(state, None, clicks[1])
    assert torch.equal(cleared, segmenter(volume, clicks=clicks[1]))
    whole = VolumeSegmenter(segmenter.network, segmenter.correction, redecode=redecode)(
        volume, box=box, clicks=clicks[-1]
    )
    assert torch.equal(whole, found[-1])


@pytest.mark.parametrize("redecode", [True, False])
@pytest.mark.parametrize("cache_bytes", [0, 30_000, 300_000])
def test_a_long_conversation_keeps_no_more_than_it_may_and_every_step_back_is_exact(redecode, cache_bytes) -> None:
    volume, network, box = random_volume((8, 16, 20)), segvol(), (0, 2, 2, 7, 14, 18)
    segmenter = VolumeSegmenter(network, busy_correction(), redecode=redecode, cache_bytes=cache_bytes)
    generous = VolumeSegmenter(network, segmenter.correction, redecode=redecode)
    number = 5 if cache_bytes == 0 else 10
    where = [((3 * index) % 8, (7 * index) % 16, (11 * index) % 20) for index in range(number)]
    clicks = [Clicks.at(where[:count], positive=[one % 2 == 0 for one in range(count)]) for count in range(1, number)]
    state, expected = segmenter.start(volume), generous.start(volume)
    answers = [generous.segment(expected, box, told) for told in clicks]
    for told, answer in [*zip(clicks, answers, strict=True), *zip(clicks[::-3], answers[::-3], strict=True)]:
        assert torch.equal(segmenter.segment(state, box, told), answer)
        assert held_bytes(state) <= state.cached_bytes <= cache_bytes
    assert torch.equal(generous.segment(expected, box, clicks[0]), answers[0])


def held_bytes(state) -> int:
    """Of all that can be reached from a state, tensors that are not the volume's, nor the whole's embedding."""
    known = {one.untyped_storage().data_ptr() for one in (state.volume, state.embedding)}
    found, left, seen = {}, [state], set()
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, type | nn.Module):
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            storage = one.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        else:
            left += gc.get_referents(one)
    return sum(size for place, size in found.items() if place not in known)


def test_a_second_box_takes_the_first_ones_room() -> None:
    network, passes = segvol(), []
    network.mask_decoder.register_forward_hook(lambda module, inputs, output: (output[0] * 0 - 1, output[1]))
    network.image_encoder.register_forward_hook(lambda *_: passes.append(1))
    segmenter = VolumeSegmenter(network, cache_bytes=140_000)
    state = segmenter.start(random_volume((16, 96, 96)))
    segmenter.segment(state, (4, 4, 4, 11, 30, 30))
    first = len(passes)
    segmenter.segment(state, (4, 60, 60, 11, 90, 90))
    assert len(passes) > first
    encoded = len(passes)
    for place in range(3):
        clicks = Clicks.at([(8, 70 + place, 70)], positive=[True])
        segmenter.segment(state, (4, 60, 60, 11, 90, 90), clicks)
    assert len(passes) == encoded


def test_a_click_asks_only_the_windows_that_hold_it_and_undo_asks_nothing() -> None:
    network, volume, box = Known(), random_volume((8, 24, 32)), (0, 0, 0, 7, 23, 31)
    segmenter = VolumeSegmenter(network, overlap=0.5)
    state = segmenter.start(volume)
    first = segmenter.segment(state, box)
    asked, clicks = len(network.asked), Clicks.at([(3, 7, 9)], positive=[False])
    blended = segmenter.segment(state, box, clicks)
    inside = [
        1
        for z in (0, 2, 4)
        for y in range(0, 19, 3)
        for x in range(0, 25, 4)
        if z <= 3 < z + 4 and y <= 7 < y + 6 and x <= 9 < x + 8
    ]
    other = [1 for view, points, _ in network.asked[asked:] if points is None]
    assert len(network.asked) - asked == 1 + len(inside) + len(other)
    assert len(other) <= 8, "those in which the whole's answer, which listened to the click, has another box"
    asked = len(network.asked)
    assert torch.equal(segmenter.segment(state, box), first)
    assert torch.equal(segmenter.segment(state, box, clicks), blended)
    assert len(network.asked) == asked
    assert torch.equal(VolumeSegmenter(Known(), cache_bytes=0)(volume, box=box, clicks=clicks), blended)


def test_an_answer_is_the_callers_own_and_one_that_was_stopped_leaves_nothing() -> None:
    stop = [False]

    def progress(done, total):
        if stop[0] and done == total - 1:
            raise KeyboardInterrupt

    volume, box = random_volume((8, 24, 32)), (0, 0, 0, 7, 23, 31)
    segmenter = VolumeSegmenter(Known(), progress=progress)
    state = segmenter.start(volume)
    first = segmenter.segment(state, box)
    kept = first.clone()
    first.fill_(7.0)
    clicks, stop[0] = Clicks.at([(3, 7, 9)], positive=[True]), True
    with pytest.raises(KeyboardInterrupt):
        segmenter.segment(state, box, clicks)
    stop[0] = False
    assert torch.equal(segmenter.segment(state, box), kept)
    assert torch.equal(segmenter.segment(state, box, clicks), segmenter(volume, box=box, clicks=clicks))


def test_the_region_is_the_answer_and_a_cell_more_and_grows() -> None:
    volume = torch.zeros(1, 16, 24, 64)
    volume[0, 4:12, 8:16, 16:32] = 1.0
    network = Known()
    segmenter = VolumeSegmenter(network)
    state = segmenter.start(volume)
    first = Clicks.at([(6, 10, 20)], positive=[True])
    segmenter.segment(state, None, first)
    # The whole is 4 x 6 x 8: cells of 4 x 4 x 8 voxels; the object is cells 1 to 2, 2 to 3, 2 to 3.
    [made] = state.rounds.values()
    assert made.region == (0, 4, 8, 15, 19, 39)
    network.answer = lambda view: 0 * view - 1  # from now on only clicks are seen
    second = first.then(Clicks.at([(6, 22, 60)], positive=[True]))
    segmenter.segment(state, None, second)
    # Both clicks' cells, (1, 2, 2) and (1, 5, 7), with a cell more, and what was known before.
    assert [one.region for one in state.rounds.values()][-1] == (0, 4, 8, 15, 23, 63)
    network.answer = lambda view: 8 * (view - 0.5)
    shorter = segmenter.start(volume)
    segmenter.segment(shorter, (5, 9, 17, 6, 10, 18))
    network.answer = lambda view: 8 * (view + 0.5)
    segmenter.segment(shorter, (5, 9, 17, 6, 10, 18), Clicks.at([(6, 10, 20)], positive=[True]))
    regions = {len(told): one.region for (_, told), one in shorter.rounds.items()}
    assert regions == {0: (0, 4, 8, 15, 19, 39), 1: (0, 0, 0, 15, 23, 63)}, "the answer reaches out of the region"


def test_a_click_on_the_object_outside_keeps_the_region_of_before() -> None:
    volume = torch.zeros(1, 16, 24, 64)
    volume[0, 4:12, 8:16, 16:32] = 1.0
    network = Known()
    segmenter = VolumeSegmenter(network)
    state = segmenter.start(volume)
    segmenter.segment(state, (4, 8, 16, 11, 15, 31))
    network.answer = lambda view: 0 * view - 50
    segmenter.segment(state, (4, 8, 16, 11, 15, 31), Clicks.at([(8, 10, 50)], positive=[True]))
    assert [one.region for one in state.rounds.values()] == [(0, 4, 8, 15, 19, 39), (0, 4, 8, 15, 19, 50)]


def test_the_whole_is_what_training_sees_wherever_thin_things_lie() -> None:
    from ultrarefiner.data import resize_volume

    seen = []
    for phase in range(4):
        network, volume = Known(), torch.zeros(1, 8, 24, 32)
        volume[:, :, phase::4] = 1.0
        VolumeSegmenter(network).start(volume)
        assert torch.equal(network.encoded[0][0], resize_volume(volume, GRID))
        torch.testing.assert_close(network.encoded[0][0], shrunk(volume, GRID))
        seen.append(network.encoded[0][..., 1:-1, :])
    assert all((one - 0.25).abs().max() < 1e-6 for one in seen)


def test_a_network_of_float64_zooms_in() -> None:
    volume, prompts = random_volume((9, 20, 25)), {"box": (1, 2, 3, 7, 12, 20)}
    prompts["clicks"] = Clicks.at([(4, 5, 6), (2, 9, 15)], positive=[True, False])
    for correction in (None, WrittenClicks(count=5, radius=2.0)):
        found = VolumeSegmenter(segvol().double(), correction)(volume.double(), **prompts)
        assert found.dtype == torch.float32
        torch.testing.assert_close(
            found, VolumeSegmenter(segvol(), correction)(volume, **prompts), atol=1e-3, rtol=1e-3
        )


def test_clicks_in_the_region_encode_nothing_and_one_outside_only_new_windows() -> None:
    network = segvol()
    passes = []
    network.image_encoder.register_forward_hook(lambda *_: passes.append(1))
    network.mask_decoder.register_forward_hook(lambda module, inputs, output: (output[0] * 0 - 1, output[1]))
    segmenter = VolumeSegmenter(network)
    state = segmenter.start(random_volume((16, 48, 48)))
    assert len(passes) == 1
    segmenter.segment(state, (4, 4, 4, 12, 28, 12))
    encoded = len(passes)
    assert encoded == 1 + 2 * 3
    clicks = Clicks.at([(8, 10, 10)], positive=[True]).then(Clicks.at([(15, 47, 47)], positive=[False]))
    segmenter.segment(state, (4, 4, 4, 12, 28, 12), clicks)
    assert len(passes) == encoded
    farther = clicks.then(Clicks.at([(8, 40, 10)], positive=[True]))
    segmenter.segment(state, (4, 4, 4, 12, 28, 12), farther)
    starts = set(state.windows)
    assert len(passes) == 1 + len(starts) > encoded
    segmenter.segment(state, (4, 4, 4, 12, 28, 12), farther.then(clicks))
    assert len(passes) == 1 + len(starts)


def test_a_fresh_correction_changes_nothing_and_a_trained_one_does() -> None:
    network, volume = segvol(), random_volume((11, 20, 35))
    prompts = {"box": (1, 2, 3, 8, 9, 20), "clicks": Clicks.at([(4, 5, 6)], positive=[True])}
    plain = VolumeSegmenter(network)(volume, **prompts)
    fresh = VolumeSegmenter(network, GRUCorrection(points=5, hidden=4), redecode=True)
    torch.testing.assert_close(fresh(volume, **prompts), plain)
    assert not torch.allclose(VolumeSegmenter(network, busy_correction(), redecode=True)(volume, **prompts), plain)
    deaf = VolumeSegmenter(network, GRUCorrection(points=5, hidden=4))
    assert not deaf.redecode, "as in the correction's training"
    torch.testing.assert_close(deaf(volume, **prompts), VolumeSegmenter(network)(volume, box=prompts["box"]))


def test_without_redecode_the_network_never_hears_of_clicks() -> None:
    network = Known()
    segmenter = VolumeSegmenter(network, busy_correction(), redecode=False)
    segmenter(random_volume((8, 12, 16)), box=(0, 0, 0, 7, 11, 15), clicks=Clicks.at([(4, 5, 6)], positive=[True]))
    assert all(points is None for _, points, _ in network.asked)
    asked = len(network.asked)
    segmenter(random_volume((8, 12, 16)), clicks=Clicks.at([(4, 5, 6), (1, 1, 1)], positive=[True, False]))
    heard = [points for _, points, _ in network.asked[asked:] if points is not None]
    assert heard
    assert all(labels.tolist() in ([[1]], [[0, 1]]) for _, labels in heard)


def test_a_batch_of_rounds_is_each_of_them() -> None:
    network, correction = segvol(), busy_correction()
    volumes, boxes = torch.rand(2, 1, 8, 16, 16), torch.tensor([[1, 2, 3, 6, 9, 12], [0, 0, 0, 4, 8, 8]])
    clicks = Clicks(
        torch.tensor([[[3, 4, 5], [6, 7, 8]], [[1, 2, 3], [0, 0, 0]]]),
        torch.tensor([[True, False], [True, False]]),
        torch.tensor([[True, True], [True, False]]),
    )

    def rounds(part: slice):
        told, embedding, memory = clicks, network.encode(volumes[part]), None
        told = Clicks(clicks.positions[part], clicks.positive[part], clicks.valid[part])
        for count in (1, 2):
            now = Clicks(told.positions[:, :count], told.positive[:, :count], told.valid[:, :count])
            options = {"clicks": now, "boxes": boxes[part], "correction": correction, "before": memory}
            found = next_round(network, embedding, **options)
            memory = found.memory
        return found

    both = rounds(slice(None))
    for index in range(2):
        torch.testing.assert_close(both.logits[index], rounds(slice(index, index + 1)).logits[0], atol=1e-4, rtol=1e-4)
    both.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in correction.parameters())


@pytest.mark.parametrize("redecode", [True, False])
@pytest.mark.parametrize("correction", [None, busy_correction(), WrittenClicks(count=3, radius=2.0)])
def test_a_volume_without_a_new_click_keeps_answer_and_memory(correction, redecode) -> None:
    if correction is None and not redecode:
        return
    network, boxes = segvol(), torch.tensor([[1, 2, 3, 6, 9, 12], [0, 0, 0, 4, 8, 8]])
    embedding = network.encode(torch.rand(2, 1, 8, 16, 16))
    clicks = Clicks(
        torch.tensor([[[3, 4, 5], [6, 7, 8], [1, 9, 9]], [[1, 2, 3], [0, 0, 0], [2, 2, 2]]]),
        torch.tensor([[True, False, True], [True, True, False]]),
        torch.tensor([[True, True, True], [True, False, True]]),
    )
    made, memory = [], None
    with torch.no_grad():
        for count in range(4):
            told = Clicks(clicks.positions[:, :count], clicks.positive[:, :count], clicks.valid[:, :count])
            options = {"correction": correction, "before": memory, "redecode": redecode}
            made.append(next_round(network, embedding, clicks=told, boxes=boxes, **options))
            memory = made[-1].memory
    one, two, three = made[1:]
    assert torch.equal(one.logits[1], two.logits[1])
    assert not torch.equal(one.logits[0], two.logits[0])
    assert not torch.equal(two.logits[1], three.logits[1])
    if two.memory.state is not None:
        assert torch.equal(one.memory.state.hidden[1], two.memory.state.hidden[1])
        assert not torch.equal(one.memory.state.hidden[0], two.memory.state.hidden[0])


@pytest.mark.parametrize(
    "volume",
    [
        torch.full((1, 11, 20, 35), 0.3),
        torch.zeros(1, 11, 20, 35),
        random_volume((1, 40, 40)),
        random_volume((3, 5, 4)),
        random_volume((1, 1, 1)),
        random_volume((4, 90, 17)),
        random_volume((11, 20, 35)).double(),
    ],
    ids=["constant", "empty", "one slice", "small", "one voxel", "anisotropic", "float64"],
)
def test_odd_volumes_are_answered_on_their_own_voxels(volume) -> None:
    size = volume.shape[1:]
    box = (0, 0, 0, *(side - 1 for side in size))
    middle = Clicks.at([tuple(side // 2 for side in size)], positive=[True])
    segmenter = VolumeSegmenter(segvol(), busy_correction())
    for prompts in ({"box": box}, {"clicks": middle}, {"box": box, "clicks": middle}):
        found = segmenter(volume, **prompts)
        assert found.shape == volume.shape
        assert found.dtype == torch.float32
        assert found.isfinite().all()


def test_progress_counts_windows() -> None:
    told = []
    segmenter = VolumeSegmenter(Known(), progress=lambda done, total: told.append((done, total)))
    state = segmenter.start(torch.zeros(1, 4, 12, 8))
    for _ in range(2):
        segmenter.segment(state, (0, 0, 0, 3, 11, 7))
    assert told == [(1, 3), (2, 3), (3, 3)] * 2


def test_a_box_of_the_grid_covers_what_its_logits_do() -> None:
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(2)) - 2.0
    size = (10, 7, 9)
    large = enlarged_part(logits, size, (0, 0, 0, 9, 6, 8))
    found = volume_box(foreground_box(logits), (3, 5, 4), size, margin=1)
    exact = foreground_box(large)
    assert all(a <= b for a, b in zip(found[:3], exact[:3], strict=True))
    assert all(a >= b for a, b in zip(found[3:], exact[3:], strict=True))
    assert window_box((-1, 3, 4), size, (4, 3, 9)) == (0, 3, 4, 2, 5, 8)


@settings(deadline=None, max_examples=25)
@given(size=AXES, data=st.data())
def test_boxes_of_parts_and_parts_themselves_are_those_of_the_whole(size, data) -> None:
    low = [data.draw(st.integers(0, side - 1)) for side in size]
    part = (*low, *(data.draw(st.integers(first, side - 1)) for first, side in zip(low, size, strict=True)))
    logits = torch.randn(GRID, generator=torch.Generator().manual_seed(sum(size))) - 1.5
    large = enlarged_part(logits, size, (0, 0, 0, *(side - 1 for side in size)))
    expected = functional.interpolate(logits[None, None], size, mode="trilinear")[0, 0]
    torch.testing.assert_close(large, expected, atol=1e-5, rtol=1e-5)
    inside = tuple(slice(first, last + 1) for first, last in zip(part[:3], part[3:], strict=True))
    assert torch.equal(enlarged_part(logits, size, part), large[inside])
    mask = torch.zeros_like(large, dtype=torch.bool)
    mask[inside] = large[inside] > 0
    places, boxes = mask.nonzero(), WindowBoxes(large > 0)
    expected = (*places.amin(0).tolist(), *places.amax(0).tolist()) if len(places) else None
    assert boxes.box(part) == boxes.box(part) == expected


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (torch.zeros(4, 5, 6), r"volume must be \(1, D, H, W\)"),
        (torch.zeros(1, 0, 5, 6), "at least one voxel"),
        ([1.0], "a list"),
        (torch.zeros(1, 4, 5, 6, dtype=torch.int16), "floating point"),
        (torch.full((1, 4, 5, 6), float("nan")), "NaN"),
        (torch.full((1, 4, 5, 6), -1000.0), r"span \[-1000, -1000\]; normalise it"),
        (torch.full((1, 4, 5, 6), float("inf")), "must lie in"),
    ],
)
def test_volumes_that_are_none(volume, message) -> None:
    with pytest.raises(ValueError, match=message):
        VolumeSegmenter(Known()).start(volume)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("box", "clicks", "message"),
    [
        (None, None, "must be given a box, a click or a text"),
        (None, Clicks.none(1, 3), "must be given a box, a click or a text"),
        ((0, 0, 0, 4, 4, 9), None, "box must be"),
        ((2, 0, 0, 1, 4, 4), None, "box must be"),
        ((0, 0, 0, 1, 4), None, "box must be"),
        ((0.5, 0, 0, 1, 4, 4), None, "box must be"),
        (None, Clicks.at([(0, 0, 8)], positive=[True]), r"one is at \(0, 0, 8\)"),
        (None, Clicks.at([(0, 8)], positive=[True]), "into one volume"),
        ((True, 0, 0, 1, 4, 4), None, "box must be"),
        (None, Clicks(*(torch.zeros(2, 1, 3).long(), *[torch.ones(2, 1).bool()] * 2)), "into one volume"),
    ],
)
def test_prompts_that_are_none(box, clicks, message) -> None:
    segmenter = VolumeSegmenter(Known())
    with pytest.raises(ValueError, match=message):
        segmenter.segment(segmenter.start(torch.zeros(1, 4, 6, 8)), box, clicks)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("network", "correction", "message"),
    [
        (None, None, "network must have volume_size, encode and decode, as SegVol has, but it is a NoneType"),
        (nn.Linear(2, 2), None, "it is a Linear"),
        (Known(), GRUCorrection(points=3, hidden=4, dimensions=2), "its dimensions are 2"),
    ],
)
def test_parts_that_are_none(network, correction, message) -> None:
    with pytest.raises(ValueError, match=message):
        VolumeSegmenter(network, correction)


def test_a_text_of_another_width_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="text must be the embedding of one text"):
        VolumeSegmenter(segvol()).start(random_volume((8, 16, 16)), text=torch.zeros(1, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 1.0}, "overlap must be in"),
        ({"cache_bytes": -1}, "cache_bytes at least 0"),
        ({"redecode": False}, "redecode must be True where correction is None"),
    ],
)
def test_options_that_are_none(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        VolumeSegmenter(Known(), **options)


@pytest.mark.slow
def test_a_large_volume_takes_under_three_gigabytes(capsys) -> None:
    from ultrarefiner.systems import InteractiveSession

    torch.manual_seed(0)
    segmenter = VolumeSegmenter(build_segvol("tiny").eval(), busy_correction(points=200, hidden=64))
    volume = torch.zeros(1, 300, 512, 512)
    volume[0, 80:200, 150:330, 180:400] = 0.7
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    session = InteractiveSession(segmenter, volume, spacing=(1.0, 0.7, 0.7))
    session.box((80, 150, 180, 199, 329, 399))
    for index in range(5):
        session.click((100 + 15 * index, 200 + 20 * index, 250 + 20 * index), positive=index % 2 == 0)
    assert session.mask.shape == volume.shape
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    with capsys.disabled():
        windows = len(session._state.windows)
        sys.stdout.write(
            f"\n512 x 512 x 300, box, five clicks: {taken:.2f} GiB above the volume, {windows} windows kept\n"
        )
    assert taken < 3
