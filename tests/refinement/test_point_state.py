"""The features of points, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ultrarefiner.refinement import build_state, select_errors, select_uncertain, unit_coordinates
from ultrarefiner.types import Clicks


@pytest.mark.parametrize("size", [(5, 6), (3, 5, 6)])
def test_features_are_those_of_a_loop(size) -> None:
    axes, count = len(size), 9
    volume = torch.rand(2, 1, *size, dtype=torch.float64)
    place = tuple(side // 2 for side in size)
    one = Clicks.at([place], positive=[True])
    clicks = Clicks(one.positions.expand(2, -1, -1), one.positive.expand(2, -1), torch.tensor([[True], [False]]))
    uncertain = select_uncertain(volume, count=count, tau=0.4)
    errors = select_errors(volume, clicks, count=count, radius=1.0)
    context = unit_coordinates(clicks.positions, size)[:, 0]
    state = build_state(uncertain, errors, context, size)
    assert state.features.shape == (2, 2, count, 2 * axes + 2)
    assert state.sequence().shape == (2, 2, count * (2 * axes + 2))
    assert torch.equal(state.indices, torch.cat([uncertain.indices, errors.indices], 1))
    for index in range(2):
        for kind, points in enumerate((uncertain, errors)):
            for row in range(count):
                features = state.features[index, kind, row].tolist()
                assert state.valid[index, kind * count + row] == points.valid[index, row]
                assert features[axes + 2 :] == pytest.approx(
                    [p / (side - 1) for p, side in zip(place, size, strict=True)]
                )
                if not points.valid[index, row]:
                    assert features[: axes + 2] == [0.0] * (axes + 2)
                    continue
                at = points.indices[index, row].tolist()
                value = volume[index, 0][tuple(at)].item()
                known = value if kind == 0 else float(value <= 0.5)
                expected = [a / (side - 1) for a, side in zip(at, size, strict=True)]
                assert features[: axes + 2] == pytest.approx([*expected, known, 1.0])
    assert state.valid[0].any()
    assert not state.valid[1, count:].any()


def test_an_axis_of_one_voxel_has_the_coordinate_0() -> None:
    assert unit_coordinates(torch.tensor([[[0, 3]]]), (1, 4)).tolist() == [[[0.0, 1.0]]]


def test_the_probability_carries_a_gradient() -> None:
    volume = torch.rand(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    clicks = Clicks.at([(0, 0)], positive=[True])

    def features(p):
        errors = select_errors(p, clicks, count=16, radius=2.0)
        return build_state(select_uncertain(p, count=16), errors, torch.zeros(1, 2), (4, 4)).features

    assert torch.autograd.gradcheck(features, volume)


@pytest.mark.usefixtures("unhooked")
def test_sentences() -> None:
    volume, clicks = torch.rand(1, 1, 4, 4), Clicks.at([(0, 0)], positive=[True])
    uncertain = select_uncertain(volume, count=3)
    errors = select_errors(volume, clicks, count=4, radius=2.0)
    with pytest.raises(ValueError, match=r"their shapes are \(1, 4\) and \(1, 3\)"):
        build_state(uncertain, errors, torch.zeros(1, 2), (4, 4))
    with pytest.raises(ValueError, match="and the errors have no labels"):
        build_state(uncertain, replace(uncertain, positive=None), torch.zeros(1, 2), (4, 4))
