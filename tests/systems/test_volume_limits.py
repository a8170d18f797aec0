"""VolumeSegmenter at its limits: odd and large volumes, and sentences for what is none."""

from __future__ import annotations

import resource
import sys

import pytest
import torch
from segmenters import Known, busy_correction, random_volume, segvol
from torch import nn

from ultrarefiner.networks import build_segvol
from ultrarefiner.refinement import GRUCorrection, WrittenClicks
from ultrarefiner.systems import VolumeSegmenter
from ultrarefiner.types import Clicks


def test_a_network_of_float64_zooms_in() -> None:
    volume, prompts = random_volume((9, 20, 25)), {"box": (1, 2, 3, 7, 12, 20)}
    prompts["clicks"] = Clicks.at([(4, 5, 6), (2, 9, 15)], positive=[True, False])
    for correction in (None, WrittenClicks(count=5, radius=2.0)):
        found = VolumeSegmenter(segvol().double(), correction)(volume.double(), **prompts)
        assert found.dtype == torch.float32
        torch.testing.assert_close(
            found, VolumeSegmenter(segvol(), correction)(volume, **prompts), atol=1e-3, rtol=1e-3
        )


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
