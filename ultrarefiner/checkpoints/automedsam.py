"""The layout of Automatic MedSAM's prompt module."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ultrarefiner.checkpoints.renaming import Renamed, Table, rename

_FIRST_TO_SECOND = {"1": "0", "2": "2"}  # a convolution's number to its place, a ReLU between them

_PROMPT_MODULE: Table = {
    r"dense_branch\.conv(\d)\.(\w+)": lambda match: f"dense.{_FIRST_TO_SECOND[match[1]]}.{match[2]}",
    r"sparse_branch\.conv1\.(\w+)": r"sparse.0.\1",
    r"sparse_branch\.fc_points\.(\d)\.(\w+)": r"point_head.\1.\2",
    r"sparse_branch\.fc_labels\.(\d)\.(\w+)": r"label_head.\1.\2",
    r"sparse_branch\.fc_box\.(\d)\.(\w+)": r"box_head.\1.\2",
}


def rename_automedsam(state: Mapping[str, Tensor]) -> Renamed:
    """A checkpoint of Automatic MedSAM's prompt module in `PromptModule`'s names.

    Args:
        state: as its code saves it.

    Raises:
        ValueError: a tensor has a name that it does not use.
    """
    return rename(state, _PROMPT_MODULE, {}, what="checkpoint of Automatic MedSAM's prompt module")
