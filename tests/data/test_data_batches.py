from __future__ import annotations

import dataclasses
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric.utilities import move_data_to_device
from torch.utils.data import DataLoader

from ultrarefiner.data.batches import Batch, FittedCases, SeededSampler, collate
from ultrarefiner.data.cases import Case
from ultrarefiner.data.fit import FitToSquare, StretchToSquare
from ultrarefiner.data.phantoms import Phantoms


class _Counting:
    """Phantoms that count how often they are drawn."""

    unseen = False

    def __init__(self, count: int) -> None:
        self.phantoms = Phantoms(count, size=(32, 48))
        self.names, self.labels, self.groups = self.phantoms.names, self.phantoms.labels, self.phantoms.groups
        self.drawn = 0

    def subset(self, names: object) -> _Counting:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.phantoms)

    def __getitem__(self, index: int) -> Case:
        self.drawn += 1
        return self.phantoms[index]


def test_cases_are_fitted_and_read_once() -> None:
    source = _Counting(3)
    fitted = FittedCases(source, 24)
    first, again = fitted[1], fitted[1]
    assert source.drawn == 1
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.image, FitToSquare(24).image(source.phantoms[1].image))
    assert first.name == "phantom 1"
    fresh = FittedCases(source, 24, keep_in_memory=False)
    assert torch.equal(fresh[1].image, fresh[1].image)
    assert source.drawn == 3
    assert len(fresh) == 3
    assert len(list(fresh)) == 3  # type: ignore[call-overload] # by index, until it ends


def test_what_is_kept_takes_five_bytes_a_pixel_and_loses_nothing() -> None:
    source = Phantoms(2, size=(32, 48))
    fitted = FittedCases(source, 24)
    first, again = fitted[0], fitted[0]
    assert first.mask.dtype == again.mask.dtype == torch.float32
    assert torch.equal(again.mask, FitToSquare(24).mask(source[0].mask))
    assert fitted._kept is not None
    kept = fitted._kept["phantom 0"]
    assert kept.image.nbytes + kept.mask.nbytes == 5 * 24 * 24


def test_fitted_cases_say_what_they_are_of() -> None:
    source = _Counting(2)
    fitted = FittedCases(source, 24)
    assert (fitted.names, fitted.size, fitted.unseen) == (("phantom 0", "phantom 1"), 24, False)
    source.unseen = True
    assert fitted.unseen
    assert source.drawn == 0


def test_an_index_outside_is_named() -> None:
    with pytest.raises(IndexError, match=r"index must be in 0 to 2, got 3"):
        FittedCases(Phantoms(3, size=(32, 32)), 16)[3]


def test_a_batch_stacks_cases() -> None:
    fitted = FittedCases(Phantoms(3, size=(32, 48)), 24)
    batch = next(iter(DataLoader(fitted, batch_size=3, collate_fn=collate)))
    assert isinstance(batch, Batch)
    assert batch.images.shape == batch.masks.shape == (3, 1, 24, 24)
    assert batch.names == ("phantom 0", "phantom 1", "phantom 2")
    assert batch.content_sizes.tolist() == [[16, 24]] * 3
    assert batch.original_sizes.tolist() == [[32, 48]] * 3
    for index in range(3):
        assert torch.equal(batch.images[index], fitted[index].image)
        assert torch.equal(batch.masks[index], fitted[index].mask)
    moved = move_data_to_device(batch, "meta")
    assert isinstance(moved, Batch)
    assert moved.images.device.type == "meta"
    assert moved.names == batch.names


def test_a_batch_of_nothing_or_of_two_squares_gets_a_sentence() -> None:
    phantoms = Phantoms(1, size=(32, 32))
    with pytest.raises(ValueError, match=r"one square, got the sizes \[16, 24\]"):
        collate([FittedCases(phantoms, 16)[0], FittedCases(phantoms, 24)[0]])
    with pytest.raises(ValueError, match=r"one square, got the sizes \[\]"):
        collate([])


def test_a_second_annotation_reaches_the_batch_as_the_mask_does() -> None:
    class Twice(_Counting):
        def __getitem__(self, index: int) -> Case:
            case = super().__getitem__(index)
            return dataclasses.replace(case, other_mask=case.mask.roll(3, -1))

    fitted = FittedCases(Twice(2), 24)
    expected = torch.stack([FitToSquare(24).mask(fitted.dataset[index].mask.roll(3, -1)) for index in range(2)])
    for _ in range(2):  # read, then remembered
        batch = collate([fitted[0], fitted[1]])
        assert batch.other_masks is not None
        assert torch.equal(batch.other_masks, expected)
        assert not torch.equal(batch.other_masks, batch.masks)
    assert fitted._kept is not None
    assert fitted._kept["phantom 0"].other_mask.dtype == torch.bool  # type: ignore[union-attr] # it has one
    moved = move_data_to_device(batch, "meta")
    assert moved.other_masks.device.type == "meta"
    plain = FittedCases(_Counting(2), 24)
    assert collate([plain[0]]).other_masks is None
    with pytest.raises(ValueError, match=r"all its cases or of none, got 1 of 2; 'phantom 1' has none"):
        collate([fitted[0], plain[1]])


def test_coarse_masks_reach_the_batch() -> None:
    fitted = FittedCases(Phantoms(3, size=(32, 48)), 24)
    soft = torch.rand(3, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    cases = [dataclasses.replace(fitted[index], coarse_probability=soft[index]) for index in range(3)]
    batch = collate(cases)
    assert batch.coarse_probability is not None
    assert torch.equal(batch.coarse_probability, soft)
    for index in range(3):
        alone = collate(cases[index : index + 1]).coarse_probability
        assert alone is not None
        assert torch.equal(alone, soft[index : index + 1])
    assert move_data_to_device(batch, "meta").coarse_probability.device.type == "meta"
    assert collate([fitted[0]]).coarse_probability is None
    with pytest.raises(
        ValueError, match=r"a coarse mask \(coarse_probability\) of all its cases or of none, got 2 of 3; 'phantom 2'"
    ):
        collate([*cases[:2], fitted[2]])


def test_a_subset_shares_what_was_read() -> None:
    class Divisible(_Counting):
        def subset(self, names: object) -> Phantoms:
            return self.phantoms.subset(names)  # type: ignore[arg-type] # names

    source = Divisible(4)
    fitted = FittedCases(source, 24)
    part = fitted.subset(["phantom 3", "phantom 1"])
    assert (part.names, part.size, len(part)) == (("phantom 1", "phantom 3"), 24, 2)
    assert source.drawn == 0
    read = part[1]
    assert torch.equal(fitted[3].image, read.image)
    assert source.drawn == 0, "the subset has read it"
    whole = fitted[1]
    assert source.drawn == 1
    assert part[0].image is whole.image
    assert part[0].name == "phantom 1"
    apart = FittedCases(source, 24, keep_in_memory=False).subset(["phantom 2"])
    assert apart._kept is None
    assert torch.equal(apart[0].image, fitted[2].image)
    with pytest.raises(ValueError, match=r"nobody"):
        fitted.subset(["nobody"])


def test_what_an_evaluation_reads_first_can_be_trained_on() -> None:
    fitted = FittedCases(Phantoms(1, size=(32, 32)), 24)
    with torch.inference_mode():
        fitted[0]
    network = torch.nn.Conv2d(1, 1, 3)
    network(fitted[0].image[None]).sum().backward()
    assert network.weight.grad is not None


def test_a_fit_stands_in_for_a_size() -> None:
    stretched = FittedCases(_Counting(2), StretchToSquare(24))
    assert stretched.size == 24
    assert stretched[0].content_size == (24, 24)
    assert not torch.equal(stretched[0].image, FittedCases(_Counting(2), 24)[0].image)


def test_filling_reads_every_case_once_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    source = _Counting(3)
    fitted = FittedCases(source, 24)
    assert fitted.fill() is fitted
    assert source.drawn == 3
    assert tuple(fitted._kept or ()) == fitted.names
    fitted[2], fitted[0]
    assert source.drawn == 3
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert len(FittedCases(source, 24).fill()._kept or ()) == 3
    with pytest.raises(ValueError, match=r"keep_in_memory must be True to fill the memory"):
        FittedCases(source, 24, keep_in_memory=False).fill()


@settings(deadline=None, max_examples=25)
@given(length=st.integers(1, 40), seed=st.integers(0, 2**40), epoch=st.integers(0, 500), data=st.data())
def test_a_resumed_epoch_goes_on_in_the_same_order(length: int, seed: int, epoch: int, data: st.DataObject) -> None:
    skip = data.draw(st.integers(0, length))
    whole = SeededSampler(length, seed=seed)
    whole.begin(epoch)
    order = list(whole)
    assert sorted(order) == list(range(length))
    resumed = SeededSampler(length, seed=seed)
    resumed.begin(epoch, skip=skip)
    assert list(resumed) == order[skip:]
    assert len(resumed) == length - skip
    resumed.begin(epoch)
    assert list(resumed) == order


def test_epochs_and_seeds_shuffle_differently_and_the_global_state_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    orders = []
    for seed in (0, 1):
        sampler = SeededSampler(50, seed=seed)
        for epoch in (0, 1):
            sampler.begin(epoch)
            orders.append(tuple(sampler))
    assert len(set(orders)) == 4
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loader_of_a_resumed_epoch_is_shorter() -> None:
    sampler = SeededSampler(10, seed=0)
    loader = DataLoader(range(10), batch_size=4, sampler=sampler)
    sampler.begin(2, skip=4)
    assert len(loader) == 2
    assert [len(part) for part in loader] == [4, 2]
    assert not hasattr(sampler, "set_epoch")


def test_wrong_numbers_for_the_sampler() -> None:
    with pytest.raises(ValueError, match=r"length must be at least 1, got 0"):
        SeededSampler(0, seed=0)
    for epoch, skip in ((-1, 0), (0, -1), (0, 6)):
        with pytest.raises(ValueError, match=rf"skip must be 0 to 5, got epoch {epoch} and skip {skip}"):
            SeededSampler(5, seed=0).begin(epoch, skip=skip)
