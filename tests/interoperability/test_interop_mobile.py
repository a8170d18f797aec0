"""Light image encoders in SAM: timm's backbones, and MobileSAM with the names of its published file."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from kornia.models.sam import Sam as KorniaSam
from kornia.models.sam import SamConfig as KorniaSamConfig
from kornia.models.tiny_vit import TinyViT
from torch import nn

import ultrarefiner as ur
from ultrarefiner.checkpoints import from_official
from ultrarefiner.sam import BackboneEncoder, MobileEncoder, build_mobile_sam, decode
from ultrarefiner.systems.describing import describe_part

BACKBONES = ("tiny_vit_5m_224", "mobilenetv3_small_050", "repvit_m0_9", "convnext_atto")


def drawn(model: nn.Module) -> nn.Module:
    """Weights and statistics of which none is 0 or 1."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            else:
                tensor.normal_(0.0, 0.1, generator=generator)
    model.train()
    return model.eval()  # the published TinyViT gathers its attention biases when it enters evaluation mode


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_of_timms_is_prompted_and_trained(name: str) -> None:
    torch.manual_seed(0)
    sam = ur.build_light_sam(name, image_size=64)
    probability = torch.rand(2, 1, 40, 60, requires_grad=True)
    refinement = ur.SAMRefiner(sam)(torch.rand(2, 1, 40, 60), probability)
    refinement.logits.square().mean().backward()
    assert refinement.logits.shape == (2, 1, 40, 60)
    assert probability.grad.abs().max() > 0
    trained = [parameter.grad is not None for parameter in sam.image_encoder.parameters()]
    assert sum(trained) > 0.8 * len(trained)


def test_a_vit_with_features_at_one_stride_is_answered_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="features at strides 4, 8, 16 and 32, but 'vit_tiny_patch16_224' is not"):
        ur.build_light_sam("vit_tiny_patch16_224", image_size=64)


def test_a_backbone_for_one_size_says_which() -> None:
    told = "inputs must be 224 x 224 for 'efficientformerv2_s0'.*but they are 64 x 64; build with image_size=224"
    with pytest.raises(ValueError, match=told):
        ur.build_light_sam("efficientformerv2_s0", image_size=64)(torch.rand(1, 1, 64, 64))


@pytest.mark.parametrize("build", [lambda: BackboneEncoder("tiny_vit_5m_224", channels=8), MobileEncoder])
def test_new_weights_are_seen_after_an_answer_in_evaluation_mode(build) -> None:
    """timm keeps attention biases between calls in evaluation mode; they must not outlive their weights."""
    torch.manual_seed(0)
    encoder, other = build().eval(), drawn(build())
    images = torch.rand(1, 3, 32, 32)
    for _ in range(2):
        encoder(images).sum().backward()  # a second time, through a graph of its own
    copy.deepcopy(encoder)
    encoder.load_state_dict(other.state_dict())
    with torch.no_grad():
        assert torch.equal(encoder(images), other(images))


@pytest.fixture(scope="module")
def published() -> TinyViT:
    """kornia's TinyViT for MobileSAM, which reads the published file: its names are the file's."""
    return drawn(TinyViT.from_config("5m", img_size=128, mobile_sam=True))


@pytest.fixture(scope="module")
def sam() -> ur.SAM:
    return drawn(build_mobile_sam(image_size=128))


def official_state(encoder: nn.Module, sam: ur.SAM) -> dict[str, torch.Tensor]:
    organs = {name: tensor for name, tensor in sam.state_dict().items() if not name.startswith("image_encoder.")}
    return {**{f"image_encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}, **organs}


def test_names_of_the_whole_are_those_that_kornia_reads() -> None:
    whole = KorniaSam.from_config(KorniaSamConfig("mobile_sam")).state_dict()
    expected = build_mobile_sam(image_size=64).state_dict()
    converted = from_official("mobile_sam", whole)
    assert {name: tensor.shape for name, tensor in converted.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }


def test_a_published_encoder_answers_alike_here(published: TinyViT, sam: ur.SAM, tmp_path: Path) -> None:
    path = tmp_path / "mobile_sam.pt"
    torch.save(official_state(published, sam), path)
    report = ur.load_weights(sam, path, layout="mobile_sam")
    assert len(report.loaded) == len(sam.state_dict())
    classifier = {"norm_head.weight", "norm_head.bias", "head.weight", "head.bias"}
    assert {name.removeprefix("image_encoder.") for name in report.left_out} == classifier
    inputs = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        expected = published(inputs)
        found = sam.image_encoder(inputs)
        assert expected.std() > 1e-2
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        prompts = ur.DifferentiablePromptExtractor(image_size=128)(torch.rand(1, 1, 32, 32))
        assert decode(sam, found, prompts).logits.shape == (1, 1, 3, 32, 32)


def test_strange_and_missing_names_are_refused(published: TinyViT, sam: ur.SAM, tmp_path: Path) -> None:
    state = official_state(published, sam)
    with pytest.raises(ValueError, match=r"1 of \d+ tensors have no place in a MobileSAM checkpoint"):
        from_official("mobile_sam", {**state, "image_encoder.layers.3.downsample.conv1.c.weight": torch.zeros(1)})
    lacking = {name: tensor for name, tensor in state.items() if "layers.2.blocks.5.attn.attention_biases" not in name}
    torch.save(lacking, tmp_path / "lacking.pt")
    with pytest.raises(ValueError, match=r"1 missing \(image_encoder.backbone.stages.2.blocks.5.attn"):
        ur.load_weights(sam, tmp_path / "lacking.pt", layout="mobile_sam")
    torch.save(state, tmp_path / "mobile_sam.pt")
    with pytest.raises(ValueError, match='Its names are those of layout="mobile_sam"'):
        ur.load_weights(ur.build_sam("tiny", image_size=64), tmp_path / "mobile_sam.pt", layout="sam")


def test_tables_of_whole_numbers_in_older_files_are_left_out() -> None:
    found = from_official(
        "mobile_sam", {"image_encoder.layers.1.blocks.0.attn.attention_bias_idxs": torch.zeros(49, 49)}
    )
    assert found == {}


def test_a_mobile_refiner_is_saved_and_loaded(sam: ur.SAM, tmp_path: Path) -> None:
    refiner = ur.SAMRefiner(sam)
    again = ur.SAMRefiner.from_pretrained(refiner.save_pretrained(tmp_path))
    assert describe_part(again) == describe_part(refiner)
    assert again.sam.settings() == refiner.sam.settings()
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.sam(images), refiner.sam(images))


def test_sides_must_fit_the_stride() -> None:
    with pytest.raises(ValueError, match="image_size must be a multiple of 16, but it is 100; 96 is one"):
        build_mobile_sam(image_size=100)
    with pytest.raises(ValueError, match="inputs must have sides that are multiples of 16, but they are 20 x 32"):
        MobileEncoder(channels=8)(torch.rand(1, 3, 20, 32))


def test_mobile_sam_keeps_sams_own_decoder_and_input(sam: ur.SAM) -> None:
    with torch.device("meta"):
        vit = ur.build_sam("vit_b", image_size=64)
    for organ in ("mask_decoder", "prompt_encoder"):
        shapes = [{name: t.shape for name, t in getattr(one, organ).state_dict().items()} for one in (sam, vit)]
        assert shapes[0] == shapes[1]
    assert sam.input_policy.settings() == ur.SAMInput(128).settings()
    assert sum(parameter.numel() for parameter in sam.parameters()) < 10.2e6
