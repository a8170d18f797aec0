"""The parts compose: AutoSAM's dense prompt with the soft mask's points and box, in one refiner."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ultrarefiner.refinement import ROICropper
from ultrarefiner.sam import build_sam, decode
from ultrarefiner.systems import SAMRefiner, build_autosam_generator


def refiner(**options: object) -> SAMRefiner:
    torch.manual_seed(0)
    generator = build_autosam_generator("tiny", channels=64, size=4).eval()
    return SAMRefiner(build_sam("tiny", image_size=64), dense_prompts=generator, **options)


@torch.no_grad()
def test_the_dense_prompt_takes_the_masks_place_and_points_and_box_stay() -> None:
    composed, images, masks = refiner(), torch.rand(2, 1, 64, 64), torch.rand(2, 3, 64, 64)
    found = composed(images, masks)
    plain = SAMRefiner(composed.sam)(images, masks)
    assert torch.equal(found.prompts.points, plain.prompts.points)
    assert torch.equal(found.prompts.boxes, plain.prompts.boxes)
    dense = composed.dense_prompts(composed.input_policy(images))[:, None].expand(-1, 3, -1, -1, -1)
    by_hand = decode(
        composed.sam, composed.encode(images), replace(plain.prompts, mask_logits=None, dense_embedding=dense)
    )
    torch.testing.assert_close(found.candidates.logits, by_hand.logits)
    assert not torch.allclose(found.logits, plain.logits)


@pytest.mark.parametrize("cropper", [None, ROICropper()])
def test_the_gradient_reaches_the_generator_and_the_coarse_mask(cropper: ROICropper | None) -> None:
    composed = refiner(cropper=cropper)
    masks = torch.rand(2, 1, 48, 60, requires_grad=True)
    composed(torch.rand(2, 1, 48, 60), masks).logits.square().mean().backward()
    assert masks.grad.abs().sum() > 0
    assert next(composed.dense_prompts.parameters()).grad.abs().sum() > 0


def test_stored_embeddings_are_not_enough_for_it() -> None:
    composed = refiner()
    stored = composed.encode(torch.rand(1, 1, 64, 64))
    with pytest.raises(ValueError, match="images must be given to a refiner with dense_prompts"):
        composed(None, torch.rand(1, 1, 64, 64), embeddings=stored)


def test_settings_know_of_it() -> None:
    composed = refiner()
    assert composed.settings()["dense_prompts"] == composed.dense_prompts.settings()
    assert "dense_prompts" not in SAMRefiner(composed.sam).settings()
