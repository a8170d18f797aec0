"""A run's log, read at any moment, and its curves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from run_moments import Moment

from ultrarefiner.evaluation import BestEpoch, Curves, RunLog, curves_figure, draw_curves, read_run_log

METRICS = """epoch,step,epoch/loss,epoch/dice,epoch/refined,epoch/iou,epoch/coarse_dice,validation/dice,validation/coarse_dice
0,4,1.5,0.2,1.4,0.1,0.6,0.3,0.65
1,8,1.0,0.5,0.95,0.05,0.61,0.7,0.65
2,12,0.8,0.6,0.76,0.04,0.62,0.7,0.65
"""  # noqa: E501 - as the file is
STEPS = """step,epoch,train/loss,train/dice,train/refined,train/iou,learning_rate/refiner
2,0,1.6,0.1,1.5,0.1,0.001
4,0,1.4,0.3,1.3,0.1,0.002
8,1,1.0,0.5,0.95,0.05,0.001
14,3,0.7,0.6,0.66,0.04,0.0005
"""


def run(folder: Path, metrics: str | None = METRICS, steps: str | None = STEPS) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in (("metrics.csv", metrics), ("steps.csv", steps)):
        if text is not None:
            (folder / name).write_text(text)
    return folder


def lines(figure: Figure) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Panel, line, points."""
    return {
        axis.get_title(): {
            line.get_label(): [(round(x, 6), y) for x, y in zip(*line.get_data(), strict=True)] for line in axis.lines
        }
        for axis in figure.axes
    }


# read_run_log


def test_the_log_is_the_tables(tmp_path: Path) -> None:
    log = read_run_log(run(tmp_path))
    assert [row["epoch/loss"] for row in log.epochs] == [1.5, 1.0, 0.8]
    assert [row["step"] for row in log.steps] == [2, 4, 8, 14]
    assert log.best == BestEpoch(1, 0.7), "the first of two equal ones, as best.pt"
    assert read_run_log(run(tmp_path / "a", metrics=None)).best is None
    assert not read_run_log(run(tmp_path / "b", steps=None)).steps


def test_a_half_written_line_is_none(tmp_path: Path) -> None:
    whole = read_run_log(run(tmp_path))
    for length in range(METRICS.rindex("\n", 0, -1) + 1, len(METRICS)):
        cut = read_run_log(run(tmp_path, metrics=METRICS[:length]))
        assert cut.epochs == whole.epochs[:2]
    assert read_run_log(run(tmp_path, metrics=METRICS[:20])).epochs == ()


def test_what_was_done_again_counts_once(tmp_path: Path) -> None:
    """A table that goes back is that of a run that went on from there."""
    again = METRICS.replace("2,12,0.8", "2,12,9.9") + "1,8,1.1,0.4,1,0.1,0.6,0.55,0.65\n2,12,0.7,0.6,0.6,0.1,0.6,,\n"
    log = read_run_log(run(tmp_path, metrics=again, steps=STEPS + "10,2,0.9,0.5,0.8,0.1,0.001\n"))
    assert [row["epoch"] for row in log.epochs] == [0, 1, 2]
    assert [row["epoch/loss"] for row in log.epochs] == [1.5, 1.1, 0.7]
    assert "validation/dice" not in log.epochs[2], "a blank cell is left out"
    assert [row["step"] for row in log.steps] == [2, 4, 8, 10], "the steps after it were lost"
    assert log.best == BestEpoch(1, 0.55)


def test_tables_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must be the folder of a run, with metrics.csv or steps.csv"):
        read_run_log(tmp_path)
    with pytest.raises(ValueError, match=r"has no complete row in metrics.csv or steps.csv yet; wait"):
        draw_curves(run(tmp_path, metrics=METRICS.split("\n")[0] + "\n", steps=""))
    assert not (tmp_path / "curves.png").exists()
    for line in ("1,8,hello,1,1,1,1,1,1", "1,8", ",4,1,1,1,1,1,1,1", "nan,4,1,1,1,1,1,1,1", "0.5,4,1,1,1,1,1,1,1"):
        damaged = METRICS.split("\n")[0] + f"\n{line}\n"
        with pytest.raises(
            ValueError, match=rf"line 2 of .*metrics.csv must have 9 numbers.*'{line}'; remove the line"
        ):
            read_run_log(run(tmp_path, metrics=damaged))
    with pytest.raises(ValueError, match=r"log must have a loss, a Dice or a learning rate to draw"):
        curves_figure(RunLog(({"epoch": 0.0, "step": 3.0},), ()))


# curves_figure


def test_lines_are_the_numbers_at_their_epochs(tmp_path: Path) -> None:
    figure = curves_figure(read_run_log(run(tmp_path)), title="my run")
    found = lines(figure)
    assert list(found) == [
        "loss",
        "Dice: best 0.7000 after 2 epochs",
        "learning rate",
        "loss term: refined",
        "loss term: iou",
    ]
    # 4 steps an epoch; step 14 is in epoch 3, which is not finished.
    assert found["loss"]["steps"] == [(0.5, 1.6), (1.0, 1.4), (2.0, 1.0), (3.5, 0.7)]
    assert found["loss"]["epochs"] == [(1, 1.5), (2, 1.0), (3, 0.8)]
    assert found["loss term: iou"]["epochs"] == [(1, 0.1), (2, 0.05), (3, 0.04)]
    assert found["learning rate"] == {"refiner": [(0.5, 0.001), (1.0, 0.002), (2.0, 0.001), (3.5, 0.0005)]}
    dice = found["Dice: best 0.7000 after 2 epochs"]
    assert list(dice) == ["training", "training, coarse", "validation", "validation, coarse"]
    assert dice["training"] == [(1, 0.2), (2, 0.5), (3, 0.6)]
    assert dice["validation"] == [(1, 0.3), (2, 0.7), (3, 0.7)]
    assert dice["training, coarse"][2] == (3, 0.62)
    (star,) = figure.axes[1].collections
    assert star.get_offsets().tolist() == [[2.0, 0.7]]
    assert figure.get_suptitle() == "my run: 3 epochs, 14 steps"
    assert {axis.get_xlabel() for axis in figure.axes} == {"epochs finished"}


def test_steps_are_faint_and_epochs_strong(tmp_path: Path) -> None:
    steps, epochs = curves_figure(read_run_log(run(tmp_path))).axes[0].lines
    assert steps.get_alpha() < 0.5
    assert steps.get_linewidth() < epochs.get_linewidth()
    assert epochs.get_alpha() is None
    assert epochs.get_marker() == "o"


def test_before_the_first_epoch_steps_are_counted(tmp_path: Path) -> None:
    figure = curves_figure(read_run_log(run(tmp_path, metrics=None)))
    found = lines(figure)
    assert found["loss"] == {"steps": [(2, 1.6), (4, 1.4), (8, 1.0), (14, 0.7)]}
    assert found["Dice"] == {"training, steps": [(2, 0.1), (4, 0.3), (8, 0.5), (14, 0.6)]}
    assert figure.axes[0].get_xlabel() == "steps finished"
    assert figure.get_suptitle() == "0 epochs, 14 steps"


def test_one_epoch_is_a_point_and_columns_may_lack(tmp_path: Path) -> None:
    figure = curves_figure(read_run_log(run(tmp_path, metrics="epoch,validation/dice\n0,0.25\n", steps=None)))
    (axis,) = figure.axes
    assert axis.get_title() == "Dice: best 0.2500 after 1 epoch"
    assert axis.lines[0].get_marker() == "o"
    assert axis.get_xlim() == (0, 2), "in the middle"
    assert figure.get_suptitle() == "1 epoch, 0 steps"
    # No step in metrics.csv: the epoch that a step is in must do.
    figure = curves_figure(read_run_log(run(tmp_path, metrics="epoch,epoch/loss\n0,1.0\n1,0.5\n")))
    assert lines(figure)["loss"]["steps"][-1] == (4, 0.7)


def test_a_term_that_is_the_loss_is_not_drawn_twice(tmp_path: Path) -> None:
    same = "epoch,step,epoch/loss,epoch/dice,epoch/segmentation\n0,4,1.5,0.2,1.5\n1,8,1.0,0.5,1.0\n"
    assert list(lines(curves_figure(read_run_log(run(tmp_path, same, None))))) == ["loss (segmentation)", "Dice"]
    other = same.replace("0.5,1.0", "0.5,0.9")
    found = lines(curves_figure(read_run_log(run(tmp_path, other, None))))
    assert list(found) == ["loss", "Dice", "loss term: segmentation"]


def test_numbers_without_end_leave_gaps(tmp_path: Path) -> None:
    spoilt = "epoch,step,epoch/loss,epoch/dice,epoch/refined\n0,4,1.5,0.2,nan\n1,8,nan,0.5,nan\n2,12,inf,0.5,-inf\n"
    figure = curves_figure(read_run_log(run(tmp_path, spoilt, None)))
    assert list(lines(figure)) == ["loss", "Dice"], "of the term nothing is left"
    assert np.isfinite(figure.axes[0].lines[0].get_ydata()).tolist() == [True, False, False]


def test_scales_are_logarithmic_where_sizes_differ(tmp_path: Path) -> None:
    table = "epoch,step,epoch/loss,epoch/size,epoch/tight\n0,4,9.0,500,500\n1,8,2.0,3,-3\n"
    rates = "step,epoch,learning_rate/coarse,learning_rate/sam\n4,0,0.001,{0}\n8,1,0.0001,{0}\n"
    log = read_run_log(run(tmp_path, table, rates.format(1e-5)))
    figure = curves_figure(log)
    assert [(axis.get_title(), axis.get_yscale()) for axis in figure.axes] == [
        ("loss", "linear"),
        ("learning rate", "log"),
        ("loss term: size", "log"),
        ("loss term: tight", "linear"),
    ]
    assert [text.get_text() for text in figure.axes[1].get_legend().get_texts()] == ["coarse", "sam"]
    alike = curves_figure(read_run_log(run(tmp_path, table, rates.format(5e-4))))
    assert alike.axes[1].get_yscale() == "linear"


def test_no_two_texts_overlap(tmp_path: Path) -> None:
    figure = curves_figure(read_run_log(run(tmp_path)), title="a rather long name of a run's folder, with its fold")
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    boxes = [axis.get_tightbbox(renderer) for axis in figure.axes]
    boxes.append(figure._suptitle.get_window_extent(renderer))
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 + 1 and box.y0 >= 0 for box in boxes)


def test_the_axis_is_where_the_points_are(tmp_path: Path) -> None:
    def limits(metrics: str | None, steps: str | None) -> list[tuple[float, float]]:
        return [axis.get_xlim() for axis in curves_figure(read_run_log(run(tmp_path, metrics, steps))).axes]

    (tmp_path / "metrics.csv").unlink(missing_ok=True)
    assert limits(None, "step,epoch,train/loss,train/dice\n7,0,1.0,0.5\n") == [(6, 8)] * 2
    found = curves_figure(read_run_log(run(tmp_path, None, "step,epoch,train/loss\n1,0,1.0\n")))
    assert found.get_suptitle() == "0 epochs, 1 step"
    (tmp_path / "steps.csv").unlink()
    (left, right) = limits("epoch,step,epoch/loss\n0,4,1.0\n1,8,0.5\n", None)[0]
    assert 0.9 < left < 1 < 2 < right < 2.1
    assert limits(METRICS, STEPS)[0][0] == 0, "single steps begin near it"


def test_the_star_hides_no_point(tmp_path: Path) -> None:
    axis = curves_figure(read_run_log(run(tmp_path))).axes[1]
    (star,) = axis.collections
    assert star.get_zorder() < min(line.get_zorder() for line in axis.lines)
    assert star.get_sizes()[0] > max(line.get_markersize() for line in axis.lines) ** 2


def test_the_score_has_its_own_name(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "run.json").write_text('{"score_name": "Dice of boxes"}')
    log = read_run_log(tmp_path)
    assert log.score_name == "Dice of boxes"
    assert "Dice of boxes: best 0.7000 after 2 epochs" in lines(curves_figure(log))
    (tmp_path / "metrics.csv").unlink()
    assert "Dice of boxes" in lines(curves_figure(read_run_log(tmp_path)))
    for damaged in ("", "[]", "{}", '{"score_name": 3}', "\xff"):
        (tmp_path / "run.json").write_text(damaged, encoding="latin-1")
        with pytest.raises(ValueError, match=r'run.json must hold \{"score_name": "..."\}, but it does not; remove it'):
            read_run_log(tmp_path)


# draw_curves and Curves


def test_the_picture_is_whole_and_the_same_again(tmp_path: Path) -> None:
    run(tmp_path)
    path = draw_curves(tmp_path, dots_per_inch=50)
    assert path == tmp_path / "curves.png"
    first = path.read_bytes()
    with Image.open(path) as picture:
        assert picture.size == (round(3 * 4.2 * 50), round((2 * 2.9 + 0.4) * 50))
    assert draw_curves(tmp_path, dots_per_inch=50).read_bytes() == first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["curves.png", "metrics.csv", "steps.csv"]
    assert draw_curves(tmp_path, tmp_path / "new" / "a.pdf").read_bytes().startswith(b"%PDF")


def test_a_failed_picture_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path)
    (tmp_path / "curves.png").write_text("old")

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        draw_curves(tmp_path, dots_per_inch=30)
    assert (tmp_path / "curves.png").read_text() == "old"
    assert len(os.listdir(tmp_path)) == 3  # noqa: PTH208 - names are enough


def test_the_watcher_draws_when_it_is_time_and_at_the_end(tmp_path: Path) -> None:
    run(tmp_path)
    drawn = []
    for epoch in range(8):
        (tmp_path / "curves.png").unlink(missing_ok=True)
        Curves(every=3)(Moment(tmp_path, epoch, 8))
        if (tmp_path / "curves.png").exists():
            drawn.append(epoch)
    assert drawn == [2, 5, 7]
    with pytest.raises(ValueError, match="every must be at least 1 epoch, but it is 0"):
        Curves(every=0)
