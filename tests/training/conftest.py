"""Small things to train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ultrarefiner.data import FittedCase
from ultrarefiner.sam import build_sam
from ultrarefiner.systems import SAMRefiner, UltraRefiner
from ultrarefiner.training import CoarseRecipe, TrainingResult, train


class SmallNetwork(nn.Module):
    """Batch norm and dropout in two named parts."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.2)
        )
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, images):
        return self.head(self.encoder(images))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are too small to gain from a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def disc(index: int, height: int) -> FittedCase:
    """A bright disc in noise, in the upper part of a square of 32."""
    generator = torch.Generator().manual_seed(index)
    x, y, radius = (
        torch.rand(3, generator=generator) * torch.tensor([16, height - 16, 3]) + torch.tensor([8, 8, 4])
    ).tolist()
    rows, columns = torch.arange(32)[:, None], torch.arange(32)
    mask = ((rows - y).square() + (columns - x).square() < radius**2).float()[None]
    image = (0.6 * mask + 0.3 * torch.rand(1, 32, 32, generator=generator)) * (rows < height)
    return FittedCase(f"disc {index}", image, mask, (height, 32), (height, 32))


@pytest.fixture(scope="session")
def cases() -> list[FittedCase]:
    return [disc(index, 32) for index in range(6)]


@pytest.fixture(scope="session")
def other_cases() -> list[FittedCase]:
    return [disc(index, 24) for index in range(6, 9)]


@pytest.fixture
def network() -> Callable[..., SmallNetwork]:
    """Networks that all start with the same weights."""

    def build(**options: Any) -> SmallNetwork:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return SmallNetwork(**options)

    return build


@pytest.fixture
def coarse(network: Callable[..., SmallNetwork]) -> Callable[..., CoarseRecipe]:
    """Recipes that all start with the same weights."""

    def build(**options: Any) -> CoarseRecipe:
        return CoarseRecipe(network(), **{"learning_rate": 0.01, "augmentation": None, **options})

    return build


@pytest.fixture
def ultra(network: Callable[..., SmallNetwork]) -> Callable[..., UltraRefiner]:
    """Tiny models, all with the same weights."""

    def build(**options: Any) -> UltraRefiner:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            refiner = SAMRefiner(build_sam("tiny", image_size=64))
        return UltraRefiner(coarse=network(), refiner=refiner, **options)

    return build


@pytest.fixture
def fit(cases: list[FittedCase], tmp_path: Path) -> Callable[..., TrainingResult]:
    """`train` with few epochs, on the CPU, without TensorBoard."""

    def run(recipe: Any, **options: Any) -> TrainingResult:
        defaults = {
            "folder": tmp_path / "run",
            "epochs": 2,
            "batch_size": 2,
            "accelerator": "cpu",
            "tensorboard": False,
        }
        chosen = {**defaults, **options}
        return train(recipe, chosen.pop("dataset", cases), **chosen)

    return run
