"""The CSV, the Markdown table and the picture."""

from __future__ import annotations

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ultrarefiner.evaluation import CaseMetrics, Comparison, Panel, compare, markdown_table, panel_figure, write_csv


def case(dice: float, predicted: int = 50) -> CaseMetrics:
    return CaseMetrics(dice, dice / 2, dice, dice, 123.456 if predicted == 0 else 5.0, 2.0, predicted, 50)


@pytest.fixture
def comparison() -> Comparison:
    coarse, refined = [case(0.5), case(0.9), case(0.8)], [case(0.8), case(0.9), case(0.0, 0)]
    return compare(["a, with comma", "b", "c"], coarse, refined, groups=["p", "p", "q"], resamples=100)


def test_the_csv_holds_every_case_exactly(tmp_path: Path, comparison: Comparison) -> None:
    path = tmp_path / "new" / "cases.csv"
    write_csv(path, comparison)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a, with comma", "b", "c"]
    assert [row["outcome"] for row in rows] == ["gained", "unchanged", "harmed"]
    assert [row["detection"] for row in rows] == ["kept", "kept", "lost"]
    assert float(rows[2]["refined_hd95"]) == 123.456
    assert float(rows[0]["dice_difference"]) == pytest.approx(0.3)
    assert [int(row["refined_pixels"]) for row in rows] == [50, 50, 0]
    assert len(rows[0]) == 1 + 6 + 6 + 6


def test_a_failed_write_leaves_the_old_csv(
    tmp_path: Path, comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cases.csv"
    path.write_text("old")

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_csv(path, comparison)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["cases.csv"]


def test_the_table_says_all_that_is_needed_to_judge(comparison: Comparison) -> None:
    table = markdown_table(comparison, unit="mm")
    lines = table.splitlines()
    assert lines[0].count("|") == lines[1].count("|") == 6
    assert [line.split("|")[1].strip() for line in lines[2:8]] == [
        "Dice ↑",
        "IoU ↑",
        "Precision ↑",
        "Recall ↑",
        "HD95 ↓ (mm)",
        "ASSD ↓ (mm)",
    ]
    assert lines[2].startswith("| Dice ↑ | 0.733 [")
    assert "| -0.167 [" in lines[2]
    assert "3 cases in 2 groups: 1 gained, 1 unchanged, 1 harmed" in table
    assert "1 lesions lost, 0 found" in table
    assert "0 coarse, 1 refined" in table
    assert "100 resamples of groups" in table
    assert table.endswith("left out.\n")


def test_a_tiny_p_value_is_not_zero() -> None:
    names = [str(index) for index in range(40)]
    sure = compare(names, [case(0.5)] * 40, [case(0.6 + 0.001 * i) for i in range(40)], resamples=10)
    table = markdown_table(sure)
    assert "| < 0.0001 |" in table
    assert "40 cases: 40 gained" in table


def square(top: int, left: int, side: int, size: tuple[int, int] = (48, 64)) -> Tensor:
    mask = torch.zeros(1, *size)
    mask[:, top : top + side, left : left + side] = 1
    return mask


@pytest.fixture
def panel() -> Panel:
    return Panel(
        name="case",
        image=torch.rand(1, 48, 64, generator=torch.Generator().manual_seed(0)),
        coarse_probability=0.9 * square(10, 10, 20),
        refined_probability=square(12, 12, 20),
        target=square(12, 12, 21),
        points=torch.tensor([[20.0, 20.0], [40.0, 30.0], [0.0, 0.0]]),
        labels=torch.tensor([1, 0, -1]),
        box=torch.tensor([8.0, 8.0, 32.0, 32.0]),
        region=torch.tensor([4.0, 4.0, 40.0, 40.0]),
        coarse_dice=0.8,
        refined_dice=0.95,
    )


def pixels(panels: list[Panel], path: Path) -> Tensor:
    panel_figure(panels, path, dots_per_inch=40)
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB")))


def test_everything_in_a_panel_is_drawn(tmp_path: Path, panel: Panel) -> None:
    whole = pixels([panel], tmp_path / "a.png")
    empty = torch.zeros_like(panel.target)
    for change in (
        {"coarse_probability": empty},
        {"refined_probability": empty},
        {"target": empty},
        {"points": None, "labels": None},
        {"labels": torch.tensor([1, -1, -1])},
        {"box": None},
        {"region": None},
        {"name": "another"},
        {"refined_dice": 0.1},
        {"threshold": 0.3},
        {"image": panel.image.expand(3, -1, -1) * torch.tensor([1.0, 0.5, 0.5])[:, None, None]},
    ):
        other = pixels([dataclasses.replace(panel, **change)], tmp_path / "b.png")
        assert other.shape == whole.shape
        assert not torch.equal(other, whole), change
    assert torch.equal(pixels([panel], tmp_path / "c.png"), whole)


def test_contours_are_drawn_at_the_threshold(tmp_path: Path, panel: Panel) -> None:
    """0.9 everywhere in the coarse square: at 0.95 it is empty, and exactly at the threshold it is not."""
    empty = dataclasses.replace(panel, coarse_probability=torch.zeros_like(panel.target), threshold=0.95)
    soft = dataclasses.replace(panel, threshold=0.95)
    assert torch.equal(pixels([empty], tmp_path / "a.png"), pixels([soft], tmp_path / "b.png"))
    half = dataclasses.replace(panel, coarse_probability=0.5 * square(10, 10, 20))
    gone = dataclasses.replace(panel, coarse_probability=torch.zeros_like(panel.target))
    assert not torch.equal(pixels([half], tmp_path / "c.png"), pixels([gone], tmp_path / "d.png"))


def test_rows_add_up_and_odd_masks_are_drawn(tmp_path: Path, panel: Panel) -> None:
    one, two = pixels([panel], tmp_path / "1.png"), pixels([panel, panel], tmp_path / "2.png")
    assert two.shape[1] == one.shape[1]
    assert two.shape[0] > 1.6 * one.shape[0]
    full, empty = torch.ones_like(panel.target), torch.zeros_like(panel.target)
    nothing = {"points": None, "labels": None, "box": None, "region": None}
    odd = [
        dataclasses.replace(panel, coarse_probability=full, refined_probability=empty),
        dataclasses.replace(panel, coarse_probability=empty, refined_probability=empty, target=empty, **nothing),
        dataclasses.replace(panel, coarse_probability=square(0, 0, 1), region=torch.tensor([-20.0, -9.0, 90.0, 60.0])),
    ]
    assert pixels(odd, tmp_path / "3.png").shape[1] == one.shape[1]


def test_the_ending_decides_the_format_and_pyplot_is_never_touched(tmp_path: Path, panel: Panel) -> None:
    panel_figure([panel], tmp_path / "new" / "a.pdf")
    assert (tmp_path / "new" / "a.pdf").read_bytes().startswith(b"%PDF")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.pdf"]
    code = (
        "import sys, ultrarefiner.evaluation; sys.exit(any(m in sys.modules for m in ('matplotlib.pyplot', 'monai')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("unhooked")
def test_panels_that_cannot_be_drawn_are_refused(tmp_path: Path, panel: Panel) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match="panels must hold at least one case"):
        panel_figure([], path)
    with pytest.raises(ValueError, match=r"refined_probability of panel 'case' must be on the image's pixels"):
        panel_figure([dataclasses.replace(panel, refined_probability=torch.zeros(1, 8, 8))], path)
    with pytest.raises(ValueError, match=r"image of panel 'case' must be \(1 or 3, h, w\)"):
        panel_figure([dataclasses.replace(panel, image=torch.zeros(2, 48, 64))], path)
    with pytest.raises(ValueError, match="labels of panel 'case' must give one label a point"):
        panel_figure([dataclasses.replace(panel, labels=None)], path)
    with pytest.raises(ValueError, match=r"threshold of panel 'case' must be between 0 and 1, both excluded; got 1\.0"):
        panel_figure([dataclasses.replace(panel, threshold=1.0)], path)
    assert not path.exists()
