"""Volumes whose answer is known: by hand, by SciPy, and by what the network was told to miss."""

from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.text import Text
from nifti import SPACING, write_micro_ultrasound, write_volume
from scipy.ndimage import binary_erosion, distance_transform_edt
from torch import Tensor, nn

import ultrarefiner as ur
from ultrarefiner.data import FitToSquare, MicroUltrasound, Phantoms, StretchToSquare, VolumeFiles, VolumeSlices
from ultrarefiner.evaluation import (
    VolumeEvaluation,
    VolumeMetrics,
    evaluate_volumes,
    volume_figure,
    volume_means,
    volume_metrics,
    volumes_table,
)
from ultrarefiner.types import MultiScaleLogits


class Bright(nn.Module):
    """Lesion where the image is at least `level`; logits 0 or the one it is told."""

    def __init__(self, level: float = 0.5) -> None:
        super().__init__()
        self.level = level
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return 40.0 * (images - self.level)


def two_volumes(folder: Path) -> VolumeSlices:
    """Images that show a square in every slice; the masks know better.

    p1: the true square in slice 1 is moved by 2 rows, that of slice 2 is not there (hallucinated), and in slice 3 the
    image is black (missed); slice 0 is right. p2 is right in both slices.
    """
    image = np.zeros((20, 16, 4), dtype=np.uint8)
    image[4:12, 4:12, :] = 200
    mask = (image > 0).astype(np.uint8)
    mask[:, :, 1] = np.roll(mask[:, :, 1], 2, axis=1)
    mask[:, :, 2] = 0
    image[:, :, 3] = 0
    files = []
    for name, scan, truth in (("p1", image, mask), ("p2", image[:, :, :2], image[:, :, :2])):
        paths = [write_volume(folder / f"{name}_{kind}.nii.gz", v) for kind, v in (("scan", scan), ("mask", truth))]
        files.append(VolumeFiles(name, paths[0], paths[1], None, name))
    return VolumeSlices(files, intensity_range=(0.0, 200.0))


def run(dataset: VolumeSlices, network: nn.Module | None = None, **options) -> VolumeEvaluation:
    return evaluate_volumes(network or Bright(), dataset, **{"fit": 20, "panels": 0, "progress": False, **options})


def test_a_volume_by_hand(tmp_path: Path) -> None:
    one, two = run(two_volumes(tmp_path)).volumes
    # Squares of 8 x 8; two rows of 0.2 mm apart, their overlap is 6 x 8.
    diagonal = math.hypot(16 * 0.2, 20 * 0.3)
    assert (one.name, one.group, one.slices) == ("p1", "p1", 4)
    assert one.dice == pytest.approx(2 * (64 + 48) / (3 * 64 + 3 * 64))
    assert one.slice_dice == pytest.approx((1 + 0.75 + 0 + 0) / 4)
    assert one.slice_hd95_mm == pytest.approx((0 + 0.4 + 2 * diagonal) / 4, abs=1e-6)
    assert (one.missed_slices, one.hallucinated_slices) == (1, 1)
    assert one.nonempty_dice == pytest.approx(0.875)
    assert one.nonempty_hd95_mm == pytest.approx(0.2, abs=1e-6)
    assert one.target_ml == one.prediction_ml == pytest.approx(192 * 0.06 / 1000)
    assert (two.dice, two.slice_dice, two.slice_hd95_mm, two.missed_slices, two.slices) == (1, 1, 0, 0, 2)
    assert two.nonempty_dice == 1


def test_distances_follow_the_headers_spacing_along_each_axis(tmp_path: Path) -> None:
    truth = np.zeros((24, 18, 1), dtype=np.uint8)
    truth[4:15, 3:9] = 1
    image = np.roll(truth, (3, 2), axis=(0, 1)) * np.uint8(200)
    scan, mask = write_volume(tmp_path / "a.nii.gz", image), write_volume(tmp_path / "m.nii.gz", truth)
    (found,) = run(VolumeSlices([VolumeFiles("a", scan, mask, None, "a")]), fit=24).volumes
    first, second = truth[:, :, 0].astype(bool), image[:, :, 0] > 0
    border, other = (m & ~binary_erosion(m) for m in (first, second))
    distances = [distance_transform_edt(~o, sampling=SPACING[:2])[b] for b, o in ((border, other), (other, border))]
    assert found.slice_hd95_mm == pytest.approx(max(np.percentile(d, 95) for d in distances), abs=1e-5)
    assert found.slice_hd95_mm == found.nonempty_hd95_mm > 0.5


def test_what_is_empty_is_measured_without_nan(tmp_path: Path) -> None:
    dataset = two_volumes(tmp_path)
    one, two = run(dataset, Bright(level=2.0)).volumes
    assert (one.dice, one.slice_dice, one.missed_slices, one.hallucinated_slices) == (0, 0, 3, 0)
    assert one.nonempty_dice is one.nonempty_hd95_mm is None
    assert one.slice_hd95_mm == pytest.approx(math.hypot(3.2, 6.0))
    assert two.prediction_ml == 0
    third = dataset.subset(["p1/slice_002"])
    (agreed,) = run(third, Bright(level=2.0)).volumes
    assert (agreed.dice, agreed.slice_dice, agreed.slice_hd95_mm, agreed.slices) == (1, 1, 0, 1)
    assert agreed.nonempty_dice is None
    means = volume_means([one, agreed], resamples=20)
    assert means.nonempty_dice is None
    assert means.nonempty_volumes == 0


def test_means_count_each_volume_once_and_published_ones_where_they_are(tmp_path: Path) -> None:
    found = run(two_volumes(tmp_path))
    means = found.mean(resamples=200)
    assert means.dice.mean == pytest.approx(np.mean([volume.dice for volume in found.volumes]))
    assert means.dice.low == pytest.approx(found.volumes[0].dice)
    assert means.dice.high == 1
    assert means.nonempty_dice is not None
    assert means.nonempty_dice.mean == pytest.approx((0.875 + 1) / 2)
    assert (means.missed_slices, means.hallucinated_slices, means.slices) == (1, 1, 6)
    assert (means.volumes, means.groups, means.resamples) == (2, 2, 200)
    assert found.mean(resamples=200) == means
    one, two = found.volumes
    lost = dataclasses.replace(two, nonempty_dice=None, nonempty_hd95_mm=None)
    partly = volume_means([one, lost], resamples=50)
    assert partly.nonempty_dice is not None
    assert partly.nonempty_dice.mean == pytest.approx(0.875)
    assert (partly.nonempty_volumes, partly.volumes) == (1, 2)
    together = volume_means([dataclasses.replace(one, group="p2"), two], resamples=50)
    assert together.dice.low == together.dice.high == together.dice.mean
    with pytest.raises(ValueError, match=r"at least 1 volume and 1 resample; got 0 and 10000"):
        volume_means([])


def test_batches_stay_within_a_volume_and_their_size_changes_nothing(tmp_path: Path) -> None:
    dataset = two_volumes(tmp_path)
    network = Bright()
    three = run(dataset, network, batch_size=3)
    assert network.batches == [3, 1, 2]
    assert not network.training
    assert three.volumes == run(dataset, batch_size=1).volumes


def test_side_logits_smaller_logits_and_any_fit_will_do(tmp_path: Path) -> None:
    class Deep(nn.Module):
        def forward(self, images: Tensor) -> MultiScaleLogits:
            logits = Bright()(images)
            return MultiScaleLogits(logits, (-logits[..., ::4, ::4],))

    class Small(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return Bright()(nn.functional.avg_pool2d(images, 2))

    dataset = two_volumes(tmp_path)
    plain = run(dataset)
    assert run(dataset, Deep()).volumes == plain.volumes
    assert run(dataset, Small()).volumes[1].dice > 0.9
    assert run(dataset, fit=FitToSquare(20)).volumes == plain.volumes
    stretched = run(dataset, fit=StretchToSquare(80))
    assert stretched.volumes[1].dice > 0.95
    assert run(dataset, fit=StretchToSquare(11)).volumes != run(dataset, fit=11).volumes
    assert run(dataset, threshold=0.3, fit=12).volumes[1].prediction_ml > run(dataset, fit=12).volumes[1].prediction_ml


def test_an_ultrarefiner_is_measured_by_its_refined_masks(tmp_path: Path) -> None:
    dataset = MicroUltrasound(write_micro_ultrasound(tmp_path), split="test")
    torch.manual_seed(0)
    refiner = ur.SAMRefiner(ur.build_sam("tiny", image_size=64))
    model = ur.UltraRefiner(coarse=nn.Conv2d(1, 1, 9, padding=4), refiner=refiner)

    class Refined(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return model(images).refined_logits

    options = {"fit": StretchToSquare(32), "panels": 0, "progress": False}
    refined = evaluate_volumes(model, dataset, **options)
    assert refined.volumes == evaluate_volumes(Refined(), dataset, **options).volumes
    assert refined.volumes != evaluate_volumes(model.coarse, dataset, **options).volumes


@pytest.mark.usefixtures("unhooked")
def test_single_images_are_sent_to_the_other_function() -> None:
    with pytest.raises(ValueError, match=r"dataset must be VolumeSlices, .* is a Phantoms; measure single images with"):
        evaluate_volumes(nn.Conv2d(1, 1, 1), Phantoms(1), fit=32)


def test_saved_predictions_lie_on_their_scans_and_can_be_read_again(tmp_path: Path) -> None:
    dataset = two_volumes(tmp_path)
    run(dataset, save_predictions=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p1.nii.gz", "p2.nii.gz"]
    saved, scan = (nibabel.load(path) for path in (tmp_path / "out" / "p1.nii.gz", tmp_path / "p1_scan.nii.gz"))
    assert np.array_equal(np.asarray(saved.dataobj), np.asarray(scan.dataobj) > 100)
    assert np.allclose(saved.affine, scan.affine)
    files = [dataclasses.replace(f, mask=tmp_path / "out" / f"{f.name}.nii.gz") for f in dataset.files]
    again = run(VolumeSlices(files, intensity_range=(0.0, 200.0)))
    assert [volume.dice for volume in again.volumes] == [1, 1]
    run(dataset.subset(["p1/slice_001"]), save_predictions=tmp_path / "part")
    part = np.asarray(nibabel.load(tmp_path / "part" / "p1.nii.gz").dataobj)
    assert part.sum(axis=(0, 1)).tolist() == [0, 64, 0, 0]


def test_the_micro_ultrasound_set_is_evaluated_and_drawn(tmp_path: Path) -> None:
    dataset = MicroUltrasound(write_micro_ultrasound(tmp_path / "set", test_volumes=3), split="test")
    smooth = nn.Sequential(nn.AvgPool2d(5, 1, 2), Bright(level=0.35))
    found = run(dataset, smooth, fit=72, panels=2, batch_size=4)
    assert [volume.slices for volume in found.volumes] == [4, 4, 4]
    assert min(volume.dice for volume in found.volumes) > 0.7
    by_dice = sorted(found.volumes, key=lambda volume: volume.dice)
    assert [row[0].name.split("/")[0] for row in found.panels] == [by_dice[0].name, by_dice[-1].name]
    for row in found.panels:
        dice = [panel.metrics.dice for panel in row]
        assert [panel.rank for panel in row] == ["best", "middle", "worst"]
        assert dice == sorted(dice, reverse=True)
        for panel in row:
            overlap = 2 * (panel.prediction & panel.target).sum() / (panel.prediction.sum() + panel.target.sum())
            assert overlap == pytest.approx(panel.metrics.dice)
            assert panel.image.shape == (1, 48, 72)
            assert panel.spacing == (0.2, 0.3)
    found.to_figure(tmp_path / "new" / "volumes.png", dots_per_inch=50)
    found.to_csv(tmp_path / "new" / "volumes.csv")
    found.to_markdown(tmp_path / "new" / "volumes.md")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["volumes.csv", "volumes.md", "volumes.png"]
    assert (tmp_path / "new" / "volumes.md").read_text() == volumes_table(found.mean())


def test_a_picture_of_few_slices_names_them_and_says_what_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unhooked: None
) -> None:
    notes: list[str] = []
    write = Axes.text

    def listening(axis: Axes, x: float, y: float, text: str, **options) -> Text:
        notes.append(text)
        return write(axis, x, y, text, **options)

    monkeypatch.setattr(Axes, "text", listening)
    dataset = two_volumes(tmp_path)
    found = run(dataset.subset(["p1/slice_003", "p2/slice_000", "p2/slice_001"]), panels=5)
    assert [[panel.rank for panel in row] for row in found.panels] == [["only"], ["best", "worst"]]
    found.to_figure(tmp_path / "volumes.svg")
    assert notes == ["prediction empty"]
    assert "p2/slice_001" in (tmp_path / "volumes.svg").read_text()
    nothing = run(dataset.subset(["p1/slice_002"]), Bright(level=2.0), panels=1)
    assert nothing.panels == ()
    with pytest.raises(ValueError, match="rows must hold at least one slice to draw; got none"):
        nothing.to_figure(tmp_path / "none.png")
    panel = found.panels[0][0]
    with pytest.raises(ValueError, match=r"target of slice 'p1/slice_003' must be on .* pixels, \(1, 16, 20\)"):
        volume_figure([[dataclasses.replace(panel, target=panel.target[:, :8])]], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.fixture
def missed() -> VolumeMetrics:
    return VolumeMetrics("p, 1", "g", 4, 0.5, 0.25, 3.5, 2, 1, None, None, 0.0, 1.5)


def test_the_csv_and_the_table_hold_all_numbers(tmp_path: Path, missed: VolumeMetrics) -> None:
    whole = dataclasses.replace(missed, name="p2", nonempty_dice=0.75, nonempty_hd95_mm=1.25)
    VolumeEvaluation((missed, whole), ()).to_csv(tmp_path / "v.csv")
    with (tmp_path / "v.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["p, 1", "p2"]
    assert (rows[0]["nonempty_dice"], rows[1]["nonempty_hd95_mm"]) == ("", "1.25")
    assert (rows[0]["slice_hd95_mm"], rows[0]["missed_slices"], rows[0]["target_ml"]) == ("3.5", "2", "1.5")
    table = volumes_table(volume_means([missed, whole], resamples=10))
    assert "| Dice of the volume ↑ | 0.500 [0.500, 0.500] |" in table
    assert "| HD95 of a slice ↓ (mm) | 3.50 [3.50, 3.50] |" in table
    assert "| neither empty: Dice of a slice ↑ | 0.750 [0.750, 0.750] |" in table
    assert "2 volumes of 1 patients, 8 slices: 4 with a lesion were missed, 2 without one got a mask." in table
    assert "10 resamples of patients" in table
    assert "which 1 volumes have" in table
    assert "| neither empty: Dice of a slice ↑ | none |" in volumes_table(volume_means([missed], resamples=10))


def test_what_cannot_be_evaluated_gets_a_sentence(tmp_path: Path) -> None:
    dataset = two_volumes(tmp_path)
    with pytest.raises(ValueError, match=r"batch_size must be at least 1 and panels at least 0; got 0 and 0"):
        run(dataset, batch_size=0)
    for threshold in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match=f"threshold must be a probability .*got {threshold}"):
            run(dataset, threshold=threshold)
    with pytest.raises(ValueError, match=r"one mask an image, \(4, 1, h, w\), but it is \(4, 2, 20, 20\)"):
        run(dataset, nn.Conv2d(1, 2, 1))
    broken = nn.Conv2d(1, 1, 1)
    nn.init.constant_(broken.weight, float("nan"))
    with pytest.raises(ValueError, match=r"slices of 'p1' have NaN or infinity"):
        run(dataset, broken)
    bare = VolumeSlices([dataclasses.replace(dataset.files[0], mask=None), dataset.files[1]])
    with pytest.raises(ValueError, match=r"true mask for every volume, but 1 of 2 have none, the first is 'p1'"):
        run(bare)
    escaping = VolumeSlices([dataclasses.replace(dataset.files[0], name="../p1")])
    with pytest.raises(ValueError, match=r"name '\.\./p1' leads out of the folder"):
        run(escaping, save_predictions=tmp_path / "out")
    volume = dataset.volume(0)
    masks = torch.zeros(4, 16, 20, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"predictions must have one mask a slice of 'p1', \(4, 16, 20\), got \(4, 20"):
        volume_metrics(volume, masks.mT, masks.mT)
    with pytest.raises(ValueError, match=r"predictions must have .*got \(3, 16, 20\)"):
        volume_metrics(volume, masks[:3], masks[:3])
