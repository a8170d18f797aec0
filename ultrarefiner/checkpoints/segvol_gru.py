"""The layout of the five correction blocks in a file of SegVol-GRU-Correction."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ultrarefiner.checkpoints.renaming import Renamed, Table, rename

_BLOCKS: Table = {
    r"gru_blocks\.(\d+)\.(gru\.(?:weight|bias)_[ih]h_l0)": r"\1.\2",
    r"gru_blocks\.(\d+)\.(fc_prob\.(?:weight|bias))": r"\1.\2",
}

_SURPLUS = {
    r"(image_encoder|prompt_encoder|mask_decoder|text_encoder)\..+": 'SegVol itself, which the layout "segvol" loads',
}


def rename_segvol_gru(state: Mapping[str, Tensor]) -> Renamed:
    """The correction blocks of a checkpoint, as an ``nn.ModuleList`` of `PublishedGRUBlock` names them.

    Args:
        state: as the published code saves it, prefixes taken off.

    Raises:
        ValueError: a tensor has a name that it does not use.
    """
    return rename(state, _BLOCKS, _SURPLUS, what="checkpoint of SegVol-GRU-Correction")
