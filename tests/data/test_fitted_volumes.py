from __future__ import annotations

import multiprocessing
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from ultrarefiner.data import FittedVolumes, FitVolume, LabelledVolume, OrganCases, OrganPhantoms, VolumeCase
from ultrarefiner.data import fitted_volumes as room

SIZE = (16, 20, 24)
SHUFFLED = (0, 5, 11, 1, 6, 12, 2, 7, 13, 3, 8, 14, 4, 9, 10)


class Counted(OrganPhantoms):
    """Notes which volumes were made."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.made: list[int] = []

    def __getitem__(self, position: int) -> LabelledVolume:
        self.made.append(position)
        return super().__getitem__(position)


def counted(count: int = 3) -> Counted:
    return Counted(count, size=SIZE)


class Apart:
    """Cases that do not say which volume they are of."""

    def __init__(self, cases: OrganCases) -> None:
        self.cases = cases
        self.names = cases.names

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> VolumeCase:
        return self.cases[index]


# OrganCases


def test_a_few_volumes_stay_while_their_organs_are_read() -> None:
    volumes = counted()
    cases = OrganCases(volumes)
    for index in (0, 5, 1, 6, 2, 7, 3, 8, 4, 9):
        assert cases[index].name == cases.names[index]
    assert volumes.made == [0, 1]
    cases[10], cases[5], cases[0]
    assert volumes.made == [0, 1, 2, 0], "the one that was not asked for longest goes"
    assert cases.volume_numbers == (0,) * 5 + (1,) * 5 + (2,) * 5
    one = OrganCases(volumes := counted(), keep=1)
    one[0], one[1], one[5], one[0]
    assert volumes.made == [0, 1, 0]


def test_no_volume_is_sent_to_a_worker() -> None:
    cases = OrganCases(OrganPhantoms(3, size=SIZE))
    empty = len(pickle.dumps(cases))
    first = cases[0]
    assert len(pickle.dumps(cases)) == empty
    again = pickle.loads(pickle.dumps(cases))[0]
    assert torch.equal(again.image, first.image)
    assert torch.equal(again.mask, first.mask)


def test_keeping_no_volume_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="keep must be at least 1 volume, got 0; the one that is read must be kept"):
        OrganCases(OrganPhantoms(1, size=SIZE), keep=0)


# FittedVolumes


@pytest.mark.parametrize("size", [None, (8, 16, 16), SIZE])
@pytest.mark.parametrize("keep", [True, False])
def test_every_case_is_what_it_is_alone(size: tuple[int, int, int] | None, *, keep: bool) -> None:
    phantoms = OrganPhantoms(3, size=SIZE)
    fitted = FittedVolumes(OrganCases(phantoms), size, keep_in_memory=keep)
    apart = FittedVolumes(Apart(OrganCases(phantoms)), size, keep_in_memory=keep)
    for index in SHUFFLED:
        alone = FitVolume(size)(phantoms[index // 5].case(phantoms.organs[index % 5]))
        for found in (fitted[index], fitted[index], apart[index]):
            assert found.name == alone.name == fitted.names[index]
            assert torch.equal(found.image, alone.image)
            assert torch.equal(found.mask, alone.mask)
            assert found.mask.dtype == alone.mask.dtype


def test_an_image_is_made_normalised_and_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    normalised = []
    normalise = room.normalise_foreground

    def watched(image: torch.Tensor) -> torch.Tensor:
        normalised.append(image.shape)
        return normalise(image)

    monkeypatch.setattr(room, "normalise_foreground", watched)
    volumes = counted()
    fitted = FittedVolumes(OrganCases(volumes), (8, 16, 16))
    for index in SHUFFLED + SHUFFLED:
        fitted[index]
    assert sorted(volumes.made) == [0, 1, 2], "in whatever order"
    assert len(normalised) == 3
    assert len({fitted[index].image.data_ptr() for index in range(15)}) == 3
    normalised.clear()
    in_order = FittedVolumes(OrganCases(volumes), (8, 16, 16), keep_in_memory=False)
    for index in range(15):
        in_order[index]
    assert len(normalised) == 3


def test_what_an_evaluation_reads_first_can_be_trained_on() -> None:
    for keep in (True, False):
        fitted = FittedVolumes(OrganCases(OrganPhantoms(1, size=SIZE)), None, keep_in_memory=keep)
        with torch.inference_mode():
            fitted[0]
        weight = torch.ones((), requires_grad=True)
        (fitted[1].image * fitted[1].mask * weight).sum().backward()
        assert weight.grad is not None
    cases = OrganCases(OrganPhantoms(1, size=SIZE))
    with torch.inference_mode():
        cases[0]
    assert not cases[1].image.is_inference()


def test_workers_read_the_same() -> None:
    fitted = FittedVolumes(OrganCases(OrganPhantoms(2, size=SIZE), organs=["tube", "neighbour"]), (8, 16, 16))
    fitted[0]  # one volume is kept before they start
    loader = torch.utils.data.DataLoader(
        fitted,
        batch_size=2,
        collate_fn=fitted.collate,
        num_workers=2,
        multiprocessing_context=multiprocessing.get_context("fork"),
    )
    batches = list(loader)
    assert [name for batch in batches for name in batch.names] == list(fitted.names)
    images = torch.cat([batch.images for batch in batches])
    masks = torch.cat([batch.masks for batch in batches])
    for index in range(4):
        assert np.array_equal(images[index].numpy(), fitted[index].image.numpy())
        assert np.array_equal(masks[index].numpy(), fitted[index].mask.numpy())
        sent = pickle.loads(pickle.dumps(fitted))[index]  # as a spawned worker gets it
        assert torch.equal(sent.image, fitted[index].image)
        assert torch.equal(sent.mask, fitted[index].mask)
