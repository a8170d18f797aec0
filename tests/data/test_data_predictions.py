"""Stored predictions: no network predicts what trained it, and phase 2 sees the masks that phase 3 will see."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ultrarefiner.checkpoints import write_tensors
from ultrarefiner.data import CoarsePredictions, FittedCases, Phantoms, PredictedCases, StretchToSquare, collate
from ultrarefiner.sam import build_sam
from ultrarefiner.systems import AtSize, SAMRefiner, UltraRefiner
from ultrarefiner.training.out_of_fold import predict_cases
from ultrarefiner.types import MultiScaleLogits


def stored(names: str = "abc", *, side: int = 8, trained_on: tuple[str, ...] = ("x", "y"), seed: int = 0) -> Any:
    logits = 4 * torch.randn(len(names), 1, side, side, generator=torch.Generator().manual_seed(seed))
    return CoarsePredictions(tuple(names), logits, (0,) * len(names), (trained_on,), "FitToSquare")


def test_logits_are_small_numbers_that_stay_finite() -> None:
    given = torch.tensor([-1e9, -3.1, 0.0, 70000.0]).reshape(1, 1, 2, 2)
    made = CoarsePredictions(("a",), given, (0,), ((),), "FitToSquare")
    assert made.logits.dtype == torch.float16
    torch.testing.assert_close(made.logits.float(), given.clamp(-30, 30), rtol=2**-11, atol=0)
    assert len(made) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"names": ("a", "b", "a")}, r"3 names \(2 different\), 3 masks and 3 networks"),
        ({"names": ("a", "b")}, r"2 names \(2 different\), 3 masks and 3 networks"),
        ({"networks": (0, 0)}, r"3 names \(3 different\), 3 masks and 2 networks"),
        ({"networks": (0, 1, 0)}, r"indices into the 1 entries of trained_on, but they are up to 1"),
        ({"networks": (0, -1, 0)}, r"indices into the 1 entries of trained_on"),
        (
            {"trained_on": (("x", "c", "b"),)},
            r"no network may predict a case that it was trained on, but 2 are so predicted, the first is 'b'",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(stored(), **changes)


def test_chosen_in_any_order() -> None:
    made = stored().of(["c", "a"])
    assert made.names == ("c", "a")
    assert torch.equal(made.logits, stored().logits[[2, 0]])
    assert made.trained_on == stored().trained_on
    with pytest.raises(ValueError, match=r"2 of 3 cases have no stored prediction, the first is 'e'"):
        made.of(["a", "e", "b"])


def test_joined_each_keeps_its_network() -> None:
    one, other = stored("ab", trained_on=("c", "d")), stored("cd", trained_on=("a", "b"), seed=1)
    both = one.joined(other)
    assert both.names == tuple("abcd")
    assert both.networks == (0, 0, 1, 1)
    assert [both.trained_on[network] for network in both.networks] == [("c", "d")] * 2 + [("a", "b")] * 2
    assert torch.equal(both.logits, torch.cat([one.logits, other.logits]))
    three = both.joined(stored("ef", seed=2))
    assert three.of("ec").networks == (2, 1)
    assert one.joined().names == one.names
    with pytest.raises(
        ValueError, match=r"predictions must be of one fit and size to be joined, but they are of \[.*4"
    ):
        one.joined(stored("cd", side=4))
    with pytest.raises(ValueError, match=r"one fit and size"):
        one.joined(dataclasses.replace(other, fit="StretchToSquare"))
    with pytest.raises(ValueError, match=r"3 names \(2 different\)"):
        one.joined(stored("b"))


def test_saved_and_loaded(tmp_path: Path) -> None:
    made = stored().joined(stored("de", trained_on=()))
    made.save(tmp_path / "deep" / "predictions.pt")
    again = CoarsePredictions.load(tmp_path / "deep" / "predictions.pt")
    assert torch.equal(again.logits, made.logits)
    for field in ("names", "networks", "trained_on", "fit"):
        assert getattr(again, field) == getattr(made, field)
    write_tensors(tmp_path / "other.pt", {"model": {}, "plan": {}})
    with pytest.raises(ValueError, match=r"other.pt must be a file of coarse predictions, but it holds model, plan"):
        CoarsePredictions.load(tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match=r"none.pt"):
        CoarsePredictions.load(tmp_path / "none.pt")


class Coarse(nn.Module):
    """A convolution at full or half resolution, with a side head or without."""

    def __init__(self, *, stride: int = 1, sides: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.head = nn.Conv2d(1, 1, 5, padding=2, stride=stride)
        with torch.no_grad():
            self.head.weight.mul_(20)
        self.sides = sides

    def forward(self, images: Tensor) -> Tensor | MultiScaleLogits:
        logits: Tensor = self.head(images - 0.3)
        return MultiScaleLogits(logits, (logits[..., ::2, ::2],)) if self.sides else logits


@pytest.mark.parametrize(
    "network",
    [AtSize(Coarse(), 16), AtSize(Coarse(), 48), AtSize(Coarse(stride=2, sides=True), 32), Coarse(), Coarse(stride=2)],
    ids=["smaller", "larger", "half, with sides", "as it is", "half"],
)
def test_the_masks_are_those_of_phase_3(network: nn.Module) -> None:
    fitted = FittedCases(Phantoms(3, size=(40, 52)), 33)
    made = predict_cases(network, fitted, trained_on=["another"], batch_size=2, progress=False)
    assert made.trained_on == (("another",),)
    data = PredictedCases(fitted, made)
    batch = collate([data[index] for index in range(3)])
    model = UltraRefiner(coarse=network, refiner=SAMRefiner(build_sam("tiny", image_size=64))).eval()
    with torch.no_grad():
        result = model(batch.images, batch.content_sizes)
    assert batch.coarse_probability is not None
    assert result.coarse_probability.std() > 0.05
    float16 = result.coarse_logits.abs().max().item() * 2**-11
    torch.testing.assert_close(batch.coarse_probability, result.coarse_probability, rtol=0, atol=0.25 * float16 + 1e-6)


def test_cases_keep_all_else() -> None:
    fitted = FittedCases(Phantoms(4, size=(40, 52)), 32)
    logits = torch.arange(4.0)[:, None, None, None].expand(4, 1, 8, 8)
    made = CoarsePredictions(fitted.names[::-1], logits, (0,) * 4, (("x", "y"),), "FitToSquare")
    data = PredictedCases(fitted, made)
    assert (len(data), data.names, data.size, data.unseen) == (4, fitted.names, 32, False)
    assert set(data.learnt_from) == {"x", "y"}
    for index in range(4):
        case, plain = data[index], fitted[index]
        assert (case.name, case.content_size, case.original_size) == (
            plain.name,
            plain.content_size,
            plain.original_size,
        )
        assert torch.equal(case.image, plain.image)
        assert torch.equal(case.mask, plain.mask)
        assert case.coarse_probability is not None
        torch.testing.assert_close(case.coarse_probability, torch.full((1, 32, 32), 3.0 - index).sigmoid())
    part = data.subset(["phantom 3", "phantom 1"])
    assert part.names == ("phantom 1", "phantom 3")
    for mine, theirs in ((part[0], data[1]), (part[1], data[3])):
        assert torch.equal(mine.coarse_probability, theirs.coarse_probability)  # type: ignore[arg-type] # they have one
    with pytest.raises(IndexError, match=r"index must be in 0 to 3, got 4"):
        data[4]


def test_a_checkpoint_knows_which_masks() -> None:
    fitted = FittedCases(Phantoms(2, size=(32, 32)), 32)

    def settings(logits: Tensor) -> dict[str, Any]:
        return PredictedCases(fitted, CoarsePredictions(fitted.names, logits, (0, 0), ((),), "FitToSquare")).settings()

    one = torch.zeros(2, 1, 8, 8)
    other = one.clone()
    other[1, 0, 3, 3] = 0.01
    assert settings(one) == settings(one.clone())
    assert settings(one) != settings(other)
    assert settings(one)["masks"] == "predicted"


def test_of_another_square_or_without_a_prediction() -> None:
    phantoms = Phantoms(2, size=(32, 48))
    made = CoarsePredictions(phantoms.names, torch.zeros(2, 1, 8, 8), (0, 0), ((),), "FitToSquare")
    with pytest.raises(ValueError, match=r"by FitToSquare, but it is by StretchToSquare; fit it so, or predict again"):
        PredictedCases(FittedCases(phantoms, StretchToSquare(32)), made)
    with pytest.raises(ValueError, match=r"1 of 3 cases have no stored prediction, the first is 'phantom 2'"):
        PredictedCases(FittedCases(Phantoms(3, size=(32, 48)), 32), made)
