"""The pair that comes with the package: small, whole, documented, and better than chance on what it has never seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import ultrarefiner
from ultrarefiner.cli.models import DEFAULT_MODEL
from ultrarefiner.data import FittedCases, Phantoms, collate
from ultrarefiner.ops import dice_coefficient
from ultrarefiner.prediction import segment
from ultrarefiner.systems import UltraRefiner, load_pretrained, packaged_models

NAME = "breast-ultrasound-light"
FOLDER = Path(ultrarefiner.__file__).parent / "pretrained" / NAME
BUSI = Path(__file__).parents[3] / "shared/data/busi/Dataset_BUSI_with_GT"


@pytest.fixture(scope="module")
def model() -> UltraRefiner:
    return load_pretrained(NAME)


def test_it_is_what_predict_takes() -> None:
    assert NAME in packaged_models()
    assert DEFAULT_MODEL == NAME


def test_it_is_small_and_in_half_precision() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 25e6
    with safe_open(FOLDER / "model.safetensors", framework="pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys() if "num_batches" not in name}  # noqa: SIM118
    assert kinds == {torch.float16}


def test_the_card_says_what_it_is_not_for() -> None:
    card = (FOLDER / "README.md").read_text()
    for heading in ("## Data", "## Results", "## Failures", "## Not for", "## Licence"):
        assert heading in card
    assert "clinical" in card
    assert "uncertain" in card
    settings = json.loads((FOLDER / "config.json").read_text())
    assert "/" not in str(settings.get("folder", "")), "no path of the machine that trained it"


def test_it_is_ready_to_segment(model: UltraRefiner) -> None:
    assert not model.training
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert model.acceptance is not None
    assert model.gate is not None
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_on_phantoms_it_finds_most_lesions(model: UltraRefiner) -> None:
    """Drawn ultrasound is not what it was trained on; random weights find nothing of it."""
    cases = FittedCases(Phantoms(6, size=(192, 256), seed=5), 256)
    batch = collate([cases[index] for index in range(6)])
    with torch.no_grad():
        out = model(batch.images, batch.content_sizes)
    for probability in (out.coarse_probability, out.refined_probability):
        assert dice_coefficient((probability >= 0.5).float(), batch.masks).mean() > 0.3
    assert not torch.equal(out.coarse_probability, out.refined_probability)


@pytest.mark.parametrize("size", [(1, 1), (300, 200), (64, 1000)])
def test_every_size_comes_back_as_it_was(model: UltraRefiner, size: tuple[int, int]) -> None:
    found = segment(model, torch.rand(1, *size, generator=torch.Generator().manual_seed(0)))
    assert found.mask.shape == (1, *size)
    assert found.refined_probability.isfinite().all()


@pytest.mark.skipif(not BUSI.exists(), reason="BUSI may not be passed on; this looks at images that it was trained on")
def test_it_knows_what_it_was_trained_on(model: UltraRefiner) -> None:
    """Not how good it is (docs/results.md says that), but that these are the trained weights, prepared as in training."""
    from ultrarefiner.data import BUSI as Cases

    cases = Cases(BUSI.parent)
    dice = []
    for index in range(0, len(cases), len(cases) // 8):
        found = segment(model, cases[index].image)
        dice.append(dice_coefficient(found.mask.float()[None], cases[index].mask[None]).item())
    assert sum(dice) / len(dice) > 0.8
