"""Builders: segment-anything's own architecture and keys, sentences for what does not exist."""

from __future__ import annotations

import pytest
import torch
from segment_anything import sam_model_registry

from ultrarefiner.sam import build_sam


def test_vit_b_is_segment_anythings() -> None:
    with torch.device("meta"):
        theirs = sam_model_registry["vit_b"]()
        ours = build_sam("vit_b")
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert sum(parameter.numel() for parameter in ours.mask_decoder.parameters()) == 4_058_340
    assert sum(parameter.numel() for parameter in ours.prompt_encoder.parameters()) == 6_220


@pytest.mark.parametrize("size", ["vit_l", "vit_h"])
def test_the_large_sizes_too(size: str) -> None:
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in build_sam(size).state_dict().items()}
        theirs = sam_model_registry[size]().state_dict()
    assert shapes == {name: tensor.shape for name, tensor in theirs.items()}


@pytest.mark.slow
def test_vit_b_refines_an_image() -> None:
    """Full size, with a region: 1024 pixels through segment-anything's ViT-B on a CPU."""
    from strategies import lesion

    from ultrarefiner.refinement import ROICropper
    from ultrarefiner.systems import SAMRefiner

    refiner = SAMRefiner(build_sam("vit_b").requires_grad_(False), cropper=ROICropper())
    probability = (0.9 * lesion(224, 224, (100, 130), (30, 20)))[None, None].requires_grad_()
    refinement = refiner(torch.rand(1, 1, 300, 400), probability)
    refinement.logits.mean().backward()
    assert refinement.candidates.logits.shape == (1, 1, 3, 256, 256)
    assert refinement.prompts.mask_logits is not None
    assert refinement.prompts.mask_logits.shape == (1, 1, 256, 256)
    assert probability.grad is not None
    assert probability.grad.abs().sum() > 0


def test_the_policy_belongs_to_the_model() -> None:
    assert build_sam("tiny", input_policy="medsam").settings()["input"] == {"policy": "medsam", "size": 256}
    assert build_sam("tiny", image_size=64).input_policy.size == 64


@pytest.mark.usefixtures("unhooked")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"size": "vit_x"}, "knows the sizes tiny, vit_b, vit_l, vit_h .* asked for 'vit_x'"),
        (
            {"size": "tiny", "input_policy": "sam2"},
            "input policies sam, medsam, but was asked for 'tiny' and 'sam2'",
        ),
        ({"size": "tiny", "image_size": 100}, "multiple of 16, but it is 100; 96 is one"),
    ],
)
def test_wrong_sizes_get_a_sentence(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_sam(**arguments)
