"""Watchers see each epoch and change nothing; kept checkpoints stay and load."""

from __future__ import annotations

import json
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


def test_a_watcher_that_raises_ends_nothing_and_is_reported(coarse, fit, other_cases, tmp_path: Path, caplog) -> None:
    told: list[str] = []

    def refuse(moment: Moment) -> None:
        told.append("refuse")
        if moment.epoch == 1:
            message = "the disk is full"
            raise OSError(message)

    def follow(moment: Moment) -> None:
        told.append(f"follow {moment.epoch}")

    options = {"epochs": 3, "validation": other_cases}
    recipe, plain = coarse(), coarse()
    result = fit(recipe, watchers=[refuse, follow], folder=tmp_path / "run", **options)
    fit(plain, folder=tmp_path / "plain", **options)
    assert (result.steps, read_tensors(result.last)["progress"]["epoch"]) == (9, 3)
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(tensor, recipe.network.state_dict()[name]), name
    assert told == ["refuse", "follow 0", "refuse", "follow 1", "refuse", "follow 2"]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("ultrarefiner", "ERROR")
    assert "refuse failed after 2 of 3 epochs; the training goes on" in record.getMessage()
    assert "the disk is full" in caplog.text
    assert "Traceback" in caplog.text


def test_an_interrupt_in_a_watcher_passes(coarse, fit, caplog) -> None:
    def interrupt(moment: Moment) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(coarse(), watchers=[interrupt])
    assert not caplog.records


class Killed(BaseException):
    """Ends the run within a watcher, as a kill would."""


@pytest.mark.parametrize("epoch", [0, 1, 2])
@pytest.mark.parametrize("validated", [True, False])
def test_watchers_that_did_not_finish_are_told_once_more(
    coarse, fit, other_cases, tmp_path: Path, epoch: int, validated: bool
) -> None:
    """Killed among the watchers of each epoch in turn, also of the last, and killed there again."""
    options = {"epochs": 3, "validation": other_cases if validated else None, "keep_every": None}
    batch = collate([other_cases[0]])
    whole = Looks(batch)
    fit(coarse(learning_rate=0.05), watchers=[whole], folder=tmp_path / "whole", **options)

    def kill(moment: Moment) -> None:
        if moment.epoch == epoch:
            raise Killed

    looks = Looks(batch)
    for _ in range(2):
        with pytest.raises(Killed):
            fit(coarse(learning_rate=0.05), watchers=[kill, looks], **options)
    fit(coarse(learning_rate=0.05), watchers=[looks], **options)
    assert looks.seen == whole.seen, "each epoch once, with the scores of its validation"
    assert all(torch.equal(one, other) for one, other in zip(looks.masks, whole.masks, strict=True))
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (tmp_path / "whole" / "metrics.csv").read_bytes()


def test_a_finished_run_tells_of_its_last_epoch_again(coarse, fit, other_cases) -> None:
    first, again = (Looks(collate([other_cases[0]])) for _ in range(2))
    fit(coarse(), watchers=[first], validation=other_cases)
    fit(coarse(), watchers=[again], validation=other_cases)
    assert again.seen == first.seen[-1:]
    assert torch.equal(again.masks[0], first.masks[-1])


def test_within_an_epoch_the_last_one_is_not_told_again(coarse, fit, cases) -> None:
    """The model has moved on since."""

    class Unplugged(list):
        left = 10  # cases: after the first step of the second epoch

        def __getitem__(self, index):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return super().__getitem__(index)

    with pytest.raises(Killed):
        fit(coarse(), dataset=Unplugged(cases), checkpoint_every=1)
    told: list[int] = []
    assert fit(coarse(), watchers=[lambda moment: told.append(moment.epoch)]).resumed_from == 5
    assert told == [1]


def test_the_score_has_a_name(coarse, fit, tmp_path: Path) -> None:
    class Boxed(type(coarse())):
        @property
        def score_name(self) -> str:
            return "Dice of boxes"

    names: list[str] = []
    result = fit(coarse(), watchers=[lambda moment: names.append(moment.score_name)])
    assert json.loads((result.folder / "run.json").read_text()) == {"score_name": "Dice"}
    boxed = Boxed(coarse().network, augmentation=None)
    other = fit(boxed, watchers=[lambda moment: names.append(moment.score_name)], folder=tmp_path / "boxed")
    assert json.loads((other.folder / "run.json").read_text()) == {"score_name": "Dice of boxes"}
    assert (result.score_name, other.score_name) == ("Dice", "Dice of boxes")
    assert names == ["Dice", "Dice", "Dice of boxes", "Dice of boxes"]


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
