from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from segment_anything.utils.transforms import ResizeLongestSide

from ultrarefiner.data.cases import Case
from ultrarefiner.data.fit import PADDING_GREY, Fit, FitToSquare, StretchToSquare, as_fit
from ultrarefiner.sam import SAMInput

SIZES = st.tuples(st.integers(1, 70), st.integers(1, 70))


def _smooth(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return (0.5 + 0.3 * torch.sin(3 * x) * torch.cos(2 * y))[None]


@settings(deadline=None, max_examples=30)
@given(original=SIZES, size=st.integers(2, 64))
def test_the_content_is_sams(original: tuple[int, int], size: int) -> None:
    expected = ResizeLongestSide.get_preprocess_shape(*original, size)
    content = FitToSquare(size).content_size(original)
    assert content == tuple(max(1, side) for side in expected)
    assert max(content) == size


@settings(deadline=None, max_examples=30)
@given(original=SIZES, size=st.integers(2, 64))
def test_there_and_back(original: tuple[int, int], size: int) -> None:
    fit = FitToSquare(size)
    height, width = fit.content_size(original)
    ones = fit.image(torch.ones(1, *original))
    assert ones.shape == (1, size, size)
    assert torch.allclose(ones[:, :height, :width], torch.ones(1), atol=1e-6)
    assert (ones[:, height:] == PADDING_GREY).all()
    assert (ones[:, :, width:] == PADDING_GREY).all()
    assert torch.allclose(fit.restore(ones, original), torch.ones(1, *original), atol=1e-6)


@pytest.mark.parametrize("original", [(300, 500), (500, 300), (256, 256), (90, 100)])
def test_a_picture_comes_back(original: tuple[int, int]) -> None:
    picture = _smooth(*original)
    fit = FitToSquare(256)
    back = fit.restore(fit.image(picture), original)
    assert back.shape == picture.shape
    assert (back - picture).abs().max() < 0.01
    mask = torch.zeros(1, *original)
    mask[:, original[0] // 3 : original[0] // 2, original[1] // 4 : original[1] // 2] = 1
    fitted = fit.mask(mask)
    assert fitted.unique().tolist() == [0, 1]
    again = (fit.restore(fitted, original) >= 0.5).float()
    assert 2 * (again * mask).sum() / (again.sum() + mask.sum()) > 0.97


def test_a_point_lands_where_the_frame_says() -> None:
    fit = FitToSquare(256)
    mask = torch.zeros(1, 100, 200)
    mask[:, 40:60, 150:190] = 1
    rows, columns = fit.mask(mask)[0].nonzero(as_tuple=True)
    assert abs((rows.float() + 0.5).mean() - 50 * 1.28) < 0.51
    assert abs((columns.float() + 0.5).mean() - 170 * 1.28) < 0.51


def test_shrinking_averages() -> None:
    """Against Pillow, which antialiases too; a plain bilinear subsampling is far off."""
    noise = torch.rand(1, 300, 400, generator=torch.Generator().manual_seed(0))
    fitted = FitToSquare(100).image(noise)[0, :75]
    pillow = np.asarray(Image.fromarray(noise[0].numpy()).resize((100, 75), Image.Resampling.BILINEAR))
    assert np.abs(fitted.numpy() - pillow).max() < 1e-4
    assert fitted.std() < 0.6 * noise.std()


def test_a_picture_of_the_square_is_untouched() -> None:
    picture = torch.rand(1, 32, 32)
    fit = FitToSquare(32)
    assert torch.equal(fit.image(picture), picture)
    assert torch.equal(fit.restore(picture, (32, 32)), picture)


def test_a_batch_equals_each_element_and_logits_keep_their_range() -> None:
    fit = FitToSquare(24)
    logits = torch.randn(3, 2, 24, 24) * 20
    restored = fit.restore(logits, (50, 31))
    assert restored.shape == (3, 2, 50, 31)
    assert torch.allclose(restored[1, 1], fit.restore(logits[1, 1], (50, 31)), atol=1e-5)
    assert restored.min() >= logits.min() - 1e-4
    assert fit.restore(logits.to(torch.bfloat16), (50, 31)).dtype == torch.float32


def test_the_way_back_is_differentiable() -> None:
    mask = torch.rand(1, 6, 6, dtype=torch.float64, requires_grad=True)
    fit = FitToSquare(6)
    assert torch.autograd.gradcheck(lambda soft: fit.restore(soft, (9, 5)), mask)
    assert torch.autograd.gradcheck(lambda soft: fit.restore(soft, (4, 3)), mask)


def test_a_case_is_fitted_whole() -> None:
    case = Case("a", _smooth(30, 50), torch.ones(1, 30, 50), "benign", "p")
    fitted = FitToSquare(100)(case)
    assert (fitted.name, fitted.content_size, fitted.original_size) == ("a", (60, 100), (30, 50))
    assert fitted.mask.sum() == 6000
    assert (fitted.image[:, 60:] == PADDING_GREY).all()
    assert fitted.mask[:, 60:].sum() == 0


def test_sam_sees_padding_as_its_own() -> None:
    """SAM pads with 0 after normalising; black padding would reach it as -2."""
    fitted = FitToSquare(64).image(torch.rand(1, 1, 30, 50))
    seen = SAMInput(64)(fitted)
    assert seen[..., 38:, :].abs().max() < 0.2
    assert SAMInput(64)(torch.zeros(1, 1, 64, 64)).max() < -1.7


def test_empty_stays_empty_and_full_stays_full() -> None:
    fit = FitToSquare(16)
    assert fit.mask(torch.zeros(1, 40, 30)).sum() == 0
    assert fit.mask(torch.ones(1, 40, 30)).sum() == 16 * 12


@settings(deadline=None, max_examples=20)
@given(original=SIZES, size=st.integers(2, 64))
def test_a_stretched_picture_fills_the_square_and_comes_back(original: tuple[int, int], size: int) -> None:
    stretch = StretchToSquare(size)
    assert stretch.content_size(original) == (size, size)
    ones = stretch.image(torch.ones(1, *original))
    assert ones.shape == (1, size, size)
    assert torch.allclose(ones, torch.ones(1), atol=1e-6)
    assert torch.equal(stretch.mask(torch.ones(1, *original)), torch.ones(1, size, size))
    assert torch.allclose(stretch.restore(ones, original), torch.ones(1, *original), atol=1e-6)


def test_stretching_is_pillows_and_undone() -> None:
    noise = torch.rand(1, 300, 400, generator=torch.Generator().manual_seed(0))
    pillow = np.asarray(Image.fromarray(noise[0].numpy()).resize((100, 100), Image.Resampling.BILINEAR))
    assert np.abs(StretchToSquare(100).image(noise)[0].numpy() - pillow).max() < 1e-4
    picture = _smooth(300, 500)
    stretch = StretchToSquare(256)
    assert (stretch.restore(stretch.image(picture), (300, 500)) - picture).abs().max() < 0.01
    mask = torch.zeros(1, 300, 500)
    mask[:, 100:150, 125:250] = 1
    rows, columns = stretch.mask(mask)[0].nonzero(as_tuple=True)
    assert abs((rows.float() + 0.5).mean() - 125 * 256 / 300) < 0.51
    assert abs((columns.float() + 0.5).mean() - 187.5 * 256 / 500) < 0.51


def test_a_stretched_case_takes_its_second_annotation_along() -> None:
    other = torch.zeros(1, 30, 50)
    other[:, :15] = 1
    case = Case("a", _smooth(30, 50), torch.ones(1, 30, 50), "benign", "p", other)
    for fit, content in ((StretchToSquare(20), (20, 20)), (FitToSquare(20), (12, 20))):
        assert isinstance(fit, Fit)
        assert as_fit(fit) is fit
        fitted = fit(case)
        assert (fitted.content_size, fitted.original_size) == (content, (30, 50))
        assert fitted.other_mask is not None
        assert fitted.other_mask.sum() == content[0] // 2 * 20
    assert isinstance(as_fit(20), FitToSquare)


def test_wrong_sizes_get_a_sentence(unhooked: None) -> None:
    for kind in (FitToSquare, StretchToSquare):
        with pytest.raises(ValueError, match=r"size must be at least 1 pixel, got 0"):
            kind(0)
    with pytest.raises(ValueError, match=r"square, \(8, 8\), got \(8, 9\); .* with the same StretchToSquare"):
        StretchToSquare(8).restore(torch.zeros(1, 8, 9), (4, 4))
    with pytest.raises(ValueError, match=r"mask must have the size of the square, \(8, 8\), got \(8, 9\)"):
        FitToSquare(8).restore(torch.zeros(1, 8, 9), (4, 4))
