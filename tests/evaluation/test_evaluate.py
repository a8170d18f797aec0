"""The whole evaluation on cases whose answer is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor, nn

from ultrarefiner.data import Case
from ultrarefiner.evaluation import evaluate
from ultrarefiner.sam import build_sam
from ultrarefiner.systems import SAMRefiner, UltraRefiner
from ultrarefiner.types import Refinement


@dataclasses.dataclass
class Drawn:
    """Cases of several sizes whose image is their mask."""

    sizes: tuple[tuple[int, int], ...] = ((60, 100), (100, 60), (40, 40), (90, 91))
    unseen: bool = False

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Case:
        height, width = self.sizes[index]
        mask = torch.zeros(1, height, width)
        mask[:, height // 4 : height // 2, width // 3 : width // 3 + width // 4] = 1
        return Case(name=f"case {index}", image=mask.clone(), mask=mask, label="drawn", group=f"group {index}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"case {index}" for index in range(len(self)))

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(f"group {index}" for index in range(len(self)))

    @property
    def labels(self) -> tuple[str, ...]:
        return ("drawn",) * len(self)

    def subset(self, names: Iterable[str]) -> Drawn:
        wanted = set(names)
        return Drawn(tuple(size for size, name in zip(self.sizes, self.names, strict=True) if name in wanted))


class Threshold(nn.Module):
    """A coarse network that reads the mask off the image, or says nothing at all."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(40.0 * sign))
        self.offset = -20.0 if sign > 0 else -9.0

    def forward(self, images: Tensor) -> Tensor:
        return self.gain.clamp(min=0) * images + self.offset


def model(sign: float = 1.0) -> UltraRefiner:
    torch.manual_seed(0)
    return UltraRefiner(coarse=Threshold(sign), refiner=SAMRefiner(build_sam("tiny", image_size=64)))


def test_a_perfect_coarse_mask_scores_one_on_its_own_pixels() -> None:
    found = evaluate(model(), Drawn(), size=200, panels=3, progress=False)
    assert found.comparison.names == Drawn().names
    assert min(case.dice for case in found.comparison.coarse) > 0.97
    assert max(case.hd95 for case in found.comparison.coarse) <= 1
    assert [case.target_pixels for case in found.comparison.coarse] == [int(Drawn()[i].mask.sum()) for i in range(4)]
    assert len(found.panels) == 3


def test_panels_hold_the_prompts_on_the_images_own_pixels() -> None:
    sure = model()
    sure.coarse.offset = -30.0  # the grey of the padding is no lesion, not even faintly
    found = evaluate(sure, Drawn(), size=200, panels=1, progress=False)
    (panel,) = found.panels
    changes = [
        after.dice - before.dice
        for before, after in zip(found.comparison.coarse, found.comparison.refined, strict=True)
    ]
    assert panel.refined_dice - panel.coarse_dice == min(changes), "one panel is the greatest loss"
    y, x = panel.target[0].nonzero(as_tuple=True)
    assert panel.points is not None
    torch.testing.assert_close(panel.points[0], torch.tensor([x.float().mean(), y.float().mean()]), atol=0.6, rtol=0)
    assert panel.image.shape[-2:] == panel.coarse_probability.shape[-2:] == panel.target.shape[-2:]


def test_the_batch_size_changes_nothing() -> None:
    one, four = (evaluate(model(), Drawn(), size=96, batch_size=n, panels=0, progress=False) for n in (1, 4))
    for first, second in zip(one.comparison.refined, four.comparison.refined, strict=True):
        assert first.dice == pytest.approx(second.dice, abs=1e-3)


def test_a_missed_lesion_counts_with_the_diagonal() -> None:
    found = evaluate(model(sign=-1.0), Drawn(), size=96, panels=0, progress=False)
    assert [case.dice for case in found.comparison.coarse] == [0, 0, 0, 0]
    assert found.comparison.coarse[0].hd95 == pytest.approx((60**2 + 100**2) ** 0.5)
    assert found.comparison.refined == found.comparison.coarse
    assert found.comparison.refined_empty == 4


def test_no_cases_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="cases must hold at least one case"):
        evaluate(model(), Drawn(sizes=()), size=64)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -3.0, float("nan")])
def test_a_threshold_that_is_no_probability_gets_a_sentence(threshold: float) -> None:
    with pytest.raises(ValueError, match=f"threshold must be a probability between 0 and 1.*got {threshold}"):
        evaluate(model(), Drawn(), size=64, threshold=threshold)


def test_counts_without_a_meaning_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1 and panels at least 0; got 0 and 5"):
        evaluate(model(), Drawn(), size=64, batch_size=0)
    with pytest.raises(ValueError, match="got 8 and -1"):
        evaluate(model(), Drawn(), size=64, panels=-1)


class Shifting(SAMRefiner):
    """Answers with the coarse mask, moved and less sure, and says that it was told what the test knows."""

    rows, columns, confidence = 6, 10, 0.9
    region = (20.0, 10.0, 120.0, 70.0)

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(build_sam("tiny", image_size=64))
        self.content_sizes: list[list[list[int]]] = []

    def forward(self, images: Tensor, probability: Tensor, **options: Tensor) -> Refinement:
        self.content_sizes.append(options["content_sizes"].tolist())
        truth = super().forward(images, probability, **options)
        moved = (probability > 0.5).roll((self.rows, self.columns), (-2, -1)).float()
        prompts = dataclasses.replace(
            truth.prompts,
            points=torch.tensor([[31.5, 31.5], [-0.5, 63.5]]).expand(*probability.shape[:2], 2, 2),
            labels=torch.tensor([1, 0]).expand(*probability.shape[:2], 2),
            boxes=torch.tensor([15.5, 7.5, 47.5, 55.5]).expand(*probability.shape[:2], 4),
        )
        return dataclasses.replace(
            truth,
            logits=torch.logit(self.confidence * moved, eps=1e-6),
            prompts=prompts,
            boxes=torch.tensor(self.region).expand(*probability.shape[:2], 4),
        )


def border_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distance of each border pixel of one mask to the other's border."""
    border, other = (mask & ~binary_erosion(mask) for mask in (first, second))
    return distance_transform_edt(~other)[border]


def test_a_refined_mask_is_measured_on_its_own_pixels() -> None:
    # In a square of 200, 60 x 100 doubles: six and ten pixels there are three and five here. 200 x 40 stays.
    cases, refiner = Drawn(sizes=((60, 100), (100, 60), (200, 40))), Shifting()
    found = evaluate(UltraRefiner(coarse=Threshold(), refiner=refiner), cases, size=200, panels=0, progress=False)
    assert refiner.content_sizes == [[[120, 200], [200, 120], [200, 40]]]
    for index, (rows, columns) in enumerate(((3, 5), (3, 5), (6, 10))):
        target = cases[index].mask[0].bool().numpy()
        moved = np.roll(target, (rows, columns), (0, 1))
        measured = found.comparison.refined[index]
        assert measured.dice == pytest.approx(2 * (target & moved).sum() / (target.sum() + moved.sum()))
        distances = border_distances(target, moved), border_distances(moved, target)
        assert measured.hd95 == pytest.approx(max(np.percentile(d, 95) for d in distances), abs=1e-4)
        assert found.comparison.coarse[index].dice == 1
    assert found.comparison.harmed == 3


def test_a_panel_holds_points_labels_box_and_region_of_a_wide_image() -> None:
    refined = UltraRefiner(coarse=Threshold(), refiner=Shifting())
    (panel,) = evaluate(refined, Drawn(sizes=((60, 100),)), size=200, panels=1, progress=False).panels
    # The square has twice the image's pixels; the region is half of (20, 10, 120, 70), and SAM saw it as 64 x 64.
    for field, expected in (
        ("region", [10.0, 5.0, 60.0, 35.0]),
        ("points", [[34.5, 19.5], [9.5, 34.5]]),
        ("box", [10 + 50 / 4 - 0.5, 5 + 30 / 8 - 0.5, 10 + 50 * 3 / 4 - 0.5, 5 + 30 * 7 / 8 - 0.5]),
    ):
        torch.testing.assert_close(getattr(panel, field), torch.tensor(expected), atol=1e-4, rtol=0)
    assert panel.labels is not None
    assert panel.labels.tolist() == [1, 0]
    moved = panel.target.roll((3, 5), (-2, -1))
    assert torch.equal(panel.refined_probability >= 0.5, moved.bool())


def test_the_threshold_decides_the_metrics_and_reaches_the_panel() -> None:
    refined = UltraRefiner(coarse=Threshold(), refiner=Shifting())
    low, high = (
        evaluate(refined, Drawn(sizes=((200, 40),)), size=200, threshold=t, progress=False) for t in (0.3, 0.95)
    )
    assert low.panels[0].threshold == 0.3
    assert low.comparison.refined[0].prediction_pixels == low.comparison.refined[0].target_pixels
    assert (high.comparison.refined_empty, high.comparison.coarse_empty) == (1, 0)


def test_the_prompts_of_an_empty_mask_are_not_drawn() -> None:
    silent = UltraRefiner(coarse=Threshold(sign=-1.0), refiner=Shifting())
    (panel,) = evaluate(silent, Drawn(sizes=((60, 100),)), size=64, panels=1, progress=False).panels
    assert (panel.points, panel.labels, panel.box, panel.region) == (None, None, None, None)


def test_each_case_is_read_once() -> None:
    class Counting(Drawn):
        read = 0

        def __getitem__(self, index: int) -> Case:
            self.read += 1
            return super().__getitem__(index)

    cases = Counting()
    evaluate(model(), cases, size=64, batch_size=3, panels=0, progress=False)
    assert cases.read == len(cases)
