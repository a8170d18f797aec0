"""A timm backbone as SAM's image encoder."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import timm
import torch
from torch.nn import functional

from ultrarefiner import BackboneUNet, SAMRefiner, build_light_sam
from ultrarefiner.checkpoints import efficientnet_lite0_file, load_weights
from ultrarefiner.sam import BackboneEncoder, SAMInput, build_sam
from ultrarefiner.sam.inputs import PIXEL_MEAN

NAME = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def encoder() -> BackboneEncoder:
    torch.manual_seed(0)
    return BackboneEncoder(NAME, channels=16).eval()


def by_hand(encoder: BackboneEncoder, images: torch.Tensor) -> torch.Tensor:
    """Features folded with plain loops, then the neck's layers one by one."""
    rows, columns = images.shape[-2] // 16, images.shape[-1] // 16
    maps = []
    for features, stride in zip(encoder.backbone(images)[1:], (4, 8, 16, 32), strict=True):
        if stride == 32:
            maps.append(functional.interpolate(features, (rows, columns), mode="bilinear"))
            continue
        side = 16 // stride
        folded = torch.zeros(len(images), features.shape[1] * side**2, rows, columns, dtype=features.dtype)
        for channel in range(features.shape[1]):
            for y in range(side):
                for x in range(side):
                    folded[:, channel * side**2 + y * side + x] = features[:, channel, y::side, x::side]
        maps.append(folded)
    return encoder.neck(torch.cat(maps, 1))


def test_features_of_four_strides_are_folded_onto_sams_raster(encoder: BackboneEncoder) -> None:
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        found = encoder(images)
        assert found.shape == (2, 16, 4, 6)
        torch.testing.assert_close(found, by_hand(encoder, images))


def test_each_image_of_a_batch_is_encoded_as_if_alone(encoder: BackboneEncoder) -> None:
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        together, alone = encoder(images), torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_the_gradient_reaches_the_image() -> None:
    encoder = BackboneEncoder(NAME, channels=4).double().eval()
    inputs = torch.rand(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(encoder, (inputs,), fast_mode=True, atol=1e-4)


def test_fine_detail_is_not_averaged_away(encoder: BackboneEncoder) -> None:
    """Moving a bright pixel by four pixels inside one embedding pixel changes that pixel's embedding."""
    first, second = torch.zeros(2, 1, 3, 64, 64)
    first[..., 20, 20] = second[..., 20, 24] = 50.0
    with torch.no_grad():
        moved = (encoder(first) - encoder(second)).abs().amax(1)
    assert moved[0, 1, 1] > 1e-3


@pytest.mark.parametrize("name", ["no_such_backbone", "vit_tiny_patch16_224"])
def test_a_backbone_without_the_strides_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"backbone must be one of timm's with features at strides 4, 8, 16 and 32"):
        BackboneEncoder(name)


def test_sides_must_fit_the_coarsest_stride(encoder: BackboneEncoder) -> None:
    with pytest.raises(ValueError, match="multiples of 32, but they are 48 x 64"):
        encoder(torch.rand(1, 3, 48, 64))


def test_light_sam_refines_on_its_own_raster() -> None:
    sam = build_light_sam(image_size=96)
    refinement = SAMRefiner(sam)(torch.rand(1, 1, 70, 90), torch.rand(1, 1, 70, 90))
    assert refinement.logits.shape == (1, 1, 70, 90)
    assert refinement.candidates.logits.shape[-2:] == (24, 24)
    assert sam.settings()["image_encoder"] == {"encoder": "backbone", "backbone": NAME, "channels": 256}


def test_decoder_and_prompt_encoder_are_sams() -> None:
    """The same tensors as ViT-B's, so that SAM's own weights fit."""
    light, vit = build_light_sam(image_size=64), build_sam("vit_b")
    for organ in ("mask_decoder", "prompt_encoder"):
        shapes = [
            {name: tuple(tensor.shape) for name, tensor in getattr(sam, organ).state_dict().items()}
            for sam in (light, vit)
        ]
        assert shapes[0] == shapes[1]


def test_light_sam_takes_multiples_of_32_only() -> None:
    with pytest.raises(ValueError, match="image_size must be a multiple of 32, but it is 80; 64 is one"):
        build_light_sam(image_size=80)


def test_mean_and_deviation_of_the_input_are_the_weights() -> None:
    images = torch.rand(1, 3, 32, 32)
    own = SAMInput(32, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1))
    expected = (images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.2, 0.1]).view(3, 1, 1)
    torch.testing.assert_close(own(images), expected)
    assert own.settings() == {"policy": "sam", "size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.2, 0.1]}
    assert SAMInput(32).settings() == {"policy": "sam", "size": 32}
    for wrong in ({"mean": (0.5, 0.5)}, {"std": (0.5, 0.5, 0.0)}, {"std": (0.5, 0.5, float("nan"))}):
        (name,) = wrong
        for build in (lambda **options: build_light_sam(image_size=64, **options), BackboneUNet, SAMInput):
            with pytest.raises(ValueError, match=rf"{name} must be three finite numbers.*, one for each channel, but"):
                build(**wrong)
    assert SAMInput(32).mean.flatten().tolist() == pytest.approx([value / 255 for value in PIXEL_MEAN])


def test_imagenet_weights_mean_the_same_as_in_timms_classifier() -> None:
    """The file's tensors stand in timm's order: loading them by position is an oracle for the names."""
    path = efficientnet_lite0_file()
    whole = timm.create_model(NAME, pretrained=False).eval()
    names = list(whole.state_dict())
    whole.load_state_dict(dict(zip(names, torch.load(path, weights_only=True).values(), strict=True)))
    encoder = BackboneEncoder(NAME, channels=16).eval()
    report = load_weights(encoder.backbone, path, layout="efficientnet_lite0")
    assert len(report.loaded) == 288
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        stages = whole.forward_intermediates(images, intermediates_only=True)
        for found, expected in zip(encoder.backbone(images), stages, strict=True):
            torch.testing.assert_close(found, expected)


def test_a_backbone_with_its_channels_last_is_read_alike() -> None:
    encoder = BackboneEncoder("mambaout_femto", channels=8).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        levels = [level.permute(0, 3, 1, 2) for level in encoder.backbone(images)]
        first = SimpleNamespace(backbone=lambda _: [None, *levels], neck=encoder.neck)
        torch.testing.assert_close(encoder(images), by_hand(first, images))
