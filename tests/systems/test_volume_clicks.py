"""VolumeSegmenter click by click: what is kept, what is asked again, and what a correction remembers."""

from __future__ import annotations

import gc
from itertools import pairwise

import pytest
import torch
from segmenters import Known, busy_correction, random_volume, segvol
from torch import nn

from ultrarefiner.refinement import GRUCorrection, WrittenClicks
from ultrarefiner.systems import VolumeSegmenter, next_round
from ultrarefiner.types import Clicks


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
