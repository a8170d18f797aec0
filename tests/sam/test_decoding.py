"""Decoding of b images x k masks against segment-anything's one image at a time, in any dtype, for any SAM."""

from __future__ import annotations

import itertools

import pytest
import torch
from strategies import lesion
from torch import Tensor, nn

from ultrarefiner.prompts import DifferentiablePromptExtractor
from ultrarefiner.sam import SAM, build_sam, decode, dense_position, embed_prompts, encode_images
from ultrarefiner.types import MaskCandidates, Prompts


@pytest.fixture(scope="module")
def sam() -> SAM:
    torch.manual_seed(0)
    return build_sam("tiny", image_size=128)


def random_prompts(images: int, masks: int, points: int = 3, size: int = 128) -> Prompts:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.rand(images, masks, *shape, generator=generator) * (size - 1)

    labels = torch.randint(-1, 2, (images, masks, points), generator=generator)
    boxes = torch.cat([draw(2) / 2, size / 2 + draw(2) / 2], -1)
    mask_logits = draw(size // 4, size // 4) / 6 - 10
    return Prompts(draw(points, 2), labels, boxes, mask_logits, torch.ones(images, masks, dtype=torch.bool))


def one_at_a_time(sam: SAM, embeddings: Tensor, prompts: Prompts) -> MaskCandidates:
    """segment-anything's calls: each image alone, its masks as that image's prompts."""
    logits, iou = [], []
    for b, embedding in enumerate(embeddings):
        sparse, dense = sam.prompt_encoder(
            points=None if prompts.points is None else (prompts.points[b], prompts.labels[b]),
            boxes=None if prompts.boxes is None else prompts.boxes[b],
            masks=None if prompts.mask_logits is None else prompts.mask_logits[b][:, None],
        )
        masks, quality = sam.mask_decoder(
            image_embeddings=embedding[None],
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        logits.append(masks)
        iou.append(quality)
    return MaskCandidates(torch.stack(logits), torch.stack(iou))


@pytest.mark.parametrize("left_out", [(), ("points", "labels"), ("boxes",), ("mask_logits",), ("boxes", "mask_logits")])
def test_equals_segment_anything(sam: SAM, left_out: tuple[str, ...]) -> None:
    everything = random_prompts(3, 2)
    prompts = Prompts(**{**vars(everything), **dict.fromkeys(left_out)})
    embeddings = sam(torch.rand(3, 1, 90, 128)).detach()
    ours, theirs = decode(sam, embeddings, prompts), one_at_a_time(sam, embeddings, prompts)
    torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.iou, theirs.iou, atol=1e-5, rtol=1e-5)


def test_permuted_images_and_masks_give_permuted_answers(sam: SAM) -> None:
    prompts = random_prompts(3, 2)
    embeddings = sam(torch.rand(3, 1, 128, 128)).detach()
    images, masks = torch.tensor([2, 0, 1]), torch.tensor([1, 0])
    moved = Prompts(*(tensor[images][:, masks] for tensor in vars(prompts).values() if tensor is not None))
    straight, permuted = decode(sam, embeddings, prompts), decode(sam, embeddings[images], moved)
    torch.testing.assert_close(permuted.logits, straight.logits[images][:, masks], atol=1e-5, rtol=1e-5)


def test_one_embedding_a_mask(sam: SAM) -> None:
    prompts = random_prompts(2, 2)
    embeddings = sam(torch.rand(4, 1, 128, 128)).detach().unflatten(0, (2, 2))
    together = decode(sam, embeddings, prompts)
    for b, k in itertools.product(range(2), range(2)):
        alone = Prompts(*(tensor[b : b + 1, k : k + 1] for tensor in vars(prompts).values() if tensor is not None))
        torch.testing.assert_close(
            decode(sam, embeddings[b, k][None], alone).logits[0, 0],
            together.logits[b, k],
            atol=1e-5,
            rtol=1e-5,
        )


def test_positions_equal_segment_anythings(sam: SAM) -> None:
    ours = dense_position(sam.prompt_encoder, torch.zeros(1))
    torch.testing.assert_close(ours, sam.prompt_encoder.get_dense_pe(), atol=1e-5, rtol=1e-5)


def test_float64_and_autocast() -> None:
    sam = build_sam("tiny", image_size=64).double()
    prompts = DifferentiablePromptExtractor(image_size=64)(torch.rand(1, 1, 20, 20).double())
    embeddings = sam(torch.rand(1, 1, 64, 64).double())
    assert decode(sam, embeddings, prompts).logits.dtype == torch.float64
    narrow = build_sam("tiny", image_size=64)
    narrow.load_state_dict(sam.state_dict())
    single = DifferentiablePromptExtractor(image_size=64)(torch.rand(1, 1, 20, 20))
    with torch.autocast("cpu", torch.bfloat16):
        tokens, _ = embed_prompts(narrow.prompt_encoder, single)
        assert decode(narrow, embeddings.float(), single).logits.isfinite().all()
    torch.testing.assert_close(tokens, embed_prompts(narrow.prompt_encoder, single)[0])


def test_an_empty_mask_is_told_as_nothing(sam: SAM) -> None:
    prompts = DifferentiablePromptExtractor(image_size=128)(torch.zeros(1, 1, 30, 30))
    tokens, _ = embed_prompts(sam.prompt_encoder, prompts)
    assert torch.equal(tokens, sam.prompt_encoder.not_a_point_embed.weight.expand_as(tokens[0])[None])


class ForeignPrompts(nn.Module):
    """A prompt encoder that is only *called* like segment-anything's."""

    image_embedding_size = (8, 8)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4, width)

    def get_dense_pe(self) -> Tensor:
        return torch.ones(1, self.linear.out_features, 8, 8)

    def forward(self, points: object, boxes: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        assert points is not None
        tokens = self.linear(boxes)[:, None]
        return tokens, nn.functional.interpolate(masks, (8, 8)).expand(-1, tokens.shape[-1], -1, -1)


def test_a_foreign_sam_is_called_as_segment_anything_calls_its_own(sam: SAM) -> None:
    foreign = SAM(sam.image_encoder, ForeignPrompts(64), sam.mask_decoder, input_policy=sam.input_policy)
    prompts = random_prompts(2, 3)
    embeddings = sam(torch.rand(2, 1, 128, 128)).detach()
    together = decode(foreign, embeddings, prompts)
    assert together.logits.shape == (2, 3, 3, 32, 32)
    alone = Prompts(*(tensor[1:] for tensor in vars(prompts).values() if tensor is not None))
    torch.testing.assert_close(
        decode(foreign, embeddings[1:], alone).logits[0], together.logits[1], atol=1e-5, rtol=1e-5
    )


def test_kornias_sam_works() -> None:
    from kornia.models.sam import Sam, SamConfig

    size = {
        "encoder_embed_dim": 32,
        "encoder_depth": 1,
        "encoder_num_heads": 2,
        "encoder_global_attn_indexes": (0,),
    }
    foreign = Sam.from_config(SamConfig(**size)).eval()
    prompts = DifferentiablePromptExtractor()(lesion(64, 64, (30, 30), (9, 12))[None, None])
    with torch.no_grad():
        embedding = encode_images(foreign, torch.rand(1, 3, 1024, 1024))
        assert decode(foreign, embedding, prompts).logits.shape == (1, 1, 3, 256, 256)


def test_a_frozen_encoder_costs_no_graph(sam: SAM) -> None:
    frozen = build_sam("tiny", image_size=64)
    inputs = torch.rand(1, 3, 64, 64, requires_grad=True)
    assert encode_images(frozen, inputs).requires_grad
    frozen.image_encoder.requires_grad_(False)
    assert not encode_images(frozen, inputs).requires_grad
    assert encode_images(frozen, inputs, through_inputs=True).requires_grad
    with torch.no_grad():
        assert not encode_images(frozen, inputs, through_inputs=True).requires_grad


@pytest.mark.usefixtures("unhooked")
def test_embeddings_of_other_images_get_a_sentence(sam: SAM) -> None:
    with pytest.raises(ValueError, match=r"embeddings of shape \(2, 64, 8, 8\) do not go with prompts for 3 images"):
        decode(sam, torch.zeros(2, 64, 8, 8), random_prompts(3, 2))


def test_a_subclass_of_the_prompt_encoder_is_called(sam: SAM) -> None:
    from segment_anything.modeling import PromptEncoder

    class Own(PromptEncoder):
        def forward(self, points: object, boxes: object, masks: object) -> tuple[Tensor, Tensor]:
            sparse, dense = super().forward(points, boxes, masks)
            return sparse, dense + 1

    encoder = Own(64, (8, 8), (128, 128), 16)
    encoder.load_state_dict(sam.prompt_encoder.state_dict())
    prompts = random_prompts(1, 2)
    torch.testing.assert_close(embed_prompts(encoder, prompts)[1], embed_prompts(sam.prompt_encoder, prompts)[1] + 1)
