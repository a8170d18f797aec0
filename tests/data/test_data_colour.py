"""Colour, from the file to the batch; and label maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from still_augmentation import STILL, seeded

from ultrarefiner.data import (
    Augmentation,
    BoxTable,
    CachedEmbeddings,
    CaseDataset,
    CaseFiles,
    EmbeddingCache,
    FittedCases,
    FitToSquare,
    ImageFolder,
    Phantoms,
    SimulatedFailures,
    collate,
    join,
    read_image,
    read_labels,
    read_mask,
    read_rgb,
)
from ultrarefiner.data.fit import PADDING_GREY
from ultrarefiner.sam import build_sam
from ultrarefiner.simulation import FailureSimulator

REDDISH = (200, 100, 50)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures with unlike colours, one of them grey; the masks are label maps."""
    labels = np.zeros((6, 8), dtype=np.uint8)
    labels[1:3, 1:4], labels[4:6, 5:8] = 1, 9
    for name, picture in (("a", Image.new("RGB", (8, 6), REDDISH)), ("b", Image.new("L", (8, 6), 51))):
        for place, kind in (("images", picture), ("masks", Image.fromarray(labels))):
            (tmp_path / place).mkdir(exist_ok=True)
            kind.save(tmp_path / place / f"{name}.png")
    return tmp_path


def opened(folder: Path, **options: bool) -> ImageFolder:
    return ImageFolder(folder / "images", folder / "masks", **{"label_maps": True, **options})


def test_rgb_keeps_the_channels_in_order_and_grey_is_repeated(folder: Path) -> None:
    image = read_rgb(folder / "images" / "a.png")
    assert image.shape == (3, 6, 8)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    torch.testing.assert_close(image[:, 2, 3], torch.tensor(REDDISH) / 255)
    grey = read_rgb(folder / "images" / "b.png")
    assert torch.equal(grey, read_image(folder / "images" / "b.png").expand(3, -1, -1))
    weights = torch.tensor([0.299, 0.587, 0.114])
    torch.testing.assert_close((image * weights[:, None, None]).sum(0)[None], read_image(folder / "images" / "a.png"))


def test_grey_is_the_default_and_colour_is_carried_along(folder: Path) -> None:
    assert opened(folder)[0].image.shape == (1, 6, 8)
    coloured = opened(folder, colour=True)
    assert [coloured[index].image.shape[0] for index in range(2)] == [3, 3]
    assert coloured[0].mask.shape == (1, 6, 8)
    assert coloured.subset(["a"])[0].image.shape[0] == 3
    joined = join({"x": coloured, "y": coloured})
    assert joined.colour
    assert joined[3].image.shape[0] == 3
    assert joined[0].mask.sum() == 12
    assert not join({"x": opened(folder)}).colour
    with pytest.raises(ValueError, match="or all in grey to be joined, but of x, y only y are in colour"):
        join({"x": opened(folder), "y": coloured})


def test_a_table_of_boxes_in_colour(folder: Path) -> None:
    (folder / "boxes.csv").write_text("case,x0,y0,x1,y1\na,1,1,4,3\n")
    assert BoxTable(folder / "images", folder / "boxes.csv")[0].image.shape == (1, 6, 8)
    case = BoxTable(folder / "images", folder / "boxes.csv", colour=True).subset(["a"])[0]
    assert (case.image.shape, case.mask.shape, case.mask.sum()) == ((3, 6, 8), (1, 6, 8), 6)


def test_a_label_map_is_chosen_by_data_set_and_not_guessed(folder: Path) -> None:
    path = folder / "masks" / "a.png"
    assert read_labels(path).sum() == 2 * 3 + 2 * 3
    assert read_labels(path).unique().tolist() == [0, 1]
    assert opened(folder)[1].mask.sum() == 12
    assert opened(folder).subset(["b"])[0].mask.sum() == 12
    with pytest.raises(ValueError, match="largest number is 9, but a mask has 0 and 255, or 0 and 1"):
        _ = opened(folder, label_maps=False)[0]
    # Read as a mask, objects 1 to 127 of a map with more than 127 objects would be lost: no guess could be right.
    Image.fromarray(np.array([[0, 1, 127, 128, 200]], dtype=np.uint8)).save(path)
    assert read_mask(path)[0, 0].tolist() == [0, 0, 0, 1, 1]
    assert read_labels(path)[0, 0].tolist() == [0, 1, 1, 1, 1]


def test_label_maps_of_16_bits_and_of_palettes_are_read_by_number(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 300]], dtype=np.uint16)).save(tmp_path / "deep.png")
    assert read_labels(tmp_path / "deep.png")[0, 0].tolist() == [0, 1, 1]
    palette = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    palette.putpalette([255, 255, 255, 0, 0, 0, 9, 9, 9] + [0] * 759)  # the background is white, the first object black
    palette.save(tmp_path / "palette.png")
    assert read_labels(tmp_path / "palette.png")[0, 0].tolist() == [0, 1, 1]
    assert read_labels(tmp_path / "deep.png").dtype == torch.float32
    Image.new("L", (3, 2)).save(tmp_path / "none.bmp")
    assert read_labels(tmp_path / "none.bmp").sum() == 0


def test_a_label_map_in_jpeg_is_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "map.jpg")
    with pytest.raises(ValueError, match=r"map\.jpg is a JPEG, which does not keep the numbers of a label map"):
        read_labels(tmp_path / "map.jpg")
    with pytest.raises(FileNotFoundError, match=r"there is no picture .*gone\.png"):
        read_labels(tmp_path / "gone.png")


def test_a_square_in_colour_is_its_channels_and_padding_is_grey(folder: Path) -> None:
    case = opened(folder, colour=True)[0]
    fitted = FitToSquare(16)(case)
    assert fitted.image.shape == (3, 16, 16)
    for channel in range(3):
        alone = FitToSquare(16)(replace(case, image=case.image[channel : channel + 1]))
        assert torch.equal(fitted.image[channel : channel + 1], alone.image)
    assert (fitted.image[:, 12:] == PADDING_GREY).all()
    assert FittedCases(opened(folder, colour=True), 16).fill(progress=False)[1].image.shape == (3, 16, 16)


def test_a_batch_is_all_grey_or_all_in_colour(folder: Path, unhooked: None) -> None:
    grey, coloured = FittedCases(opened(folder), 16)[0], FittedCases(opened(folder, colour=True), 16)
    assert collate([coloured[0], coloured[1]]).images.shape == (2, 3, 16, 16)
    assert collate([coloured[0], coloured[1]]).masks.shape == (2, 1, 16, 16)
    with pytest.raises(ValueError, match=r"all have 1 channel \(grey\) or all have 3 .* got 1 \('a'\) and 3 \('b'\)"):
        collate([grey, coloured[1]])
    with pytest.raises(ValueError, match=r"got 2 \('a'\)"):
        collate([replace(grey, image=grey.image.expand(2, -1, -1))])


def test_embeddings_and_simulated_failures_of_colour(folder: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sam = build_sam("tiny", image_size=64)
    coloured = FittedCases(opened(folder, colour=True), 64)
    cache = EmbeddingCache(tmp_path / "cache", sam)
    assert cache.fill(coloured, progress=False) == 2
    with torch.no_grad():
        live = sam.eval()(coloured[0].image[None])[0]
    assert (cache.read(coloured[0]) - live).abs().max() < 1e-2
    with pytest.raises(ValueError, match="of 'a', but of another image of that name"):
        cache.read(FittedCases(opened(folder), 64)[0])
    made = CachedEmbeddings(SimulatedFailures(coloured, FailureSimulator(), samples=4, size=32), cache)
    batch = collate([made[index] for index in range(4)])
    assert batch.images.shape == (4, 3, 64, 64)
    assert batch.coarse_probability is not None
    assert batch.coarse_probability.shape == (4, 1, 64, 64)


def test_phantoms_are_grey_and_do_not_mix_with_colour(folder: Path, unhooked: None) -> None:
    phantom = FittedCases(Phantoms(1, size=(48, 64)), 16)[0]
    with pytest.raises(ValueError, match="a batch needs images that all have 1 channel"):
        collate([phantom, FittedCases(opened(folder, colour=True), 16)[0]])


def test_a_mask_of_another_size_is_still_refused_in_colour(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    Image.new("L", (6, 8)).save(tmp_path / "m.png")
    files = [CaseFiles("a", tmp_path / "a.png", (tmp_path / "m.png",), "unknown", "a")]
    with pytest.raises(ValueError, match=r"has the size \(height, width\) \(8, 6\), but its image"):
        _ = CaseDataset(files, colour=True)[0]


# Augmentation.


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """Squares in colour, the lower quarter padding, with masks."""
    images = 0.2 + 0.6 * torch.rand(4, 3, 48, 64, generator=seeded())
    masks = torch.zeros(4, 1, 64, 64)
    masks[..., 5:20, 8:40] = 1
    return FitToSquare(64).image(images), masks


@pytest.mark.parametrize("knob", ["brightness", "contrast", "saturation", "hue"])
def test_each_jitter_changes_the_colours_and_nothing_else(
    pictures: tuple[torch.Tensor, torch.Tensor], knob: str
) -> None:
    images, masks = Augmentation(**STILL, **{knob: 0.4})(*pictures, seeded())
    change = (images - pictures[0])[:, :, :48].abs().mean((1, 2, 3))
    assert (change > 1e-3).all()
    assert len({round(float(one), 6) for one in change}) == 4  # each image is drawn for itself
    assert torch.equal(masks, pictures[1])
    assert (images[:, :, 48:] == PADDING_GREY).all()
    assert images.min() >= 0
    assert images.max() <= 1


def test_the_jitters_are_torchvisions(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, content = pictures[0][:, :, :48], (slice(None), slice(None), slice(None, 48))
    brighter = Augmentation(**STILL, brightness=0.2)(*pictures, seeded())[0][content]
    factors = brighter / images
    inside = brighter < 1
    for one, keep in zip(factors, inside, strict=True):
        assert one[keep].std() < 1e-5
        assert 0.8 <= one[keep].mean() <= 1.2
    grey = (images * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    faded = Augmentation(**STILL, saturation=0.4)(*pictures, seeded())[0][content]
    inside = (faded > 1e-4) & (faded < 1 - 1e-4) & ((images - grey).abs() > 0.05)
    shares = (faded - grey) / (images - grey)
    for one, keep in zip(shares, inside, strict=True):
        assert one[keep].std() < 1e-3
        assert 0.6 <= one[keep].mean() <= 1.4
    turned = Augmentation(**STILL, hue=0.5)(*pictures, seeded())[0][content]
    torch.testing.assert_close(turned.amax(1), images.amax(1), atol=1e-4, rtol=0)  # the value of HSV stays
    torch.testing.assert_close(turned.amin(1), images.amin(1), atol=1e-4, rtol=0)


def test_the_generator_alone_decides_on_colours(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    augment = Augmentation.preset("polyp")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augment(*pictures, seeded(3))
    assert torch.equal(torch.get_rng_state(), before)
    again, other = augment(*pictures, seeded(3)), augment(*pictures, seeded(4))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_upside_down(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, masks = Augmentation(**STILL, vertical_flip=1.0)(*pictures, seeded())
    torch.testing.assert_close(images, pictures[0].flip(-2), atol=1e-5, rtol=0)
    assert torch.equal(masks, pictures[1].flip(-2))
    assert (images[:, :, :16] == PADDING_GREY).all()


def test_grey_images_have_brightness_and_contrast_but_no_hue(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    grey, masks = pictures[0][:, :1], pictures[1]
    for knob in ("brightness", "contrast"):
        assert (Augmentation(**STILL, **{knob: 0.4})(grey, masks, seeded())[0] - grey).abs().mean() > 1e-3
    for options, named in (({"hue": 0.1}, "hue"), ({"hue": 0.1, "saturation": 0.2}, "saturation and hue")):
        with pytest.raises(ValueError, match=rf"must be RGB \(3 channels\) for the jitter of {named}, got 1 channels"):
            Augmentation(**STILL, **options)(grey, masks, seeded())
    with pytest.raises(ValueError, match="read them with colour=True"):
        Augmentation.preset("glas").view(grey, masks, seeded())


def test_the_defaults_move_all_channels_alike(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    augment = Augmentation(speckle=0.0)  # its noise is drawn for each channel
    grey = pictures[0][:, :1]
    moved, masks = augment(grey.expand(-1, 3, -1, -1), pictures[1], seeded())
    alone, alone_masks = augment(grey, pictures[1], seeded())
    torch.testing.assert_close(moved, alone.expand(-1, 3, -1, -1))
    assert torch.equal(masks, alone_masks)


@pytest.mark.parametrize(
    ("name", "degrees", "jitter", "upside_down"),
    [("glas", 5, 0.2, False), ("monuseg", 22, 0.4, False), ("polyp", 90, 0.4, True)],
)
def test_the_presets_are_autosams(name: str, degrees: int, jitter: float, upside_down: bool) -> None:
    said = repr(Augmentation.preset(name))  # type: ignore[arg-type] # the names come from the parametrisation
    for part in (f"brightness={jitter}", f"contrast={jitter}", f"saturation={jitter}", "hue=0.1"):
        assert part in said
    assert f"degrees={float(degrees)}" in said
    assert "scale=(0.75, 1.25)" in said
    assert ("RandomVerticalFlip" in said) is upside_down


def test_the_preset_of_ultrasound_is_the_default_and_others_are_said() -> None:
    images, masks = torch.rand(2, 1, 32, 32, generator=seeded()), torch.ones(2, 1, 32, 32)
    for one, other in zip(
        Augmentation.preset("ultrasound")(images, masks, seeded()), Augmentation()(images, masks, seeded()), strict=True
    ):
        assert torch.equal(one, other)


def test_an_unknown_preset_is_said(unhooked: None) -> None:
    with pytest.raises(ValueError, match=r"name must be one of 'ultrasound', 'glas', 'monuseg', 'polyp', got 'cells'"):
        Augmentation.preset("cells")  # type: ignore[arg-type] # that is the point


@pytest.mark.parametrize(
    ("knob", "value"),
    [("vertical_flip", 1.5), ("brightness", -0.1), ("contrast", 1.1), ("saturation", float("nan")), ("hue", 0.6)],
)
def test_wrong_numbers_of_colour_get_a_sentence(knob: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{knob} must be in .* got .*; choose a number inside"):
        Augmentation(**{knob: value})
