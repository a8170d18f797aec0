"""The light pair: its table tells what the packed model does, and no stage builds on half a run."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from ultrarefiner.data import FittedCases, Phantoms
from ultrarefiner.evaluation import segmentation_metrics
from ultrarefiner.refinement import AcceptanceRule
from ultrarefiner.training import CoarseRecipe, Moment, train

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("iou", [0.0, 0.29, 0.31, 0.9])
@pytest.mark.parametrize("peak", [0.2, 0.9])
def test_the_mask_that_is_measured_is_the_one_that_the_rule_keeps(
    iou: float, peak: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    results = importlib.import_module("light_pair_results")
    coarse, refined = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    coarse[..., 2:5, 2:5], refined[..., 2:6, 2:6] = peak, 0.8  # a peak of 0.2 is a prompt, and no mask
    target = refined[0] >= 0.5
    both = [segmentation_metrics(mask[0] >= 0.5, target) for mask in (coarse, refined)]
    measured = results.Measured("a", "a", *both, iou=iou)
    taken = bool(AcceptanceRule(minimum_iou=0.3)(coarse, refined, torch.tensor([[iou]])))
    assert measured.kept(0.3) is (measured.refined if taken else measured.coarse)
    assert measured.kept(-1.0) is measured.refined


def test_a_run_that_was_broken_off_is_no_finished_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    stages = importlib.import_module("light_pair")

    def stop(moment: Moment) -> None:
        raise KeyboardInterrupt

    def begin(**watching: object) -> None:
        recipe = CoarseRecipe(nn.Conv2d(1, 1, 1), augmentation=None)
        cases = FittedCases(Phantoms(2, size=(32, 32)), 32)
        train(recipe, cases, folder=tmp_path, epochs=2, batch_size=2, accelerator="cpu", tensorboard=False, **watching)

    with pytest.raises(SystemExit, match=r"there is no last\.pt; train that stage first"):
        stages.finished(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        begin(watchers=(stop,))
    with pytest.raises(SystemExit, match="must hold a finished run, but 1 of its 2 epochs are done; give that stage's"):
        stages.finished(tmp_path)
    begin()
    assert stages.finished(tmp_path) == tmp_path / "last.pt"


def test_how_well_the_estimate_tells_lesions_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    results = importlib.import_module("light_pair_results")
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:5] = True
    kinds = {there: [segmentation_metrics(mask, mask & there)] * 2 for there in (True, False)}
    rows = [
        results.Measured("a", "a", *kinds[there], iou=iou)
        for there, iou in ((True, 0.9), (True, 0.5), (True, 0.2), (False, 0.3), (False, 0.1))
    ]
    told = results._told_apart(rows, 0.4)
    assert "of 0.833; below 0.4 are 1 of 3 with and 2 of 2 without" in told  # 5 of 6 pairs
    assert results._told_apart(rows[:3], 0.4) == ""
