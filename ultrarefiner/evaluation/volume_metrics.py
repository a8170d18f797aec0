"""How good the masks of a volume's slices are, together and slice by slice, with no slice left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from ultrarefiner.data import Volume
from ultrarefiner.evaluation.bootstrap import Estimate, bootstrap_estimates
from ultrarefiner.evaluation.metrics import CaseMetrics, segmentation_metrics


@dataclass(frozen=True)
class VolumeMetrics:
    """The metrics of one volume. None is ever NaN or infinite.

    Attributes:
        name: of the volume.
        group: its patient.
        slices: how many slices were measured.
        dice: Dice of all its voxels at once; 1 where truth and prediction are both empty.
        slice_dice: mean Dice of the slices where the truth or the prediction has a lesion; 1 if there is none.
        slice_hd95_mm: mean 95th percentile of the surface distances of these slices, in mm, where a missed or
            hallucinated slice counts as its diagonal; 0 if there is none.
        missed_slices: slices with a lesion for which nothing was predicted.
        hallucinated_slices: slices without a lesion for which one was predicted.
        nonempty_dice: mean Dice of the slices where neither is empty, which MicroSegNet's paper reports: a missed slice
            makes it no worse. None if there is no such slice.
        nonempty_hd95_mm: the same for the distances. (The paper's pool both directions; these are MONAI's, the larger
            of the two directed percentiles, and so not less.)
        prediction_ml: what the prediction holds, in millilitres.
        target_ml: what the truth holds.
    """

    name: str
    group: str
    slices: int
    dice: float
    slice_dice: float
    slice_hd95_mm: float
    missed_slices: int
    hallucinated_slices: int
    nonempty_dice: float | None
    nonempty_hd95_mm: float | None
    prediction_ml: float
    target_ml: float


@dataclass(frozen=True)
class VolumeMeans:
    """Means over volumes with 95 % intervals, in which patients are drawn, not volumes.

    Attributes:
        volumes: how many volumes.
        groups: how many patients.
        dice: of `VolumeMetrics.dice`.
        slice_dice: of `VolumeMetrics.slice_dice`.
        slice_hd95_mm: of `VolumeMetrics.slice_hd95_mm`.
        nonempty_dice: of `VolumeMetrics.nonempty_dice` over the volumes that have one; None if none has.
        nonempty_hd95_mm: the same.
        nonempty_volumes: how many volumes have one.
        slices: of all volumes together.
        missed_slices: of all volumes together.
        hallucinated_slices: of all volumes together.
        resamples: how many times the bootstrap drew.
    """

    volumes: int
    groups: int
    dice: Estimate
    slice_dice: Estimate
    slice_hd95_mm: Estimate
    nonempty_dice: Estimate | None
    nonempty_hd95_mm: Estimate | None
    nonempty_volumes: int
    slices: int
    missed_slices: int
    hallucinated_slices: int
    resamples: int


def volume_metrics(
    volume: Volume, predictions: Bool[Tensor, "n h w"], targets: Bool[Tensor, "n h w"]
) -> tuple[VolumeMetrics, tuple[CaseMetrics, ...]]:
    """Measure a volume's predicted masks against the truth, distances in mm by its header's spacing.

    Args:
        volume: from `VolumeSlices`.
        predictions: of its slices, in their order.
        targets: the true ones.

    Returns:
        The metrics of the volume, and those of each of its slices (`segmentation_metrics`).

    Raises:
        ValueError: a mask's size is not a slice's, or there is not one mask a slice.

    Example:
        >>> import numpy, torch
        >>> from pathlib import Path
        >>> from ultrarefiner.data import VolumeFiles
        >>> files = VolumeFiles("p1", Path("p1.nii"), None, None, "p1")
        >>> volume = Volume(files, (8, 6, 2), (0.4, 0.3, 1.0), 2, (0, 1), (0, 1), numpy.eye(4))
        >>> truth = torch.ones(2, 6, 8, dtype=torch.bool)
        >>> missed = truth & torch.tensor([True, False])[:, None, None]
        >>> found, _ = volume_metrics(volume, missed, truth)
        >>> round(found.dice, 3), found.slice_dice, round(found.slice_hd95_mm, 3), found.missed_slices
        (0.667, 0.5, 1.836, 1)
        >>> found.nonempty_dice, found.nonempty_hd95_mm
        (1.0, 0.0)

    Published means: Jiang et al., "MicroSegNet", arXiv 2305.19956 (github.com/mirthAI/MicroSegNet).
    """
    for name, masks in (("predictions", predictions), ("targets", targets)):
        expected = (len(volume.slices), *volume.size)
        if tuple(masks.shape) != expected:
            message = (
                f"{name} must have one mask a slice of {volume.name!r}, {expected}, got {tuple(masks.shape)}; bring "
                "them back to the slices' own pixels first"
            )
            raise ValueError(message)
    cases = tuple(
        segmentation_metrics(prediction[None], target[None], spacing=volume.spacing)
        for prediction, target in zip(predictions, targets, strict=True)
    )
    either = [case for case in cases if case.prediction_pixels or case.target_pixels]
    both = [case for case in either if case.prediction_pixels and case.target_pixels]
    predicted, true = int(predictions.sum()), int(targets.sum())
    agreed = int((predictions & targets).sum())
    metrics = VolumeMetrics(
        name=volume.name,
        group=volume.group,
        slices=len(cases),
        dice=2 * agreed / (predicted + true) if predicted + true else 1.0,
        slice_dice=_mean([case.dice for case in either], empty=1.0),
        slice_hd95_mm=_mean([case.hd95 for case in either], empty=0.0),
        missed_slices=sum(not case.prediction_pixels for case in either),
        hallucinated_slices=sum(not case.target_pixels for case in either),
        nonempty_dice=_mean([case.dice for case in both], empty=0.0) if both else None,
        nonempty_hd95_mm=_mean([case.hd95 for case in both], empty=0.0) if both else None,
        prediction_ml=predicted * volume.voxel_ml,
        target_ml=true * volume.voxel_ml,
    )
    return metrics, cases


def volume_means(volumes: Sequence[VolumeMetrics], *, resamples: int = 10_000, seed: int = 0) -> VolumeMeans:
    """Means over volumes with bootstrap intervals (`bootstrap_estimates`); each volume counts once.

    Args:
        volumes: from `volume_metrics`.
        resamples: how often the bootstrap draws.
        seed: of the bootstrap; it touches nobody else's randomness.

    Returns:
        A mean with its interval for each measure; None for one that no volume defines.

    Raises:
        ValueError: there is no volume, or resamples is not positive.

    Example:
        >>> one, two = (
        ...     VolumeMetrics(name, name, 4, dice, dice, 2.0, 0, 0, None, None, 1.0, 1.0)
        ...     for name, dice in (("p1", 0.5), ("p2", 1.0))
        ... )
        >>> means = volume_means([one, two], resamples=100)
        >>> means.dice.mean, means.nonempty_dice
        (0.75, None)
    """
    if not volumes or resamples < 1:
        message = f"there must be at least 1 volume and 1 resample; got {len(volumes)} and {resamples}."
        raise ValueError(message)
    options = {"resamples": resamples, "seed": seed}
    values = np.array([[volume.dice, volume.slice_dice, volume.slice_hd95_mm] for volume in volumes])
    dice, slice_dice, slice_hd95 = bootstrap_estimates(values, [volume.group for volume in volumes], **options)
    nonempty = [
        (volume.group, (volume.nonempty_dice, volume.nonempty_hd95_mm))
        for volume in volumes
        if volume.nonempty_dice is not None
    ]
    nonempty_dice, nonempty_hd95 = None, None
    if nonempty:
        groups, pairs = zip(*nonempty, strict=True)
        nonempty_dice, nonempty_hd95 = bootstrap_estimates(np.array(pairs, dtype=np.float64), groups, **options)
    return VolumeMeans(
        volumes=len(volumes),
        groups=len({volume.group for volume in volumes}),
        dice=dice,
        slice_dice=slice_dice,
        slice_hd95_mm=slice_hd95,
        nonempty_dice=nonempty_dice,
        nonempty_hd95_mm=nonempty_hd95,
        nonempty_volumes=len(nonempty),
        slices=sum(volume.slices for volume in volumes),
        missed_slices=sum(volume.missed_slices for volume in volumes),
        hallucinated_slices=sum(volume.hallucinated_slices for volume in volumes),
        resamples=resamples,
    )


def _mean(values: Sequence[float], *, empty: float) -> float:
    return float(np.mean(values)) if values else empty
