"""The layouts of TransUNet's and MicroSegNet's checkpoints, and of the ImageNet-21k files they start from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from ultrarefiner.checkpoints.renaming import Renamed, Table, rename


def _in_unit(rest: str) -> Callable[[re.Match[str]], str]:
    """A name inside one unit of the stem; blocks and units are counted from 1 there."""
    return lambda match: f"stem.stages.{int(match['block']) - 1}.{int(match['unit']) - 1}.{match.expand(rest)}"


_STEM = r"transformer\.embeddings\.hybrid_model"
_STEM_UNIT = _STEM + r"\.body\.block(?P<block>[1-9]\d*)\.unit(?P<unit>[1-9]\d*)"
_LAYER = r"transformer\.encoder\.layer\.(\d+)"

_CHECKPOINT: Table = {
    r"transformer\.embeddings\.position_embeddings": "encoder.position_embedding",
    r"transformer\.embeddings\.patch_embeddings\.(\w+)": r"encoder.patch_embedding.\1",
    _STEM + r"\.root\.conv\.weight": "stem.conv.weight",
    _STEM + r"\.root\.gn\.(\w+)": r"stem.norm.\1",
    _STEM_UNIT + r"\.conv(\d)\.weight": _in_unit(r"conv\3.weight"),
    _STEM_UNIT + r"\.gn(\d)\.(\w+)": _in_unit(r"norm\3.\4"),
    _STEM_UNIT + r"\.downsample\.weight": _in_unit("shortcut.0.weight"),
    _STEM_UNIT + r"\.gn_proj\.(\w+)": _in_unit(r"shortcut.1.\3"),
    _LAYER + r"\.attention_norm\.(\w+)": r"encoder.blocks.\1.attention_norm.\2",
    _LAYER + r"\.ffn_norm\.(\w+)": r"encoder.blocks.\1.mlp_norm.\2",
    _LAYER + r"\.ffn\.fc1\.(\w+)": r"encoder.blocks.\1.mlp.0.\2",
    _LAYER + r"\.ffn\.fc2\.(\w+)": r"encoder.blocks.\1.mlp.3.\2",
    _LAYER + r"\.attn\.(query|key|value|out)\.(\w+)": r"encoder.blocks.\1.attention.\2.\3",
    r"transformer\.encoder\.encoder_norm\.(\w+)": r"encoder.norm.\1",
    r"decoder\.conv_more\.(\d)\.(\w+)": r"decoder.bridge.\1.\2",
    r"decoder\.blocks\.(\d)\.conv(\d)\.(\d)\.(\w+)": r"decoder.stages.\1.conv\2.\3.\4",
    r"decoder\.segmentation_head(\d)\.0\.(\w+)": r"side_heads.\1.\2",
    r"segmentation_head\.0\.(\w+)": r"head.\1",
}

_BLOCK = r"Transformer/encoderblock_(\d+)"
_NPZ_UNIT = r"block(?P<block>[1-9]\d*)/unit(?P<unit>[1-9]\d*)"
_KINDS = {"scale": "weight", "kernel": "weight", "bias": "bias"}


def _kind(to: str | Callable[[re.Match[str]], str]) -> Callable[[re.Match[str]], str]:
    """A name, and then what PyTorch calls a scale, a kernel or a bias."""
    return lambda match: f"{to(match) if callable(to) else match.expand(to)}.{_KINDS[match['kind']]}"


_KIND = r"/(?P<kind>scale|kernel|bias)"

_IMAGENET: Table = {
    r"Transformer/posembed_input/pos_embedding": "encoder.position_embedding",
    r"embedding" + _KIND: _kind("encoder.patch_embedding"),
    r"conv_root" + _KIND: _kind("stem.conv"),
    r"gn_root" + _KIND: _kind("stem.norm"),
    _NPZ_UNIT + r"/conv(\d)" + _KIND: _kind(_in_unit(r"conv\3")),
    _NPZ_UNIT + r"/gn(\d)" + _KIND: _kind(_in_unit(r"norm\3")),
    _NPZ_UNIT + r"/conv_proj" + _KIND: _kind(_in_unit("shortcut.0")),
    _NPZ_UNIT + r"/gn_proj" + _KIND: _kind(_in_unit("shortcut.1")),
    _BLOCK + r"/LayerNorm_0" + _KIND: _kind(r"encoder.blocks.\1.attention_norm"),
    _BLOCK + r"/LayerNorm_2" + _KIND: _kind(r"encoder.blocks.\1.mlp_norm"),
    _BLOCK + r"/MlpBlock_3/Dense_0" + _KIND: _kind(r"encoder.blocks.\1.mlp.0"),
    _BLOCK + r"/MlpBlock_3/Dense_1" + _KIND: _kind(r"encoder.blocks.\1.mlp.3"),
    _BLOCK + r"/MultiHeadDotProductAttention_1/(query|key|value|out)" + _KIND: _kind(r"encoder.blocks.\1.attention.\2"),
    r"Transformer/encoder_norm" + _KIND: _kind("encoder.norm"),
}

_IMAGENET_SURPLUS = {
    r"cls": "the class token, which segmentation does without",
    r"head/(kernel|bias)": "ImageNet's classifier",
    r"pre_logits/(kernel|bias)": "a layer before ImageNet's classifier",
}


def rename_transunet(state: Mapping[str, Tensor]) -> Renamed:
    """A checkpoint of TransUNet or MicroSegNet in our names.

    Args:
        state: as their code saves it.

    Raises:
        ValueError: a tensor has a name that they do not use.
    """
    return rename(state, _CHECKPOINT, {}, what="TransUNet or MicroSegNet checkpoint")


def rename_vit_npz(state: Mapping[str, Tensor]) -> Renamed:
    """An ImageNet-21k file of a vision transformer, with or without a ResNet, in our names and PyTorch's order of axes.

    Convolutions come as (height, width, in, out), linear layers as (in, out), attention with its heads as an axis of
    their own, group normalisation as (1, 1, 1, channels).

    Args:
        state: the arrays of the .npz as tensors.

    Raises:
        ValueError: a tensor has a name that such files do not use.
    """
    turned = {name: _turned(name, tensor) for name, tensor in state.items()}
    return rename(turned, _IMAGENET, _IMAGENET_SURPLUS, what="vision transformer's .npz")


def _turned(name: str, tensor: Tensor) -> Tensor:
    """Axes in PyTorch's order."""
    attention = "MultiHead" in name
    if not name.endswith("kernel"):
        return tensor.flatten() if attention or re.fullmatch(r".*gn\w*/(scale|bias)", name) else tensor
    axes = 3 if attention else 2 if "Dense" in name else 4 if re.search(r"conv|embedding", name) else tensor.ndim
    if tensor.ndim != axes:
        message = f"{name} must have {axes} axes, but its shape is {tuple(tensor.shape)}; download the file again."
        raise ValueError(message)
    if attention:
        inputs = 2 if "/out/" in name else 1
        return tensor.flatten(0, inputs - 1).flatten(1).t()
    return tensor.permute(3, 2, 0, 1) if axes == 4 else tensor.t() if axes == 2 else tensor
