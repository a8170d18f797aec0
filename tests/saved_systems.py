"""Small systems to save and load, and ways to tamper with what was saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ultrarefiner as ur
from ultrarefiner.checkpoints.pretrained_config import pair_digest


class Plain(nn.Module):
    """A coarse network of a user's own."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.Conv2d(width, 1, 3, padding=1)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def tiny_sam(seed: int = 0, **options: Any) -> ur.SAM:
    torch.manual_seed(seed)
    return ur.build_sam("tiny", **{"image_size": 64, **options})


def light_unet(**options: Any) -> ur.BackboneUNet:
    return ur.BackboneUNet("tf_efficientnet_lite0", decoder_channels=(16, 8, 8, 8, 8), **options)


def tiny_transunet(**options: Any) -> ur.AtSize:
    return ur.AtSize(ur.build_transunet("tiny", image_size=32, **options), 32)


def tiny_refiner(**options: Any) -> ur.SAMRefiner:
    return ur.SAMRefiner(tiny_sam(), **options)


def stirred(model: nn.Module) -> nn.Module:
    """With statistics and counters that are not those of a fresh model."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif name.endswith("num_batches_tracked"):
                buffer.fill_(7)
    return model.eval()


def images(seed: int = 1) -> Tensor:
    return torch.rand(2, 1, 48, 56, generator=torch.Generator().manual_seed(seed))


def edit_config(folder: Path, change: Callable[[dict[str, Any]], None], *, honest: bool = True) -> None:
    """Change config.json by hand; honest renews the digest, as a person who knows the format could."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    if honest:
        weights = (folder / "model.safetensors").read_bytes()
        config["digest"] = pair_digest(config["system"], config["settings"], [weights])
    path.write_text(json.dumps(config))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None], *, honest: bool = True) -> None:
    """Change model.safetensors by hand; honest renews count and digest."""
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)
    if honest:
        edit_config(folder, lambda config: config.update(tensors=len(tensors)))
