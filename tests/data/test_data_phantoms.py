from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader

from ultrarefiner.data.batches import FittedCases, collate
from ultrarefiner.data.phantom_imaging import rayleigh_envelope, speckle_image
from ultrarefiner.data.phantom_tissue import draw_tissue
from ultrarefiner.data.phantoms import Phantoms
from ultrarefiner.data.seeds import stable_seed


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_case_i_depends_on_seed_and_i_alone() -> None:
    phantoms = Phantoms(5, size=(64, 80), seed=3)
    torch.manual_seed(0)
    third = phantoms[3]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    again = Phantoms(40, size=(64, 80), seed=3).subset(["phantom 3 of seed 3", "phantom 20 of seed 3"])[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert again.name == third.name == "phantom 3 of seed 3"
    assert torch.equal(again.image, third.image)
    assert torch.equal(again.mask, third.mask)
    assert not torch.equal(Phantoms(5, size=(64, 80), seed=4)[3].image, third.image)
    assert not torch.equal(phantoms[2].image, third.image)


def test_workers_draw_what_the_main_process_draws() -> None:
    fitted = FittedCases(Phantoms(4, size=(32, 32)), 32)
    loader = DataLoader(fitted, batch_size=2, num_workers=2, collate_fn=collate, multiprocessing_context="fork")
    images = torch.cat([batch.images for batch in loader])
    assert torch.equal(images, torch.stack([fitted[index].image for index in range(4)]))


def test_the_seed_is_the_same_in_every_process() -> None:
    assert stable_seed("phantom", 0, 1) == 3731547247011254849
    assert stable_seed(1) != stable_seed("1")
    assert 0 <= stable_seed("a", -1) < 2**63


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (32, 32)])
def test_images_and_masks_are_whole(size: tuple[int, int]) -> None:
    phantoms = Phantoms(30, size=size, seed=1)
    for case, label in zip(phantoms, phantoms.labels, strict=True):  # type: ignore[call-overload] # by index
        assert case.image.shape == case.mask.shape == (1, *size)
        assert case.image.isfinite().all()
        assert case.image.min() >= 0
        assert case.image.max() <= 1
        assert case.image.std() > 0.05
        assert 0.001 < case.mask.mean() < 0.5
        assert case.mask.unique().tolist() == [0, 1]
        assert case.label == label
    assert set(phantoms.labels) == {"benign", "malignant"}
    assert phantoms.groups == phantoms.names


def test_lesions_are_darker_than_their_surroundings_but_a_threshold_does_not_find_them() -> None:
    phantoms = Phantoms(40, size=(128, 128), seed=0)
    thresholds = torch.linspace(0.05, 0.8, 30)[:, None, None, None]
    darker, best = 0, []
    for index in range(len(phantoms)):
        case = phantoms[index]
        around = functional.max_pool2d(case.mask, 21, 1, 10) - case.mask
        inside_mean = (case.image * case.mask).sum() / case.mask.sum()
        darker += bool(inside_mean < (case.image * around).sum() / around.sum())
        smooth = functional.avg_pool2d(case.image, 5, 1, 2)
        found = (smooth < thresholds).float()
        overlap = (found * case.mask).sum((1, 2, 3))
        best.append((2 * overlap / (found.sum((1, 2, 3)) + case.mask.sum())).max())
    assert darker >= 30
    assert torch.stack(best).mean() < 0.4


def test_malignant_lesions_cast_shadows() -> None:
    change = {}
    for malignant in (False, True):
        losses = []
        for seed in range(30):
            tissue = draw_tissue((64, 64), torch.Generator().manual_seed(seed), malignant=malignant)
            column = tissue.mask.sum(0).argmax()
            bottom = int(tissue.mask[:, column].nonzero()[-1])
            top = int(tissue.mask[:, column].nonzero()[0])
            losses.append(tissue.loss[bottom, column] - tissue.loss[top, column])
        change[malignant] = torch.stack(losses).mean()
    assert change[True] > change[False] + 4


def test_the_envelope_is_rayleigh() -> None:
    """Mean, spread and tail of a Rayleigh distribution; neighbours alike, far pixels not."""
    envelope = rayleigh_envelope(torch.ones(400, 400), torch.Generator().manual_seed(0), axial=1.0, lateral=2.0)
    mean = envelope.mean()
    assert abs(mean - math.sqrt(math.pi) / 2) < 0.02
    assert abs(mean / envelope.std() - math.sqrt(math.pi / (4 - math.pi))) < 0.06
    assert abs((envelope > 1.5).float().mean() - math.exp(-(1.5**2))) < 0.01
    centred = envelope - mean

    def alike(rows: int, columns: int) -> float:
        moved = centred.roll((rows, columns), (0, 1))
        return float((centred * moved).mean() / centred.var())

    assert alike(0, 1) > alike(1, 0) > 0.4
    assert abs(alike(20, 20)) < 0.05
    louder = rayleigh_envelope(torch.full((400, 400), 3.0), torch.Generator().manual_seed(0), axial=1.0, lateral=2.0)
    assert torch.allclose(louder, 3 * envelope, atol=1e-4)


def test_more_looks_mean_less_speckle_and_a_wider_range_less_contrast() -> None:
    def spread(looks: int, dynamic_range: float) -> float:
        level = torch.zeros(128, 128)
        generator = torch.Generator().manual_seed(0)
        picture = speckle_image(level, generator, axial=1.0, lateral=1.5, looks=looks, dynamic_range=dynamic_range)
        return float(picture.std())

    assert spread(4, 60.0) < 0.7 * spread(1, 60.0)
    assert spread(1, 90.0) < 0.8 * spread(1, 60.0)


def test_wrong_numbers_get_a_sentence() -> None:
    for count, size in ((0, (64, 64)), (3, (64, 31))):
        with pytest.raises(ValueError, match=r"a count of at least 1 and sides of at least 32 pixels, got"):
            Phantoms(count, size=size)
    with pytest.raises(IndexError):
        Phantoms(2, size=(32, 32))[2]
