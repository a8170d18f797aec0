"""A box and clicks into a NIfTI file: from the path to a mask on its voxels in one call."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from torch import nn

from ultrarefiner.data.canonical_volume import CanonicalVolume, open_volume
from ultrarefiner.evaluation.window_bar import window_bar
from ultrarefiner.systems import Interaction, InteractiveModel, InteractiveSession


class VolumeFileSession:
    """Segment one object of one NIfTI file with a person in the loop.

    Everything that is said and answered is in the voxels (i, j, k) of the file, as it stores them, whatever its
    orientation. See `InteractiveSession` for how boxes, clicks and undoing work; a click does not encode the volume
    again. A model that is a module is put in evaluation mode and left there.

    Args:
        model: `VolumeSegmenter`, or any other `InteractiveModel`.
        volume: what `open_volume` made of the file.
        progress: whether to show a bar over the windows of each answer.

    Attributes:
        volume: the file, as the model sees it.
        progress: whether bars are shown.

    Example:
        >>> import tempfile, nibabel, torch
        >>> from pathlib import Path
        >>> from ultrarefiner.networks import build_segvol
        >>> from ultrarefiner.systems import VolumeSegmenter
        >>> scan = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nibabel.save(nibabel.Nifti1Image(np.arange(4096.0).reshape(16, 16, 16), np.diag([-1.0, 1, 2, 1])), scan)
        >>> model = VolumeSegmenter(build_segvol("tiny", volume_size=(8, 16, 16)))
        >>> session = VolumeFileSession(model, open_volume(scan, crop=None), progress=False)
        >>> session.box((4, 4, 4, 12, 12, 12))
        >>> session.click_mm((-8.0, 8.0, 16.0), positive=False)
        >>> session.history[-1].voxels, session.mask.shape
        ((8, 8, 8), (16, 16, 16))
        >>> session.undo()
        >>> session.save(scan.with_name("mask.nii.gz"))
    """

    def __init__(self, model: InteractiveModel, volume: CanonicalVolume, *, progress: bool = True) -> None:
        if isinstance(model, nn.Module):
            model.eval()
        self.volume = volume
        self.progress = progress
        self._session = InteractiveSession(model, volume.image, spacing=volume.spacing)

    def box(self, box: Sequence[int]) -> None:
        """Draw a box around the object, in place of an earlier one.

        Args:
            box: (i0, j0, k0, i1, j1, k1), its first and its last voxel. What reaches into the background that was cut
                away is left out.

        Raises:
            ValueError: it is no box, is empty, leaves the volume, or lies in the background that was cut away.
        """
        inside = self.volume.enter_box(box)
        with window_bar(self._session.model, shown=self.progress):
            self._session.box(inside)

    def click(self, voxel: Sequence[int], positive: bool = True) -> None:
        """Say of one voxel whether it lies in the object.

        Args:
            voxel: (i, j, k), counted from 0.
            positive: True for the object, False for what is not.

        Raises:
            ValueError: it is no voxel of the file, or lies in the background that was cut away.
        """
        inside = self.volume.enter(voxel)
        with window_bar(self._session.model, shown=self.progress):
            self._session.click(inside, positive)

    def click_mm(self, place: Sequence[float], positive: bool = True) -> None:
        """`click` the voxel that holds a place.

        Args:
            place: (x, y, z) in mm, in NIfTI's coordinates: x to the patient's right, y to the front, z up.
            positive: True for the object, False for what is not.

        Raises:
            ValueError: it lies outside the volume, or in the background that was cut away.
        """
        self.click(self.volume.voxel_at(place), positive)

    def undo(self) -> None:
        """Take the last box or click back; the answer before it is there again.

        Raises:
            ValueError: nothing was said.
        """
        with window_bar(self._session.model, shown=self.progress):
            self._session.undo()

    @property
    def history(self) -> tuple[Interaction, ...]:
        """What was said, in order, in the file's voxels, without what was taken back."""
        return tuple(self._as_said(one) for one in self._session.history)

    @property
    def mask(self) -> Bool[np.ndarray, "i j k"]:
        """The object on the file's own voxels; empty where nothing was said, and where background was cut away."""
        return self.volume.stored(self._session.mask)

    @property
    def object_size(self) -> float:
        """Of the mask, in millilitres, by the voxel sizes in the file's header."""
        return self._session.object_size

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mask as NIfTI with the file's own affine: 0 and 1 in bytes. It appears whole or not at all.

        Args:
            path: ".nii.gz"; its folder is made.

        Raises:
            ValueError: the path does not end in ".nii.gz", or is the volume itself.
        """
        self.volume.write(path, self._session.mask)

    def _as_said(self, one: Interaction) -> Interaction:
        if one.kind == "box":
            return Interaction("box", self.volume.leave_box(one.voxels))
        z, y, x = one.voxels
        return Interaction("click", self.volume.leave((z, y, x)), one.positive)


def open_session(
    model: InteractiveModel, volume: str | os.PathLike[str] | CanonicalVolume, *, progress: bool = True
) -> VolumeFileSession:
    """Open a NIfTI file to segment one object in it by a box and clicks.

    Args:
        model: `VolumeSegmenter`, or any other `InteractiveModel`.
        volume: a path, ".nii" or ".nii.gz"; or what `open_volume` made of one with parts of your own.
        progress: whether to show a bar over the windows of each answer.

    Returns:
        The session; its volume is encoded.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: nibabel is not installed.
        ValueError: the file cannot be opened (`open_volume`).

    Example:
        >>> import tempfile, nibabel, torch
        >>> from pathlib import Path
        >>> from ultrarefiner.networks import build_segvol
        >>> from ultrarefiner.systems import VolumeSegmenter
        >>> scan = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nibabel.save(nibabel.Nifti1Image(np.arange(4096.0).reshape(16, 16, 16), np.eye(4)), scan)
        >>> model = VolumeSegmenter(build_segvol("tiny", volume_size=(8, 16, 16)))
        >>> session = open_session(model, scan)
        >>> session.mask.any(), session.object_size
        (np.False_, 0.0)
    """
    opened = volume if isinstance(volume, CanonicalVolume) else open_volume(volume)
    return VolumeFileSession(model, opened, progress=progress)
