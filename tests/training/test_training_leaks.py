"""Nobody validates on what another phase, or a network behind the coarse masks, was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ultrarefiner.data import (
    CoarsePredictions,
    FittedCases,
    Mixed,
    Phantoms,
    PredictedCases,
    SimulatedFailures,
)
from ultrarefiner.sam import build_sam
from ultrarefiner.simulation import FailureSimulator
from ultrarefiner.systems import SAMRefiner
from ultrarefiner.training import CoarseRecipe, RefinerRecipe, load_coarse, load_refiner, train
from ultrarefiner.training.identity import learnt_names

QUICK = {"epochs": 1, "batch_size": 4, "tensorboard": False, "progress": False}
CASES = FittedCases(Phantoms(4, size=(32, 32)), 32)
OTHERS = FittedCases(Phantoms(2, size=(32, 32), seed=1), 32)


def predicted(cases: FittedCases, trained_on: tuple[str, ...]) -> PredictedCases:
    logits = torch.zeros(len(cases), 1, 16, 16)
    return PredictedCases(
        cases, CoarsePredictions(cases.names, logits, (0,) * len(cases), (trained_on,), "FitToSquare")
    )


def test_a_validation_case_that_is_trained_on_is_refused(tmp_path: Path) -> None:
    recipe = CoarseRecipe(nn.Conv2d(1, 1, 3, padding=1))
    with pytest.raises(ValueError, match=r"no case that is trained on, but 1 of its 1 are, the first is 'phantom 2'"):
        train(recipe, CASES, validation=CASES.subset(["phantom 2"]), folder=tmp_path, **QUICK)
    train(recipe, CASES.subset(["phantom 0"]), validation=CASES.subset(["phantom 2"]), folder=tmp_path, **QUICK)


def test_a_case_that_trained_a_network_behind_the_coarse_masks_is_refused_too(tmp_path: Path) -> None:
    recipe = RefinerRecipe(SAMRefiner(build_sam("tiny", image_size=32)))
    leaky = predicted(CASES, OTHERS.names)
    mixed = Mixed(SimulatedFailures(CASES, FailureSimulator(), samples=8), leaky, share=0.5)
    for dataset in (leaky, mixed):
        assert set(learnt_names(dataset)) == {*CASES.names, *OTHERS.names}
        with pytest.raises(ValueError, match="'phantom 0 of seed 1'"):
            train(recipe, dataset, validation=OTHERS, folder=tmp_path, **QUICK)


def test_only_the_networks_that_predicted_the_cases_at_hand_count() -> None:
    logits = torch.zeros(2, 1, 8, 8)
    both = CoarsePredictions(("phantom 0", "phantom 1"), logits, (0, 1), (("a",), ("b",)), "FitToSquare")
    assert PredictedCases(CASES.subset(["phantom 0"]), both).learnt_from == ("a",)


def test_a_checkpoint_that_saw_an_unseen_case_is_not_loaded(tmp_path: Path) -> None:
    network = nn.Conv2d(1, 1, 3, padding=1)
    coarse = train(CoarseRecipe(network), CASES, folder=tmp_path / "coarse", **QUICK)
    refiner = SAMRefiner(build_sam("tiny", image_size=32))
    second = train(RefinerRecipe(refiner), predicted(CASES, ("behind",)), folder=tmp_path / "refiner", **QUICK)
    load_coarse(network, coarse.best, unseen=[OTHERS, Phantoms(2, seed=1)])
    before = network.weight.detach().clone()
    with torch.no_grad():
        network.weight.add_(1)
    with pytest.raises(ValueError, match=r"was trained on 1 cases that are to be unseen, the first is 'phantom 3'"):
        load_coarse(network, coarse.best, unseen=[OTHERS, CASES.subset(["phantom 3"])])
    assert torch.equal(network.weight, before + 1)  # left as it was
    load_refiner(refiner, second.best, unseen=[OTHERS])
    with pytest.raises(ValueError, match="was trained on 4 cases that are to be unseen"):
        load_refiner(refiner, second.best, unseen=[Phantoms(4)])
