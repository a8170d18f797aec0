"""A simulated person: the next click goes where the largest mistake is deepest."""

from __future__ import annotations

from types import ModuleType
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ultrarefiner.types import Clicks

ROUND_WEIGHTS = (1, 3, 10, 10, 3, 1)
"""How often training draws 0, 1, 2 … 5 clicks: 2.5 on average."""


def next_click(
    prediction: Bool[Tensor, "b 1 *space"] | Float[Tensor, "b 1 *space"],
    truth: Bool[Tensor, "b 1 *space"] | Float[Tensor, "b 1 *space"],
    *,
    generator: torch.Generator | None = None,
) -> Clicks:
    """The click that the challenge's evaluator makes: in the centre of the largest connected error.

    Prediction and truth are binarised at 0.5; what differs is the error. Of its connected components (diagonal
    neighbours are connected: 26 in a volume, 8 in an image) the largest is taken, the first in raster order of equally
    large ones. Its centre is the voxel farthest, in voxels, from everything outside it, the outside of the volume
    included. The label is the truth's. Nothing is downsampled, however large the error (the evaluator halves errors of
    more than 60 million voxels).

    It runs on the CPU, one volume after the other, and is not differentiable. It needs the extra
    ``ultrarefiner[evaluation]`` (scipy).

    Args:
        prediction: (b, 1, d, h, w) or (b, 1, h, w); bool, or a probability (of logits give ``logits.sigmoid()`` or
            ``logits > 0``).
        truth: likewise.
        generator: on the CPU; draws among voxels that are equally deep. None takes the first in raster order.

    Returns:
        One click of each volume, on the prediction's device; ``valid`` is False, and the position 0, where nothing is
        wrong.

    Raises:
        ValueError: the shapes differ or are not those of a mask for each volume, or there is NaN.
        ModuleNotFoundError: scipy is missing and something is wrong.

    Example:
        >>> truth = torch.zeros(1, 1, 7, 7)
        >>> truth[..., 2:5, 1:4] = 1
        >>> click = next_click(torch.zeros(1, 1, 7, 7), truth)
        >>> click.positions, click.positive, click.valid
        (tensor([[[3, 2]]]), tensor([[True]]), tensor([[True]]))

    CVPR 2025, Foundation Models for Interactive 3D Biomedical Image Segmentation (its evaluator of five clicks).
    """
    check_masks(prediction, "prediction")
    check_masks(truth, "truth")
    if prediction.shape != truth.shape:
        message = (
            f"prediction and truth must have one shape, but have {tuple(prediction.shape)} and {tuple(truth.shape)}; "
            "bring the prediction onto the truth's grid."
        )
        raise ValueError(message)
    real = (truth > 0.5).cpu()
    wrong = real ^ (prediction > 0.5).cpu()
    axes = truth.ndim - 2
    positions = torch.zeros(len(truth), 1, axes, dtype=torch.long)
    positive = torch.zeros(len(truth), 1, dtype=torch.bool)
    valid = torch.zeros(len(truth), 1, dtype=torch.bool)
    for index in range(len(truth)):
        deepest = _deepest(wrong[index, 0], generator)
        if deepest is not None:
            positions[index, 0] = torch.tensor(deepest)
            positive[index, 0] = real[index, 0][deepest]
            valid[index, 0] = True
    device = prediction.device
    return Clicks(positions.to(device), positive.to(device), valid.to(device))


def draw_rounds(generator: torch.Generator) -> int:
    """How many clicks a training step simulates: 0 to 5 with weights 1, 3, 10, 10, 3, 1.

    Args:
        generator: on the CPU.

    Returns:
        A number of clicks, 0 to 5.

    Example:
        >>> draw_rounds(torch.Generator().manual_seed(0)) in range(6)
        True

    SegVol-GRU-Correction, github.com/MoriiHuang/SegVol_GRU_Correction.
    """
    return int(torch.multinomial(torch.tensor(ROUND_WEIGHTS, dtype=torch.float32), 1, generator=generator))


def check_masks(masks: Tensor, name: str) -> None:
    """Raise unless a tensor is (b, 1, d, h, w) or (b, 1, h, w), without NaN.

    Raises:
        ValueError: its shape is another, or it holds NaN.

    Example:
        >>> check_masks(torch.zeros(2, 1, 4, 4), "truth")
    """
    if masks.ndim not in (4, 5) or masks.shape[1] != 1 or not masks.numel():
        message = (
            f"{name} must be (b, 1, d, h, w) or (b, 1, h, w) with at least one voxel, but its shape is "
            f"{tuple(masks.shape)}; add the missing dimensions with mask[None, None]."
        )
        raise ValueError(message)
    if masks.is_floating_point() and bool(masks.isnan().any()):
        message = f"{name} must not hold NaN, but it does; look for a division by zero in what made it."
        raise ValueError(message)


def _ndimage() -> ModuleType:
    try:
        from scipy import ndimage
    except ModuleNotFoundError as error:
        message = (
            "scipy is needed to find where a click goes, but it is missing; pip install 'ultrarefiner[evaluation]'."
        )
        raise ModuleNotFoundError(message, name="scipy") from error
    return cast(ModuleType, ndimage)


def _deepest(wrong: Tensor, generator: torch.Generator | None) -> tuple[int, ...] | None:
    ndimage = _ndimage()
    error = wrong.numpy()
    whole = ndimage.find_objects(error.view(np.uint8))
    if not whole:
        return None
    parts, _ = ndimage.label(error[whole[0]], structure=np.ones((3,) * error.ndim))
    largest = int(np.bincount(parts[error[whole[0]]]).argmax())
    inside = ndimage.find_objects(parts, max_label=largest)[largest - 1]
    # One voxel of outside on every side: what lies beyond the volume is no error either.
    padded = np.pad(parts[inside] == largest, 1)
    # The nearest voxels outside take a third of the memory of the distances to them, and keep whole numbers.
    nearest = ndimage.distance_transform_edt(padded, return_distances=False, return_indices=True)
    for axis, along in enumerate(nearest):
        along -= np.arange(padded.shape[axis], dtype=along.dtype).reshape(-1, *[1] * (padded.ndim - 1 - axis))
        along *= along
    depth = nearest[0]
    for along in nearest[1:]:
        depth += along
    candidates = np.argwhere(depth == depth.max()) - 1
    chosen = 0 if generator is None else int(torch.randint(len(candidates), (1,), generator=generator))
    return tuple(
        int(at) + outer.start + inner.start
        for at, outer, inner in zip(candidates[chosen], whole[0], inside, strict=True)
    )
