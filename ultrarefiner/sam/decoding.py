"""Decoding of b images with k masks each in one call, equal to segment-anything's one image at a time."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.sam.model import SAMLike
from ultrarefiner.sam.prompt_embedding import dense_position, embed_prompts
from ultrarefiner.types import MaskCandidates, Prompts


def decode(
    sam: SAMLike,
    embeddings: Float[Tensor, "b d low_h low_w"] | Float[Tensor, "b k d low_h low_w"],
    prompts: Prompts,
    *,
    multimask: bool = True,
) -> MaskCandidates:
    """SAM's candidate masks for every prompt, in one call of its mask decoder.

    segment-anything's decoder repeats *one* image's embedding for all prompts and adds the dense prompt embedding. So
    the images go in with the dense embeddings, each to its own prompts, and the decoder is given a single embedding of
    zeros to repeat: the sums are the same, and any decoder that is called like segment-anything's can be batched
    without knowing its inside.

    Args:
        sam: any SAM-like object.
        embeddings: one of each image (shared by its k masks), or one of each mask (when every mask has its own crop).
        prompts: in pixel indices of SAM's frame.
        multimask: True for SAM's three candidates, which an ambiguous prompt wants; False for its single mask.

    Returns:
        The candidates (m = 3, or 1) at low resolution with SAM's own IoU estimates.

    Raises:
        ValueError: the number of images or masks of embeddings and prompts differ.

    Example:
        >>> from ultrarefiner.prompts import DifferentiablePromptExtractor
        >>> from ultrarefiner.sam import build_sam
        >>> sam = build_sam("tiny", image_size=64)
        >>> prompts = DifferentiablePromptExtractor(image_size=64)(torch.rand(2, 3, 32, 32))
        >>> decode(sam, sam(torch.rand(2, 1, 48, 64)), prompts).logits.shape
        torch.Size([2, 3, 3, 16, 16])
    """
    images, masks = prompts.valid.shape
    expected = (images, masks) if embeddings.ndim == 5 else (images,)
    if tuple(embeddings.shape[: len(expected)]) != expected:
        message = (
            f"embeddings of shape {tuple(embeddings.shape)} do not go with prompts for {images} images of {masks} "
            "masks; give one embedding an image (b, d, h, w) or one a mask (b, k, d, h, w)."
        )
        raise ValueError(message)
    sparse, dense = embed_prompts(sam.prompt_encoder, prompts)
    per_mask = embeddings if embeddings.ndim == 5 else embeddings[:, None]
    source = (per_mask + rearrange(dense, "(b k) d h w -> b k d h w", b=images)).flatten(0, 1)
    logits, iou = sam.mask_decoder(
        image_embeddings=torch.zeros_like(source[:1]),
        image_pe=dense_position(sam.prompt_encoder, source),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=source,
        multimask_output=multimask,
    )
    return MaskCandidates(
        logits=rearrange(logits, "(b k) m h w -> b k m h w", b=images),
        iou=rearrange(iou, "(b k) m -> b k m", b=images),
    )
