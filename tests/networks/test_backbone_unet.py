"""The U-Net of segmentation-models-pytorch as a light coarse network."""

from __future__ import annotations

import pytest
import torch

from ultrarefiner import AtSize, BackboneUNet
from ultrarefiner.checkpoints import efficientnet_lite0_file, load_weights

SMALL = (16, 16, 8, 8, 8)


@pytest.fixture(scope="module")
def network() -> BackboneUNet:
    torch.manual_seed(0)
    return BackboneUNet(decoder_channels=SMALL, masks=2).eval()


def test_logits_lie_on_the_images_pixels(network: BackboneUNet) -> None:
    with torch.no_grad():
        assert network(torch.rand(2, 1, 64, 96)).shape == (2, 2, 64, 96)


def test_grey_is_the_same_as_three_equal_channels(network: BackboneUNet) -> None:
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), network(images.expand(-1, 3, -1, -1)))


def test_images_are_normalised_as_told(network: BackboneUNet) -> None:
    told = BackboneUNet(decoder_channels=SMALL, masks=2, mean=(0.2, 0.3, 0.4), std=(0.1, 0.2, 0.3)).eval()
    told.load_state_dict(network.state_dict())
    images = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in ((0.2, 0.3, 0.4), (0.1, 0.2, 0.3)))
    with torch.no_grad():
        torch.testing.assert_close(told(images), network((images - mean) / std * 0.5 + 0.5))


def test_a_batch_is_segmented_as_its_elements(network: BackboneUNet) -> None:
    images = torch.rand(3, 1, 64, 64)
    with torch.no_grad():
        alone = torch.cat([network(image[None]) for image in images])
        torch.testing.assert_close(network(images), alone, atol=1e-5, rtol=1e-4)


def test_imagenet_weights_fill_the_backbone(network: BackboneUNet) -> None:
    told = BackboneUNet(decoder_channels=SMALL)
    before = {name: tensor.clone() for name, tensor in told.backbone.state_dict().items()}
    report = load_weights(told.backbone, efficientnet_lite0_file(), layout="efficientnet_lite0")
    assert set(report.loaded) == set(before)
    changed = [name for name, tensor in told.backbone.state_dict().items() if not torch.equal(tensor, before[name])]
    assert "conv_stem.weight" in changed
    assert "blocks.6.0.conv_pwl.weight" in changed


def test_sides_and_steps_and_names_are_checked(network: BackboneUNet) -> None:
    with pytest.raises(ValueError, match="multiples of 32, but they are 50 x 64; wrap the network in AtSize"):
        network(torch.rand(1, 1, 50, 64))
    with pytest.raises(ValueError, match="decoder_channels must be five numbers"):
        BackboneUNet(decoder_channels=(16, 8))
    with pytest.raises(ValueError, match="backbone must be one of timm's with features at strides 2, 4, 8, 16 and 32"):
        BackboneUNet("no_such_backbone")


def test_settings_say_everything_and_at_size_takes_any_image(network: BackboneUNet) -> None:
    assert network.settings() == {
        "network": "backbone_unet",
        "backbone": "tf_efficientnet_lite0",
        "masks": 2,
        "decoder_channels": [16, 16, 8, 8, 8],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
    with torch.no_grad():
        assert AtSize(network, 64)(torch.rand(1, 1, 33, 57)).shape == (1, 2, 33, 57)
