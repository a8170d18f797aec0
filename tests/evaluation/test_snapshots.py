"""Pictures of a few cases while a model learns."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from strategies import degenerate_masks, lesion
from torch import Tensor, nn

from ultrarefiner.data import Batch, FittedCases, Phantoms, StretchToSquare
from ultrarefiner.evaluation import (
    Curves,
    History,
    SnapshotRow,
    Snapshots,
    draw_snapshot,
    snapshot_scores,
)
from ultrarefiner.training import CoarseRecipe, train

WHITE, BLUE = (255, 255, 255), (0x56, 0xB4, 0xE9)


@dataclass
class Moment:
    """A run's moment without a run."""

    folder: Path
    epoch: int = 9
    epochs: int = 30
    scores: dict[str, float] = field(default_factory=dict)
    predict: Callable[[Batch], Tensor] = lambda batch: batch.masks
    score_name: str = "Dice"


@pytest.fixture
def row() -> SnapshotRow:
    """The truth in rows 8 to 24 and columns 10 to 30, predicted 4 down and 6 to the right."""
    target = torch.zeros(1, 40, 60)
    target[:, 8:24, 10:30] = 1
    return SnapshotRow("case", torch.full((1, 40, 60), 0.5), target, 0.8 * target.roll((4, 6), (1, 2)))


def drawn(figure: Figure) -> np.ndarray:
    """Pixels of the figure, (height, width, 3)."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def colour_at(figure: Figure, axis: int, x: float, y: float) -> tuple[int, ...]:
    """What is seen where the pixel (x, y) of the image is drawn."""
    pixels = drawn(figure)
    across, up = figure.axes[axis].transData.transform((x, y))
    return tuple(pixels[pixels.shape[0] - 1 - int(up), int(across)].tolist())


# snapshot_scores


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_scores_are_those_of_plain_loops(seed: int, share: float, other: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    probability = torch.rand(1, 6, 7, generator=generator) * share
    target = (torch.rand(1, 6, 7, generator=generator) < 0.3 * other).float()
    found = snapshot_scores(SnapshotRow("a", target, target, probability))
    sets = [{(y, x) for y in range(6) for x in range(7) if mask[0, y, x] >= 0.5} for mask in (probability, target)]
    boxes = []
    for pixels in sets:
        ys, xs = [y for y, _ in pixels] or [0], [x for _, x in pixels] or [0]
        inside = {(y, x) for y in range(min(ys), max(ys) + 1) for x in range(min(xs), max(xs) + 1)}
        boxes.append(inside if pixels else set())

    def dice(a: set, b: set) -> float:
        return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0

    assert found.dice == pytest.approx(dice(*sets))
    assert found.iou == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]) if sets[0] | sets[1] else 1.0)
    assert found.box_dice == pytest.approx(dice(*boxes))
    assert found.share_of_box == (pytest.approx(len(sets[0]) / len(boxes[1])) if sets[1] else None)


def test_exactly_a_half_is_lesion_as_in_evaluation(row: SnapshotRow) -> None:
    half = replace(row, probability=0.5 * row.target)
    assert snapshot_scores(half).dice == 1
    assert len(draw_snapshot([half]).axes[0].patches) == 2
    assert snapshot_scores(replace(row, probability=0.499 * row.target)).share_of_box == 0


# draw_snapshot


def test_boxes_are_the_tight_ones_in_pixel_edges(row: SnapshotRow) -> None:
    figure = draw_snapshot([row])
    predicted, true = figure.axes[0].patches
    # imshow's first pixel spans -0.5 to 0.5.
    for patch, (x0, y0, x1, y1) in ((true, (10, 8, 30, 24)), (predicted, (16, 12, 36, 28))):
        assert (patch.get_x(), patch.get_y()) == (x0 - 0.5, y0 - 0.5)
        assert (patch.get_width(), patch.get_height()) == (x1 - x0, y1 - y0)
        assert not patch.get_fill()
    assert predicted.get_linestyle() in ("-", "solid")
    assert true.get_linestyle() not in ("-", "solid")
    assert np.allclose(np.array(true.get_edgecolor()[:3]) * 255, WHITE)
    assert np.allclose(np.array(predicted.get_edgecolor()[:3]) * 255, BLUE)
    figure.set_dpi(200)
    assert colour_at(figure, 0, 35.5, 20) == BLUE, "on the line of the predicted box"
    assert colour_at(figure, 0, 20, 16) == (128, 128, 128), "nothing is drawn inside"


def test_each_picture_shows_what_its_title_says(row: SnapshotRow) -> None:
    figure = draw_snapshot([row])
    figure.set_dpi(200)
    assert [axis.get_title() for axis in figure.axes[:4]] == ["image and boxes", "truth", "soft mask", "mask ≥ 0.5"]
    both, true_alone, predicted_alone, neither = (25, 18), (12, 10), (33, 26), (50, 5)
    grey = (128, 128, 128)
    white, blue = (185, 185, 185), (109, 151, 175)  # 0.45 of the colour over grey
    for axis, colours in ((1, (white, white, grey, grey)), (3, (blue, grey, blue, grey))):
        for place, expected in zip((both, true_alone, predicted_alone, neither), colours, strict=True):
            assert np.allclose(colour_at(figure, axis, *place), expected, atol=2), (axis, place)
    heat = figure.axes[2].images[0]
    assert (heat.get_array().max(), heat.get_clim()) == (pytest.approx(0.8), (0, 1))
    bar = figure.axes[-1]
    shown = [text.get_text() for text in bar.get_xticklabels()]
    assert shown == ["0.0", "0.5", "1.0"]
    assert bar.get_xlabel() == "probability"
    # The heat map's colour at 0.8 is the bar's at 0.8.
    assert np.allclose(colour_at(figure, 2, 33, 26), colour_at(figure, 5, 0.8, 0.5), atol=4)
    assert np.allclose(colour_at(figure, 2, 50, 5), colour_at(figure, 5, 0.01, 0.5), atol=8)


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for axis in figure.axes for text in axis.texts)


def test_scores_are_written(row: SnapshotRow) -> None:
    # 14 x 12 pixels of 20 x 16 in common; both masks are rectangles, so the boxes have the same Dice.
    assert (
        words(draw_snapshot([row])) == "case\nDice  0.525\nIoU  0.356\nDice of the boxes  0.525\nmask / true box  1.00"
    )
    boxes = draw_snapshot([row], boxes_only=True)
    assert words(boxes) == "case\nDice of the boxes  0.525\nmask / true box  1.00"
    assert boxes.axes[1].get_title() == "box"
    assert [text.get_text() for text in boxes.legends[0].get_texts()] == ["predicted tight box", "true box (white)"]


def test_masks_without_a_pixel_say_so(row: SnapshotRow) -> None:
    nothing = torch.zeros_like(row.target)
    missed = draw_snapshot([replace(row, probability=0.4 * row.target)])
    assert len(missed.axes[0].patches) == 1
    assert "empty" in words(missed)
    assert missed.axes[3].texts[0].get_text() == "empty"
    assert "Dice  0.000" in words(missed)
    alarm = draw_snapshot([replace(row, target=nothing)])
    assert len(alarm.axes[0].patches) == 1
    assert alarm.axes[1].texts[0].get_text() == "empty"
    assert "no lesion" in words(alarm)
    right = draw_snapshot([replace(row, target=nothing, probability=nothing)])
    assert not right.axes[0].patches
    assert "Dice  1.000" in words(right)
    drawn(right)


@pytest.mark.parametrize("name", list(degenerate_masks()))
def test_every_odd_mask_is_drawn(name: str) -> None:
    masks = degenerate_masks()
    image = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))
    other = masks["two lesions"][0]
    figure = draw_snapshot([SnapshotRow(name, image, other, masks[name][0])])
    figure.set_dpi(40)
    drawn(figure)
    for axis in figure.axes[:4]:
        assert axis.get_xlim() == (-0.5, 31.5), "no border around the image"
        assert axis.get_ylim() == (23.5, -0.5)


def test_colours_of_an_image_are_kept(row: SnapshotRow) -> None:
    colours = torch.tensor([1.0, 0.5, 0.0])[:, None, None].expand(3, 40, 60)
    figure = draw_snapshot([replace(row, image=colours)])
    figure.set_dpi(200)
    assert np.allclose(colour_at(figure, 0, 50, 5), (255, 128, 0), atol=1)
    assert np.allclose(colour_at(draw_snapshot([row]), 0, 50, 5), (128, 128, 128), atol=1)


def test_rows_stand_apart_and_nothing_overlaps(row: SnapshotRow) -> None:
    tall = SnapshotRow(
        "a name that is too long for its column", torch.rand(1, 60, 20), torch.zeros(1, 60, 20), torch.ones(1, 60, 20)
    )
    flat = SnapshotRow("flat", torch.rand(1, 10, 60), torch.zeros(1, 10, 60), torch.zeros(1, 10, 60))
    figure = draw_snapshot([row, flat, tall], title="after 10 of 30 epochs; Dice in validation 0.7123")
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [axis.get_tightbbox(renderer).padded(-1) for axis in figure.axes]
    for index, axis in enumerate(figure.axes[:-1]):
        for text in axis.texts if index % 5 == 4 else ():
            boxes.append(text.get_window_extent(renderer))
            # Of its own axis, a text may lie outside: rows are of different height.
    boxes += [figure.legends[0].get_window_extent(renderer), figure.texts[0].get_window_extent(renderer)]
    whole = figure.bbox
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1 for box in boxes)
    pictures = [box for index, box in enumerate(boxes) if index >= len(figure.axes) or index % 5 != 4]
    assert not any(one.overlaps(other) for i, one in enumerate(pictures) for other in pictures[:i])


def test_a_stretched_picture_is_drawn_in_its_own_shape(row: SnapshotRow) -> None:
    figure = draw_snapshot([replace(row, height_over_width=1.5)])
    figure.canvas.draw()
    shown = figure.axes[0].get_window_extent()
    assert shown.height / shown.width == pytest.approx(1.5, rel=0.02)
    figure = draw_snapshot([row])
    figure.canvas.draw()
    shown = figure.axes[0].get_window_extent()
    assert shown.height / shown.width == pytest.approx(40 / 60, rel=0.02)


@pytest.mark.usefixtures("unhooked")
def test_rows_that_cannot_be_drawn_are_refused(row: SnapshotRow) -> None:
    with pytest.raises(ValueError, match="rows must hold at least one case to draw; got none"):
        draw_snapshot([])
    with pytest.raises(
        ValueError, match=r"image of row 'case' must be \(1 or 3, h, w\) in \[0, 1\]; got \(2, 40, 60\)"
    ):
        draw_snapshot([replace(row, image=torch.zeros(2, 40, 60))])
    with pytest.raises(ValueError, match=r"probability of row 'case' must be on the image's pixels, \(1, 40, 60\)"):
        draw_snapshot([replace(row, probability=torch.zeros(1, 20, 30))])
    with pytest.raises(ValueError, match="target of row 'case' must be on the image's pixels"):
        draw_snapshot([replace(row, target=torch.zeros(2, 40, 60))])


# Snapshots


class Counted(Phantoms):
    """How often a case was read."""

    reads = 0

    def __getitem__(self, position: int):
        type(self).reads += 1
        return super().__getitem__(position)


def rows_of(watcher: Snapshots, moment: Moment, monkeypatch: pytest.MonkeyPatch) -> list[SnapshotRow]:
    """What the watcher draws."""
    seen: list[SnapshotRow] = []

    def look(rows: list[SnapshotRow], **options: object) -> Figure:
        seen.extend(rows)
        return draw_snapshot(rows, **options)

    monkeypatch.setattr("ultrarefiner.evaluation.snapshots.draw_snapshot", look)
    watcher(moment)
    return seen


def test_cases_are_read_once_and_drawn_without_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = Counted(2, size=(48, 64))
    watcher = Snapshots(cases, 32, every=5)
    batches: list[Batch] = []

    def predict(batch: Batch) -> Tensor:
        batches.append(batch)
        return torch.ones_like(batch.masks)

    moment = Moment(tmp_path, epoch=4, scores={"dice": 0.25}, predict=predict)
    rows = rows_of(watcher, moment, monkeypatch)[:2]
    watcher(replace(moment, epoch=9))
    assert Counted.reads == 2
    assert [batch.names for batch in batches[:2]] == [("phantom 0",), ("phantom 1",)]
    assert batches[0].images.shape == (1, 1, 32, 32), "the model sees the whole square"
    assert [found.name for found in rows] == ["phantom 0", "phantom 1"]
    for found, fitted in zip(rows, FittedCases(Phantoms(2, size=(48, 64)), 32), strict=True):
        assert found.image.shape == found.target.shape == found.probability.shape == (1, 24, 32)
        assert torch.equal(found.image, fitted.image[:, :24])
        assert torch.equal(found.target, fitted.mask[:, :24])
        assert found.height_over_width == 0.75
    names = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    assert names == ["epoch0004.png", "epoch0009.png"]


def test_it_draws_when_it_is_time_and_again_the_same(tmp_path: Path) -> None:
    watcher = pickle.loads(pickle.dumps(Snapshots(Phantoms(1, size=(32, 32)), 32, every=4)))  # as to a spawned process
    for epoch in range(10):
        watcher(Moment(tmp_path, epoch, 10))
    pictures = sorted((tmp_path / "snapshots").iterdir())
    assert [path.name for path in pictures] == ["epoch0003.png", "epoch0007.png", "epoch0009.png"]
    before = pictures[0].read_bytes()
    watcher(Moment(tmp_path, 3, 10))
    assert pictures[0].read_bytes() == before
    watcher(Moment(tmp_path, 3, 10, predict=lambda batch: 0 * batch.masks))
    assert pictures[0].read_bytes() != before
    with Image.open(pictures[0]) as picture:
        assert 900 < picture.width < 1600


def test_the_title_names_the_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []

    def look(rows: list[SnapshotRow], *, title: str, boxes_only: bool) -> Figure:
        titles.append(title)
        return draw_snapshot(rows, title=title, boxes_only=boxes_only)

    monkeypatch.setattr("ultrarefiner.evaluation.snapshots.draw_snapshot", look)
    watcher = Snapshots(Phantoms(1, size=(32, 32)), 32)
    watcher(Moment(tmp_path, 9, 30, {"dice": 0.25}, score_name="Dice of boxes"))
    watcher(Moment(tmp_path, 9, 30, {"dice": 0.25}))
    watcher(Moment(tmp_path, 9, 30))
    assert titles == [
        "after 10 of 30 epochs; Dice of boxes in validation 0.2500",
        "after 10 of 30 epochs; Dice in validation 0.2500",
        "after 10 of 30 epochs",
    ]


def test_fitted_cases_are_shown_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stretched = FittedCases(Phantoms(1, size=(48, 64)), StretchToSquare(32))
    (found,) = rows_of(Snapshots(stretched), Moment(tmp_path), monkeypatch)
    assert found.image.shape == (1, 32, 32)
    assert found.height_over_width == 0.75

    class WithMasks(FittedCases):
        def __getitem__(self, index: int):
            case = super().__getitem__(index)
            return replace(case, coarse_probability=0.5 * case.mask)

    (batch,) = Snapshots(WithMasks(Phantoms(1, size=(48, 64)), 32)).batches
    assert torch.equal(batch.coarse_probability, 0.5 * batch.masks)


def test_what_it_cannot_draw_is_refused(tmp_path: Path) -> None:
    phantoms = Phantoms(17, size=(32, 32))
    with pytest.raises(ValueError, match="cases must be 1 to 16, which one picture can hold, but there are 17"):
        Snapshots(phantoms, 32)
    one = phantoms.subset(["phantom 3"])
    with pytest.raises(ValueError, match="size must be that of the training's square, because 'phantom 3' is not"):
        Snapshots(one)
    with pytest.raises(ValueError, match="size must be None for cases that are fitted already, as 'phantom 3' is"):
        Snapshots(FittedCases(one, 32), 32)
    with pytest.raises(ValueError, match="every must be at least 1 epoch, but it is 0"):
        Snapshots(one, 32, every=0)
    watcher = Snapshots(one, 32)
    with pytest.raises(
        ValueError, match=r"predict must give one mask .* \(1, 1, 32, 32\), but it gave \(1, 2, 32, 32\)"
    ):
        watcher(Moment(tmp_path, predict=lambda batch: batch.masks.expand(-1, 2, -1, -1)))
    assert not (tmp_path / "snapshots").exists()


# All of it on a real run


def test_a_run_that_is_watched_and_resumed(tmp_path: Path) -> None:
    cases = FittedCases(Phantoms(4, size=(32, 48)), 32)
    validation = FittedCases(Phantoms(2, size=(32, 48), seed=1), 32)

    def go(watchers: list) -> None:
        torch.manual_seed(0)
        recipe = CoarseRecipe(nn.Conv2d(1, 1, 3, padding=1), learning_rate=0.05)
        options = {"epochs": 4, "batch_size": 2, "log_every": 1, "tensorboard": False, "progress": False}
        train(recipe, cases, folder=tmp_path, validation=validation, watchers=watchers, **options)

    def stop(moment: Moment) -> None:
        if moment.epoch == 1:
            raise KeyboardInterrupt

    watchers = [History(), Curves(), Snapshots(validation, every=1)]
    with pytest.raises(KeyboardInterrupt):
        go([*watchers, stop])
    assert len(json.loads((tmp_path / "history.json").read_text())["epochs"]) == 2
    go(watchers)
    history = json.loads((tmp_path / "history.json").read_text())
    assert [row["epoch"] for row in history["epochs"]] == [0, 1, 2, 3]
    assert [row["step"] for row in history["steps"]] == list(range(1, 9))
    with (tmp_path / "metrics.csv").open(newline="") as file:
        dice = [float(row["validation/dice"]) for row in csv.DictReader(file)]
    assert history["best"] == {"epoch": dice.index(max(dice)), "dice": max(dice)}
    assert history["score_name"] == "Dice"
    assert len(list((tmp_path / "snapshots").glob("epoch000?.png"))) == 4
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    # What is missing of a finished run is drawn when it is asked for again, and as it was.
    last, pictures = tmp_path / "snapshots" / "epoch0003.png", {}
    for path in (last, tmp_path / "curves.png", tmp_path / "history.json"):
        pictures[path] = path.read_bytes()
        path.unlink()
    go(watchers)
    assert pictures == {path: path.read_bytes() for path in pictures}


def test_the_picture_of_a_good_mask_looks_like_the_truth() -> None:
    """A prediction equal to the truth: the same shape in white and in blue."""
    target = lesion(48, 64, (20, 30), (8, 12))[None]
    figure = draw_snapshot([SnapshotRow("a", torch.full((1, 48, 64), 0.3), target, target)])
    pixels = drawn(figure)
    height = pixels.shape[0]

    def shown(axis: int) -> np.ndarray:
        box = figure.axes[axis].get_window_extent()
        return pixels[height - int(box.y1) + 2 : height - int(box.y0) - 2, int(box.x0) + 2 : int(box.x1) - 2]

    white, blue = shown(1), shown(3)
    rows, columns = min(len(white), len(blue)), min(white.shape[1], blue.shape[1])
    is_white = (white[..., 0] > 100)[:rows, :columns]
    is_blue = (blue[..., 2] - blue[..., 0] > 20)[:rows, :columns]
    assert is_white.sum() > 1000
    assert 2 * (is_white & is_blue).sum() / (is_white.sum() + is_blue.sum()) > 0.9
