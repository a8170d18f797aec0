"""Selection of points against plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ultrarefiner.refinement import point_selection, select_errors, select_uncertain
from ultrarefiner.types import Clicks


def voxels(size: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(side) for side in size)))


def uncertain_by_loop(volume: Tensor, count: int, tau: float) -> list[tuple[int, ...]]:
    unsure = [at for at in voxels(tuple(volume.shape)) if volume[at] > tau and volume[at] < 1 - tau]
    return sorted(unsure, key=lambda at: (volume[at] - 0.5).abs().item())[:count]  # a stable sort: raster order


def errors_by_loop(volume: Tensor, clicks: list, count: int, radius: float) -> dict[tuple[int, ...], int]:
    found: dict[tuple[int, ...], int] = {}
    for at in voxels(tuple(volume.shape)):
        for place, positive in clicks:
            squared = sum((a - b) ** 2 for a, b in zip(at, place, strict=True))
            if squared <= radius**2 + 1e-9 and (volume[at].item() > 0.5) != positive:
                found[at] = min(found.get(at, squared), squared)
    return dict(sorted(found.items(), key=lambda item: item[1])[:count])


def batch_of(*clicks: list, dimensions: int) -> Clicks:
    longest = max(len(one) for one in clicks)
    positions = torch.zeros(len(clicks), longest, dimensions, dtype=torch.long)
    positive, valid = torch.zeros(2, len(clicks), longest, dtype=torch.bool)
    for index, one in enumerate(clicks):
        for number, (place, label) in enumerate(one):
            positions[index, number] = torch.tensor(place)
            positive[index, number] = label
            valid[index, number] = True
    return Clicks(positions, positive, valid)


@st.composite
def volumes(draw: st.DrawFn) -> Tensor:
    """Two volumes or images with many equal values, some of them 0, 0.5 and 1."""
    size = draw(st.sampled_from([(6, 7), (1, 9), (3, 4, 5), (1, 6, 5), (2, 1, 1)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    steps = draw(st.sampled_from([2, 8, 1000]))
    return torch.randint(0, steps + 1, (2, 1, *size), generator=generator).double() / steps


@settings(deadline=None, max_examples=40)
@given(
    volume=volumes(),
    count=st.integers(1, 80),
    tau=st.sampled_from([0.0, 0.1, 0.3]),
    chunk=st.integers(1, 40),
    together=st.sampled_from([1, 50, 2**18]),
    single=st.booleans(),
)
def test_uncertain_voxels_are_those_of_a_loop(volume, count, tau, chunk, together, single) -> None:
    volume = volume.float() if single else volume
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(point_selection, "_chunk_length", lambda *_: chunk)
        patch.setattr(point_selection, "_CPU_TOGETHER", together)
        found = select_uncertain(volume, count=count, tau=tau)
    assert found.indices.shape == (2, count, volume.ndim - 2)
    for index in range(2):
        expected = uncertain_by_loop(volume[index, 0], count, tau)
        assert found.valid[index].tolist() == [True] * len(expected) + [False] * (count - len(expected))
        assert [tuple(at) for at in found.indices[index, : len(expected)].tolist()] == expected
        for number, at in enumerate(expected):
            assert found.probability[index, number] == volume[index, 0][at]
    assert not found.indices[~found.valid].any()
    assert not found.probability[~found.valid].any()


@settings(deadline=None, max_examples=40)
@given(
    volume=volumes(),
    count=st.integers(1, 80),
    radius=st.sampled_from([0.0, 1.0, math.sqrt(2), math.sqrt(3), 2.6, 50.0]),
    data=st.data(),
)
def test_errors_are_those_of_a_loop(volume, count, radius, data) -> None:
    size = tuple(volume.shape[2:])
    place = st.tuples(*(st.integers(0, side - 1) for side in size))
    clicks = [data.draw(st.lists(st.tuples(place, st.booleans()), max_size=4)) for _ in range(2)]
    found = select_errors(volume, batch_of(*clicks, dimensions=len(size)), count=count, radius=radius)
    for index in range(2):
        expected = errors_by_loop(volume[index, 0], clicks[index], count, radius)
        assert found.valid[index].sum() == len(expected)
        assert [tuple(at) for at in found.indices[index, : len(expected)].tolist()] == list(expected)
        for number, at in enumerate(expected):
            assert found.probability[index, number] == volume[index, 0][at]
            assert found.positive[index, number].item() == (volume[index, 0][at] <= 0.5)
    assert not found.positive[~found.valid].any()


@pytest.mark.parametrize("kept", [True, False])
def test_a_ball_is_kept_for_the_next_call_if_it_is_small(kept, monkeypatch) -> None:
    monkeypatch.setattr(point_selection, "_LARGEST_KEPT_BALL", 10**6 if kept else 1)
    point_selection._ball.cache_clear()
    volume, place = torch.zeros(1, 1, 6, 7), Clicks.at([(2, 3)], positive=[True])
    with torch.inference_mode():
        first = select_errors(volume, place, count=50, radius=2.3)
    volume.requires_grad_()
    again = select_errors(volume, place, count=50, radius=2.3)
    assert torch.equal(first.indices, again.indices)
    assert [tuple(at) for at in again.indices[again.valid].tolist()] == list(
        errors_by_loop(volume[0, 0], [((2, 3), True)], 50, 2.3)
    )
    again.probability.sum().backward()
    assert volume.grad.sum() == again.valid.sum() == 21
    assert point_selection._ball.cache_info().hits == int(kept)


def test_any_radius_beyond_the_volume_is_all_of_it() -> None:
    volume = torch.rand(1, 1, 3, 4, 5)
    clicks = batch_of([((0, 1, 2), True), ((2, 3, 4), False)], dimensions=3)
    near, far = (select_errors(volume, clicks, count=70, radius=radius) for radius in (12.0, 1e300))
    assert torch.equal(near.indices, far.indices)
    assert near.valid.sum() == 60


def test_half_is_uncertain_for_every_tau() -> None:
    tau = math.nextafter(0.5, 0)
    for volume in (torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.5).double()):
        assert select_uncertain(volume, count=4, tau=tau).valid.all()
        assert not select_uncertain(volume + 1e-6, count=4, tau=tau).valid.any()


@pytest.mark.parametrize("size", [(8, 9), (4, 5, 6)])
@pytest.mark.parametrize(("value", "uncertain"), [(0.0, 0), (1.0, 0), (0.5, 7), (0.1, 0), (0.9, 0)])
def test_empty_full_and_constant_volumes(size, value, uncertain) -> None:
    volume = torch.full((1, 1, *size), value)
    found = select_uncertain(volume, count=7)
    assert found.valid.sum() == uncertain
    if uncertain:  # all are equal: the first in raster order
        assert found.indices[0].tolist() == [list(at) for at in voxels(size)[:7]]
    corner = tuple(side - 1 for side in size)
    agree = Clicks.at([corner], positive=[value > 0.5])
    assert not select_errors(volume, agree, count=7, radius=3.0).valid.any()
    object_here = select_errors(volume, Clicks.at([corner], positive=[value <= 0.5]), count=7, radius=1.0)
    assert object_here.valid.sum() == 1 + len(size), "of a corner's neighbours half lie inside"
    assert object_here.indices[0, 0].tolist() == list(corner)


def test_no_clicks_and_padding_find_nothing() -> None:
    volume = torch.rand(2, 1, 5, 6)
    assert not select_errors(volume, Clicks.none(2, 2), count=3, radius=9.0).valid.any()
    padding = Clicks(torch.full((2, 1, 2), 99), torch.ones(2, 1, dtype=torch.bool), torch.zeros(2, 1, dtype=torch.bool))
    assert not select_errors(volume, padding, count=3, radius=9.0).valid.any()


def test_a_volume_of_another_dtype_is_ranked_in_float32() -> None:
    volume = torch.rand(1, 1, 30, 40)
    halved = volume.half()
    found, expected = select_uncertain(halved, count=50), select_uncertain(halved.float(), count=50)
    assert torch.equal(found.indices, expected.indices)
    assert found.probability.dtype == torch.float16


def test_the_choice_does_not_depend_on_the_batch() -> None:
    volume = torch.rand(3, 1, 40, 50, 7)
    clicks = batch_of([((1, 2, 3), True)], [], [((39, 49, 6), False), ((5, 5, 5), True)], dimensions=3)
    unsure, errors = select_uncertain(volume, count=40), select_errors(volume, clicks, count=40, radius=4.0)
    for index in range(3):
        one = slice(index, index + 1)
        alone = Clicks(clicks.positions[one], clicks.positive[one], clicks.valid[one])
        assert torch.equal(select_uncertain(volume[one], count=40).indices, unsure.indices[one])
        assert torch.equal(select_errors(volume[one], alone, count=40, radius=4.0).indices, errors.indices[one])


def test_gradcheck_of_the_selected_values() -> None:
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(2, 1, 3, 4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    clicks = batch_of([((1, 2, 0), True)], [((0, 0, 1), False)], dimensions=3)
    assert torch.autograd.gradcheck(lambda p: select_uncertain(p, count=30).probability, volume)
    assert torch.autograd.gradcheck(lambda p: select_errors(p, clicks, count=9, radius=2.0).probability, volume)


@pytest.mark.usefixtures("unhooked")
def test_sentences() -> None:
    volume, clicks = torch.rand(1, 1, 4, 4), Clicks.at([(0, 0)], positive=[True])
    with pytest.raises(ValueError, match="count must be at least 1 point, but it is 0"):
        select_uncertain(volume, count=0)
    with pytest.raises(ValueError, match=r"tau must be in \[0, 0\.5\), but it is 0\.5"):
        select_uncertain(volume, count=1, tau=0.5)
    for radius in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"radius must be at least 0 voxels and finite, but it is {radius}"):
            select_errors(volume, clicks, count=1, radius=radius)
    with pytest.raises(ValueError, match=r"probability must be \(b, 1, d, h, w\) .* its shape is \(1, 2, 4, 4\)"):
        select_uncertain(volume.expand(1, 2, 4, 4), count=1)
    with pytest.raises(ValueError, match=r"with at least one voxel, but its shape is \(1, 1, 0, 4\)"):
        select_uncertain(volume[:, :, :0], count=1)
    with pytest.raises(ValueError, match=r"must be floating point, but its dtype is torch\.bool"):
        select_uncertain(volume > 0.5, count=1)
    with pytest.raises(ValueError, match="must be finite, but its values span"):
        select_uncertain(torch.full_like(volume, math.nan), count=1)
    for place in ((4, 0), (0, -1)):
        with pytest.raises(
            ValueError, match=rf"clicks must lie inside the volume.*one is at \({place[0]}, {place[1]}\)"
        ):
            select_errors(volume, Clicks.at([place], positive=[True]), count=1, radius=1.0)
    with pytest.raises(ValueError, match=r"with b = 1 and d = 2 .* shape is \(1, 1, 3\)"):
        select_errors(volume, Clicks.at([(0, 0, 0)], positive=[True]), count=1, radius=1.0)
    with pytest.raises(ValueError, match=r"at least one click, but hold 0 and 1; for no click at all use Clicks\.none"):
        Clicks.at([], positive=[True])
