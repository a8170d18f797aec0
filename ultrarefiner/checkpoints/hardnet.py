"""The layouts of AutoSAM's generator and of the ImageNet files of HarDNet-85 and HarDNet-68."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from ultrarefiner.checkpoints.renaming import Renamed, Table, rename

# Where the published flat list has its blocks and the convolutions after them, as (stage, unit). HarDNet-85 and -68
# share the list up to 1/8; after that no entry means one thing in the one and another in the other.
_BLOCKS = {3: (0, 0), 6: (1, 0), 8: (1, 1), 11: (2, 0), 13: (2, 1), 14: (3, 0), 16: (3, 0)}
_TRANSITIONS = {4: (0, 0), 7: (1, 0), 9: (1, 1), 12: (2, 0), 14: (2, 1), 15: (3, 0), 18: (3, 0)}


def _at(places: Mapping[int, tuple[int, int]], rest: str, prefix: str) -> Callable[[re.Match[str]], str]:
    """A name inside the unit that an entry of the flat list belongs to."""

    def place(match: re.Match[str]) -> str:
        stage, unit = places[int(match["entry"])]
        return f"{prefix}stages.{stage}.{unit}.{match.expand(rest)}"

    return place


def _backbone(published: str, ours: str) -> Table:
    blocks, transitions = ("|".join(map(str, entries)) for entries in (_BLOCKS, _TRANSITIONS))
    return {
        published + r"base\.([01])\.(conv|norm)\.(\w+)": ours + r"stem.\1.\2.\3",
        published + rf"base\.(?P<entry>{blocks})\.layers\.(\d+)\.(conv|norm)\.(\w+)": _at(
            _BLOCKS, r"block.layers.\2.\3.\4", ours
        ),
        published + rf"base\.(?P<entry>{transitions})\.(conv|norm)\.(\w+)": _at(
            _TRANSITIONS, r"transition.\2.\3", ours
        ),
    }


_IMAGENET = _backbone("", "")

_IMAGENET_SURPLUS = {r"base\.(16|19)\.\d\.(weight|bias)": "ImageNet's classifier"}

_AUTOSAM: Table = {
    **_backbone(r"backbone\.", "backbone."),
    r"decoder\.up(?P<step>[1-9])\.(conv[12])\.(\w+)": lambda match: match.expand(
        rf"decoder.steps.{int(match['step']) - 1}.\2.\3"
    ),
    r"decoder\.up(?P<step>[1-9])\.BN\.(\w+)": lambda match: match.expand(
        rf"decoder.steps.{int(match['step']) - 1}.norm.\2"
    ),
    r"decoder\.final\.(conv[12])\.(\w+)": r"decoder.final.\1.\2",
    r"decoder\.final\.BN1\.(\w+)": r"decoder.final.norm.\1",
}

_AUTOSAM_SURPLUS = {
    r"backbone\.base\.((14|16)\.layers|15|18)\..+": "the stage at 1/32, which the published decoder never looks at",
    r"decoder\.final\.BN2\.\w+": "a normalisation that the published code builds and never applies",
}


def rename_autosam(state: Mapping[str, Tensor]) -> Renamed:
    """AutoSAM's prompt generator, on HarDNet-85 or HarDNet-68, in our names.

    Their files hold the pickled module; where their code is at hand, ``torch.save(model.state_dict(), path)`` makes a
    file that can be loaded without it.

    Args:
        state: the state dict of their ``ModelEmb``.

    Raises:
        ValueError: a tensor has a name that they do not use.
    """
    return rename(state, _AUTOSAM, _AUTOSAM_SURPLUS, what="checkpoint of AutoSAM's generator")


def rename_hardnet(state: Mapping[str, Tensor]) -> Renamed:
    """An ImageNet file of HarDNet-85 or HarDNet-68 in our names.

    Args:
        state: as their code saves it.

    Raises:
        ValueError: a tensor has a name that such files do not use.
    """
    return rename(state, _IMAGENET, _IMAGENET_SURPLUS, what="HarDNet checkpoint")
