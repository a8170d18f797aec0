"""``ultrarefiner predict``: images to masks, with what the library is installed with and no extra."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from ultrarefiner.cli.models import DEFAULT_MODEL, Device, open_device, open_model
from ultrarefiner.cli.outcome import DONE, FAILED, SOME_BROKEN, Outcome


def predict(
    paths: list[Path],
    model: str = DEFAULT_MODEL,
    out: Path = Path("predictions"),
    flips: bool = False,
    rounds: int = 1,
    batch_size: int = 8,
    threshold: float = 0.5,
    probabilities: bool = False,
    panels: bool = True,
    recursive: bool = False,
    resume: bool = True,
    frame: int | None = None,
    colour: bool = False,
    stretch: bool = False,
    device: Device = "auto",
    precision: Literal["32-true", "bf16"] = "32-true",
    progress: bool = True,
) -> Outcome:
    """Segment images and refine their masks.

    PNG, JPEG, TIFF and their like, DICOM and NIfTI. Masks at each image's own resolution, panels and a table of areas
    and confidences go to a folder; a broken file is reported and stops nothing; the same command goes on where it was
    stopped.

    Args:
        paths: images and folders of images; words without a flag are paths, too.
        model: a folder that save_pretrained wrote, a checkpoint of train joint (best.pt in its run's folder),
            owner/name on the Hugging Face hub, or the name of a model that comes with the package.
        out: folder for the results.
        flips: average over each image and its mirror image, left and right swapped; takes twice as long.
        rounds: how often each mask is refined.
        batch_size: images at once.
        threshold: probability between 0 and 1 from which on a pixel is lesion.
        probabilities: write probability maps, too, as PNG of 16 bits.
        panels: write a picture of image, coarse mask, prompts and refined mask for each image.
        recursive: search folders inside folders.
        resume: take over what an earlier run into the same folder finished with the same model and flags.
        frame: side of the square that images are fitted to; by default the model's own.
        colour: keep the colours of images; by default they are read as grey.
        stretch: divide each image by its own largest number, for 12 bits in a file of 16.
        device: where to compute; auto takes a CUDA GPU where there is one.
        precision: of the networks; bf16 is faster on a GPU and less exact.
        progress: show a progress bar on a terminal.

    Returns:
        What was done, and what could not be read. The exit code is 0 if all images were done, 3 if some were broken and
        the others were done, and 1 if none was.

    Raises:
        ValueError: no path, no such model or device, or a flag out of its range.
        OSError: the model or the results cannot be read or written.
    """
    from ultrarefiner.prediction import predict_files

    if not paths:
        message = "give images, or folders of images: ultrarefiner predict IMAGE | FOLDER ..."
        raise ValueError(message)
    place = open_device(device)
    report = predict_files(
        open_model(model),
        [path.expanduser() for path in paths],
        out.expanduser(),
        batch_size=batch_size,
        flips=flips,
        rounds=rounds,
        precision=precision,
        probabilities=probabilities,
        panels=panels,
        threshold=threshold,
        recursive=recursive,
        resume=resume,
        frame=frame,
        colour=colour,
        stretch=stretch,
        device=place,
        progress=progress,
    )
    code = DONE if report.rows and not report.failures else SOME_BROKEN if report.rows else FAILED
    # What failed is said last and on standard error, one sentence a line.
    return Outcome(str(replace(report, failures=())), tuple(one.reason for one in report.failures), code)
