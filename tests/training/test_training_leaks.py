"""Nobody validates on what another phase, or a network behind the coarse masks, was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, Subset

from ultrarefiner.data import (
    CoarsePredictions,
    FittedCases,
    ImageFolder,
    Mixed,
    Phantoms,
    PredictedCases,
    SimulatedFailures,
)
from ultrarefiner.sam import build_sam
from ultrarefiner.simulation import FailureSimulator
from ultrarefiner.systems import AtSize, SAMRefiner
from ultrarefiner.training import CoarseRecipe, RefinerRecipe, load_coarse, load_refiner, predict_cases, train
from ultrarefiner.training.provenance import learnt_names

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


def test_what_earlier_phases_were_trained_on_is_remembered(tmp_path: Path) -> None:
    """A run that starts from loaded weights, or goes on with a trained network, forgets nothing."""
    network = nn.Conv2d(1, 1, 3, padding=1)
    first = train(CoarseRecipe(network), CASES, folder=tmp_path / "first", **QUICK)
    later = FittedCases(Phantoms(3, size=(32, 32), seed=2), 32)
    with pytest.raises(ValueError, match="validation must hold no case that is trained on"):
        train(CoarseRecipe(network), later, validation=CASES, folder=tmp_path / "same network", **QUICK)
    loaded = nn.Conv2d(1, 1, 3, padding=1)
    load_coarse(loaded, first.best)
    with pytest.raises(ValueError, match="validation must hold no case that is trained on"):
        train(CoarseRecipe(loaded), later, validation=CASES, folder=tmp_path / "loaded", **QUICK)
    second = train(CoarseRecipe(loaded), later, folder=tmp_path / "second", **QUICK)
    with pytest.raises(ValueError, match="was trained on 4 cases that are to be unseen"):
        load_coarse(nn.Conv2d(1, 1, 3, padding=1), second.best, unseen=[CASES])
    assert "_learnt_from" not in loaded.state_dict()


def test_a_check_that_was_asked_for_does_not_pass_because_nobody_knows(tmp_path: Path) -> None:
    network = nn.Conv2d(1, 1, 3, padding=1)
    result = train(CoarseRecipe(network), CASES, folder=tmp_path, **QUICK)
    with pytest.raises(ValueError, match="unseen must hold data sets that have names, but one is a _Nameless"):
        load_coarse(network, result.best, unseen=[_Nameless()])
    saved = torch.load(result.last, weights_only=True)
    del saved["learnt_from"]
    torch.save(saved, tmp_path / "old.pt")
    with pytest.raises(ValueError, match=r"unseen cannot be checked: .* does not say what it was trained on"):
        load_coarse(network, tmp_path / "old.pt", unseen=[OTHERS])
    load_coarse(network, tmp_path / "old.pt")


class _Nameless:
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> object:
        return CASES[index]


def test_subsets_and_concatenations_hide_no_names() -> None:
    leaky = predicted(CASES, ("behind",))
    assert "behind" in learnt_names(Subset(leaky, [0]))
    both = ConcatDataset([Subset(leaky, [0]), OTHERS])
    assert set(learnt_names(both)) == {"phantom 0", "behind", *OTHERS.names}


def folder(place: Path, groups: dict[str, str] | None = None) -> ImageFolder:
    (place / "images").mkdir(parents=True, exist_ok=True)
    (place / "masks").mkdir(exist_ok=True)
    for name in ("000", "001", "002"):
        Image.new("L", (32, 32), 90).save(place / "images" / f"{name}.png")
        Image.new("L", (32, 32), 255).save(place / "masks" / f"{name}.png")
    return ImageFolder(place / "images", place / "masks", group=None if groups is None else groups.__getitem__)


def test_two_folders_may_have_files_of_the_same_name(tmp_path: Path) -> None:
    training, validation = (FittedCases(folder(tmp_path / name), 32) for name in ("train", "val"))
    recipe = CoarseRecipe(nn.Conv2d(1, 1, 3, padding=1))
    train(recipe, training, validation=validation, folder=tmp_path / "run", **QUICK)
    again = FittedCases(folder(tmp_path / "train"), 32)
    with pytest.raises(ValueError, match="but 3 of its 3 are, the first is '000'"):
        train(recipe, training, validation=again, folder=tmp_path / "other", **QUICK)


def test_a_patient_in_both_is_refused(tmp_path: Path) -> None:
    cases = folder(tmp_path, {"000": "p1", "001": "p1", "002": "p2"})
    one, twin, other = (FittedCases(cases.subset([name]), 32) for name in ("000", "001", "002"))
    recipe = CoarseRecipe(nn.Conv2d(1, 1, 3, padding=1))
    with pytest.raises(ValueError, match="no case of a group that is trained on, but 1 are, the first is '001' of the"):
        train(recipe, one, validation=twin, folder=tmp_path / "run", **QUICK)
    train(recipe, one, validation=other, folder=tmp_path / "run", **QUICK)


def test_a_wrapped_or_reused_network_forgets_nothing(tmp_path: Path) -> None:
    network = nn.Conv2d(1, 1, 3, padding=1)
    train(CoarseRecipe(network), CASES, folder=tmp_path / "first", **QUICK)
    with pytest.raises(ValueError, match="validation must hold no case that is trained on"):
        train(CoarseRecipe(AtSize(network, 16)), OTHERS, validation=CASES, folder=tmp_path / "second", **QUICK)


def test_a_resumed_run_remembers_what_its_first_half_started_from(tmp_path: Path) -> None:
    network = nn.Conv2d(1, 1, 3, padding=1)
    first = train(CoarseRecipe(network), CASES, folder=tmp_path / "first", **QUICK)
    begun = nn.Conv2d(1, 1, 3, padding=1)
    load_coarse(begun, first.best)
    train(CoarseRecipe(begun), OTHERS, folder=tmp_path / "second", **QUICK)
    result = train(
        CoarseRecipe(nn.Conv2d(1, 1, 3, padding=1)), OTHERS, folder=tmp_path / "second", **QUICK
    )  # is done: nothing is trained
    saved = torch.load(result.last, weights_only=True)
    assert set(saved["learnt_from"]) == {*CASES.names, *OTHERS.names}


def test_cases_without_names_are_not_taken_for_no_cases(tmp_path: Path) -> None:
    network = nn.Conv2d(1, 1, 3, padding=1)
    result = train(CoarseRecipe(network), _Nameless(), folder=tmp_path, **QUICK)
    with pytest.raises(ValueError, match="does not say what it was trained on"):
        load_coarse(network, result.best, unseen=[CASES])
    with pytest.raises(ValueError, match="it does not remember any"):
        predict_cases(network, CASES, progress=False)
