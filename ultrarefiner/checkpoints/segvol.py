"""The layouts of SegVol's files: the whole, with or without its text encoder, and the image encoder alone."""

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

_ENCODER: Table = {
    r"(?:model\.)?(?:encoder\.)?((?:patch_embedding|blocks|norm)\..+)": r"image_encoder.\1",
}

_ENCODER_SURPLUS = {
    r"(?:model\.)?(?:encoder\.)?blocks\.\d+\.(norm_)?cross_attn\..+": (
        "a part for a context that MONAI builds and never applies"
    ),
    r"(?!(?:model\.)?encoder\.|patch_embedding\.|blocks\.|norm\.).+": "a part of the pretraining beside the encoder",
}


def rename_segvol(state: Mapping[str, Tensor]) -> Renamed:
    """A checkpoint of SegVol in `SegVol`'s names, which are its own but for the text encoder's.

    Args:
        state: as its code saves it, prefixes taken off.

    Raises:
        ValueError: a tensor has a name that it does not use.
    """
    return rename(state, _SEGVOL, _SURPLUS, what="SegVol checkpoint")


def rename_segvol_vit(state: Mapping[str, Tensor]) -> Renamed:
    """The image encoder of SegVol's pretraining on unlabelled volumes, in `SegVol`'s names.

    Args:
        state: as its file holds it, or what its documentation makes of that.

    Raises:
        ValueError: a tensor of the encoder has a name that it does not use, or there is no encoder.
    """
    renamed = rename(state, _ENCODER, _ENCODER_SURPLUS, what="pretrained image encoder of SegVol")
    if not renamed.state:
        message = (
            f"none of {len(state)} tensors is of a pretrained image encoder of SegVol, whose names begin with "
            "model.encoder.; name the layout that the file has."
        )
        raise ValueError(message)
    return renamed
