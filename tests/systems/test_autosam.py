"""AutoSAM: equal to SAM asked by hand, normalised once; the published slip only in the legacy preset."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import PromptEncoder

from ultrarefiner.sam import SAMInput, build_sam
from ultrarefiner.systems import (
    AutoSAM,
    MinMaxLogits,
    SAMRefiner,
    UltraRefiner,
    build_autosam_generator,
    legacy_autosam,
)
from ultrarefiner.training import freeze


def model(**options: object) -> AutoSAM:
    torch.manual_seed(0)
    generator = build_autosam_generator("tiny", channels=64, size=4).eval()
    return AutoSAM(build_sam("tiny", image_size=64), generator, **{"input_size": 64, **options})


@torch.no_grad()
def test_it_answers_as_segment_anything_asked_by_hand() -> None:
    system, images = model(), torch.rand(1, 1, 64, 64)
    prepared = SAMInput(64)(images)
    encoder = system.sam.prompt_encoder
    sparse, _ = PromptEncoder.forward(encoder, points=None, boxes=None, masks=None)
    logits, iou = system.sam.mask_decoder(
        image_embeddings=system.sam.image_encoder(prepared),
        image_pe=encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=system.generator(prepared),
        multimask_output=False,
    )
    found = system(images)
    torch.testing.assert_close(found.low_logits, logits, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found.iou, iou, atol=1e-5, rtol=1e-4)
    again = system(images, embeddings=system.encode(images))
    torch.testing.assert_close(again.logits, found.logits)


def test_a_batch_is_each_of_its_images_on_their_own_pixels() -> None:
    system, images = model(), torch.rand(3, 3, 40, 60)
    whole = system(images)
    assert whole.logits.shape == (3, 1, 40, 60)
    for index in range(3):
        one = system(images[index : index + 1])
        torch.testing.assert_close(one.logits[0], whole.logits[index], atol=1e-4, rtol=1e-4)


def test_the_gradient_reaches_the_generators_first_layer_and_no_frozen_part() -> None:
    system = model()
    freeze(system.sam)
    system(torch.rand(2, 1, 64, 64)).logits.square().mean().backward()
    first = next(system.generator.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in system.sam.parameters())


def test_the_generator_sees_its_own_size() -> None:
    seen = []
    system = model(input_size=96)
    system.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    system(torch.rand(1, 1, 64, 64))
    assert seen == [(1, 3, 96, 96)]
    with pytest.raises(ValueError, match="input_size must be at least 1 pixel, but it is 0"):
        model(input_size=0)


def test_the_legacy_preset_normalises_twice_for_sam_and_once_for_the_generator_and_stretches() -> None:
    base = model()
    legacy = legacy_autosam(base.sam, base.generator, input_size=64)
    images, seen = torch.rand(1, 3, 64, 64), {}
    legacy.sam.image_encoder.register_forward_pre_hook(lambda _, inputs: seen.update(sam=inputs[0]))
    legacy.generator.register_forward_pre_hook(lambda _, inputs: seen.update(generator=inputs[0]))
    found = legacy(images)
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    once = (images * 255 - mean) / std
    torch.testing.assert_close(seen["generator"], once)
    torch.testing.assert_close(seen["sam"], (once - mean) / std)
    stretched = found.low_logits.sigmoid()
    assert stretched.amin() < 1e-5
    assert stretched.amax() > 1 - 1e-5
    plain = AutoSAM(
        base.sam, base.generator, input_size=64, input_policy=legacy.input_policy, generator_policy=SAMInput(64)
    )(images).low_logits
    expected = (plain - plain.min()) / (plain.max() - plain.min() + 1e-6)
    torch.testing.assert_close(stretched, expected, atol=1e-5, rtol=1e-4)
    assert legacy.settings() != base.settings()


def test_stretching_is_differentiable_and_each_masks_own() -> None:
    logits = torch.randn(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    inside = (logits.detach() - logits.detach().amin((2, 3), keepdim=True)) > 0.05
    inside &= (logits.detach().amax((2, 3), keepdim=True) - logits.detach()) > 0.05
    assert torch.autograd.gradcheck(lambda tensor: MinMaxLogits()(tensor)[inside], (logits,))
    torch.testing.assert_close(MinMaxLogits()(logits)[:1], MinMaxLogits()(logits[:1]))


def test_its_mask_is_a_coarse_mask_for_ultrarefiner() -> None:
    system = model()
    freeze(system.sam)
    result = UltraRefiner(coarse=system, refiner=SAMRefiner(build_sam("tiny", image_size=64)))(torch.rand(1, 1, 48, 60))
    result.refined_logits.mean().backward()
    assert next(system.generator.parameters()).grad is not None
