"""SAM in the names of Hugging Face's transformers (`SamModel`), and back. transformers itself is not needed."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ultrarefiner.checkpoints.renaming import Renamed

_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_SHARED = "shared_image_embedding.positional_embedding"
_TIED = "prompt_encoder.shared_embedding.positional_embedding"

_PARTS: tuple[tuple[str, str], ...] = (
    # segment-anything's, transformers'; {0} is a number that both keep, {w} the kind of a tensor.
    ("image_encoder.pos_embed", "vision_encoder.pos_embed"),
    ("image_encoder.patch_embed.proj.{w}", "vision_encoder.patch_embed.projection.{w}"),
    ("image_encoder.blocks.{0}.norm1.{w}", "vision_encoder.layers.{0}.layer_norm1.{w}"),
    ("image_encoder.blocks.{0}.norm2.{w}", "vision_encoder.layers.{0}.layer_norm2.{w}"),
    ("image_encoder.blocks.{0}.attn.qkv.{w}", "vision_encoder.layers.{0}.attn.qkv.{w}"),
    ("image_encoder.blocks.{0}.attn.proj.{w}", "vision_encoder.layers.{0}.attn.proj.{w}"),
    ("image_encoder.blocks.{0}.attn.rel_pos_h", "vision_encoder.layers.{0}.attn.rel_pos_h"),
    ("image_encoder.blocks.{0}.attn.rel_pos_w", "vision_encoder.layers.{0}.attn.rel_pos_w"),
    ("image_encoder.blocks.{0}.mlp.lin1.{w}", "vision_encoder.layers.{0}.mlp.lin1.{w}"),
    ("image_encoder.blocks.{0}.mlp.lin2.{w}", "vision_encoder.layers.{0}.mlp.lin2.{w}"),
    ("image_encoder.neck.0.{w}", "vision_encoder.neck.conv1.{w}"),
    ("image_encoder.neck.1.{w}", "vision_encoder.neck.layer_norm1.{w}"),
    ("image_encoder.neck.2.{w}", "vision_encoder.neck.conv2.{w}"),
    ("image_encoder.neck.3.{w}", "vision_encoder.neck.layer_norm2.{w}"),
    (_POSITIONS, _SHARED),
    ("prompt_encoder.point_embeddings.{0}.{w}", "prompt_encoder.point_embed.{0}.{w}"),
    ("prompt_encoder.not_a_point_embed.{w}", "prompt_encoder.not_a_point_embed.{w}"),
    ("prompt_encoder.no_mask_embed.{w}", "prompt_encoder.no_mask_embed.{w}"),
    ("prompt_encoder.mask_downscaling.0.{w}", "prompt_encoder.mask_embed.conv1.{w}"),
    ("prompt_encoder.mask_downscaling.1.{w}", "prompt_encoder.mask_embed.layer_norm1.{w}"),
    ("prompt_encoder.mask_downscaling.3.{w}", "prompt_encoder.mask_embed.conv2.{w}"),
    ("prompt_encoder.mask_downscaling.4.{w}", "prompt_encoder.mask_embed.layer_norm2.{w}"),
    ("prompt_encoder.mask_downscaling.6.{w}", "prompt_encoder.mask_embed.conv3.{w}"),
    ("mask_decoder.iou_token.{w}", "mask_decoder.iou_token.{w}"),
    ("mask_decoder.mask_tokens.{w}", "mask_decoder.mask_tokens.{w}"),
    ("mask_decoder.transformer.layers.{0}.{a}.{w}", "mask_decoder.transformer.layers.{0}.{a}.{w}"),
    ("mask_decoder.transformer.layers.{0}.norm{1}.{w}", "mask_decoder.transformer.layers.{0}.layer_norm{1}.{w}"),
    ("mask_decoder.transformer.layers.{0}.mlp.lin1.{w}", "mask_decoder.transformer.layers.{0}.mlp.lin1.{w}"),
    ("mask_decoder.transformer.layers.{0}.mlp.lin2.{w}", "mask_decoder.transformer.layers.{0}.mlp.lin2.{w}"),
    (
        "mask_decoder.transformer.final_attn_token_to_image.{p}.{w}",
        "mask_decoder.transformer.final_attn_token_to_image.{p}.{w}",
    ),
    ("mask_decoder.transformer.norm_final_attn.{w}", "mask_decoder.transformer.layer_norm_final_attn.{w}"),
    ("mask_decoder.output_upscaling.0.{w}", "mask_decoder.upscale_conv1.{w}"),
    ("mask_decoder.output_upscaling.1.{w}", "mask_decoder.upscale_layer_norm.{w}"),
    ("mask_decoder.output_upscaling.3.{w}", "mask_decoder.upscale_conv2.{w}"),
)
_KINDS = {
    "{0}": r"(\d+)",
    "{1}": r"(\d)",
    "{w}": "(weight|bias)",
    "{p}": "([qkv]_proj|out_proj)",
    "{a}": r"((?:self_attn|cross_attn_token_to_image|cross_attn_image_to_token)\.(?:[qkv]|out)_proj)",
}

_HEAD = r"(mask_decoder\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+))"
_THEIR_LAYER = re.compile(_HEAD + r"\.(proj_in|proj_out|layers\.(\d+))\.(weight|bias)")
_OUR_LAYER = re.compile(_HEAD + r"\.layers\.(\d+)\.(weight|bias)")


def _pattern(template: str) -> re.Pattern[str]:
    pattern = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    for field, kind in _KINDS.items():
        pattern = pattern.replace(field, kind)
    return re.compile(pattern)


def _replacement(template: str) -> str:
    """The groups of a pattern in their order; both names of a pair have the same ones."""
    fields = re.findall(r"\{\w\}", template)
    for number, field in enumerate(fields, 1):
        template = template.replace(field, rf"\g<{number}>", 1)
    return template


_TO_OURS = tuple((_pattern(theirs), _replacement(ours)) for ours, theirs in _PARTS)
_TO_THEIRS = tuple((_pattern(ours), _replacement(theirs)) for ours, theirs in _PARTS)


def rename_huggingface_sam(state: Mapping[str, Tensor]) -> Renamed:
    """A `SamModel`'s state dict in segment-anything's names, which are ours.

    Queries, keys and values of the image encoder are one tensor there as here. The random matrix of the positional
    encoding has two names there, one for the image's raster and one for prompts; transformers ties the two, so a file
    holds either or both.

    Args:
        state: as transformers saves it.

    Returns:
        Tensors by our names; the second name of the matrix is left out.

    Raises:
        ValueError: a tensor has a name that `SamModel` does not use, or the two copies of the matrix differ.
    """
    state = dict(state)
    left_out: dict[str, str] = {}
    if _TIED in state:
        tied = state.pop(_TIED)
        if _SHARED in state:
            if not torch.equal(tied, state[_SHARED]):
                message = (
                    f"{_SHARED} and {_TIED} must be one tensor, as transformers ties them, but they differ; SAM has "
                    "one positional encoding for images and prompts. Save the model with its weights tied."
                )
                raise ValueError(message)
            left_out[_TIED] = f"the same tensor as {_SHARED}"
        else:
            state[_SHARED] = tied
    layers = _middle_layers(state)
    renamed = {name: _matched(name, _TO_OURS) or _our_layer(name, layers) for name in state}
    _refuse_unknown(renamed, "SamModel of transformers")
    return Renamed({str(renamed[name]): tensor for name, tensor in state.items()}, left_out)


def to_huggingface_sam(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A SAM's state dict in the names of Hugging Face's `SamModel`: the way back of ``layout="huggingface_sam"``.

    The result fits ``SamModel(config).load_state_dict``, strictly; `write_huggingface_sam` writes the config too. One
    number is in no tensor: the epsilon of the decoder's layer norms, 1e-5 in segment-anything and 1e-6 in a
    `SamMaskDecoderConfig` that does not say otherwise, which moves logits in the fifth digit or so.

    Args:
        state_dict: of a `SAM` of ViT layout (`build_sam`), or segment-anything's own.

    Returns:
        The same tensors, not copied; that of the positional encoding under both of its names.

    Raises:
        ValueError: a tensor has a name that a SAM with a ViT does not use: a light encoder has no counterpart there.

    Example:
        >>> from ultrarefiner.sam import build_sam
        >>> state = build_sam("tiny", image_size=64).state_dict()
        >>> theirs = to_huggingface_sam(state)
        >>> "vision_encoder.layers.0.attn.qkv.weight" in theirs, len(theirs) - len(state)
        (True, 1)

    The names are those of github.com/huggingface/transformers.
    """
    last: dict[str, int] = {}
    for name in state_dict:
        if match := _OUR_LAYER.fullmatch(name):
            last[match[1]] = max(last.get(match[1], 0), int(match[2]))
    renamed = {name: _their_layer(name, last) or _matched(name, _TO_THEIRS) for name in state_dict}
    _refuse_unknown(renamed, "SAM with a ViT")
    theirs = {str(renamed[name]): tensor for name, tensor in state_dict.items()}
    if _SHARED in theirs:
        theirs[_TIED] = theirs[_SHARED]
    return theirs


def _matched(name: str, table: tuple[tuple[re.Pattern[str], str], ...]) -> str | None:
    return next((match.expand(to) for pattern, to in table if (match := pattern.fullmatch(name))), None)


def _middle_layers(state: Mapping[str, Tensor]) -> dict[str, int]:
    """How many layers each small MLP of the decoder has between its first and its last."""
    found: dict[str, int] = {}
    for name in state:
        if (match := _THEIR_LAYER.fullmatch(name)) and match[3]:
            found[match[1]] = max(found.get(match[1], 0), int(match[3]) + 1)
    return found


def _our_layer(name: str, middle: Mapping[str, int]) -> str | None:
    """Layers of the decoder's small MLPs: one row of numbers here, a first, middle ones and a last there."""
    match = _THEIR_LAYER.fullmatch(name)
    if match is None:
        return None
    head, which, number, kind = match.groups()
    place = 0 if which == "proj_in" else middle.get(head, 0) + 1 if which == "proj_out" else int(number) + 1
    return f"{head}.layers.{place}.{kind}"


def _their_layer(name: str, last: Mapping[str, int]) -> str | None:
    match = _OUR_LAYER.fullmatch(name)
    if match is None:
        return None
    head, place, kind = match[1], int(match[2]), match[3]
    which = "proj_in" if place == 0 else "proj_out" if place == last[head] else f"layers.{place - 1}"
    return f"{head}.{which}.{kind}"


def _refuse_unknown(renamed: Mapping[str, str | None], what: str) -> None:
    unknown = sorted(name for name, new in renamed.items() if new is None)
    if unknown:
        message = (
            f"{len(unknown)} of {len(renamed)} tensors have no place in a {what} ({', '.join(unknown[:3])}"
            f"{', …' if len(unknown) > 3 else ''}); name the layout that the file has."
        )
        raise ValueError(message)
