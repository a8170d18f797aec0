"""Grey, colour and luminance, and the colours of pictures."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from ultrarefiner.data import palette
from ultrarefiner.data.channels import in_channels


def test_grey_is_the_luminance_that_pillow_computes() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    grey = in_channels(colours.astype(np.float32) / 255, colour=False)
    expected = np.asarray(Image.fromarray(colours).convert("L"))
    assert grey.shape == (1, 9, 11)
    assert np.abs(255 * grey[0].numpy() - expected).max() <= 1
    for channel, share in enumerate((0.299, 0.587, 0.114)):
        pure = np.zeros((1, 1, 3), np.float32)
        pure[..., channel] = 1
        assert in_channels(pure, colour=False).item() == pytest.approx(share)


def test_colour_keeps_channels_and_grey_gets_three_alike() -> None:
    colours = np.random.default_rng(1).random((4, 5, 3), dtype=np.float32)
    assert torch.equal(in_channels(colours, colour=True), torch.from_numpy(colours).permute(2, 0, 1))
    grey = in_channels(colours[:, :, :1], colour=True)
    assert grey.shape == (3, 4, 5)
    assert torch.equal(grey[0], grey[2])
    assert torch.equal(in_channels(colours[:, :, :1], colour=False)[0], torch.from_numpy(colours[:, :, 0]))


@pytest.mark.parametrize("colour", [False, True])
def test_numbers_are_clipped_and_memory_is_its_own(colour: bool) -> None:
    numbers = np.array([[[-0.5], [2.0]]], np.float32)
    found = in_channels(numbers, colour=colour)
    assert found[0].tolist() == [[0, 1]]
    found.zero_()
    assert numbers.max() == 2
    assert found.is_contiguous()


def test_colours_of_pictures_differ() -> None:
    meanings = {name: colour for name, colour in vars(palette).items() if name.isupper() and isinstance(colour, str)}
    assert set(meanings) == {"COARSE", "REFINED", "TRUTH", "REGION", "LESION", "BACKGROUND", "BOX"}
    assert len(set(meanings.values())) == len(meanings)
    assert len(set(palette.LINES)) == len(palette.LINES) == 7
    for colour in (*meanings.values(), *palette.LINES):
        assert re.fullmatch("#[0-9A-F]{6}", colour)
