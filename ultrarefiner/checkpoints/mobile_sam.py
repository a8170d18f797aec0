"""MobileSAM's checkpoint in this library's names: TinyViT as timm names it, the rest as segment-anything does."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from ultrarefiner.checkpoints.renaming import Renamed, Table, rename

_OURS = "image_encoder.backbone"
_KIND = r"\.(?P<part>c|bn)\.(?P<kind>\w+)"


def _named(match: re.Match[str], place: str) -> str:
    return f"{_OURS}.{place}.{'conv' if match['part'] == 'c' else 'bn'}.{match['kind']}"


def _stem(match: re.Match[str]) -> str:
    return _named(match, f"patch_embed.conv{1 if match['place'] == '0' else 2}")


def _downsample(match: re.Match[str]) -> str:
    """A stage ends with it there; in timm the next one begins with it."""
    return _named(match, f"stages.{int(match['stage']) + 1}.downsample.conv{match['conv']}")


def _block_conv(match: re.Match[str]) -> str:
    return _named(match, f"stages.{match['stage']}.blocks.{match['block']}.{match['conv']}")


_BLOCK = r"image_encoder\.layers\.(?P<stage>[0-3])\.blocks\.(?P<block>\d+)"

_TABLE: Table = {
    r"image_encoder\.patch_embed\.seq\.(?P<place>[02])" + _KIND: _stem,
    r"image_encoder\.layers\.(?P<stage>[0-2])\.downsample\.conv(?P<conv>[123])" + _KIND: _downsample,
    _BLOCK + r"\.(?P<conv>conv[123]|local_conv)" + _KIND: _block_conv,
    _BLOCK + r"\.attn\.attention_biases": rf"{_OURS}.stages.\g<stage>.blocks.\g<block>.attn.attention_biases",
    _BLOCK + r"\.(?P<layer>(?:attn\.(?:norm|qkv|proj)|mlp\.(?:norm|fc1|fc2))\.(?:weight|bias))": (
        rf"{_OURS}.stages.\g<stage>.blocks.\g<block>.\g<layer>"
    ),
    r"(image_encoder\.neck\.[0-3]\.(?:weight|bias))": r"\1",
    r"((?:prompt_encoder|mask_decoder)\..+)": r"\1",
}

_SURPLUS = {
    r"image_encoder\.(norm_head|head)\.(weight|bias)": "TinyViT's classifier, which SAM does without",
    r".+\.attention_bias_idxs": "a table of whole numbers that follows from the size of a window",
    r"pixel_(mean|std)": "a constant of the input policy",
}


def rename_mobile_sam(state: Mapping[str, Tensor]) -> Renamed:
    """MobileSAM's state dict in the names of `build_mobile_sam`.

    Written from MobileSAM's and timm's code and held by a comparison with kornia's MobileSAM, whose names are the
    published ones; the published file itself (``mobile_sam.pt``) was not at hand.

    Args:
        state: as its code saves it.

    Raises:
        ValueError: a tensor has a name that it does not use.
    """
    return rename(state, _TABLE, _SURPLUS, what="MobileSAM checkpoint")
