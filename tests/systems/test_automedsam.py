"""AutoMedSAM: equal to SAM asked by hand, a gradient for every head, a coarse network for UltraRefiner."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from segment_anything.modeling import PromptEncoder

from ultrarefiner.prompts import PromptModule, TokenPromptModule
from ultrarefiner.sam import build_sam
from ultrarefiner.sam.prompt_embedding import embed_prompts
from ultrarefiner.systems import AutoMedSAM, SAMRefiner, UltraRefiner
from ultrarefiner.training import freeze

SAM = build_sam("tiny", image_size=64)
CHANNELS = SAM(torch.rand(1, 1, 64, 64)).shape[1]


def model(*, tokens: bool = False) -> AutoMedSAM:
    torch.manual_seed(0)
    module = (
        TokenPromptModule(channels=CHANNELS, hidden=8, pooled=2)
        if tokens
        else PromptModule(channels=CHANNELS, hidden=8, points=2, pooled=2, image_size=64)
    )
    return AutoMedSAM(build_sam("tiny", image_size=64), module)


@torch.no_grad()
def test_it_answers_as_segment_anything_asked_by_hand_with_hard_labels() -> None:
    system = model()
    images = torch.rand(1, 1, 64, 64)
    embeddings = system.encode(images)
    prompts = system.prompt_module(embeddings)
    hard = replace(prompts, positive_probability=prompts.positive_probability.round())
    encoder = system.sam.prompt_encoder
    points, labels = hard.points[:, 0], hard.positive_probability[:, 0].int()
    sparse, dense = PromptEncoder.forward(encoder, points=(points, labels), boxes=hard.boxes[:, 0], masks=None)
    logits, iou = system.sam.mask_decoder(
        image_embeddings=embeddings,
        image_pe=encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense + hard.dense_embedding[:, 0],
        multimask_output=False,
    )
    system.prompt_module.forward = lambda _: hard
    found = system(images)
    torch.testing.assert_close(found.low_logits, logits, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found.iou, iou, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tokens", [False, True])
def test_a_batch_is_each_of_its_images_and_embeddings_stand_for_images(tokens: bool) -> None:
    system, images = model(tokens=tokens), torch.rand(3, 1, 48, 60)
    whole = system(images)
    assert whole.logits.shape == (3, 1, 48, 60)
    for index in range(3):
        one = system(images[index : index + 1])
        torch.testing.assert_close(one.logits[0], whole.logits[index], atol=1e-4, rtol=1e-4)
    stored = system(None, embeddings=system.encode(images), image_size=(48, 60))
    torch.testing.assert_close(stored.logits, whole.logits)


@pytest.mark.parametrize("tokens", [False, True])
def test_the_gradient_reaches_every_head_and_no_frozen_part(tokens: bool) -> None:
    system = model(tokens=tokens)
    freeze(system.sam)
    system(torch.rand(2, 1, 64, 64)).logits.square().mean().backward()
    for name, parameter in system.prompt_module.named_parameters():
        assert parameter.grad is not None, name
    heads = ("label_head.2.weight", "point_head.2.weight", "box_head.2.weight", "dense.2.weight")
    for name in () if tokens else heads:
        assert system.prompt_module.get_parameter(name).grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in system.sam.parameters())


def test_a_label_between_lies_between_the_tokens_of_its_ends() -> None:
    prompts = model().prompt_module(torch.randn(1, CHANNELS, 4, 4))
    ends = [
        embed_prompts(SAM.prompt_encoder, replace(prompts, positive_probability=torch.full((1, 1, 2), share)))[0]
        for share in (0.0, 0.25, 1.0)
    ]
    torch.testing.assert_close(ends[1], 0.75 * ends[0] + 0.25 * ends[2])
    assert not torch.equal(ends[0], ends[2])


def test_its_mask_is_a_coarse_mask_for_ultrarefiner_and_learns_from_the_refined_one() -> None:
    system = model()
    freeze(system.sam)
    whole = UltraRefiner(coarse=system, refiner=SAMRefiner(build_sam("tiny", image_size=64)))
    result = whole(torch.rand(2, 1, 48, 60))
    assert result.refined_logits.shape == (2, 1, 48, 60)
    result.refined_logits.mean().backward()
    assert system.prompt_module.get_parameter("point_head.0.weight").grad is not None


def test_what_is_missing_is_said() -> None:
    system = model()
    for arguments in (
        {"images": None},
        {"images": torch.rand(1, 1, 8, 8), "embeddings": torch.rand(1, CHANNELS, 4, 4)},
        {"images": None, "embeddings": torch.rand(1, CHANNELS, 4, 4)},
    ):
        with pytest.raises(ValueError, match="either images must be given, or embeddings with the image_size"):
            system(**arguments)
    other = AutoMedSAM(SAM, PromptModule(channels=CHANNELS, hidden=8, image_size=64))
    with pytest.raises(ValueError, match=r"must be on the image embedding's raster \(4, 4\), but it is on \(2, 2\)"):
        other(None, embeddings=torch.rand(1, CHANNELS, 2, 2), image_size=(8, 8))
    bare = torch.nn.Module()
    bare.image_encoder, bare.prompt_encoder, bare.mask_decoder = SAM.image_encoder, SAM.prompt_encoder, SAM.mask_decoder
    with pytest.raises(ValueError, match="input_policy must be given for Module"):
        AutoMedSAM(bare, PromptModule())


def test_soft_labels_need_segment_anythings_encoder() -> None:
    class Foreign(torch.nn.Module):
        image_embedding_size = (4, 4)

    with pytest.raises(ValueError, match="positive_probability needs segment-anything's prompt encoder"):
        embed_prompts(Foreign(), model().prompt_module(torch.randn(1, CHANNELS, 4, 4)))


def test_settings_tell_two_systems_apart() -> None:
    assert model().settings() != model(tokens=True).settings()
