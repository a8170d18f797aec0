"""SAM's answer to prompts that something else made, on the image's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.ops.checks import check_images
from ultrarefiner.sam import InputPolicy, SAMLike, decode
from ultrarefiner.types import PromptedSegmentation, Prompts


def segment_prompted(
    sam: SAMLike,
    policy: InputPolicy,
    embeddings: Float[Tensor, "b d low_h low_w"],
    prompts: Prompts,
    image_size: Sequence[int],
    *,
    output: nn.Module | None = None,
) -> PromptedSegmentation:
    """Decode SAM's single mask and bring it to the image's pixels.

    Args:
        sam: any SAM-like object.
        policy: how images became SAM's input.
        embeddings: of the images.
        prompts: of one or more masks of each image.
        image_size: (height, width) of the images.
        output: called with the low-resolution logits before they are brought to the image; None for nothing.

    Returns:
        The masks on the images' pixels, and as SAM's decoder made them.

    Example:
        >>> import torch
        >>> from ultrarefiner.prompts import PromptModule
        >>> from ultrarefiner.sam import build_sam
        >>> sam = build_sam("tiny", image_size=64)
        >>> embeddings = sam(torch.rand(2, 1, 48, 60))
        >>> prompts = PromptModule(channels=embeddings.shape[1], hidden=8, image_size=64)(embeddings)
        >>> segment_prompted(sam, sam.input_policy, embeddings, prompts, (48, 60)).logits.shape
        torch.Size([2, 1, 48, 60])
    """
    candidates = decode(sam, embeddings, prompts, multimask=False)
    low_logits = candidates.logits[:, :, 0] if output is None else output(candidates.logits[:, :, 0])
    logits = policy.restore(low_logits, policy.frame(image_size))
    return PromptedSegmentation(logits, low_logits, candidates.iou[:, :, 0], prompts)


def seen_size(images: Tensor | None, embeddings: Tensor | None, image_size: Sequence[int] | None) -> tuple[int, int]:
    """(height, width) of the images, or of those behind the embeddings.

    Raises:
        ValueError: neither images nor embeddings, or both; embeddings without a size; images of the wrong rank,
            channels or range.
    """
    if (images is None) == (embeddings is None) or (embeddings is not None and image_size is None):
        message = (
            "either images must be given, or embeddings with the image_size (height, width) behind them, but "
            f"images {'are None' if images is None else 'came'}, embeddings "
            f"{'are None' if embeddings is None else 'came'} and image_size is {image_size}."
        )
        raise ValueError(message)
    if images is not None:
        check_images(images)
        return int(images.shape[-2]), int(images.shape[-1])
    height, width = image_size or (0, 0)
    return int(height), int(width)


def policy_of(sam: Any, policy: InputPolicy | None) -> InputPolicy:
    """The policy that was given, or that a SAM brings.

    Raises:
        ValueError: neither is there.
    """
    found = getattr(sam, "input_policy", None) if policy is None else policy
    if found is None:
        message = (
            f"input_policy must be given for {type(sam).__name__}, which does not say how images become its input; "
            "pass SAMInput(size) for SAM's weights or MedSAMInput(size) for MedSAM's."
        )
        raise ValueError(message)
    checked: InputPolicy = found
    return checked
