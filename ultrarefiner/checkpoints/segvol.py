"""The layout of SegVol's files, with or without its text encoder and the corrections over clicks of a later project."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ultrarefiner.checkpoints.renaming import Renamed, Table, rename

_SEGVOL: Table = {
    r"(image_encoder\.(?:patch_embedding|blocks|norm)\..+)": r"\1",
    r"(prompt_encoder\.(?:pe_layer|point_embeddings|not_a_point_embed|no_mask_embed)\..+)": r"\1",
    r"(mask_decoder\..+)": r"\1",
    # transformers 5 has taken out the inner text_model that published files have.
    r"text_encoder\.clip_text_model\.(?:text_model\.)?((?:embeddings|encoder|final_layer_norm)\..+)": (
        r"text_encoder.clip.\1"
    ),
    r"text_encoder\.(dim_align\.\w+)": r"text_encoder.\1",
}

_SURPLUS = {
    r"text_encoder\..+\.position_ids": "a row of whole numbers that older transformers kept with the weights",
    r"prompt_encoder\.mask_downscaling\..+": "an embedding of two-dimensional masks, which no volume fits",
    r"image_encoder\.blocks\.\d+\.(norm_)?cross_attn\..+": "a part for a context that MONAI builds and never applies",
    r"gru_blocks\..+": "the correction over clicks, which is a part of its own",
}


def rename_segvol(state: Mapping[str, Tensor]) -> Renamed:
    """A checkpoint of SegVol in `SegVol`'s names, which are its own but for the text encoder's.

    Args:
        state: as its code saves it, prefixes taken off.

    Raises:
        ValueError: a tensor has a name that it does not use.
    """
    return rename(state, _SEGVOL, _SURPLUS, what="SegVol checkpoint")
