"""SegVol: shapes, the frame of prompts, batches, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prompted_volumes import SIZE, whole
from torch.nn import functional

from ultrarefiner.networks import build_segvol
from ultrarefiner.networks.segvol.decoder import VolumeMaskDecoder
from ultrarefiner.networks.segvol.encoder import build_volume_encoder
from ultrarefiner.networks.segvol.position import FourierPositions
from ultrarefiner.networks.segvol.prompt_encoder import VolumePromptEncoder


def closeness(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return functional.cosine_similarity(first, second, dim=-1)


def test_the_tiny_one_is_small() -> None:
    with torch.device("meta"):
        segvol = build_segvol("tiny")
    assert 0.9e6 < sum(parameter.numel() for parameter in segvol.parameters()) < 1.2e6
    assert segvol.volume_size == (32, 64, 64)
    assert not any("cross_attn." in name for name in segvol.image_encoder.state_dict())
    assert not any(name.startswith("text_encoder") for name in segvol.state_dict())


@pytest.mark.parametrize(("multimask", "masks"), [(False, 1), (True, 3)])
@torch.no_grad()
def test_shapes(network, multimask, masks) -> None:
    volume = torch.rand(2, 1, *SIZE)
    encoded = network.encode(volume)
    assert encoded.shape == (2, 96, *network.embedding_size) == (2, 96, 4, 3, 5)
    coarse = network.decode(encoded, **whole(2), multimask=multimask)
    assert coarse.mask_logits.shape == (2, masks, *network.mask_size) == (2, masks, 16, 12, 20)
    assert coarse.iou.shape == (2, masks)
    fine = network(volume, **whole(2), multimask=multimask)
    assert fine.mask_logits.shape == (2, masks, *SIZE)
    assert torch.equal(fine.iou, coarse.iou)
    expected = functional.interpolate(coarse.mask_logits, SIZE, mode="trilinear", align_corners=False)
    assert torch.equal(fine.mask_logits, expected)


def test_a_token_sees_its_own_patch() -> None:
    torch.manual_seed(0)
    encoder = build_volume_encoder(volume_size=(4, 8, 12), patch=(2, 4, 4), width=8, depth=1, heads=2, hidden=8)
    patches = encoder.patch_embedding
    volume = torch.rand(1, 1, 4, 8, 12)
    weight, bias = patches.patch_embeddings[1].weight, patches.patch_embeddings[1].bias
    convolved = functional.conv3d(volume, weight.view(8, 1, 2, 4, 4), bias, stride=(2, 4, 4))
    torch.testing.assert_close(patches(volume) - patches.position_embeddings, convolved.flatten(2).transpose(1, 2))


@torch.no_grad()
def test_fused_attention_is_attention() -> None:
    torch.manual_seed(0)
    encoder = build_volume_encoder(volume_size=(4, 8, 8), patch=(2, 4, 4), width=8, depth=2, heads=2, hidden=8)
    volume = torch.rand(2, 1, 4, 8, 8)
    fused = encoder(volume)[0]
    for block in encoder.blocks:
        assert block.attn.use_flash_attention
        block.attn.use_flash_attention = False
    torch.testing.assert_close(fused, encoder(volume)[0])


@pytest.mark.parametrize("order", ["legacy", "aligned"])
def test_positions_are_the_formula(order) -> None:
    torch.manual_seed(0)
    positions = FourierPositions(5, volume_size=SIZE, order=order)
    voxel = (3.0, 7.25, 30.0)
    z, y, x = (index + 0.5 for index in voxel)
    depth, height, width = SIZE
    first, second = (z, y) if order == "legacy" else (y, z)
    unit = np.array([first / height, second / depth, x / width])
    angle = 2 * math.pi * (2 * unit - 1) @ positions.positional_encoding_gaussian_matrix.numpy().astype(float)
    expected = np.concatenate([np.sin(angle), np.cos(angle)])
    np.testing.assert_allclose(positions(torch.tensor([voxel], dtype=torch.float64))[0].numpy(), expected, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(cell=st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 4)))
def test_an_aligned_prompt_looks_like_the_cell_it_is_in(cell) -> None:
    torch.manual_seed(0)
    aligned = FourierPositions(48, volume_size=SIZE, order="aligned")
    grid = aligned.grid((4, 3, 5))[0]
    centre = torch.tensor([(index + 0.5) * step - 0.5 for index, step in zip(cell, (4, 8, 8), strict=True)])
    torch.testing.assert_close(aligned(centre), grid[(slice(None), *cell)], atol=1e-4, rtol=1e-4)
    best = closeness(aligned(centre), grid.flatten(1).T).argmax()
    assert tuple(int(part) for part in np.unravel_index(int(best), (4, 3, 5))) == cell


def test_the_order_of_axes_matters_to_prompts_only(network, embedding) -> None:
    told = {}
    for order in ("legacy", "aligned"):
        other = build_segvol("tiny", volume_size=SIZE, pe_order=order).eval()
        other.load_state_dict(network.state_dict())
        assert other.settings()["pe_order"] == other.pe_order == order
        told[order] = other
    legacy, aligned = (told[order].prompt_encoder for order in ("legacy", "aligned"))
    assert torch.equal(legacy.pe_layer.grid((4, 3, 5)), aligned.pe_layer.grid((4, 3, 5)))
    # On the diagonal, where z equals y, rows and slices may be exchanged; anywhere else not.
    same, different = torch.tensor([[[5.0, 5, 9]]]), torch.tensor([[[5.0, 8, 9]]])
    one = torch.tensor([[1]])
    assert torch.equal(legacy(points=(same, one)), aligned(points=(same, one)))
    assert not torch.allclose(legacy(points=(different, one)), aligned(points=(different, one)), atol=0.1)
    exchanged = different[..., [1, 0, 2]]
    assert torch.equal(legacy(points=(exchanged, one)), aligned(points=(different, one)))
    answers = [part.decode(embedding[:1], points=(different, one)).mask_logits for part in told.values()]
    assert not torch.allclose(*answers)


def test_which_order_is_the_default() -> None:
    with torch.device("meta"):
        assert build_segvol("base").pe_order == "legacy"
    assert build_segvol("tiny").pe_order == "aligned"


def test_tokens_are_points_then_box_then_text() -> None:
    torch.manual_seed(0)
    encoder = VolumePromptEncoder(96, volume_size=SIZE, pe_order="aligned")
    prompts = whole(2)
    points, boxes, text = prompts["points"], prompts["boxes"], prompts["text"]
    together = encoder(**prompts)
    assert together.shape == (2, 3 + 2 + 1, 96)
    alone = encoder(points=points)
    nothing = encoder.not_a_point_embed.weight[0]
    assert torch.equal(alone[:, :3], together[:, :3])
    assert torch.equal(alone[:, 3], nothing.expand(2, -1)), "a padding point stands where there is no box"
    assert torch.equal(encoder(boxes=boxes), together[:, 3:5])
    assert torch.equal(encoder(text=text)[:, 0], text)
    assert torch.equal(together[:, 5], text)
    assert torch.equal(encoder(points=points, text=text)[:, 3:], torch.stack([nothing.expand(2, -1), text], 1))
    where = encoder.pe_layer
    torch.testing.assert_close(together[:, 0], where(points[0][:, 0]) + encoder.point_embeddings[1].weight)
    torch.testing.assert_close(together[:, 1], where(points[0][:, 1]) + encoder.point_embeddings[0].weight)
    assert torch.equal(together[:, 2], nothing.expand(2, -1)), "wherever a point that is none lies"
    torch.testing.assert_close(together[:, 3], where(boxes[:, :3]) + encoder.point_embeddings[2].weight)
    torch.testing.assert_close(together[:, 4], where(boxes[:, 3:]) + encoder.point_embeddings[3].weight)


def test_indices_may_be_whole_numbers(network, embedding) -> None:
    box = torch.tensor([[2, 3, 4, 10, 12, 14]])
    point = torch.tensor([[[5, 6, 7]]]), torch.tensor([[1]])
    told = network.decode(embedding[:1], points=point, boxes=box)
    expected = network.decode(embedding[:1], points=(point[0].float(), point[1]), boxes=box.float())
    assert torch.equal(told.mask_logits, expected.mask_logits)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 99), box=st.booleans(), count=st.integers(1, 3))
@torch.no_grad()
def test_a_batch_is_its_elements(network, embedding, seed, box, count) -> None:
    prompts = whole(count, box=box, seed=seed)
    together = network.decode(embedding[:count], **prompts, multimask=True)
    for index in range(count):
        one = slice(index, index + 1)
        alone = {
            name: tuple(part[one] for part in value) if isinstance(value, tuple) else value[one]
            for name, value in prompts.items()
        }
        answer = network.decode(embedding[one], **alone, multimask=True)
        torch.testing.assert_close(answer.mask_logits, together.mask_logits[one], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(answer.iou, together.iou[one], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_many_prompts_ask_one_volume(network, embedding) -> None:
    prompts = whole(4)
    asked = network.decode(embedding[:1], **prompts)
    repeated = network.decode(embedding[:1].expand(4, -1, -1, -1, -1), **prompts)
    torch.testing.assert_close(asked.mask_logits, repeated.mask_logits)
    assert not torch.allclose(asked.mask_logits[0], asked.mask_logits[1])


@torch.no_grad()
def test_volumes_are_encoded_one_by_one(network) -> None:
    volumes = torch.rand(2, 1, *SIZE)
    torch.testing.assert_close(network.encode(volumes)[1:], network.encode(volumes[1:]), atol=1e-5, rtol=1e-4)


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(4)), seed=st.integers(0, 99))
@torch.no_grad()
def test_the_order_of_points_does_not_matter(network, embedding, order, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    coordinates = torch.rand(1, 4, 3, generator=generator) * (torch.tensor(SIZE) - 1)
    labels = torch.tensor([[1, 0, 1, -1]])
    straight = network.decode(embedding[:1], points=(coordinates, labels))
    shuffled = network.decode(embedding[:1], points=(coordinates[:, list(order)], labels[:, list(order)]))
    torch.testing.assert_close(straight.mask_logits, shuffled.mask_logits, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_where_a_point_that_is_none_lies_does_not_matter(network, embedding) -> None:
    coordinates, labels = whole(1)["points"]
    moved = coordinates.clone()
    moved[:, 2] = -1.0
    assert torch.equal(
        network.decode(embedding[:1], points=(coordinates, labels)).mask_logits,
        network.decode(embedding[:1], points=(moved, labels)).mask_logits,
    )


@torch.no_grad()
def test_every_prompt_changes_the_answer(network, embedding) -> None:
    prompts = whole(1)
    coordinates, labels = prompts["points"]
    variants = [
        prompts,
        {**prompts, "points": (coordinates * 0.8, labels)},
        {**prompts, "points": (coordinates, 1 - labels.clamp(min=0))},
        {**prompts, "boxes": prompts["boxes"] * 0.8},
        {**prompts, "text": -prompts["text"]},
        *({name: part} for name, part in prompts.items()),
    ]
    answers = [network.decode(embedding[:1], **variant).mask_logits for variant in variants]
    for index, answer in enumerate(answers):
        assert not any(torch.allclose(answer, other, atol=1e-5) for other in answers[:index])


@torch.no_grad()
def test_a_text_adds_its_similarity_to_every_voxel() -> None:
    torch.manual_seed(0)
    decoder = VolumeMaskDecoder(16, embedding_size=(2, 2, 3), heads=2, hidden=16, iou_hidden=8)
    seen: list[torch.Tensor] = []
    decoder.output_upscaling.register_forward_hook(lambda module, given, result: seen.append(result))
    embedding, position, tokens = torch.rand(2, 16, 2, 2, 3), torch.rand(1, 16, 2, 2, 3), torch.rand(2, 3, 16)
    text = torch.randn(2, 16)
    without, _ = decoder(embedding, position, tokens, multimask=True)
    told, _ = decoder(embedding, position, tokens, text=text, multimask=True)
    aligned = decoder.txt_align_upscaled_embedding(text)
    similarity = (seen[0] * aligned[:, :, None, None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(told, without + similarity, atol=1e-5, rtol=1e-4)


def test_candidates_are_other_masks(network, embedding) -> None:
    prompts = whole(1)
    one = network.decode(embedding[:1], **prompts)
    three = network.decode(embedding[:1], **prompts, multimask=True)
    assert not any(torch.allclose(one.mask_logits[:, 0], three.mask_logits[:, index]) for index in range(3))


def test_every_parameter_that_is_used_learns() -> None:
    torch.manual_seed(0)
    network = build_segvol("tiny", volume_size=SIZE)
    volume = torch.rand(1, 1, *SIZE)
    answers = [network(volume, **whole(1), multimask=multimask) for multimask in (False, True)]
    sum(answer.mask_logits.square().mean() + answer.iou.square().mean() for answer in answers).backward()
    idle = {name for name, part in network.named_parameters() if part.grad is None or not part.grad.abs().sum() > 0}
    assert idle == set()


def test_prompts_carry_a_gradient() -> None:
    torch.manual_seed(0)
    encoder = VolumePromptEncoder(8, volume_size=SIZE, pe_order="aligned").double()
    generator = torch.Generator().manual_seed(0)
    coordinates = 10 * torch.rand(1, 2, 3, generator=generator, dtype=torch.float64)
    boxes = 10 * torch.rand(1, 6, generator=generator, dtype=torch.float64)
    text = torch.randn(1, 8, generator=generator, dtype=torch.float64)
    for part in (coordinates, boxes, text):
        part.requires_grad_()

    def tokens(coordinates, boxes, text):
        return encoder(points=(coordinates, torch.tensor([[1, 0]])), boxes=boxes, text=text)

    assert torch.autograd.gradcheck(tokens, (coordinates, boxes, text))


def test_gradient_of_the_decoder() -> None:
    torch.manual_seed(0)
    decoder = VolumeMaskDecoder(8, embedding_size=(1, 1, 2), heads=2, hidden=4, iou_hidden=4).double()
    parts = [torch.randn(shape, dtype=torch.float64) for shape in ((1, 8, 1, 1, 2), (1, 8, 1, 1, 2), (1, 2, 8))]
    for part in parts:
        part.requires_grad_()
    assert torch.autograd.gradcheck(decoder, tuple(parts))


@torch.no_grad()
def test_half_precision_moves_no_point(network, embedding) -> None:
    prompts = whole(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = network.prompt_encoder(**prompts)
        answer = network(torch.rand(1, 1, *SIZE), **prompts)
    assert torch.equal(narrow, network.prompt_encoder(**prompts))
    assert answer.mask_logits.isfinite().all()
    wide = build_segvol("tiny", volume_size=SIZE).double()
    assert wide(torch.rand(1, 1, *SIZE, dtype=torch.float64), **prompts).mask_logits.dtype == torch.float64


def test_settings_tell_networks_apart(network) -> None:
    assert network.settings() == {
        "name": "tiny",
        "volume_size": [16, 24, 40],
        "embedding_size": [4, 3, 5],
        "pe_order": "aligned",
    }
