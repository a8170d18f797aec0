"""Answers to the cases of the CVPR 2025 challenge on interactive segmentation in 3-D."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from ultrarefiner.data.challenge_npz import InteractiveCase, read_interactive_case, write_challenge_result
from ultrarefiner.data.stored_frame import Index3D
from ultrarefiner.data.volume_intensity import VolumeCrop, foreground_crop, normalise_foreground
from ultrarefiner.evaluation.window_bar import window_bar
from ultrarefiner.systems import InteractiveModel
from ultrarefiner.types import Clicks


def answer_challenge(
    model: InteractiveModel,
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    normalise: Callable[[Tensor], Tensor] = normalise_foreground,
    progress: bool = True,
) -> Int[Tensor, "d h w"]:
    """Answer a case of the challenge: every object by its box and its clicks, in the order in which they were made.

    See `answer_case` for how. A model that is a module is put in evaluation mode and left there.

    Args:
        model: `VolumeSegmenter`, or any other `InteractiveModel`.
        path: the case, ".npz" (`read_interactive_case`).
        out: ".npz", which gets ``segs`` (`write_challenge_result`); its folder is made. It appears whole or not at
            all.
        normalise: from the file's numbers to the network's, (1, d, h, w) each.
        progress: whether to show a bar over the windows of each answer.

    Returns:
        What was written: 0 for background, i + 1 for object i, or the i-th number of ``gts`` where the file has it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or no case of the challenge, ``out`` is the case itself or no ".npz", or there
            are more than 255 objects.

    Example:
        >>> import tempfile
        >>> from ultrarefiner.networks import build_segvol
        >>> from ultrarefiner.systems import VolumeSegmenter
        >>> folder = Path(tempfile.mkdtemp())
        >>> clicks = [{"fg": [[1, 2, 3]], "bg": []}, {"fg": [], "bg": []}]
        >>> image = np.arange(192, dtype=np.uint8).reshape(4, 6, 8)
        >>> np.savez(folder / "case.npz", imgs=image, spacing=(3.0, 1.0, 1.0), clicks=clicks)
        >>> model = VolumeSegmenter(build_segvol("tiny", volume_size=(8, 16, 16)))
        >>> segs = answer_challenge(model, folder / "case.npz", folder / "answer.npz")
        >>> np.load(folder / "answer.npz")["segs"].shape, bool((segs == 2).any())
        ((4, 6, 8), False)

    References:
        The challenge's evaluation, github.com/JunMa11/CVPR-MedSegFMCompetition (CVPR25_iter_eval.py).
    """
    path, out = Path(path), Path(out)
    if out.suffix != ".npz" or out.resolve() == path.resolve():
        message = f"out must be an .npz file other than the case, {path}, but it is {out}; choose another name."
        raise ValueError(message)
    segs = answer_case(model, read_interactive_case(path), normalise=normalise, progress=progress)
    write_challenge_result(out, segs)
    return segs


def answer_case(
    model: InteractiveModel,
    case: InteractiveCase,
    *,
    normalise: Callable[[Tensor], Tensor] = normalise_foreground,
    progress: bool = True,
) -> Int[Tensor, "d h w"]:
    """Answer a case that was read: every object by its box and its clicks, in the order in which they were made.

    The volume is normalised, cropped to its foreground and to where boxes and clicks lie, and encoded once; its axes
    keep their order. Objects are painted in their order, a later one over an earlier one. An object with neither a
    box nor a click stays empty. The previous answer is not used: an answer depends on the prompts alone.

    Args:
        model: `VolumeSegmenter`, or any other `InteractiveModel`.
        case: of `read_interactive_case`.
        normalise: from the case's numbers to the network's, (1, d, h, w) each.
        progress: whether to show a bar over the windows of each answer.

    Returns:
        0 for background, i + 1 for object i, or the i-th number of the truth where the case has it.

    Raises:
        ValueError: a number of an object is above 255.

    Example:
        >>> from ultrarefiner.networks import build_segvol
        >>> from ultrarefiner.systems import VolumeSegmenter
        >>> case = InteractiveCase(torch.rand(1, 4, 6, 8), (3.0, 1.0, 1.0), clicks=(Clicks.none(1, 3),))
        >>> answer_case(VolumeSegmenter(build_segvol("tiny", volume_size=(8, 16, 16))), case).sum().item()
        0
    """
    depth, height, width = (int(side) for side in case.image.shape[1:])
    segs = torch.zeros(depth, height, width, dtype=torch.int64)
    numbered = list(zip(_numbers(case), [_prompts(case, index) for index in range(case.objects)], strict=True))
    asked = [(number, prompts) for number, prompts in numbered if prompts.voxels]
    if not asked:
        return segs
    if isinstance(model, nn.Module):
        model.eval()
    image = normalise(case.image)
    part = _reaching(foreground_crop(image), [voxel for _, prompts in asked for voxel in prompts.voxels])
    state = model.start(part.crop(image))
    for number, prompts in asked:
        box = [side for voxel in prompts.box for side in part.enter(voxel)]
        clicks = Clicks.none(1, 3)
        if prompts.clicks:
            voxels, positive = zip(*prompts.clicks, strict=True)
            clicks = Clicks.at([part.enter(voxel) for voxel in voxels], positive=positive)
        with window_bar(model, shown=progress):
            answer = model.segment(state, box or None, clicks)
        part.crop(segs)[answer[0].cpu() > 0] = number
    return segs


@dataclass(frozen=True)
class _Prompts:
    """Of one object: the first and the last voxel of its box, if there is one, and its clicks in order."""

    box: tuple[Index3D, ...]
    clicks: tuple[tuple[Index3D, bool], ...]

    @property
    def voxels(self) -> tuple[Index3D, ...]:
        return self.box + tuple(voxel for voxel, _ in self.clicks)


def _prompts(case: InteractiveCase, index: int) -> _Prompts:
    box: tuple[Index3D, ...] = ()
    if case.boxes is not None:
        z0, y0, x0, z1, y1, x1 = case.boxes[index].corners
        box = (z0, y0, x0), (z1, y1, x1)
    if case.clicks is None:
        return _Prompts(box, ())
    made = case.clicks[index]
    voxels = [(z, y, x) for z, y, x in made.positions[made.valid].tolist()]
    return _Prompts(box, tuple(zip(voxels, made.positive[made.valid].tolist(), strict=True)))


def _reaching(crop: VolumeCrop, voxels: list[Index3D]) -> VolumeCrop:
    """The crop, enlarged as far as it must be to hold the voxels."""
    z0, y0, x0 = (min(axis) for axis in zip(crop.start, *voxels, strict=True))
    z1, y1, x1 = (max(stop, *(at + 1 for at in axis)) for stop, *axis in zip(crop.stop, *voxels, strict=True))
    return VolumeCrop((z0, y0, x0), (z1, y1, x1), crop.shape)


def _numbers(case: InteractiveCase) -> list[int]:
    """Of the objects in the result."""
    there = [] if case.labels is None else [int(number) for number in np.unique(case.labels.numpy()) if number > 0]
    numbers = there if len(there) == case.objects else list(range(1, case.objects + 1))
    if numbers and numbers[-1] > 255:
        message = (
            f"the case must number its objects from 1 to 255, for results are bytes, but it goes to {numbers[-1]}; "
            "split it."
        )
        raise ValueError(message)
    return numbers
