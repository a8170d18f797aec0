"""AutoSAM's generator on any pyramid: sizes, batches, gradients, range, backbones of others, refusals."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ultrarefiner.prompts import FeaturePyramid, PromptGenerator
from ultrarefiner.prompts.image import PyramidDecoder, UpStep


class Pooled(nn.Module):
    """A pyramid without much of a network: a convolution, pooled."""

    channels = (4, 4, 4)
    strides = (4, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images):
        features = self.conv(images.expand(-1, 3, -1, -1))
        return tuple(functional.avg_pool2d(features, stride) for stride in self.strides)


class Told(nn.Module):
    """What timm's `features_only` backbones are: maps in a list, and what they are."""

    class Info:
        def reduction(self):
            return [2, 4, 8, 16, 32]

        def channels(self):
            return [3, 3, 3, 3, 3]

    feature_info = Info()

    def forward(self, images):
        return [functional.avg_pool2d(images, stride) for stride in (2, 4, 8, 16, 32)]


def small(**options) -> PromptGenerator:
    torch.manual_seed(0)
    return PromptGenerator(Pooled(), **{"channels": 6, "size": 5, "hidden": 3, **options}).eval()


@settings(deadline=None, max_examples=10)
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), size=st.sampled_from([3, 8, (2, 7)]))
@torch.no_grad()
def test_any_multiple_of_the_stride_to_any_grid(rows: int, columns: int, size) -> None:
    generator = small(size=size)
    images = torch.rand(2, 3, 16 * rows, 16 * columns)
    embedding = generator(images)
    assert embedding.shape == (2, 6, *(size if isinstance(size, tuple) else (size, size)))
    assert embedding.abs().max() <= 1
    torch.testing.assert_close(embedding[1:], generator(images[1:]))


@torch.no_grad()
def test_the_embedding_is_resampled_corner_to_corner_after_tanh() -> None:
    generator = small(size=3)
    nn.init.constant_(generator.decoder.final.conv2.weight, 40.0)
    images = torch.rand(1, 3, 32, 32)
    whole = generator.decoder(generator.backbone(images))
    assert whole.shape[-2:] == (8, 8)
    embedding = generator(images)
    torch.testing.assert_close(embedding[..., ::2, ::2], whole[..., ::7, ::7])
    # The middle lies between the pixels 3 and 4.
    torch.testing.assert_close(embedding[..., 1, 1], whole[..., 3:5, 3:5].mean((-2, -1)))


def test_a_step_is_its_parts() -> None:
    torch.manual_seed(0)
    step = UpStep(3, 2).eval()
    coarse, fine = torch.rand(1, 3, 4, 5), torch.rand(1, 2, 8, 10)
    up = functional.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
    raw = step.norm(step.conv2(step.conv1(torch.cat([up, fine], 1))))
    torch.testing.assert_close(step(coarse, fine), torch.where(raw > 0, raw, 0.01 * raw))


def test_gradients() -> None:
    torch.manual_seed(0)
    decoder = PyramidDecoder((2, 3), channels=2, hidden=2).double().eval()
    maps = [torch.rand(1, 2, 4, 4), torch.rand(1, 3, 2, 2)]
    maps = [features.double().requires_grad_() for features in maps]
    assert torch.autograd.gradcheck(lambda *pyramid: decoder(pyramid), maps)
    generator = small().train()
    generator(torch.rand(2, 3, 32, 32)).square().mean().backward()
    still = [name for name, parameter in generator.named_parameters() if not parameter.grad.abs().sum() > 0]
    # A convolution's bias under batch normalisation is taken out again.
    assert all(name.endswith("bias") and ".final.conv2" not in name for name in still)


@torch.no_grad()
def test_every_level_counts() -> None:
    generator = small()
    pyramid = generator.backbone(torch.rand(1, 3, 32, 32))
    before = generator.decoder(pyramid)
    for index in range(3):
        changed = [features + (level == index) for level, features in enumerate(pyramid)]
        assert not torch.allclose(generator.decoder(changed), before)


@torch.no_grad()
def test_one_level_will_do() -> None:
    backbone = FeaturePyramid(Told(), strides=(8,))
    assert PromptGenerator(backbone, channels=4, size=3)(torch.rand(1, 3, 32, 32)).shape == (1, 4, 3, 3)


@torch.no_grad()
def test_a_pyramid_picks_its_levels() -> None:
    pyramid = FeaturePyramid(Told())
    assert pyramid.strides == (4, 8, 16)
    assert pyramid.channels == (3, 3, 3)
    images = torch.rand(2, 1, 32, 64)
    for features, stride in zip(pyramid(images), pyramid.strides, strict=True):
        torch.testing.assert_close(features, functional.avg_pool2d(images.expand(-1, 3, -1, -1), stride))
    two = FeaturePyramid(Told(), strides=(8, 32))
    assert [tuple(features.shape[-2:]) for features in two(images)] == [(4, 8), (1, 2)]
    assert two.settings() == {"backbone": "Told", "strides": [8, 32], "channels": [3, 3]}


@torch.no_grad()
def test_torchvisions_backbones() -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(weights=None)
    named = create_feature_extractor(resnet, {"layer1": "a", "layer2": "b", "layer3": "c"})
    pyramid = FeaturePyramid(named, levels=((4, 64), (8, 128), (16, 256)))
    generator = PromptGenerator(pyramid, channels=8, size=4).eval()
    assert generator(torch.rand(1, 1, 32, 48)).shape == (1, 8, 4, 4)


def test_timms_backbones() -> None:
    torch.manual_seed(0)
    backbone = timm.create_model("resnet10t", pretrained=False, features_only=True)
    pyramid = FeaturePyramid(backbone)
    assert pyramid.channels == tuple(backbone.feature_info.channels()[1:4])
    generator = PromptGenerator(pyramid, channels=8, size=4)
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    embedding = generator(images)
    assert embedding.shape == (2, 8, 4, 4)
    embedding.square().sum().backward()
    assert images.grad.abs().sum() > 0


def test_settings_hold_every_number() -> None:
    assert small(size=(2, 3)).settings() == {"backbone": "Pooled", "channels": 6, "hidden": 3, "size": [2, 3]}
    assert PromptGenerator(FeaturePyramid(Told()), channels=4).settings()["backbone"]["backbone"] == "Told"


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"channels": 0}, "channels and hidden must be 1 or more, but they are 0 and 3"),
        ({"hidden": 0}, "channels and hidden must be 1 or more, but they are 6 and 0"),
        ({"size": 0}, r"size must be a whole number from 1 on, or \(rows, columns\), but it is 0"),
        ({"size": (4, 4, 4)}, r"size must be .* but it is \(4, 4, 4\)"),
        ({"size": 2.5}, "size must be .* but it is 2.5"),
    ],
)
def test_refusals(arguments, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        small(**arguments)


def test_a_backbone_that_says_nothing() -> None:
    with pytest.raises(ValueError, match="this Conv2d says None and None; wrap it in FeaturePyramid"):
        PromptGenerator(nn.Conv2d(3, 3, 1))
    backbone = Pooled()
    backbone.strides = (16, 8, 4)
    with pytest.raises(ValueError, match=r"from fine to coarse, but this Pooled says .* and \(16, 8, 4\)"):
        PromptGenerator(backbone)


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (torch.rand(3, 32, 32), r"images must be \(b, 1 or 3, h, w\)"),
        (torch.rand(1, 3, 40, 32), "sides that are multiples of 16, but they are 40 x 32 pixels"),
        (
            torch.rand(1, 3, 32, 32).double(),
            "dtype of the generator's weights, torch.float32, but theirs is torch.float64",
        ),
    ],
)
def test_refused_images(images, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        small()(images)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"strides": (4, 64)}, r"they are \(4, 64\) and it offers \(2, 4, 8, 16, 32\)"),
        ({"strides": (8, 4)}, r"strides must be .* from fine to coarse, but they are \(8, 4\)"),
        ({"strides": ()}, r"strides must be .* but they are \(\)"),
        ({"levels": ((4, 3), (4, 3), (8, 3), (16, 3))}, r"it offers \(4, 4, 8, 16\)"),
    ],
)
def test_refused_pyramids(options, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        FeaturePyramid(Told(), **options)


def test_a_pyramid_that_is_not_what_it_says() -> None:
    with pytest.raises(ValueError, match="levels must be given for a Conv2d, as it has no feature_info"):
        FeaturePyramid(nn.Conv2d(3, 3, 1))
    images = torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match="must return 3 feature maps, but it returned 5"):
        FeaturePyramid(Told(), levels=((4, 3), (8, 3), (16, 3)))(images)
    levels = ((2, 3), (4, 3), (8, 5), (16, 3), (32, 3))
    with pytest.raises(
        ValueError, match=r"at stride 8 must have the shape \(1, 5, 4, 4\), but theirs is \(1, 3, 4, 4\)"
    ):
        FeaturePyramid(Told(), levels=levels)(images)
