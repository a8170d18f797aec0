"""The families of files that can be loaded, and how each names its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ultrarefiner.checkpoints.automedsam import rename_automedsam
from ultrarefiner.checkpoints.efficientnet_lite import rename_efficientnet_lite0
from ultrarefiner.checkpoints.hardnet import rename_autosam, rename_hardnet
from ultrarefiner.checkpoints.huggingface_sam import rename_huggingface_sam
from ultrarefiner.checkpoints.mobile_sam import rename_mobile_sam
from ultrarefiner.checkpoints.renaming import Renamed
from ultrarefiner.checkpoints.segvol import rename_segvol, rename_segvol_vit
from ultrarefiner.checkpoints.segvol_gru import rename_segvol_gru
from ultrarefiner.checkpoints.transunet import rename_transunet, rename_vit_npz


@dataclass(frozen=True)
class Layout:
    """How a family of files names its tensors.

    Attributes:
        wrappers: keys under which the state dict may lie inside the file.
        prefixes: prefixes that other tools put before every key; torch.compile's "_orig_mod." comes off anywhere.
        rename: from the family's names to ours; None where they are the same.
        surplus: beginnings of names (ours) that such files may hold and a network may lack, and why.
        absent: beginnings of names (ours) that a network has and such files never hold.
        resizable: endings of names (ours) of position embeddings, which may lie on another grid.
        settings: attributes that a network must have beside its tensors, which fit without them too.
        signature: a beginning that only this family's names have, for hints; the first of `LAYOUTS` that fits is named.
    """

    wrappers: tuple[str, ...] = ("model", "state_dict", "model_state_dict")
    prefixes: tuple[str, ...] = ("module.",)
    rename: Callable[[Mapping[str, Tensor]], Renamed] | None = None
    surplus: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    resizable: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    signature: str = ""

    def reason_to_leave_out(self, name: str) -> str | None:
        """Why a tensor that the network lacks may stay in the file; None if it may not."""
        return next((reason for start, reason in self.surplus.items() if name.startswith(start)), None)


_POSITIONS = ("encoder.position_embedding",)
_SIDE_HEADS = {"side_heads.": "this network was built without deep supervision"}

LAYOUTS: dict[str, Layout] = {
    "native": Layout(wrappers=("model",), surplus=_SIDE_HEADS, resizable=_POSITIONS),
    # Before "sam", whose signature its names have too.
    "mobile_sam": Layout(
        wrappers=("model", "state_dict"),
        rename=rename_mobile_sam,
        signature="image_encoder.patch_embed.seq.",
    ),
    "sam": Layout(
        wrappers=("model", "state_dict"),
        prefixes=("module.", "sam."),
        surplus={
            "pixel_mean": "a constant of the input policy",
            "pixel_std": "a constant of the input policy",
        },
        signature="image_encoder.patch_embed.",
    ),
    "huggingface_sam": Layout(
        wrappers=("state_dict",), rename=rename_huggingface_sam, signature="vision_encoder.patch_embed."
    ),
    "microsegnet": Layout(
        rename=rename_transunet,
        surplus=_SIDE_HEADS,
        resizable=_POSITIONS,
        signature="decoder.segmentation_head",
    ),
    "transunet": Layout(rename=rename_transunet, resizable=_POSITIONS, signature="transformer.embeddings."),
    "vit_npz": Layout(
        rename=rename_vit_npz,
        absent=("decoder.", "head.", "side_heads."),
        resizable=_POSITIONS,
        signature="Transformer/",
    ),
    "autosam": Layout(rename=rename_autosam, signature="backbone.base."),
    "hardnet": Layout(
        rename=rename_hardnet,
        surplus={"stages.3.": "this network was built without the stage at 1/32"},
        signature="base.",
    ),
    "efficientnet_lite0": Layout(rename=rename_efficientnet_lite0, signature="_conv_stem."),
    "automedsam": Layout(
        wrappers=("model_state_dict", "prompt_module_state_dict", "state_dict"),
        rename=rename_automedsam,
        signature="dense_branch.",
    ),
    "segvol_gru": Layout(
        prefixes=("module.", "model."),
        rename=rename_segvol_gru,
        signature="gru_blocks.",
    ),
    "segvol": Layout(
        prefixes=("module.", "model."),
        rename=rename_segvol,
        surplus={"text_encoder.": "this network was built without the text encoder"},
        settings={"pe_order": "legacy"},
        signature="image_encoder.patch_embedding.",
    ),
    "segvol_vit": Layout(
        wrappers=("state_dict",),
        prefixes=("module.", "model."),
        rename=rename_segvol_vit,
        absent=("prompt_encoder.", "mask_decoder.", "text_encoder."),
        signature="encoder.patch_embedding.position_embeddings",
    ),
}
"""Families of files by the name that `load_weights` takes as ``layout=``."""
