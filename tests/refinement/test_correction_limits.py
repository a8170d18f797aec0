"""GRUCorrection at its limits: half precision, thin and constant volumes, devices, sentences."""

from __future__ import annotations

import math

import pytest
import torch
from corrections import correction, logits_and_clicks
from torch import Tensor

from ultrarefiner.refinement import GRUCorrection, point_rows, point_selection, point_writing
from ultrarefiner.refinement import correction as correction_module
from ultrarefiner.types import Clicks


def test_half_precision_logits() -> None:
    logits, clicks = logits_and_clicks(3)
    found = correction(3).float()(logits.half(), clicks)
    assert found.logits.dtype == torch.float16
    assert (found.logits != logits.half()).any()


def wide(dimensions: int) -> tuple[Tensor, Clicks]:
    """An axis with indices that bfloat16 (256) or float16 (2048) cannot hold, and a click far along it."""
    size = (4, 6, 2600)[3 - dimensions :]
    logits = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0))
    return logits, Clicks.at([(2, 3, 2501)[3 - dimensions :]], positive=[True])


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("shift", [0.0, 1.0])
@torch.no_grad()
def test_points_lie_where_they_lie_in_float32_under_autocast(dimensions, shift) -> None:
    network = correction(dimensions, points=40, shift=shift).float()
    logits, clicks = wide(dimensions)
    expected = network(logits, clicks)
    sequence, hidden = expected.points.sequence(), torch.zeros(1, 10)
    rows = point_rows(expected.points, logits, clicks, radius=network.radius)
    read = network.read(sequence, rows, hidden)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(logits, clicks)
        again = network.read(sequence, rows, hidden)
    assert expected.points.indices.max() > 2048
    for name in ("logits", "values", "positions", "written"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype, name
    assert torch.equal(found.state.hidden, expected.state.hidden)
    assert all(torch.equal(one, other) and one.dtype == torch.float32 for one, other in zip(again, read, strict=True))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_points_keep_their_voxels_with_weights_in_half_precision(dimensions, dtype) -> None:
    logits, clicks = wide(dimensions)
    network = correction(dimensions, points=40).to(dtype)
    found, expected = network(logits, clicks), correction(dimensions, points=40).to(dtype).float()(logits, clicks)
    assert found.positions.dtype == found.values.dtype == torch.float32
    moved = (found.positions - found.points.indices).abs()
    assert 0 < moved.max() <= 1
    torch.testing.assert_close(found.positions, expected.positions, atol=0.05, rtol=0)
    torch.testing.assert_close(found.values, expected.values, atol=0.1, rtol=0)
    still = correction(dimensions, points=40, shift=0.0).to(dtype)(logits, clicks)
    assert torch.equal(still.positions, still.points.indices.float())
    assert torch.equal(still.written, correction(dimensions, points=40, shift=0.0).float()(logits, clicks).written)
    features = network(logits.to(dtype), clicks).points.features
    # Neighbours 1/2599 apart keep their own coordinates with logits in half precision too.
    assert features.dtype == torch.float32


def test_a_volume_is_checked_once_a_click(monkeypatch) -> None:
    seen = []
    check = correction_module.check_volume
    for module in (correction_module, point_selection, point_writing):
        if hasattr(module, "check_volume"):
            monkeypatch.setattr(module, "check_volume", lambda *given: (seen.append(given[1]), check(*given)))
    correction(3)(*logits_and_clicks(3))
    assert seen == ["logits"]


@pytest.mark.usefixtures("unhooked")
def test_weights_that_are_not_finite_are_said() -> None:
    logits, clicks = logits_and_clicks(3)
    for head in ("value_head", "shift_head"):
        network = correction(3)
        torch.nn.init.constant_(getattr(network, head).bias, math.nan)
        with pytest.raises(ValueError, match=r"positions and values of valid points must be finite, .* in the weights"):
            network(logits, clicks)


@pytest.mark.usefixtures("unhooked")
def test_sentences() -> None:
    network = correction(3)
    for wrong, sentence in (
        ({"tau": 0.5}, r"tau must be in \[0, 0\.5\), but it is 0\.5"),
        ({"radius": -1.0}, "radius must be at least 0 voxels and finite, but it is -1.0"),
        ({"radius": math.inf}, "radius must be at least 0 voxels"),
    ):
        with pytest.raises(ValueError, match=sentence):
            GRUCorrection(**wrong)
    logits, clicks = logits_and_clicks(3)
    for wrong in ({"points": 0}, {"hidden": 0}, {"dimensions": 4}, {"shift": -1.0}, {"mode": "replace"}, {"gain": 0.0}):
        with pytest.raises(ValueError, match="GRUCorrection takes points, hidden and width >= 1, dimensions 2 or 3"):
            GRUCorrection(**wrong)
    with pytest.raises(ValueError, match=r"logits must have 3 axes of space .* build the correction with dimensions=2"):
        network(logits[:, :, 0], clicks)
    with pytest.raises(ValueError, match="with b = 1 and d = 3"):
        network(logits[:1], clicks)
    with pytest.raises(ValueError, match=r"clicks must lie inside the volume, .* but one is at \(5, 0, 0\)"):
        network(logits[:1], Clicks.at([(5, 0, 0)], positive=[True]))
    state = network(logits, clicks).state
    with pytest.raises(ValueError, match=r"state must hold 10 numbers for each of 1 volumes, .* shape is \(2, 10\)"):
        network(logits[:1], Clicks.at([(0, 0, 0)], positive=[True]), state)
    for bad in (math.nan, math.inf):
        logits[0, 0, 0, 0, 0] = bad
        with pytest.raises(ValueError, match="logits must be finite"):
            network(logits, clicks)
    assert "points=6, hidden=10, dimensions=3" in repr(network)
    assert GRUCorrection(**network.settings()).settings() == network.settings()


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 8, 9), (6, 1, 4)])
@pytest.mark.parametrize("value", [-30.0, 0.0, 30.0, 500.0])
@pytest.mark.parametrize("mode", ["add", "set"])
def test_thin_empty_full_and_constant_volumes(size, value, mode) -> None:
    network = correction(3, points=20, mode=mode)
    logits = torch.full((1, 1, *size), value, dtype=torch.float64, requires_grad=True)
    for positive in (True, False):
        clicks = Clicks.at([tuple(side - 1 for side in size)], positive=[positive])
        found = network(logits, clicks)
        assert found.logits.isfinite().all()
        assert found.valid.any() == (value == 0 or positive != (value > 0))
        gradient = torch.autograd.grad(found.logits.sum(), logits)[0]
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("mode", ["add", "set"])
def test_nothing_asks_for_a_value(dimensions, mode) -> None:
    """On the meta device there are none: reading one, as a GPU would have to wait for, raises."""
    network = correction(dimensions, mode=mode).to("meta")
    logits, clicks = logits_and_clicks(dimensions)
    away = Clicks(clicks.positions.to("meta"), clicks.positive.to("meta"), clicks.valid.to("meta"))
    first = network(logits.to("meta").requires_grad_(), away)
    second = network(first.logits, away, first.state)
    second.logits.sum().backward()
    assert second.logits.shape == logits.shape
    assert second.written.device.type == "meta"
