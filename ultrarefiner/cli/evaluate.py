"""``ultrarefiner evaluate``: a model, or masks that are there, against true masks."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.cli.cases import CaseFlags, open_cases
from ultrarefiner.cli.measured_masks import measure_masks
from ultrarefiner.cli.models import DEFAULT_MODEL, Device, open_device, open_model
from ultrarefiner.data import BUSI, Cases, Folds, group_folds
from ultrarefiner.prediction import Predictor
from ultrarefiner.prediction.segmenting import frame_of

if TYPE_CHECKING:
    from ultrarefiner.evaluation import CaseMetrics, Evaluation, SegmentationEvaluation


def evaluate(
    out: Path,
    model: str | None = None,
    predictions: Path | None = None,
    prediction_suffix: str = "",
    probabilities: bool = False,
    phantoms: int | None = None,
    normal: bool = False,
    fold: int | None = None,
    folds: int = 5,
    folds_file: Path | None = None,
    seed: int = 0,
    flips: bool = False,
    rounds: int = 1,
    threshold: float = 0.5,
    batch_size: int = 8,
    frame: int | None = None,
    panels: int = 5,
    device: Device = "auto",
    precision: Literal["32-true", "bf16"] = "32-true",
    progress: bool = True,
    **options: Any,
) -> str:
    """Measure a model, or masks that are there, against true masks.

    Of a model, coarse masks are compared with refined ones: table.md has means with 95 % intervals and paired tests,
    cases.csv a row a case, panels.png some cases from the greatest loss to the greatest gain. A lesion that is missed
    counts, with Dice 0.

    Args:
        out: folder for the results.
        model: as in predict; by default breast-ultrasound-light, which comes with the package.
        predictions: folder of predicted masks, in the place of a model: a picture for each case with its name, in
            folders inside, too; or the folder that predict wrote.
        prediction_suffix: what follows a case's name in the name of its predicted mask, such as _mask.
        probabilities: the predictions are probability maps, not masks.
        phantoms: this many made-up cases instead of a folder.
        normal: count, too, how many of BUSI's images without a lesion get a mask.
        fold: only this fold's cases, from 0; by default all.
        folds: how many folds are drawn, groups together, as the training commands draw them.
        folds_file: take the folds from this file, such as folds.tsv in a training's out, and draw none.
        seed: that folds are drawn with.
        flips: average over each image and its mirror image.
        rounds: how often each mask is refined.
        threshold: probability between 0 and 1 from which on a pixel is lesion.
        batch_size: images at once.
        frame: side of the square that images are fitted to; by default the model's own.
        panels: how many cases to draw, 0 for none.
        device: where to compute; auto takes a CUDA GPU where there is one.
        precision: of the networks; bf16 is faster on a GPU and less exact.
        progress: show a progress bar on a terminal.
        options: which cases.

    Returns:
        The table, and where the files are.

    Raises:
        ValueError: flags that do not go together, no true masks, no such fold, or a model that is none.
        OSError: data, model or results cannot be read or written.
    """
    out = out.expanduser()
    flags = CaseFlags(**options)
    _check(flags, model=model, predictions=predictions, suffix=prediction_suffix, maps=probabilities, normal=normal)
    cases = _in_fold(open_cases(flags, phantoms=phantoms), fold, folds, folds_file, seed)
    empty = _normal_cases(flags) if normal else None
    if predictions is not None:

        def measured(some: Cases, drawn: int) -> Any:
            return measure_masks(
                some,
                predictions.expanduser(),
                suffix=prediction_suffix,
                threshold=threshold,
                maps=probabilities,
                panels=drawn,
                progress=progress,
            )

        text = _masks_told(measured(cases, panels), out)
        if empty is not None:
            found = measured(empty, 0)
            text += _counted(found.names, {"predicted": found.metrics}, out)
        return _kept(text, out)
    opened = open_model(model or DEFAULT_MODEL)
    predictor = Predictor(opened, flips=flips, rounds=rounds, precision=precision, device=open_device(device))
    size = frame_of(opened, frame)

    def compared(some: Cases, drawn: int) -> Evaluation:
        from ultrarefiner.evaluation.evaluate import evaluate_refined

        return evaluate_refined(
            predictor, some, size=size, batch_size=batch_size, panels=drawn, threshold=threshold, progress=progress
        )

    text = _model_told(model or DEFAULT_MODEL, compared(cases, panels), out)
    if empty is not None:
        comparison = compared(empty, 0).comparison
        text += _counted(comparison.names, {"coarse": comparison.coarse, "refined": comparison.refined}, out)
    return _kept(text, out)


def _check(
    flags: CaseFlags, *, model: str | None, predictions: Path | None, suffix: str, maps: bool, normal: bool
) -> None:
    wrong = {
        "there must be true masks to measure against, but boxes are none": not flags.has_masks,
        "there must be true masks to measure against, but the dataset images has none": flags.dataset == "images",
        "give model or predictions, not both": model is not None and predictions is not None,
        "prediction_suffix is about predictions": bool(suffix) and predictions is None,
        "probabilities is about predictions": maps and predictions is None,
        "normal is about BUSI's images without a lesion": normal and (flags.dataset != "busi" or flags.data is None),
    }
    found = [sentence for sentence, there in wrong.items() if there]
    if found:
        message = f"{found[0]}; leave the flag out, or give another dataset."
        raise ValueError(message)


def _in_fold(cases: Any, fold: int | None, folds: int, folds_file: Path | None, seed: int) -> Any:
    """The cases of one fold, or all."""
    if fold is None:
        if folds_file is not None:
            message = "folds_file says which cases are in a fold, but no fold was asked for; give fold, from 0."
            raise ValueError(message)
        return cases
    if folds_file is None:
        drawn = group_folds(cases, folds=folds, seed=seed)
    else:
        drawn = Folds.load(folds_file)
        drawn.check(cases)
    return cases.subset(drawn.validation(fold))


def _normal_cases(flags: CaseFlags) -> Any:
    everything = BUSI(str(flags.data), normal=True)
    return everything.subset(
        [name for name, label in zip(everything.names, everything.labels, strict=True) if label == "normal"]
    )


def _model_told(model: str, found: Evaluation, out: Path) -> str:
    from ultrarefiner.evaluation import markdown_table, panel_figure, write_csv

    _forget_earlier(out)
    write_csv(out / "cases.csv", found.comparison)
    if found.panels:
        panel_figure(found.panels, out / "panels.png")
    told = f"{model} on {len(found.comparison.names)} cases. Whether it was trained on them is not known here.\n\n"
    return told + markdown_table(found.comparison)


def _masks_told(found: SegmentationEvaluation, out: Path) -> str:
    from ultrarefiner.evaluation import segmentation_figure, segmentation_table, write_segmentation_csv

    _forget_earlier(out)
    write_segmentation_csv(out / "cases.csv", found)
    if found.panels:
        segmentation_figure(found.panels, out / "panels.png")
    return segmentation_table({"predictions": found})


def _forget_earlier(out: Path) -> None:
    """Delete what an earlier evaluation wrote and this one may not: it would be taken for this one's."""
    for name in ("normal.csv", "panels.png"):
        (out / name).unlink(missing_ok=True)


def _counted(names: tuple[str, ...], masks: dict[str, tuple[CaseMetrics, ...]], out: Path) -> str:
    """How many images without a lesion get a mask, and which: ``normal.csv``."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", *(f"{which}_pixels" for which in masks)])
    for place, name in enumerate(names):
        writer.writerow([name, *(metrics[place].prediction_pixels for metrics in masks.values())])
    with replaced_file(out / "normal.csv") as file:
        file.write(text.getvalue().encode())
    told = []
    for which, metrics in masks.items():
        some = sum(one.prediction_pixels > 0 for one in metrics)
        told.append(f"{some} ({100 * some / len(metrics):.1f} %) get a {which} mask")
    return f"\nOf {len(names)} images without a lesion, {', '.join(told)}.\n"


def _kept(text: str, out: Path) -> str:
    with replaced_file(out / "table.md") as file:
        file.write(text.encode())
    files = [name for name in ("table.md", "cases.csv", "normal.csv", "panels.png") if (out / name).exists()]
    return f"{text}\n{', '.join(files)} in {out}."
