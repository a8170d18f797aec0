"""Predict files and folders: masks, panels and a table on disk; a broken file stops nothing, a kill loses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import torch

from ultrarefiner.data.fit import FitToSquare
from ultrarefiner.data.progress import progress_bar
from ultrarefiner.prediction.finding import find_pictures
from ultrarefiner.prediction.identity import options_digest
from ultrarefiner.prediction.plan import plan_run
from ultrarefiner.prediction.predictor import Precision, Predictor
from ultrarefiner.prediction.report import PredictionReport
from ultrarefiner.prediction.results import ResultFolder
from ultrarefiner.prediction.rows import PredictionFailure
from ultrarefiner.prediction.run import PredictionRun
from ultrarefiner.prediction.segmenting import check_threshold, frame_of
from ultrarefiner.prediction.views import Flips
from ultrarefiner.systems import UltraRefiner


def predict_files(
    model: UltraRefiner,
    paths: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    batch_size: int = 8,
    flips: Flips = False,
    rounds: int = 1,
    precision: Precision = "32-true",
    probabilities: bool = False,
    panels: bool = True,
    threshold: float = 0.5,
    recursive: bool = False,
    resume: bool = True,
    frame: int | None = None,
    colour: bool = False,
    stretch: bool = False,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> PredictionReport:
    """Segment every picture of files and folders, and write what was found, at the pictures' own resolution.

    Into the folder ``out`` go ``masks/<name>.png`` (the final masks, 0 and 255), ``coarse/<name>.png``, on request
    ``probabilities/<name>.png`` (16 bits: the final probability times 65535) and ``panels/<name>.png``, the table
    ``predictions.csv`` with a row a picture (`PredictionRow`), and ``failures.csv``. The masks of a NIfTI file are one
    ``<name>.nii.gz`` with its geometry. A name is the file's, with the folders between it and the folder that was
    given; two files of one name get two (`unique_names`), frames and slices "_frame012" and "_slice012".

    A file that cannot be read stops nothing: it is reported. Every file appears whole or not at all, and a row when its
    files are there; whoever stops or kills a run loses the batch (or volume) in work. The next run into the same folder
    takes over pictures whose file (size, time of change), model and options are what they were. Run one process at a
    time into a folder.

    Args:
        model: a trained one, with one mask an image; it is put in evaluation mode and left there.
        paths: a file, a folder, or several of them; which files of a folder count, `find_pictures` says.
        out: the folder of results; it may lie in a folder that is predicted.
        batch_size: images at once.
        flips: mirror images to average over, see `Flips`.
        rounds: how often each mask is refined, see `refine_in_rounds`.
        precision: "32-true", or "bf16".
        probabilities: whether to write probability maps.
        panels: whether to write panels.
        threshold: probability in (0, 1) from which on a pixel is lesion.
        recursive: whether to search folders inside folders.
        resume: whether to take over what an earlier run finished.
        frame: side of the square that images are fitted to; None for the model's own.
        colour: whether to keep red, green and blue; the default is grey, as in training.
        stretch: whether to divide each picture by its own largest number, for 12 bits in a file of 16.
        device: where to compute; None for where the model is.
        progress: whether to show a progress bar.

    Returns:
        Rows, failures and notes; ``str()`` of it is a summary.

    Raises:
        OSError: the results cannot be written.
        ValueError: an option is out of its range, the model answers several masks an image, ``out`` holds something
            else, or neither the model nor ``frame`` says the side of the square.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> from ultrarefiner import SAMRefiner, build_sam
        >>> refiner = SAMRefiner(build_sam("tiny", image_size=64))
        >>> model = UltraRefiner(coarse=torch.nn.Conv2d(1, 1, 3, padding=1), refiner=refiner, frame=64)
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.linear_gradient("L").save(folder / "a.png")
        >>> _ = (folder / "b.png").write_bytes(b"no picture")
        >>> report = predict_files(model, folder, folder / "out", progress=False)
        >>> [row.name for row in report.rows], len(report.failures), (folder / "out" / "masks" / "a.png").is_file()
        (['a'], 1, True)
    """
    started = time.perf_counter()
    check_threshold(threshold)
    if batch_size < 1:
        message = f"batch_size must be at least 1, but it is {batch_size}; 8 is the default."
        raise ValueError(message)
    fit = FitToSquare(frame_of(model, frame))
    predictor = Predictor(model, flips=flips, rounds=rounds, precision=precision, device=device)
    folder = ResultFolder(out, probabilities=probabilities, panels=panels)
    told = {
        "views": predictor.views,
        "rounds": rounds,
        "precision": precision,
        "probabilities": probabilities,
        "panels": panels,
        "threshold": threshold,
        "frame": fit.size,
        "colour": colour,
        "stretch": stretch,
    }
    found = find_pictures(paths, recursive=recursive, results=out)
    plan = plan_run(found.files, folder, options=options_digest(model, told), resume=resume)
    missing = [PredictionFailure(*problem) for problem in found.problems]
    with progress_bar(plan.pictures, "predict", "image", shown=progress) as bar:
        run = PredictionRun(predictor, fit, folder, plan, threshold, colour, stretch, bar.update)
        run.failures[:0] = missing
        with folder.writing():  # what cannot be read is a failure and stops nothing
            try:
                run.predict(batch_size)
            finally:
                run.finish()
    rows = tuple(run.ordered_rows())
    seconds = time.perf_counter() - started
    return PredictionReport(folder.path, rows, tuple(run.failures), found.notes, len(plan.kept), seconds)
