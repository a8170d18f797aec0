"""VolumeSegmenter: against a network whose answer is known for every voxel, and SegVol on its own grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segmenters import GRID, Known, busy_correction, random_volume, segvol, shrunk, whole_answer
from torch.nn import functional

from ultrarefiner.prompts import tight_object_box
from ultrarefiner.refinement import WrittenClicks
from ultrarefiner.systems import VolumeSegmenter
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

AXES = st.tuples(*[st.integers(1, 19)] * 3)


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
