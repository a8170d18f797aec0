"""Masks that are there, from whatever made them, against true masks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from tqdm import tqdm

from ultrarefiner.data import Cases
from ultrarefiner.data.folder import PICTURE_SUFFIXES
from ultrarefiner.data.images import read_image, read_mask

if TYPE_CHECKING:
    from ultrarefiner.evaluation import SegmentationEvaluation

_TABLE, _MASKS, _MAPS = "predictions.csv", "masks", "probabilities"  # of the command predict


def measure_masks(
    cases: Cases, folder: Path, *, suffix: str, threshold: float, maps: bool, panels: int, progress: bool
) -> SegmentationEvaluation:
    """Measure a folder of predicted masks.

    Args:
        cases: with true masks.
        folder: a picture for each case, with its name and the suffix, in folders inside, too; others are passed over.
            Or the results of the command predict.
        suffix: what follows a case's name in the name of its picture.
        threshold: from which on a pixel of a probability map is lesion; masks have none.
        maps: whether the pictures are probability maps.
        panels: how many cases to draw.
        progress: whether to show a progress bar.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a case has no picture there, several, or one of another size; or a number is out of range.
    """
    from ultrarefiner.evaluation import SegmentationEvaluation, SegmentationPanel, segmentation_metrics
    from ultrarefiner.evaluation.options import check_cases, check_options
    from ultrarefiner.evaluation.ranking import evenly_ranked

    check_cases(cases)
    check_options(1, panels, threshold)
    paths = _paths(cases, folder, suffix, maps)
    metrics = []
    for index in tqdm(range(len(cases)), desc="evaluate", unit="image", disable=None if progress else True):
        case = cases[index]
        found = _read(paths[case.name], maps, tuple(case.mask.shape))
        metrics.append(segmentation_metrics(found >= (threshold if maps else 0.5), case.mask >= 0.5))
    drawn = []
    for index in evenly_ranked([one.dice for one in metrics], panels):
        case = cases[index]
        found = _read(paths[case.name], maps, tuple(case.mask.shape))
        shown = threshold if maps else 0.5
        drawn.append(SegmentationPanel(case.name, case.image, found, case.mask, metrics[index], shown))
    return SegmentationEvaluation(tuple(cases.names), tuple(cases.groups), tuple(metrics), None, tuple(drawn))


def _paths(cases: Cases, folder: Path, suffix: str, maps: bool) -> dict[str, Path]:
    """The picture of each case: by its path below the folder, else by its name alone where that is unique."""
    if not folder.is_dir():
        message = f"predictions must be a folder of masks, but there is none at {folder}; check the path."
        raise FileNotFoundError(message)
    place = folder / (_MAPS if maps else _MASKS) if (folder / _TABLE).exists() else folder
    there = [path for path in sorted(place.rglob("*")) if path.suffix.lower() in PICTURE_SUFFIXES]
    below = {path.relative_to(place).with_suffix("").as_posix(): path for path in there}
    alone = {path.stem: path for path in there}
    often = Counter(path.stem for path in there)
    found = {name: below.get(name + suffix, alone.get(name + suffix)) for name in cases.names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        message = (
            f"{len(missing)} of {len(cases)} cases have no predicted mask in {place}; the first is {missing[0]!r}, "
            f"whose mask must be called {missing[0] + suffix + '.png'!r}. Save a black mask where nothing was found; "
            "or give prediction_suffix, if all names have one."
        )
        raise ValueError(message)
    several = [name for name in cases.names if name + suffix not in below and often[name + suffix] > 1]
    if several:
        message = (
            f"{often[several[0] + suffix]} pictures in folders of {place} are called {several[0] + suffix!r}; give the "
            "folder that has each case once."
        )
        raise ValueError(message)
    return {name: path for name, path in found.items() if path is not None}


def _read(path: Path, maps: bool, shape: tuple[int, ...]) -> Tensor:
    found = read_image(path) if maps else read_mask(path)
    if tuple(found.shape) != shape:
        message = (
            f"{path} must lie on the pixels of its image, (height, width) {shape[1:]}, but has {tuple(found.shape[1:])}"
            "; save masks at the resolution of the images."
        )
        raise ValueError(message)
    return found
