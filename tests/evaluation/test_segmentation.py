"""One model's evaluation on cases whose answer is known; its tables, its CSV, its picture."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from strategies import lesion
from torch import Tensor, nn

from ultrarefiner.data import Case, StretchToSquare
from ultrarefiner.evaluation import (
    CaseMetrics,
    SegmentationEvaluation,
    SegmentationPanel,
    StructureMeasures,
    compare,
    evaluate,
    evaluate_segmentation,
    filled_box_metrics,
    segmentation_figure,
    segmentation_metrics,
    segmentation_table,
    structure_measures,
    write_segmentation_csv,
)
from ultrarefiner.sam import build_sam
from ultrarefiner.systems import AutoSAM, SAMRefiner, UltraRefiner, build_autosam_generator
from ultrarefiner.types import MultiScaleLogits


@dataclasses.dataclass
class Ellipses:
    """Cases of several sizes whose image is their mask; the last has no lesion."""

    sizes: tuple[tuple[int, int], ...] = ((60, 100), (100, 60), (40, 40), (90, 91))
    channels: int = 1
    unseen: bool = False

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Case:
        height, width = self.sizes[index]
        mask = lesion(height, width, (height * 0.4, width * 0.6), (height / 5, width / 6 + index))[None]
        if index == 3:
            mask = torch.zeros_like(mask)
        image = mask.repeat(self.channels, 1, 1)
        return Case(name=self.names[index], image=image, mask=mask, label="drawn", group=self.groups[index])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"case {index}" for index in range(len(self)))

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(f"group {index // 2}" for index in range(len(self)))

    @property
    def labels(self) -> tuple[str, ...]:
        return ("drawn",) * len(self)

    def subset(self, names: Iterable[str]) -> Ellipses:
        wanted = set(names)
        return Ellipses(tuple(size for size, name in zip(self.sizes, self.names, strict=True) if name in wanted))


class Reading(nn.Module):
    """Reads the mask off the image: sure inside, less sure outside; or sees nothing at all."""

    def __init__(self, gain: float = 40.0, offset: float = -20.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.offset = offset

    def forward(self, images: Tensor) -> Tensor:
        return self.gain * images.mean(1, keepdim=True) + self.offset


class Wrapped(nn.Module):
    """Answers with side logits, at half the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = Reading()

    def forward(self, images: Tensor) -> MultiScaleLogits:
        small = nn.functional.avg_pool2d(images, 2)
        return MultiScaleLogits(self.plain(small), (-self.plain(small),))


def test_a_perfect_model_scores_one_on_every_images_own_pixels() -> None:
    model = Reading().train()
    found = evaluate_segmentation(model, Ellipses(), size=200, progress=False)
    assert (found.names, found.groups, found.structure) == (Ellipses().names, Ellipses().groups, None)
    assert min(case.dice for case in found.metrics) > 0.97
    assert max(case.hd95 for case in found.metrics) <= 1
    assert [case.target_pixels for case in found.metrics] == [int(Ellipses()[i].mask.sum()) for i in range(4)]
    assert found.metrics[3].dice == 1
    assert not model.training


def test_a_missed_lesion_counts_with_the_diagonal_and_no_case_is_dropped() -> None:
    found = evaluate_segmentation(Reading(0.0, -9.0), Ellipses(), size=96, measures=True, progress=False)
    assert [case.dice for case in found.metrics] == [0, 0, 0, 1]
    assert found.metrics[0].hd95 == pytest.approx(math.hypot(60, 100))
    assert found.structure is not None
    assert len(found.structure) == 4
    assert found.structure[0].sensitivity == pytest.approx(1 / 256)


@pytest.mark.parametrize("size", [96, StretchToSquare(96)])
def test_a_fit_may_be_given(size: int | StretchToSquare) -> None:
    found = evaluate_segmentation(Reading(), Ellipses(), size=size, progress=False)
    assert all(0.9 < case.dice <= 1 for case in found.metrics)


def test_fits_differ() -> None:
    square, stretched = (
        evaluate_segmentation(Reading(), Ellipses(), size=size, progress=False) for size in (24, StretchToSquare(24))
    )
    assert square.metrics[0] != stretched.metrics[0]


def test_every_kind_of_answer_is_understood() -> None:
    torch.manual_seed(0)
    assert (
        min(case.dice for case in evaluate_segmentation(Wrapped(), Ellipses(), size=200, progress=False).metrics) > 0.9
    )
    sam = build_sam("tiny", image_size=64)
    autosam = AutoSAM(sam, build_autosam_generator("tiny", channels=64, size=4), input_size=64)
    found = evaluate_segmentation(autosam, Ellipses(), size=64, progress=False, panels=1)
    assert len(found.metrics) == 4
    fitted = nn.functional.interpolate(Ellipses()[2].image[None], (64, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        soft = autosam(fitted).logits.sigmoid()
    mine = nn.functional.interpolate(soft, (40, 40), mode="bilinear", antialias=True)[0]
    assert found.metrics[2].prediction_pixels == pytest.approx(int((mine >= 0.5).sum()), abs=2)


def test_a_refined_mask_is_the_one_that_evaluate_measures() -> None:
    torch.manual_seed(0)
    model = UltraRefiner(coarse=Reading(), refiner=SAMRefiner(build_sam("tiny", image_size=64)))
    both = evaluate(model, Ellipses(), size=96, panels=0, progress=False).comparison
    assert evaluate_segmentation(model, Ellipses(), size=96, panels=0, progress=False).metrics == both.refined
    assert both.refined != both.coarse


def test_the_batch_size_changes_nothing_and_the_threshold_does() -> None:
    soft = Reading(4.0, -2.0)
    one, many = (evaluate_segmentation(soft, Ellipses(), size=96, batch_size=n, progress=False) for n in (1, 4))
    assert one.metrics == many.metrics
    high = evaluate_segmentation(soft, Ellipses(), size=96, threshold=0.95, progress=False)
    assert [case.prediction_pixels for case in high.metrics] == [0, 0, 0, 0]
    assert {panel.threshold for panel in high.panels} == {0.95}


def test_panels_go_from_the_worst_to_the_best() -> None:
    found = evaluate_segmentation(Reading(4.0, -2.2), Ellipses(), size=24, panels=3, measures=True, progress=False)
    dice = sorted(case.dice for case in found.metrics)
    assert [panel.metrics.dice for panel in found.panels] == [dice[0], dice[2], dice[3]]
    for panel in found.panels:
        index = found.names.index(panel.name)
        assert torch.equal(panel.target, Ellipses()[index].mask)
        assert segmentation_metrics(panel.probability >= 0.5, panel.target >= 0.5) == found.metrics[index]
        assert found.structure is not None
        assert structure_measures(panel.probability, panel.target >= 0.5) == found.structure[index]
    assert evaluate_segmentation(Reading(), Ellipses(), size=24, panels=0, progress=False).panels == ()


def test_colour_images_are_evaluated(unhooked: None) -> None:
    found = evaluate_segmentation(Reading(), Ellipses(channels=3), size=200, panels=1, progress=False)
    assert min(case.dice for case in found.metrics) > 0.97
    assert found.panels[0].image.shape[0] == 3


def test_a_model_that_answers_with_something_else_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"network must answer with one mask an image, \(4, 1, h, w\)"):
        evaluate_segmentation(nn.Conv2d(1, 2, 1), Ellipses(), size=32, progress=False)
    with pytest.raises(ValueError, match="the images from 'case 2' on have NaN or infinity"):
        evaluate_segmentation(Spoilt(), Ellipses(), size=32, batch_size=2, progress=False)


class Spoilt(nn.Module):
    """NaN from its second batch on."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images if self.calls == 1 else images * float("nan")


def test_options_without_a_meaning_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="cases must hold at least one case"):
        evaluate_segmentation(Reading(), Ellipses(sizes=()), size=64)
    with pytest.raises(ValueError, match="cases must hold at least one case"):
        filled_box_metrics(Ellipses(sizes=()))
    with pytest.raises(ValueError, match="threshold must be a probability"):
        evaluate_segmentation(Reading(), Ellipses(), size=64, threshold=1.0)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        evaluate_segmentation(Reading(), Ellipses(), size=64, batch_size=0)


# The trivial answer


def test_a_filled_box_is_the_masks_own() -> None:
    found = filled_box_metrics(Ellipses(), measures=True, progress=False)
    for index, metrics in enumerate(found.metrics[:3]):
        mask = Ellipses()[index].mask[0].bool().numpy()
        rows, columns = np.nonzero(mask)
        area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert metrics.prediction_pixels == area
        assert metrics.dice == pytest.approx(2 * mask.sum() / (mask.sum() + area))
        assert metrics.dice == pytest.approx((math.pi / 2) / (1 + math.pi / 4), abs=0.02)
        assert metrics.recall == 1
    assert (found.metrics[3].prediction_pixels, found.metrics[3].dice) == (0, 1)
    assert found.structure is not None
    assert found.structure[0].sensitivity == 1
    assert found.panels == ()


# Tables


def metrics(dice: float, predicted: int = 50) -> CaseMetrics:
    return CaseMetrics(dice, dice / 2, dice, dice, 123.0 if predicted == 0 else 5.0, 2.0, predicted, 50)


def made(*dice: float, structure: bool = False) -> SegmentationEvaluation:
    names = tuple(f"case {index}" for index in range(len(dice)))
    groups = tuple(f"group {index // 2}" for index in range(len(dice)))
    measures = tuple(StructureMeasures(d, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.1) for d in dice) if structure else None
    return SegmentationEvaluation(names, groups, tuple(metrics(d, 0 if d == 0 else 50) for d in dice), measures, ())


def test_the_table_has_compares_means_differences_and_intervals() -> None:
    ours, box = made(0.9, 0.5, 0.8, 0.0), made(0.7, 0.7, 0.6, 0.6)
    lines = segmentation_table({"AutoSAM": ours, "filled box": box}, against="filled box", resamples=200).splitlines()
    expected = compare(ours.names, box.metrics, ours.metrics, groups=ours.groups, resamples=200)
    dice, iou = expected.metrics[0], expected.metrics[1]

    def cell(estimate: object, form: str) -> str:
        low, mean, high = (format(getattr(estimate, end), form) for end in ("low", "mean", "high"))
        return f"{mean} [{low}, {high}]"

    assert lines[0] == "| Model | Dice ↑ | IoU ↑ | HD95 ↓ (px) | Dice minus filled box |"
    cells = [text.strip() for text in lines[2].split("|")[1:-1]]
    assert cells[:3] == ["AutoSAM", cell(dice.refined, ".3f"), cell(iou.refined, ".3f")]
    assert cells[4] == cell(dice.difference, "+.3f")
    assert cells[4].startswith("-0.100 [")
    last = [text.strip() for text in lines[3].split("|")[1:-1]]
    assert last == ["filled box", cell(dice.coarse, ".3f"), cell(iou.coarse, ".3f"), "5.00 [5.00, 5.00]", ""]
    assert "4 cases in 2 groups" in lines[-1]
    assert "200 resamples of groups" in lines[-1]
    assert lines[-1].endswith("Empty masks where there is a lesion: AutoSAM 1, filled box 0.")


def test_structure_measures_have_a_table_of_their_own() -> None:
    measured, plain = made(0.9, 0.5, structure=True), made(0.7, 0.7)
    table = segmentation_table({"a": measured, "b": plain}, resamples=50, unit="mm")
    blocks = table.split("\n\n")
    assert blocks[0].splitlines()[0] == "| Model | Dice ↑ | IoU ↑ | HD95 ↓ (mm) |"
    rows = blocks[1].splitlines()
    assert rows[0].startswith("| Model | S ↑ | mean E ↑ | weighted F ↑ |")
    assert rows[0].endswith("| MAE ↓ |")
    assert len(rows) == 3
    assert rows[2].startswith("| a | 0.700 [0.700, 0.700] | 0.900 [")
    assert rows[0].count("|") == rows[1].count("|") == rows[2].count("|") == 10
    assert "no map was stretched" in blocks[2]
    assert "no map was stretched" not in segmentation_table({"b": plain}, resamples=50)
    assert table.endswith("\n")


def test_a_title_may_have_a_bar() -> None:
    table = segmentation_table({"a|b": made(0.5, 0.6)}, against="a|b", resamples=10)
    assert "| a\\|b | 0.550" in table
    assert "Dice minus a\\|b |" in table


def test_evaluations_that_cannot_be_compared_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="evaluations must hold at least one"):
        segmentation_table({})
    with pytest.raises(ValueError, match=r"against must be one of the titles, \['a'\]; got 'b'"):
        segmentation_table({"a": made(0.5)}, against="b")
    with pytest.raises(ValueError, match=r"same cases in the same order.*'b' \(2 cases\).*'a' \(1 cases\)"):
        segmentation_table({"a": made(0.5), "b": made(0.5, 0.6)})
    other = dataclasses.replace(made(0.5, 0.6), groups=("x", "y"))
    with pytest.raises(ValueError, match="with the same groups"):
        segmentation_table({"a": made(0.5, 0.6), "b": other})
    smaller = dataclasses.replace(made(0.5), metrics=(dataclasses.replace(metrics(0.5), target_pixels=10),))
    with pytest.raises(ValueError, match="measured against the same target"):
        segmentation_table({"a": made(0.5), "b": smaller}, against="a")


def test_the_csv_holds_every_case(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cases.csv"
    evaluation = made(0.9, 0.25, 0.0, structure=True)
    write_segmentation_csv(path, evaluation)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(evaluation.names)
    assert [row["group"] for row in rows] == list(evaluation.groups)
    assert [float(row["dice"]) for row in rows] == [0.9, 0.25, 0.0]
    assert [float(row["s_measure"]) for row in rows] == [0.9, 0.25, 0.0]
    assert rows[2]["prediction_pixels"] == "0"
    assert list(rows[0])[-1] == "mae"
    write_segmentation_csv(path, made(0.9))
    assert path.read_text().splitlines()[0].endswith("prediction_pixels,target_pixels")


# The picture


@pytest.fixture
def panel() -> SegmentationPanel:
    target = lesion(48, 64, (20, 30), (12, 15))[None]
    probability = 0.9 * lesion(48, 64, (24, 34), (12, 15))[None]
    grey = torch.rand(1, 48, 64, generator=torch.Generator().manual_seed(0))
    return SegmentationPanel("case", grey, probability, target, segmentation_metrics(probability >= 0.5, target >= 0.5))


def pixels(panels: list[SegmentationPanel], path: Path) -> np.ndarray:
    segmentation_figure(panels, path, dots_per_inch=40)
    with Image.open(path) as picture:
        return np.array(picture.convert("RGB")).astype(int)


def test_everything_in_a_panel_is_drawn(tmp_path: Path, panel: SegmentationPanel) -> None:
    whole = pixels([panel], tmp_path / "a.png")
    changes = (
        {"image": panel.image.flip(-1)},
        {"probability": 0.5 * panel.probability},
        {"target": panel.target.flip(-1)},
        {"name": "another"},
        {"threshold": 0.95},
        {"metrics": dataclasses.replace(panel.metrics, dice=0.123)},
    )
    for change in changes:
        assert np.abs(whole - pixels([dataclasses.replace(panel, **change)], tmp_path / "b.png")).sum() > 0, change
    assert pixels([panel, panel], tmp_path / "c.png").shape[0] > 1.6 * whole.shape[0]


def test_colour_stays_colour(tmp_path: Path, panel: SegmentationPanel) -> None:
    red = torch.cat([panel.image, 0 * panel.image, 0 * panel.image])
    drawn = pixels([dataclasses.replace(panel, image=red)], tmp_path / "a.png")
    corner = drawn[20 : drawn.shape[0] // 2, 8:40]
    assert (corner[..., 0] - corner[..., 1]).mean() > 60


def test_masks_that_are_empty_say_so(tmp_path: Path, panel: SegmentationPanel) -> None:
    nothing = torch.zeros_like(panel.target)
    empty = dataclasses.replace(
        panel, probability=nothing, target=nothing, metrics=segmentation_metrics(nothing > 0, nothing > 0)
    )
    assert pixels([empty], tmp_path / "a.png").shape[2] == 3


@pytest.mark.usefixtures("unhooked")
def test_what_cannot_be_drawn_gets_a_sentence(tmp_path: Path, panel: SegmentationPanel) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="panels must hold at least one case"):
        segmentation_figure([], path)
    with pytest.raises(ValueError, match=r"image of panel 'case' must be \(1 or 3, h, w\)"):
        segmentation_figure([dataclasses.replace(panel, image=panel.image.repeat(2, 1, 1))], path)
    with pytest.raises(ValueError, match=r"probability of panel 'case' must be on the image's pixels, \(1, 48, 64\)"):
        segmentation_figure([dataclasses.replace(panel, probability=panel.probability[:, :9])], path)
    with pytest.raises(ValueError, match="threshold of panel 'case' must be between 0 and 1"):
        segmentation_figure([dataclasses.replace(panel, threshold=0.0)], path)
    assert not path.exists()
