"""Small models whose answers are known, and folders to predict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ultrarefiner.sam import build_sam
from ultrarefiner.systems import SAMRefiner, UltraRefiner
from ultrarefiner.types import MaskCandidates, Prompts, Refinement


class Bright(nn.Module):
    """A coarse network that takes what is bright for the lesion, so its mask is known."""

    def __init__(self, masks: int = 1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(40.0))
        self.masks = masks
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return (self.gain * (images.mean(1, keepdim=True) - 0.7)).expand(-1, self.masks, -1, -1)


class Pointwise(SAMRefiner):
    """A refiner that treats all pixels alike: mirrored images give mirrored masks, to the bit."""

    def __init__(self, iou: float = 0.75) -> None:
        super().__init__(build_sam("tiny", image_size=64))
        self.estimate = iou

    def encode(self, images: Tensor, boxes: Tensor | None = None) -> Tensor:
        return images

    def forward(self, images: Any, probability: Tensor, *, embeddings: Tensor, coarse_logits: Tensor, **_: Any) -> Any:
        valid = probability.amax((-2, -1)) >= 0.1
        logits = torch.where(
            valid[..., None, None], 0.5 * coarse_logits + 4 * embeddings.mean(1, keepdim=True) - 3, coarse_logits
        )
        iou = torch.full(valid.shape, self.estimate).where(valid, torch.zeros(()))
        prompts = Prompts(None, None, None, None, valid)
        candidates = MaskCandidates(logits[:, :, None, ::4, ::4], iou[..., None])
        return Refinement(logits, iou, candidates, prompts, None)


@pytest.fixture
def make_model() -> Callable[..., UltraRefiner]:
    """`UltraRefiner` with the bright coarse network; by default with a tiny SAM and a frame of 64."""

    def make(refiner: SAMRefiner | None = None, *, frame: int | None = 64, **options: Any) -> UltraRefiner:
        torch.manual_seed(0)
        refiner = SAMRefiner(build_sam("tiny", image_size=64)) if refiner is None else refiner
        options.setdefault("coarse", Bright())
        return UltraRefiner(refiner=refiner, frame=frame, **options).eval()

    return make


@pytest.fixture
def pointwise() -> type[Pointwise]:
    return Pointwise


@pytest.fixture
def bright() -> type[Bright]:
    return Bright


@pytest.fixture
def draw() -> Callable[..., Path]:
    """Write a picture with one bright rectangle on dark ground: rows 1/4 to 1/2, columns 1/4 to 3/4."""

    def write(path: Path, size: tuple[int, int] = (40, 60), level: int = 250) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rectangle(size, level)).save(path)
        return path

    return write


def rectangle(size: tuple[int, int], level: int = 250) -> np.ndarray:
    height, width = size
    numbers = np.full(size, 5, np.uint8)
    numbers[height // 4 : height // 2, width // 4 : 3 * width // 4] = level
    return numbers
