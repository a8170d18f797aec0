"""Watchers see each epoch and change nothing; kept checkpoints stay and load."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from ultrarefiner.checkpoints import read_tensors
from ultrarefiner.data import collate
from ultrarefiner.training import Moment, load_coarse


class Looks:
    """Keeps what it was shown, and draws random numbers, and predicts."""

    def __init__(self, batch) -> None:
        self.batch = batch
        self.seen: list[tuple[int, int, float]] = []
        self.masks: list[torch.Tensor] = []

    def __call__(self, moment: Moment) -> None:
        assert (moment.folder / "last.pt").exists()
        assert read_tensors(moment.folder / "last.pt")["progress"]["epoch"] == moment.epoch + 1
        self.seen.append((moment.epoch, moment.epochs, moment.scores.get("dice", -1.0)))
        torch.rand(7)
        found = moment.predict(self.batch)
        assert not found.requires_grad
        self.masks.append(found)


def test_watchers_see_every_epoch_and_change_nothing(coarse, fit, cases, other_cases, tmp_path: Path) -> None:
    batch = collate([other_cases[0], other_cases[1]])
    looks, recipe = Looks(batch), coarse(learning_rate=0.05)
    watched = fit(recipe, epochs=3, validation=other_cases, watchers=[looks], folder=tmp_path / "watched")
    plain = coarse(learning_rate=0.05)
    fit(plain, epochs=3, validation=other_cases, folder=tmp_path / "plain")
    assert [(epoch, epochs) for epoch, epochs, _ in looks.seen] == [(0, 3), (1, 3), (2, 3)]
    assert max(score for _, _, score in looks.seen) == watched.best_dice
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(tensor, recipe.network.state_dict()[name]), name
    with torch.no_grad():
        expected = recipe.predict(batch, [0, 1]).probability
    assert torch.equal(looks.masks[-1], expected)
    assert not torch.equal(looks.masks[0], looks.masks[-1])


def test_a_watcher_that_raises_costs_no_epoch(coarse, fit, tmp_path: Path) -> None:
    class AngryError(Exception):
        pass

    def refuse(moment: Moment) -> None:
        raise AngryError

    with pytest.raises(AngryError):
        fit(coarse(), epochs=2, watchers=[refuse], folder=tmp_path / "run")
    assert read_tensors(tmp_path / "run" / "last.pt")["progress"]["epoch"] == 1
    result = fit(coarse(), epochs=2, folder=tmp_path / "run")
    assert result.resumed_from is not None


def test_kept_checkpoints_stay_and_load(coarse, fit, other_cases, tmp_path: Path) -> None:
    recipe = coarse(learning_rate=0.05)
    looks = Looks(collate([other_cases[0]]))
    fit(recipe, epochs=5, keep_every=2, validation=other_cases, watchers=[looks], folder=tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run").glob("epoch*.pt"))
    assert kept == ["epoch0001.pt", "epoch0003.pt"]
    saved = read_tensors(tmp_path / "run" / "epoch0001.pt")
    assert saved["epoch"] == 1
    assert "optimizer" not in saved
    network: nn.Module = coarse().network
    load_coarse(network, tmp_path / "run" / "epoch0001.pt")
    with torch.no_grad():
        assert torch.equal(network.eval()(looks.batch.images).sigmoid(), looks.masks[1])


def test_numbers_below_one_are_refused(coarse, fit) -> None:
    with pytest.raises(ValueError, match="keep_every must be at least 1 epoch, or None for no such files"):
        fit(coarse(), epochs=1, keep_every=0)
