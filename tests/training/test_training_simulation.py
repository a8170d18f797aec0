"""Phase 2 on simulated failures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from ultrarefiner.data import FittedCase
from ultrarefiner.simulation.simulator import DiceBin, FailureSimulator
from ultrarefiner.systems import UltraRefiner
from ultrarefiner.training import RefinerRecipe, TrainingResult

Ultra = Callable[..., UltraRefiner]
Fit = Callable[..., TrainingResult]


def recipe(ultra: Ultra, **options: Any) -> RefinerRecipe:
    return RefinerRecipe(ultra().refiner, failures=FailureSimulator.preset("mild", **options), augmentation=None)


def test_phase_2_trains_and_remembers_the_simulator(ultra: Ultra, fit: Fit) -> None:
    one = recipe(ultra, complete_share=0.1)
    before = {name: value.clone() for name, value in one.refiner.state_dict().items()}
    result = fit(one, epochs=1)
    assert result.steps == 3
    assert any(not torch.equal(value, before[name]) for name, value in one.refiner.state_dict().items())
    saved = torch.load(result.last, weights_only=True)
    told = json.dumps({name: value for name, value in saved.items() if isinstance(value, (dict, str))}, default=str)
    assert '"complete_share": 0.1' in told
    assert '"edit": {"class": "InternalHoles"' in told


def test_a_resumed_run_needs_the_same_simulator(ultra: Ultra, fit: Fit) -> None:
    fit(recipe(ultra), epochs=1)
    assert fit(recipe(ultra), epochs=1).resumed_from == 3
    with pytest.raises(ValueError, match=r"failures.*complete_share"):
        fit(recipe(ultra, complete_share=0.2), epochs=1)


def test_each_case_of_validation_has_a_failure_of_its_own(ultra: Ultra, cases: Sequence[FittedCase]) -> None:
    """A wanted bin is met in training as in validation."""
    simulator = FailureSimulator(bins=(DiceBin(0.7, 0.8, 1.0),))
    generator = torch.Generator().manual_seed(0)
    masks = torch.stack([case.mask for case in cases])
    damaged = simulator(masks, generator)
    found = (damaged > 0.5).float()
    dice = 2 * (found * masks).sum((1, 2, 3)) / (found.sum((1, 2, 3)) + masks.sum((1, 2, 3)))
    assert ((dice >= 0.7 - 1e-6) & (dice <= 0.8 + 1e-6)).all()
    assert damaged.unique(dim=0).shape == damaged.shape
