"""Failures of a wanted Dice: shares, bins, never perfect, and the same mask whatever is made beside it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import degenerate_masks, lesion
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ultrarefiner.checkpoints.settings import describe, first_difference
from ultrarefiner.data import BUSI, FittedCases
from ultrarefiner.ops.counter import counter_uniform
from ultrarefiner.ops.overlap import dice_coefficient
from ultrarefiner.simulation import simulator as file
from ultrarefiner.simulation.edits import Empty, InternalHoles, Islands, OverSegmentation, ScatterOnly, Shift
from ultrarefiner.simulation.lesions import Lesions
from ultrarefiner.simulation.presets import PRESETS
from ultrarefiner.simulation.simulator import DEFAULT_BINS, DiceBin, FailureSimulator, SimulatedMasks

quick = settings(deadline=None, max_examples=15)
FIELDS = [one.name for one in dataclasses.fields(SimulatedMasks)]
REAL = Path(__file__).parents[3] / "shared" / "data" / "busi"


def blobs(count: int, side: int = 64, radii: tuple[float, float] = (2.0, 18.0), seed: int = 0) -> Tensor:
    """Lobed ellipses of every size, some of them cut off by the frame, (n, h, w); none is empty."""
    size, x, y, aspect, turn, phase = counter_uniform(seed, torch.arange(count), 6).T[..., None, None]
    axis = torch.arange(side) + 0.5
    dx, dy = axis - side * (0.05 + 0.9 * x), axis[:, None] - side * (0.05 + 0.9 * y)
    cosine, sine = (6.28 * turn).cos(), (6.28 * turn).sin()
    stretch = (1 + aspect).sqrt()
    along, across = (dx * cosine + dy * sine) / stretch, (dy * cosine - dx * sine) * stretch
    lobes = 1 + 0.2 * (3 * torch.atan2(across, along) + 6.28 * phase).sin()
    reach = (along.square() + across.square()).sqrt() / lobes
    inside = reach <= radii[0] * (radii[1] / radii[0]) ** size
    return inside | (reach <= reach.amin((1, 2), keepdim=True))


def simulate(masks: Tensor, seed: int = 0, simulator: FailureSimulator | None = None) -> SimulatedMasks:
    chosen = FailureSimulator() if simulator is None else simulator
    return chosen.simulate(masks, seed=seed, index=torch.arange(len(masks)))


def area(masks: Tensor) -> Tensor:
    return masks.flatten(1).sum(1)


def same(one: SimulatedMasks, other: SimulatedMasks) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


def part(made: SimulatedMasks, which: Tensor) -> SimulatedMasks:
    return SimulatedMasks(*(getattr(made, name)[which] for name in FIELDS))


@pytest.fixture(scope="module")
def many() -> tuple[Tensor, SimulatedMasks]:
    masks = blobs(3000, 48, (2.0, 15.0))
    return masks, simulate(masks, seed=5)


def test_the_shares_of_the_bins_are_those_asked_for(many: tuple[Tensor, SimulatedMasks]) -> None:
    masks, made = many
    for number, one in enumerate(DEFAULT_BINS):
        assert (made.bin == number).float().mean().item() == pytest.approx(one.share, abs=0.002)
        inside = (made.dice >= one.low) & (made.dice <= one.high)
        assert inside.float().mean().item() == pytest.approx(one.share, abs=0.01)
        # All over the bin, not at one end.
        found = made.dice[(made.bin == number) & (area(masks) > 300)].sort().values
        even = one.low + (one.high - one.low) * torch.linspace(0, 1, len(found))
        assert (found - even).abs().max() < 0.12 * (one.high - one.low)


def test_dice_is_that_of_the_probability_and_never_1(many: tuple[Tensor, SimulatedMasks]) -> None:
    masks, made = many
    found = made.probability > 0.5
    dice = dice_coefficient(found[:, None].float(), masks[:, None].float())[:, 0]
    torch.testing.assert_close(made.dice, dice, rtol=0, atol=1e-6)
    assert (made.dice < 1).all()
    assert (found != masks).flatten(1).any(1).all()
    low, high = torch.tensor([[one.low, one.high] for one in DEFAULT_BINS])[made.bin].unbind(1)
    assert torch.equal(made.reached, (dice >= low - 1e-5) & (dice <= high + 1e-5))


def test_every_lesion_of_some_pixels_reaches_its_bin(many: tuple[Tensor, SimulatedMasks]) -> None:
    masks, made = many
    small = (area(masks) >= 20) & (area(masks) < 150)
    assert small.sum() > 500
    assert made.reached[small].float().mean() >= 0.97
    assert made.reached[area(masks) >= 150].all()


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    masks = blobs(400, 48, (7.0, 12.0))
    simulator = FailureSimulator.preset(name)
    made = simulate(masks, 3, simulator)
    assert made.reached.all()
    assert (made.dice < 1).all()
    assert simulator.edits == PRESETS[name].edits
    assert (made.bin < 0).float().mean().item() == pytest.approx(PRESETS[name].complete_share, abs=0.04)
    known = made.dice[made.bin >= 0]
    assert known.min() >= simulator.bins[0].low - 1e-5
    assert known.max() <= simulator.bins[-1].high + 1e-5
    # All kinds of errors of the mixture occur, as often as their frequencies order them.
    shares = made.edits[made.bin >= 0][:, : len(simulator.edits)].float().mean(0)
    assert (shares > 0).all()
    frequencies = list(simulator.edits.values())
    most, least = frequencies.index(max(frequencies)), frequencies.index(min(frequencies))
    assert shares[most] > shares[least]


def test_mild_is_better_than_severe() -> None:
    masks = blobs(200, 48, (7.0, 12.0))
    means = [simulate(masks, 0, FailureSimulator.preset(name)).dice.mean() for name in ("mild", "default", "severe")]
    assert means[0] > means[1] + 0.03
    assert means[1] > means[2] + 0.03


@pytest.mark.parametrize("pixels", range(1, 11))
def test_tiny_lesions_are_never_perfect(pixels: int) -> None:
    """Compact ones, anywhere; what they cannot reach is what their few values of Dice leave out."""
    count = 60
    masks = torch.zeros(count, 24, 24, dtype=torch.bool)
    order = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (0, 2), (1, 2), (2, 2), (3, 1)]
    place = (counter_uniform(pixels, torch.arange(count), 2) * 21).long()
    for row, column in order[:pixels]:
        masks[torch.arange(count), place[:, 0] + row, (place[:, 1] + column).clamp(max=23)] = True
    for share in (0.0, 0.3):
        made = simulate(masks, 1, FailureSimulator(complete_share=share))
        assert (made.dice < 1).all()
        assert made.probability.isfinite().all()
        assert ((made.probability >= 0) & (made.probability <= 1)).all()
        reachable = [pixels >= 1, pixels >= 2, pixels >= 5]
        for number, possible in enumerate(reachable):
            reached = made.reached[made.bin == number].float().mean()
            assert reached >= (0.98 if pixels >= 6 else 0.4) if possible else reached == 0


@given(
    count=st.integers(2, 12),
    sides=st.tuples(st.integers(9, 60), st.integers(9, 60)),
    seed=st.integers(-(2**63), 2**63 - 1),
    chunk=st.integers(1, 12),
    data=st.data(),
)
@settings(deadline=None, max_examples=25)
def test_a_mask_is_the_same_whatever_is_made_beside_it(
    count: int, sides: tuple[int, int], seed: int, chunk: int, data: st.DataObject
) -> None:
    masks = blobs(count, 60, seed=seed % 1000)[:, : sides[0], : sides[1]]
    index = data.draw(st.lists(st.integers(-(2**40), 2**40), min_size=count, max_size=count, unique=True))
    numbers = torch.tensor(index)
    simulator = FailureSimulator.preset(data.draw(st.sampled_from(sorted(PRESETS))), complete_share=0.2)
    together = simulator.simulate(masks, seed=seed, index=numbers)
    order = torch.tensor(data.draw(st.permutations(range(count)))[: data.draw(st.integers(1, count))])
    assert same(simulator.simulate(masks[order], seed=seed, index=numbers[order]), part(together, order))
    known = Lesions.of(masks)
    assert same(simulator.simulate(masks, seed=seed, index=numbers, lesions=known), together)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "_CHUNK", chunk)
        assert same(simulator.simulate(masks, seed=seed, index=numbers), together)
        patch.setattr(file, "_CHUNK", 1)
        assert same(simulator.simulate(masks, seed=seed, index=numbers), together)


def test_threads_change_nothing() -> None:
    masks, before = blobs(12, 301, (8.0, 100.0)), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = simulate(masks)
        torch.set_num_threads(3)
        assert same(simulate(masks), one)
        assert torch.equal(simulate(masks[:1]).probability, one.probability[:1])
    finally:
        torch.set_num_threads(before)


class Samples(Dataset):
    """Sample i of a seed, one at a time."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, number: int) -> Tensor:
        mask = blobs(7, 40)[number % 7][None]
        made = FailureSimulator(complete_share=0.1).simulate(mask, seed=9, index=torch.tensor([number]))
        return made.probability[0]


def test_workers_change_nothing() -> None:
    masks = blobs(7, 40)[torch.arange(100) % 7]
    at_once = FailureSimulator(complete_share=0.1).simulate(masks, seed=9, index=torch.arange(100)).probability
    none, two = (torch.cat(list(DataLoader(Samples(), 9, num_workers=workers))) for workers in (0, 2))
    assert torch.equal(none, at_once)
    assert torch.equal(two, at_once)
    resumed = torch.cat(list(DataLoader(Samples(), 4, sampler=range(60, 100), num_workers=2)))
    assert torch.equal(resumed, at_once[60:])


def test_seeds_and_numbers_differ() -> None:
    mask = blobs(1, radii=(12.0, 12.0))
    masks = mask.expand(50, -1, -1)
    first, second = simulate(masks, 1), simulate(masks, 3)
    everything = torch.cat([first.probability, second.probability]).flatten(1)
    assert len(everything.unique(dim=0)) == 100
    # The bins of another seed are others, too.
    assert not torch.equal(first.bin, second.bin)


@pytest.mark.parametrize("name", degenerate_masks())
@given(seed=st.integers(0, 2**31), dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
@settings(deadline=None, max_examples=6)
def test_every_mask_gives_a_probability(name: str, seed: int, dtype: torch.dtype) -> None:
    target = degenerate_masks()[name].to(dtype).repeat(2, 6, 1, 1)
    soft = FailureSimulator(complete_share=0.3)(target, torch.Generator().manual_seed(seed))
    assert soft.shape == target.shape
    assert soft.dtype == torch.promote_types(dtype, torch.float32)
    assert ((soft >= 0) & (soft <= 1)).all()
    if (target > 0.5).any():
        assert ((soft > 0.5) != (target > 0.5)).flatten(2).any(2).all()
    else:
        assert not soft.any()


def test_empty_masks_stay_empty_beside_others() -> None:
    masks = blobs(6)
    masks[[1, 4]] = False
    made = simulate(masks, 0, FailureSimulator(complete_share=0.3))
    assert not made.probability[[1, 4]].any()
    assert made.dice[[1, 4]].tolist() == [1.0, 1.0]
    assert made.bin[[1, 4]].tolist() == [-1, -1]
    assert made.reached[[1, 4]].all()
    assert not made.edits[[1, 4]].any()
    assert made.edits[[0, 2, 3, 5]].any(1).all()


def test_full_masks_and_those_that_fill_most_of_their_frame() -> None:
    masks = torch.ones(120, 32, 40, dtype=torch.bool)
    masks[60:, :2, 30:] = False
    made = simulate(masks)
    assert made.reached.float().mean() > 0.98
    assert (made.dice < 1).all()
    assert (simulate(masks, 0, FailureSimulator(complete_share=1.0)).dice < 1).all()


def test_lesions_at_the_frame() -> None:
    masks = torch.stack([lesion(64, 64, centre, (14, 17)) > 0 for centre in ((0, 30), (64, 5), (33, 64), (2, 2))] * 10)
    made = simulate(masks)
    assert made.reached.all()
    assert (made.dice < 1).all()


def test_no_masks() -> None:
    made = simulate(torch.zeros(0, 24, 24, dtype=torch.bool))
    assert made.probability.shape == (0, 24, 24)
    assert FailureSimulator()(torch.zeros(0, 1, 24, 24), torch.Generator()).shape == (0, 1, 24, 24)


def test_a_nan_in_the_target_is_background() -> None:
    target = blobs(2)[None].float()
    expected = FailureSimulator()(target, torch.Generator().manual_seed(0))
    broken = target.masked_fill(target == 0, torch.nan)
    assert torch.equal(FailureSimulator()(broken, torch.Generator().manual_seed(0)), expected)


def test_a_call_follows_its_generator_and_no_other() -> None:
    target = blobs(6).view(3, 2, 64, 64).float().requires_grad_()
    simulator, generator = FailureSimulator(), torch.Generator().manual_seed(0)
    before = torch.get_rng_state()
    first, second = simulator(target, generator), simulator(target, generator)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    assert torch.equal(simulator(target, torch.Generator().manual_seed(0)), first)
    assert not first.requires_grad
    seed = int(torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(0)))
    assert torch.equal(simulate(blobs(6), seed).probability.view_as(first), first)


def test_complete_failures_have_their_share() -> None:
    masks = blobs(1200, 32, radii=(4.0, 8.0))
    simulator = FailureSimulator(complete_share=0.2)
    made = simulate(masks, 1, simulator)
    complete = made.bin < 0
    assert complete.float().mean().item() == pytest.approx(0.2, abs=0.04)
    own = made.edits[:, len(simulator.edits) :]
    assert torch.equal(own.sum(1) == 1, complete)
    assert torch.equal(made.edits[:, : len(simulator.edits)].any(1), ~complete)
    frequencies = torch.tensor(list(simulator.complete.values()))
    shares = own[complete].float().mean(0)
    torch.testing.assert_close(shares, frequencies / frequencies.sum(), rtol=0, atol=0.09)
    assert made.dice[complete].mean() < 0.35
    assert simulator.names == tuple(type(edit).__name__ for edit in (*simulator.edits, *simulator.complete))
    emptied = made.edits[:, simulator.names.index("Empty")]
    assert not (made.probability[emptied] > 0.5).any()
    assert made.dice[emptied].max() == 0


@pytest.mark.parametrize("counts", [(1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), (0.4, 0.3, 0.2, 0.1)])
def test_as_many_edits_as_asked_for(counts: tuple[float, float, float, float]) -> None:
    made = simulate(blobs(500, 24, radii=(3.0, 6.0)), 0, FailureSimulator(counts=counts))
    found = torch.bincount(made.edits.sum(1), minlength=5)[1:] / 500
    torch.testing.assert_close(found, torch.tensor(counts), rtol=0, atol=0.06)


def test_one_kind_of_edit_is_enough_and_order_is_the_mapping_s() -> None:
    made = simulate(blobs(40, radii=(8.0, 12.0)), 0, FailureSimulator(edits={InternalHoles(): 2.0}, complete={}))
    assert made.edits.all()
    assert made.reached.all()
    two = {Islands(): 1.0, Shift(): 1.0}
    there, back = (
        simulate(blobs(20), 0, FailureSimulator(edits=dict(edits), counts=(0.0, 1.0, 0.0, 0.0)))
        for edits in (two.items(), reversed(two.items()))
    )
    assert there.edits[:, :2].all()
    assert not torch.equal(there.probability, back.probability)


OPTIONS = {
    "edits": {OverSegmentation(): 1.0},
    "bins": (DiceBin(0.3, 0.5, 1.0),),
    "complete": {ScatterOnly(): 1.0},
    "complete_share": 0.9,
    "counts": (0.0, 0.0, 0.0, 1.0),
    "softness": (4.0, 5.0),
    "noise": (0.7, 0.9),
    "noise_length": (2.0, 3.0),
}


@pytest.mark.parametrize("option", [one.name for one in dataclasses.fields(FailureSimulator)])
def test_every_option_changes_the_result_and_its_description(option: str) -> None:
    masks = blobs(30, radii=(8.0, 16.0))
    one = FailureSimulator(complete_share=0.2)
    other = dataclasses.replace(one, **{option: OPTIONS[option]})
    assert not torch.equal(simulate(masks, 0, one).probability, simulate(masks, 0, other).probability)
    difference = first_difference(describe(one), describe(other))
    assert difference is not None
    assert difference[0].startswith(option)
    assert describe(one) == describe(FailureSimulator(complete_share=0.2))


def test_a_knob_of_an_edit_is_in_the_description() -> None:
    def described(radius: tuple[float, float]) -> object:
        return describe(FailureSimulator(edits={Islands(radius=radius): 1.0}))

    assert described((0.7, 1.2)) == described((0.7, 1.2))
    assert described((0.7, 1.2)) != described((0.7, 1.3))


def test_softness_is_relative_to_the_frame_and_bounded_by_the_lesion() -> None:
    def width(side: int, radius: float, softness: float) -> float:
        mask = lesion(side, side, (side / 2, side / 2), (radius, radius))[None] > 0
        options = {"softness": (softness, softness), "noise": (0.0, 0.0), "bins": (DiceBin(0.9, 0.95, 1.0),)}
        made = simulate(mask, 0, FailureSimulator(edits={OverSegmentation(one_sided=0.0): 1.0}, complete={}, **options))
        logits = made.probability.logit()[0, side // 2, side // 2 :].clamp(-8, 8)
        steps = (logits[:-1] - logits[1:])[(logits[:-1] < 7) & (logits[1:] > -7)]
        return 1 / steps.mean().item()

    assert width(112, 30, 2.0) == pytest.approx(2.0 * 112 / 224, rel=0.05)
    assert width(224, 60, 2.0) == pytest.approx(2.0, rel=0.05)
    assert width(224, 8, 6.0) == pytest.approx(8 / 4, rel=0.1)


def test_softening_moves_no_border() -> None:
    masks = blobs(60, radii=(6.0, 16.0))
    hard, soft = (simulate(masks, 0, FailureSimulator(softness=(size, size))) for size in (0.01, 3.0))
    assert torch.equal(hard.probability > 0.5, soft.probability > 0.5)
    assert ((soft.probability - 0.5).abs().mean((1, 2)) < (hard.probability - 0.5).abs().mean((1, 2))).all()


def refuse(match: str, **options: object) -> None:
    with pytest.raises(ValueError, match=match):
        FailureSimulator(**options)


def test_wrong_options_get_a_sentence() -> None:
    holes = InternalHoles()
    refuse(r"edits must name at least one kind of error, .* but they are \[", edits={})
    refuse(
        r"all frequencies must be positive, but they are \[0\.0, 1\.0\]; leave",
        edits={holes: 0.0},
        complete={Empty(): 1.0},
    )
    refuse(r"all frequencies must be positive, but they are .*-1\.0", complete={Empty(): -1.0})
    for low, high, share in (
        (0.0, 0.5, 1.0),
        (0.5, 1.0, 1.0),
        (0.8, 0.6, 1.0),
        (0.6, 0.8, 0.0),
        (0.6, 0.8, float("nan")),
    ):
        refuse(r"bins must be at least one range of Dice inside \(0, 1\)", bins=(DiceBin(low, high, share),))
    refuse(r"bins must be at least one range .* they are \[\]", bins=())
    for share in (-0.1, 1.1, float("nan")):
        refuse(r"complete_share must be in \[0, 1\], .* but it is", complete_share=share)
    refuse(
        r"above 0 only with kinds of complete failures, but it is 0\.5 with 0 kinds", complete={}, complete_share=0.5
    )
    for counts in ((0.0, 0.0, 0.0, 0.0), (1.0, -1.0, 1.0, 1.0)):
        refuse(r"counts must be the frequencies of one to four edits, not all 0, but they are", counts=counts)
    with pytest.raises(
        ValueError, match=r"name must be one of default, mild, severe, boundary, structural, but it is 'x'"
    ):
        FailureSimulator.preset("x")


@pytest.mark.usefixtures("unhooked")
def test_too_few_counts_get_a_sentence() -> None:
    refuse(r"counts must be the frequencies of one to four edits, not all 0, but they are \(1\.0,\)", counts=(1.0,))


def test_a_preset_with_changes() -> None:
    simulator = FailureSimulator.preset("severe", complete_share=0.0, noise=(0.2, 0.3))
    assert simulator.complete_share == 0
    assert simulator.noise == (0.2, 0.3)
    assert simulator.bins[0] == DiceBin(0.40, 0.60, 0.25)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_is_the_same_but_for_rounding() -> None:
    masks = blobs(400, 96, (3.0, 30.0))
    simulator = FailureSimulator(complete_share=0.1)
    here, there = (simulator.simulate(masks.to(device), seed=0, index=torch.arange(400)) for device in ("cpu", "cuda"))
    assert torch.equal(here.edits, there.edits.cpu())
    assert torch.equal(here.bin, there.bin.cpu())
    assert (here.dice - there.dice.cpu()).abs().median() < 1e-6
    assert ((here.probability - there.probability.cpu()).abs() < 1e-2).float().mean() > 0.99
    assert (there.dice < 1).all()


def busi_masks() -> Sequence[Tensor]:
    cases = FittedCases(BUSI(REAL), 224)
    return [cases[number].mask[0] > 0.5 for number in range(len(cases))]


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="BUSI is not here")
def test_twenty_thousand_failures_of_real_lesions() -> None:
    masks = torch.stack(busi_masks())
    lesions, sizes = Lesions.of(masks), area(masks)
    index = torch.arange(20_000)
    case = index % len(masks)
    simulator = FailureSimulator()
    parts = []
    for start in range(0, 20_000, 500):
        few = slice(start, start + 500)
        made = simulator.simulate(masks[case[few]], seed=0, index=index[few], lesions=lesions[case[few]])
        found = (made.probability > 0.5) & masks[case[few]]
        dice = 2 * area(found) / (area(made.probability > 0.5) + sizes[case[few]])
        torch.testing.assert_close(made.dice, dice, rtol=0, atol=1e-6)
        parts.append((made.dice, made.bin, made.reached, made.edits))
    dice, wanted, reached, edits = (torch.cat(fields) for fields in zip(*parts, strict=True))
    report = ["", f"{len(masks)} lesions of {sizes.min()} to {sizes.max()} px; highest Dice {dice.max():.4f}"]
    for number, one in enumerate(DEFAULT_BINS):
        share = ((dice >= one.low) & (dice < one.high)).float().mean().item()
        small = (sizes[case] < 150) & (wanted == number)
        report.append(f"{one}: {share:.4f}; under 150 px {small.sum()}, reached {reached[small].float().mean():.4f}")
        assert share == pytest.approx(one.share, abs=0.01)
    shares = edits.float().mean(0).tolist()
    report.append(str({name: round(share, 3) for name, share in zip(simulator.names, shares, strict=True)}))
    missed = sorted(set(sizes[case][~reached].tolist()))
    report.append(f"reached {reached.float().mean():.5f}; what is missed is missed by lesions of {missed} px")
    sys.stdout.write("\n".join([*report, ""]))
    assert dice.max() < 1
    assert reached[sizes[case] >= 20].float().mean() > 0.999
