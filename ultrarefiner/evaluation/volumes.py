"""Evaluate a network on volumes: slice by slice on their own pixels, in mm, volume by volume."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.data import Case, Fit, Volume, VolumeSlices
from ultrarefiner.data.fit import as_fit
from ultrarefiner.data.nifti import write_mask
from ultrarefiner.evaluation.answering import device_of, mask_logits
from ultrarefiner.evaluation.metrics import CaseMetrics
from ultrarefiner.evaluation.options import check_options
from ultrarefiner.evaluation.ranking import evenly_ranked
from ultrarefiner.evaluation.volume_figures import SlicePanel, volume_figure
from ultrarefiner.evaluation.volume_metrics import VolumeMeans, VolumeMetrics, volume_means, volume_metrics
from ultrarefiner.evaluation.volume_tables import volumes_table, write_volumes_csv
from ultrarefiner.ops.logits import resize_logits


@dataclass(frozen=True)
class VolumeEvaluation:
    """What an evaluation of volumes found.

    Attributes:
        volumes: the metrics of each, in the data set's order.
        panels: of some volumes, from the lowest to the highest Dice, evenly spaced in rank: their best, middle and
            worst slice of those where the truth or the prediction has a lesion.
    """

    volumes: tuple[VolumeMetrics, ...]
    panels: tuple[tuple[SlicePanel, ...], ...]

    def mean(self, *, resamples: int = 10_000, seed: int = 0) -> VolumeMeans:
        """Means over volumes with 95 % bootstrap intervals (`volume_means`)."""
        return volume_means(self.volumes, resamples=resamples, seed=seed)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row a volume (`write_volumes_csv`)."""
        write_volumes_csv(path, self.volumes)

    def to_markdown(self, path: str | os.PathLike[str]) -> None:
        """Write the means with intervals and the counts (`volumes_table`); the file appears whole or not at all."""
        with replaced_file(path) as file:
            file.write(volumes_table(self.mean()).encode())

    def to_figure(self, path: str | os.PathLike[str], *, dots_per_inch: int = 150) -> None:
        """Draw the panels (`volume_figure`).

        Raises:
            ValueError: there are none.
        """
        volume_figure(self.panels, path, dots_per_inch=dots_per_inch)


def evaluate_volumes(
    network: nn.Module,
    dataset: VolumeSlices,
    *,
    fit: int | Fit,
    batch_size: int = 8,
    threshold: float = 0.5,
    panels: int = 3,
    save_predictions: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> VolumeEvaluation:
    """Segment every slice and measure each volume against the truth, with its header's spacing.

    Slices are fitted into a square as in training; probabilities are brought back to each slice's own pixels, soft,
    and thresholded there. No slice is dropped (`VolumeMetrics`). One volume is in memory at a time.

    Args:
        network: any module from images (b, 1, s, s) to logits (b, 1, h', w'), or to `MultiScaleLogits` of them, on any
            device; it is put in evaluation mode and left there. An `UltraRefiner` is measured by its refined masks;
            give its ``coarse`` for those before. Call this under ``torch.autocast`` for mixed precision.
        dataset: slices with true masks; a subset measures the slices that it has.
        fit: as in training: the side of the square for `FitToSquare`, or a fit such as ``StretchToSquare(224)``.
        batch_size: slices at once.
        threshold: probability in (0, 1) from which on a pixel is lesion.
        panels: how many volumes to draw, 0 for none.
        save_predictions: a folder that gets each volume's predicted mask as "name.nii.gz", 0 and 1, with the geometry
            of its scan; slices that are not in the data set are empty.
        progress: whether to show a progress bar.

    Returns:
        The metrics of every volume, and the panels.

    Raises:
        ValueError: a volume has no mask, the threshold is not between 0 and 1, batch_size is not positive, panels is
            negative, the network answers with several masks an image or with NaN, or a volume's name leads out of the
            folder for predictions.

    Example:
        >>> import tempfile, nibabel, numpy
        >>> from ultrarefiner.data import VolumeFiles
        >>> scan, mask = (Path(tempfile.mkdtemp()) / name for name in ("scan.nii.gz", "mask.nii.gz"))
        >>> voxels = numpy.zeros((16, 12, 2), numpy.uint8)
        >>> voxels[4:12, 3:9] = 200
        >>> for path in (scan, mask):
        ...     nibabel.save(nibabel.Nifti1Image(voxels, numpy.diag([0.1, 0.2, 1.0, 1.0])), path)
        >>> dataset = VolumeSlices([VolumeFiles("p1", scan, mask, None, "p1")])
        >>> bright = nn.Conv2d(1, 1, 1)
        >>> _ = nn.init.constant_(bright.weight, 20.0), nn.init.constant_(bright.bias, -10.0)
        >>> found = evaluate_volumes(bright, dataset, fit=16, panels=0, progress=False)
        >>> found.volumes[0].dice, found.volumes[0].slice_hd95_mm, found.volumes[0].missed_slices
        (1.0, 0.0, 0)

    The published evaluation, which leaves out slices that were missed: Jiang et al., "MicroSegNet", arXiv 2305.19956.
    """
    if not isinstance(dataset, VolumeSlices):
        message = (
            f"dataset must be VolumeSlices, whose headers know millimetres, but it is a {type(dataset).__name__}; "
            "measure single images with evaluate."
        )
        raise ValueError(message)
    volumes = dataset.volumes
    _check(volumes, batch_size, panels, threshold)
    folder = None if save_predictions is None else Path(save_predictions)
    places = [None if folder is None else _place(folder, volume) for volume in volumes]
    way = as_fit(fit)
    network.eval()
    measured: list[VolumeMetrics] = []
    slices: list[tuple[CaseMetrics, ...]] = []
    with tqdm(total=len(dataset), desc="evaluate", unit="slice", disable=None if progress else True) as bar:
        for volume, place in zip(volumes, places, strict=True):
            predictions, targets = [], []
            for case, probability in _segmented(network, dataset, volume, way, batch_size):
                predictions.append(probability[0] >= threshold)
                targets.append(case.mask[0] >= 0.5)
                bar.update()
            found = torch.stack(predictions)
            metrics, cases = volume_metrics(volume, found, torch.stack(targets))
            measured.append(metrics)
            slices.append(cases)
            if place is not None:
                write_mask(place, volume.voxels(found), like=volume.files.image)
    drawn = (
        _panels(network, dataset, volumes[index], slices[index], fit=way, batch_size=batch_size, threshold=threshold)
        for index in evenly_ranked([volume.dice for volume in measured], panels)
    )
    return VolumeEvaluation(tuple(measured), tuple(row for row in drawn if row))


@torch.inference_mode()
def _segmented(
    network: nn.Module, dataset: VolumeSlices, volume: Volume, fit: Fit, batch_size: int
) -> Iterator[tuple[Case, Tensor]]:
    """The slices of a volume and their probabilities (1, h, w) on their own pixels, on the CPU."""
    device = device_of(network)
    for start in range(0, len(volume.cases), batch_size):
        together = [dataset[index] for index in volume.cases[start : start + batch_size]]
        images = torch.stack([fit.image(case.image) for case in together]).to(device)
        content = torch.tensor([fit.content_size(volume.size)] * len(together), device=device)
        logits = mask_logits(network, images, content, of=f"slices of {volume.name!r}")
        probability = resize_logits(logits, (fit.size, fit.size)).sigmoid().cpu()
        for case, soft in zip(together, probability, strict=True):
            yield case, fit.restore(soft, volume.size)


def _panels(
    network: nn.Module,
    dataset: VolumeSlices,
    volume: Volume,
    cases: Sequence[CaseMetrics],
    *,
    fit: Fit,
    batch_size: int,
    threshold: float,
) -> tuple[SlicePanel, ...]:
    """Segmented once more: to keep every slice until the volumes are ranked would take too much memory."""
    order = [index for index, case in enumerate(cases) if case.prediction_pixels or case.target_pixels]
    order.sort(key=lambda index: (-cases[index].dice, cases[index].hd95))
    if len(order) > 3:
        order = [order[0], order[len(order) // 2], order[-1]]
    ranks = [[], ["only"], ["best", "worst"], ["best", "middle", "worst"]][len(order)]
    few = replace(
        volume,
        slices=tuple(volume.slices[index] for index in order),
        cases=tuple(volume.cases[index] for index in order),
    )
    segmented = _segmented(network, dataset, few, fit, batch_size)
    return tuple(
        SlicePanel(
            name=case.name,
            rank=rank,
            image=case.image,
            prediction=probability >= threshold,
            target=case.mask >= 0.5,
            metrics=cases[index],
            spacing=volume.spacing,
        )
        for rank, index, (case, probability) in zip(ranks, order, segmented, strict=True)
    )


def _place(folder: Path, volume: Volume) -> Path:
    place = folder / f"{volume.name}.nii.gz"
    if not place.resolve().is_relative_to(folder.resolve()):
        message = f"the volume's name {volume.name!r} leads out of the folder {folder}; give it another name"
        raise ValueError(message)
    return place


def _check(volumes: Sequence[Volume], batch_size: int, panels: int, threshold: float) -> None:
    bare = [volume.name for volume in volumes if volume.files.mask is None]
    if bare:
        message = (
            f"dataset must have a true mask for every volume, but {len(bare)} of {len(volumes)} have none, the first "
            f"is {bare[0]!r}; leave them out, or give an empty mask where there is no lesion."
        )
        raise ValueError(message)
    check_options(batch_size, panels, threshold)
