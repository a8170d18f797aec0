"""Prompts to SAM's tokens: for b images of k masks at once, in any dtype, with no read of a value on the device.

segment-anything's own prompt encoder writes into slices chosen by boolean masks (each waits for the device), casts
coordinates to float32 (so float64 fails), and under autocast multiplies coordinates in bfloat16 (so points move by
pixels). The same numbers come out here without that. A prompt encoder of another make is called as it is.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float
from segment_anything.modeling import PromptEncoder
from torch import Tensor

from ultrarefiner.ops.coordinates import index_to_edge, pixel_centres
from ultrarefiner.types import Prompts


def embed_prompts(
    prompt_encoder: Any, prompts: Prompts
) -> tuple[Float[Tensor, "n tokens d"], Float[Tensor, "n d low_h low_w"]]:
    """The sparse tokens and the dense embedding of every mask's prompts; n = b * k, masks of one image together.

    Args:
        prompt_encoder: segment-anything's; any other, a subclass or one with hooks too, is called as it is.
        prompts: in pixel indices of the encoder's frame.

    Returns:
        Tokens of points and box (with SAM's "not a point" appended where there are points and no box), those that were
        given as they are, and the mask's embedding.

    Raises:
        ValueError: a dense embedding on another raster than the image embedding's, or soft labels for an encoder of
            another make.

    Example:
        >>> import torch
        >>> from ultrarefiner.sam import build_sam
        >>> point, label, valid = torch.full((1, 1, 1, 2), 8.0), torch.ones(1, 1, 1).int(), torch.ones(1, 1).bool()
        >>> prompts = Prompts(points=point, labels=label, boxes=None, mask_logits=None, valid=valid)
        >>> tokens, dense = embed_prompts(build_sam("tiny", image_size=64).prompt_encoder, prompts)
        >>> tokens.shape[:2], dense.shape[-2:]
        (torch.Size([1, 2]), torch.Size([4, 4]))
    """
    if _is_segment_anythings(prompt_encoder):
        sparse = _sparse(prompt_encoder, prompts)
        dense = _dense(prompt_encoder, prompts) if prompts.dense_embedding is None else None
    else:
        sparse, dense = _call(prompt_encoder, prompts)
    if prompts.tokens is not None:
        sparse = torch.cat([sparse, prompts.tokens.flatten(0, 1).to(sparse.dtype)], 1)
    if prompts.dense_embedding is not None:
        dense = _checked_dense(prompt_encoder, prompts.dense_embedding).to(sparse.dtype)
    return sparse, cast("Tensor", dense)


def dense_position(prompt_encoder: Any, like: Tensor) -> Float[Tensor, "1 d low_h low_w"]:
    """The positional encoding of the embedding's grid, in the embedding's dtype.

    Args:
        prompt_encoder: segment-anything's, or another with ``get_dense_pe``.
        like: a tensor (any shape) on the device and in the dtype that are wanted.

    Returns:
        (1, d, low_h, low_w), on the device and in the dtype of ``like``.

    Example:
        >>> import torch
        >>> from ultrarefiner.sam import build_sam
        >>> sam = build_sam("tiny", image_size=64)
        >>> dense_position(sam.prompt_encoder, torch.zeros(1)).shape[-2:]
        torch.Size([4, 4])
    """
    if not _is_segment_anythings(prompt_encoder):
        foreign: Tensor = prompt_encoder.get_dense_pe()
        return foreign.to(like)
    height, width = prompt_encoder.image_embedding_size
    matrix = prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    y = (pixel_centres(height, matrix) / height)[:, None].expand(-1, width)
    x = (pixel_centres(width, matrix) / width)[None, :].expand(height, -1)
    encoding = _fourier_features(torch.stack([x, y], -1), matrix)
    return rearrange(encoding, "h w d -> 1 d h w").to(like)


def _is_segment_anythings(prompt_encoder: Any) -> bool:
    """Whether its forward is segment-anything's own and nothing is hooked into it."""
    own = getattr(type(prompt_encoder), "forward", None) is PromptEncoder.forward
    return own and not (prompt_encoder._forward_hooks or prompt_encoder._forward_pre_hooks)


def _sparse(encoder: Any, prompts: Prompts) -> Tensor:
    nothing = encoder.not_a_point_embed.weight
    masks = prompts.valid.numel()
    tokens: Tensor = nothing.new_zeros(masks, 0, nothing.shape[-1])
    if prompts.points is not None and not (prompts.labels is None and prompts.positive_probability is None):
        tokens = _of_points(encoder, prompts.points, prompts)
        if prompts.boxes is None:
            tokens = torch.cat([tokens, nothing.expand(masks, 1, -1)], 1)
    if prompts.boxes is not None:
        corners = rearrange(prompts.boxes, "b k (corner xy) -> (b k) corner xy", xy=2)
        kinds = torch.stack([encoder.point_embeddings[2].weight[0], encoder.point_embeddings[3].weight[0]])
        encoded = _encode_positions(encoder, corners).to(nothing.dtype) + kinds
        encoded = torch.where(prompts.valid.flatten()[:, None, None], encoded, nothing)
        tokens = torch.cat([tokens, encoded], 1)
    return tokens


def _of_points(encoder: Any, points: Tensor, prompts: Prompts) -> Tensor:
    nothing = encoder.not_a_point_embed.weight
    negative, positive = encoder.point_embeddings[0].weight, encoder.point_embeddings[1].weight
    encoded = _encode_positions(encoder, points.flatten(0, 1)).to(nothing.dtype)
    if prompts.positive_probability is not None:
        share = prompts.positive_probability.flatten(0, 1)[..., None].to(nothing.dtype)
        return torch.where(
            prompts.valid.flatten()[:, None, None], encoded + torch.lerp(negative, positive, share), nothing
        )
    labels = cast("Tensor", prompts.labels).flatten(0, 1)[..., None]
    return torch.where(labels == -1, nothing, encoded + torch.where(labels == 1, positive, negative))


def _dense(encoder: Any, prompts: Prompts) -> Tensor:
    if prompts.mask_logits is None:
        size = encoder.image_embedding_size
        nothing: Tensor = encoder.no_mask_embed.weight[:, :, None, None]
        return nothing.expand(prompts.valid.numel(), -1, *size)
    masks = rearrange(prompts.mask_logits, "b k h w -> (b k) 1 h w")
    embedded: Tensor = encoder.mask_downscaling(masks.to(encoder.no_mask_embed.weight.dtype))
    return embedded


def _encode_positions(encoder: Any, indices: Tensor) -> Tensor:
    height, width = encoder.input_image_size
    edges = index_to_edge(indices)
    unit = torch.stack([edges[..., 0] / width, edges[..., 1] / height], -1)
    return _fourier_features(unit, encoder.pe_layer.positional_encoding_gaussian_matrix)


def _fourier_features(unit: Float[Tensor, "*shape 2"], matrix: Float[Tensor, "2 f"]) -> Tensor:
    """Random Fourier features of positions in [0, 1]; sums of products, not a matmul, which autocast would narrow."""
    centred = 2 * unit - 1
    frequencies = matrix.to(centred.dtype)
    angle = 2 * math.pi * (centred[..., :1] * frequencies[0] + centred[..., 1:] * frequencies[1])
    return torch.cat([angle.sin(), angle.cos()], -1)


def _checked_dense(encoder: Any, dense: Tensor) -> Tensor:
    size = tuple(encoder.image_embedding_size)
    if tuple(dense.shape[-2:]) != size:
        message = (
            f"dense_embedding must be on the image embedding's raster {size}, but it is on {tuple(dense.shape[-2:])}; "
            "build what makes it for this SAM's size."
        )
        raise ValueError(message)
    return dense.flatten(0, 1)


def _call(encoder: Any, prompts: Prompts) -> tuple[Tensor, Tensor]:
    if prompts.positive_probability is not None:
        message = (
            f"positive_probability needs segment-anything's prompt encoder, but this one is {type(encoder).__name__}; "
            "give labels."
        )
        raise ValueError(message)
    points = None
    if prompts.points is not None and prompts.labels is not None:
        points = (prompts.points.flatten(0, 1), prompts.labels.flatten(0, 1))
    boxes = None if prompts.boxes is None else prompts.boxes.flatten(0, 1)
    masks = None if prompts.mask_logits is None else rearrange(prompts.mask_logits, "b k h w -> (b k) 1 h w")
    sparse, dense = encoder(points=points, boxes=boxes, masks=masks)
    return sparse, dense
