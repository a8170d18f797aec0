"""SegVol's image encoder: MONAI's vision transformer, without what it carries and never uses."""

from __future__ import annotations

from typing import Any

from torch import nn


def build_volume_encoder(
    *, volume_size: tuple[int, int, int], patch: tuple[int, int, int], width: int, depth: int, heads: int, hidden: int
) -> nn.Module:
    """MONAI's ViT for one-channel volumes, with fused attention, and the names that SegVol's weights have.

    MONAI's blocks hold a normalisation (and before MONAI 1.6 an attention) for a context that there is none of here;
    they are taken out, so that every parameter is used.

    Args:
        volume_size: (D, H, W), multiples of the patch.
        patch: voxels a token, on each axis.
        width: channels of a token.
        depth: transformer blocks.
        heads: attention heads.
        hidden: channels inside a block's linear layers.

    Returns:
        A module from volumes (b, 1, D, H, W) to tokens (b, D/pd * H/ph * W/pw, width), slice by slice and row by row,
        and a list of each block's tokens.

    Raises:
        ModuleNotFoundError: MONAI is not installed.

    Example:
        >>> import torch
        >>> sizes = {"volume_size": (4, 8, 8), "patch": (2, 4, 4)}
        >>> encoder = build_volume_encoder(**sizes, width=8, depth=1, heads=2, hidden=16)
        >>> encoder(torch.rand(2, 1, 4, 8, 8))[0].shape
        torch.Size([2, 8, 8])

    Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; Cardoso et al., "MONAI", arXiv 2211.02701.
    """
    encoder: nn.Module = _vit()(
        in_channels=1,
        img_size=volume_size,
        patch_size=patch,
        hidden_size=width,
        mlp_dim=hidden,
        num_layers=depth,
        num_heads=heads,
        proj_type="perceptron",
        pos_embed_type="learnable",
    )
    blocks: Any = encoder.blocks
    for block in blocks:
        block.norm_cross_attn = nn.Identity()
        block.cross_attn = nn.Identity()
        block.attn.use_flash_attention = True
    return encoder


def _vit() -> Any:
    # An extra, and it takes seconds to import.
    try:
        from monai.networks.nets import ViT
    except ModuleNotFoundError as error:
        message = (
            f"SegVol's image encoder needs the package {error.name}, which is not installed; run "
            "pip install 'ultrarefiner[evaluation]'."
        )
        raise ModuleNotFoundError(message, name=error.name) from error
    return ViT
