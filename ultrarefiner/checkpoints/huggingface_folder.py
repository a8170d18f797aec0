"""A SAM as a folder that Hugging Face's `SamModel.from_pretrained` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ultrarefiner.checkpoints.files import Location, replaced_file
from ultrarefiner.checkpoints.huggingface_sam import to_huggingface_sam
from ultrarefiner.checkpoints.pretrained_tensors import state_of

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"


def write_huggingface_sam(sam: nn.Module, folder: Location) -> Path:
    """Write a SAM with a ViT as transformers' `SamModel.from_pretrained` reads it: config.json and model.safetensors.

    Every number of the config is read from the model, the epsilon of the decoder's layer norms included, so that its
    answers are equal there. transformers is not needed. The input policy is not part of such a folder: `SAMInput` is
    what transformers' own processor does; a MedSAM must be fed as `MedSAMInput` feeds it.

    Args:
        sam: from `build_sam`, or segment-anything's own.
        folder: is made if there is none; files of these names in it are replaced.

    Returns:
        The folder.

    Raises:
        ValueError: the folder is a file, or the model is no SAM with a ViT.

    Example:
        >>> import tempfile
        >>> from ultrarefiner.sam import build_sam
        >>> folder = write_huggingface_sam(build_sam("tiny", image_size=64), tempfile.mkdtemp())
        >>> sorted(path.name for path in folder.iterdir())
        ['config.json', 'model.safetensors']

    The layout is that of github.com/huggingface/transformers.
    """
    from safetensors.torch import save

    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        message = f"folder must be a folder, but {folder} is a file; give another name."
        raise ValueError(message)
    # One name for the matrix of positions that has two, as the format does not store a tensor twice.
    tensors, _ = state_of(sam)
    theirs = to_huggingface_sam(tensors)
    del theirs["prompt_encoder.shared_embedding.positional_embedding"]
    text = json.dumps(_config(sam, theirs), indent=2, sort_keys=True)
    with replaced_file(folder / _WEIGHTS) as weights_file, replaced_file(folder / _CONFIG) as config_file:
        weights_file.write(save(theirs, {"format": "pt"}))
        config_file.write(f"{text}\n".encode())
    return folder


def _config(sam: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What SamConfig wants to know, from shapes, and from the modules where shapes do not tell."""
    width, _, patch, _ = tensors["vision_encoder.patch_embed.projection.weight"].shape
    image_size = sam.image_encoder.img_size
    blocks = sam.image_encoder.blocks
    local = [block.window_size for block in blocks if block.window_size]
    layers = sam.mask_decoder.transformer.layers
    attention = layers[0].self_attn
    channels = tensors["mask_decoder.iou_token.weight"].shape[1]
    hidden = tensors["mask_decoder.iou_prediction_head.proj_in.weight"].shape[0]
    return {
        "architectures": ["SamModel"],
        "model_type": "sam",
        "vision_config": {
            "hidden_size": width,
            "output_channels": tensors["vision_encoder.neck.conv1.weight"].shape[0],
            "num_hidden_layers": len(blocks),
            "num_attention_heads": blocks[0].attn.num_heads,
            "num_channels": tensors["vision_encoder.patch_embed.projection.weight"].shape[1],
            "image_size": image_size,
            "patch_size": patch,
            "layer_norm_eps": blocks[0].norm1.eps,
            "mlp_dim": tensors["vision_encoder.layers.0.mlp.lin1.weight"].shape[0],
            "qkv_bias": "vision_encoder.layers.0.attn.qkv.bias" in tensors,
            "use_abs_pos": "vision_encoder.pos_embed" in tensors,
            "use_rel_pos": "vision_encoder.layers.0.attn.rel_pos_h" in tensors,
            "window_size": local[0] if local else 0,
            "global_attn_indexes": [index for index, block in enumerate(blocks) if not block.window_size],
            "num_pos_feats": tensors["shared_image_embedding.positional_embedding"].shape[1],
        },
        "prompt_encoder_config": {
            "hidden_size": channels,
            "image_size": image_size,
            "patch_size": patch,
            "mask_input_channels": tensors["prompt_encoder.mask_embed.conv2.weight"].shape[0],
        },
        "mask_decoder_config": {
            "hidden_size": channels,
            "mlp_dim": tensors["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
            "num_hidden_layers": len(layers),
            "num_attention_heads": attention.num_heads,
            "attention_downsample_rate": channels // layers[0].cross_attn_token_to_image.internal_dim,
            "num_multimask_outputs": tensors["mask_decoder.mask_tokens.weight"].shape[0] - 1,
            "iou_head_depth": sam.mask_decoder.iou_prediction_head.num_layers,
            "iou_head_hidden_dim": hidden,
            "layer_norm_eps": layers[0].norm1.eps,
        },
    }
