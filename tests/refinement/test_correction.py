"""GRUCorrection: its parts put together by hand, memory over clicks, gradients, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from corrections import SIZES, correction, logits_and_clicks, nth
from published import answers, checkpoint
from strategies import lesion
from torch import Tensor
from torch.nn import functional

from ultrarefiner.prompts import next_click
from ultrarefiner.refinement import GRUCorrection, PublishedGRUBlock, point_rows
from ultrarefiner.types import Clicks


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("mode", ["add", "set"])
def test_changed_voxels_are_exactly_the_valid_points(dimensions, mode) -> None:
    logits, clicks = logits_and_clicks(dimensions)
    found = correction(dimensions, shift=0.0, mode=mode)(logits, nth(clicks, 0))
    at_points = torch.zeros_like(found.written)
    for index in range(len(logits)):
        for place, valid in zip(found.points.indices[index].tolist(), found.valid[index].tolist(), strict=True):
            if valid:
                at_points[(index, 0, *place)] = True
    assert at_points.any()
    assert torch.equal(found.logits != logits, at_points)
    assert torch.equal(found.written, at_points)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_points_move_by_at_most_the_shift(dimensions) -> None:
    logits, clicks = logits_and_clicks(dimensions)
    found = correction(dimensions, shift=1.5)(logits, clicks)
    moved = (found.positions - found.points.indices).abs()
    assert 0 < moved.max() <= 1.5
    assert not ((found.logits != logits) & ~found.written).any()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_an_untrained_correction_changes_nothing(dimensions) -> None:
    logits, clicks = logits_and_clicks(dimensions)
    found = GRUCorrection(points=5, hidden=4, dimensions=dimensions).double()(logits, clicks)
    assert torch.equal(found.logits, logits)
    assert found.valid.any()
    sets = GRUCorrection(points=5, hidden=4, dimensions=dimensions, mode="set").double()(logits, clicks)
    torch.testing.assert_close(sets.logits[sets.written], torch.zeros(int(sets.written.sum()), dtype=torch.float64))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_carrying_the_state_is_running_the_whole_sequence(dimensions) -> None:
    network = correction(dimensions)
    logits, clicks = logits_and_clicks(dimensions)
    state, steps, present = None, [], logits
    for number in range(3):
        step = network(present, nth(clicks, number), state)
        present, state = step.logits, step.state
        steps.append(step)
    sequence = torch.cat([step.points.sequence() for step in steps], 1)
    assert sequence.shape[1] == 6
    whole = network.gru(sequence)[0]
    for number, step in enumerate(steps):
        torch.testing.assert_close(step.state.hidden, whole[:, 2 * number + 1])
    last = point_rows(steps[-1].points, steps[1].logits, nth(clicks, 2), radius=network.radius)
    hidden, values, moves = network.read(sequence, last, torch.zeros(2, 10, dtype=torch.float64))
    torch.testing.assert_close(hidden, state.hidden)
    torch.testing.assert_close(values, steps[-1].values)
    torch.testing.assert_close(steps[-1].points.indices + moves, steps[-1].positions)
    forgetful = network(steps[1].logits, nth(clicks, 2))
    assert not torch.allclose(forgetful.values, steps[-1].values), "it remembers"


def test_the_first_click_stays_the_context() -> None:
    network = correction(2)
    logits, clicks = logits_and_clicks(2)
    first = network(logits, nth(clicks, 0))
    second = network(first.logits, nth(clicks, 1), first.state)
    unit = clicks.positions[:, 0] / (torch.tensor(SIZES[2]) - 1)
    for step in (first, second):
        assert torch.equal(step.state.first_click, clicks.positions[:, 0])
        torch.testing.assert_close(step.points.features[..., -2:], unit[:, None, None].double().expand(-1, 2, 6, -1))
    padded = Clicks(clicks.positions, clicks.positive, torch.tensor([[False, True, True], [True, True, True]]))
    found = network(logits, padded).state.first_click
    assert torch.equal(found, torch.stack([clicks.positions[0, 1], clicks.positions[1, 0]]))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_batch_is_each_of_its_elements(dimensions) -> None:
    network = correction(dimensions)
    logits, clicks = logits_and_clicks(dimensions, batch=3)
    clicks = replace(clicks, valid=torch.tensor([[True, False, True], [False] * 3, [True] * 3]))
    first = network(logits, clicks)
    whole = network(first.logits, clicks, first.state)
    for index in range(3):
        one = slice(index, index + 1)
        alone = Clicks(clicks.positions[one], clicks.positive[one], clicks.valid[one])
        before = network(logits[one], alone)
        found = network(before.logits, alone, before.state)
        torch.testing.assert_close(found.logits, whole.logits[one])
        torch.testing.assert_close(found.state.hidden, whole.state.hidden[one])
        assert torch.equal(found.written, whole.written[one])
    assert torch.equal(whole.logits[1], logits[1]), "no click, no change"
    assert not whole.state.started[1]
    assert not whole.state.hidden[1].any()
    assert not whole.valid[1].any()
    assert (whole.logits != logits).flatten(1).any(1).tolist() == [True, False, True]


def test_no_click_keeps_the_memory() -> None:
    network = correction(3)
    logits, clicks = logits_and_clicks(3)
    first = network(logits, clicks)
    for nothing in (Clicks.none(2, 3), replace(clicks, valid=torch.zeros_like(clicks.valid))):
        found = network(first.logits, nothing, first.state)
        assert torch.equal(found.logits, first.logits)
        assert torch.equal(found.state.hidden, first.state.hidden)
        assert torch.equal(found.state.first_click, first.state.first_click)
        assert not network(logits, nothing).state.started.any()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_gradient_reaches_every_parameter_and_the_logits_at_every_click(dimensions) -> None:
    network = correction(dimensions)
    logits, clicks = logits_and_clicks(dimensions)
    logits.requires_grad_()
    weights = torch.randn_like(logits)
    state, present = None, logits
    for number in range(3):
        step = network(present, nth(clicks, number), state)
        present, state = step.logits, step.state
        network.zero_grad()
        logits.grad = None
        (step.logits * weights).sum().backward(retain_graph=True)
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
            assert parameter.grad.isfinite().all(), name
        assert (logits.grad - weights).abs().max() > 1e-3, "besides the identity, the features reach the logits"


def test_all_but_the_gru_learns_at_the_first_step_and_the_gru_at_the_next() -> None:
    torch.manual_seed(0)
    network = GRUCorrection(points=4, hidden=5, dimensions=2)
    logits, clicks = logits_and_clicks(2)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        network(logits.float(), clicks).logits.square().sum().backward()
        optimiser.step()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("mode", ["add", "set"])
def test_gradcheck(dimensions, mode) -> None:
    network = correction(dimensions, points=3, hidden=4, mode=mode)
    logits, clicks = logits_and_clicks(dimensions, n=1)
    logits = (2 * logits).requires_grad_()

    def corrected(x: Tensor, *parameters: Tensor) -> Tensor:
        names = [name for name, _ in network.named_parameters()]
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(network, given, (x, clicks)).logits

    assert torch.autograd.gradcheck(corrected, (logits, *network.parameters()), fast_mode=True)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_gradcheck_of_what_is_written_through_the_features_alone(dimensions) -> None:
    """Without the identity from logits to logits, in which a missing gradient would drown."""
    network = correction(dimensions, points=3, hidden=4, tau=0.05)
    logits, clicks = logits_and_clicks(dimensions, n=1)
    logits.requires_grad_()

    def written(x: Tensor) -> tuple[Tensor, Tensor]:
        found = network(x, clicks)
        return found.values, found.positions

    assert torch.autograd.gradcheck(written, logits)
    gradient = torch.autograd.grad(network(logits, clicks).values.square().sum(), logits)[0]
    assert gradient.flatten(1).abs().amax(1).min() > 1e-4


def test_each_option_changes_the_result() -> None:
    logits, clicks = logits_and_clicks(3, n=1)
    plain = correction(3)(logits, clicks).logits
    for options in ({"tau": 0.499}, {"radius": 0.5}, {"shift": 0.3}, {"mode": "set"}):
        assert not torch.equal(correction(3, **options)(logits, clicks).logits, plain), options


@torch.no_grad()
def test_the_published_block_answers_as_published() -> None:
    block = PublishedGRUBlock()
    block.load_state_dict(checkpoint("gru_block"))
    assert sum(parameter.numel() for parameter in block.parameters()) == 22_892_400
    random = np.random.RandomState(7)
    sequence = random.standard_normal((2, 4, 1600)).astype(np.float32)
    coordinates = (random.randint(0, 256, (2, 400, 3)) / 255).astype(np.float32)
    found = block(torch.from_numpy(sequence), torch.from_numpy(coordinates))
    torch.testing.assert_close(found, answers("gru_block")[0], rtol=1e-4, atol=0)


def masks_and_logits(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ellipses, and logits that miss a side of them and add a blob, blurred."""
    generator = torch.Generator().manual_seed(seed)
    truth, seen = [], []
    for _ in range(count):
        y, x, height, width, turn, blob = torch.rand(6, generator=generator).tolist()
        centre, radii = (9 + 6 * y, 9 + 6 * x), (4 + 3 * height, 4 + 3 * width)
        real = lesion(24, 24, centre, radii)
        angle = 2 * math.pi * turn
        bite = lesion(24, 24, (centre[0] + 5 * math.sin(angle), centre[1] + 5 * math.cos(angle)), (4, 4))
        away = 2 * math.pi * blob
        extra = lesion(24, 24, (12 + 9 * math.sin(away), 12 + 9 * math.cos(away)), (2.5, 2.5))
        truth.append(real)
        seen.append((real * (1 - bite) + extra).clamp(max=1))
    blurred = functional.avg_pool2d(torch.stack(seen)[:, None], 3, stride=1, padding=1)
    return torch.stack(truth)[:, None], 6 * blurred - 3


def dice(logits: Tensor, truth: Tensor) -> float:
    predicted = (logits > 0).float()
    return (2 * (predicted * truth).sum((1, 2, 3)) / (predicted.sum((1, 2, 3)) + truth.sum((1, 2, 3)))).mean().item()


def clicked(network: GRUCorrection, logits: Tensor, truth: Tensor, clicks: int) -> list[Tensor]:
    state, steps = None, [logits]
    for _ in range(clicks):
        step = network(steps[-1], next_click(steps[-1].detach() > 0, truth), state)
        state = step.state
        steps.append(step.logits)
    return steps


def test_it_learns_to_correct_masks_that_it_has_not_seen() -> None:
    torch.manual_seed(0)
    truth, logits = masks_and_logits(48, 1)
    network = GRUCorrection(points=48, hidden=24, dimensions=2, radius=5.0)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(80):
        chosen = torch.arange(16) + 16 * (step % 3)
        corrected = clicked(network, logits[chosen], truth[chosen], 3)[1:]
        loss = sum(functional.binary_cross_entropy_with_logits(one, truth[chosen]) for one in corrected)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    unseen, coarse = masks_and_logits(24, 2)
    with torch.no_grad():
        scores = [dice(one, unseen) for one in clicked(network, coarse, unseen, 3)]
    assert scores[3] > scores[0] + 0.12, scores
    assert scores[0] < scores[1] < scores[3], scores


@pytest.mark.parametrize("dimensions", [2, 3])
def test_what_is_told_of_each_point_is_what_a_loop_says(dimensions) -> None:
    logits, clicks = logits_and_clicks(dimensions)
    clicks = replace(clicks, valid=torch.tensor([[True, False, True], [False] * 3]))
    points = correction(dimensions)(logits, clicks).points
    rows = point_rows(points, logits, clicks, radius=2.0)
    known = 2 * dimensions + 2
    torch.testing.assert_close(rows[..., :known], points.features.flatten(1, 2))
    for index in range(2):
        for number in range(12):
            if not points.valid[index, number]:
                assert (rows[index, number, known:] == 0).all()
                continue
            at = points.indices[index, number]
            expected = [math.tanh(float(logits[(index, 0, *at.tolist())]) / 16)]
            made = [n for n in range(3) if clicks.valid[index, n]]
            ways = [(at - clicks.positions[index, n]).double() / 2.0 for n in made]
            if made:
                nearest = min(range(len(made)), key=lambda n: float(ways[n].norm()))
                says = 1.0 if clicks.positive[index, made[nearest]] else -1.0
                apart = 2.0 * float(ways[nearest].norm())
                near = [says * math.exp(-(apart**2) / (2 * reach**2)) for reach in (1, 2, 4, 8)]
                expected += [*ways[nearest].tolist(), says, *near]
            else:
                expected += [0.0] * (dimensions + 5)
            expected.append(-1.0 if number < 6 else 1.0)
            torch.testing.assert_close(rows[index, number, known:].tolist(), expected)


def test_gain_multiplies_what_is_written() -> None:
    logits, clicks = logits_and_clicks(3)
    one, five = (correction(3, shift=0.0, gain=gain)(logits, nth(clicks, 0)) for gain in (1.0, 5.0))
    torch.testing.assert_close(five.values, 5 * one.values)
    torch.testing.assert_close(five.logits - logits, 5 * (one.logits - logits))
