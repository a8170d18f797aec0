"""A NIfTI file as networks want it, and the ways back to the file's own voxels and to millimetres."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from ultrarefiner.data.nifti import NiftiHeader, read_header, read_voxels, write_mask
from ultrarefiner.data.stored_frame import Index3D, StoredFrame, closest_canonical
from ultrarefiner.data.volume_cases import Spacing3D
from ultrarefiner.data.volume_intensity import VolumeCrop, foreground_crop, normalise_foreground

Box6 = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class CanonicalVolume:
    """What `open_volume` makes of a file. Voxels (i, j, k) are the file's own, in the order in which it stores them.

    Attributes:
        path: the file.
        image: one channel, (slices, rows, columns) in RAS order, normalised and cropped: what a network gets.
        spacing: (z, y, x) size of the image's voxels in mm.
        frame: from the file's axes to the image's, before the crop.
        crop: the part of the volume that is the image.
        affine: from (i, j, k, 1) to the scanner's coordinates in mm, (4, 4): x to the right, y to the front, z up.
    """

    path: Path
    image: Float[Tensor, "1 d h w"]
    spacing: Spacing3D
    frame: StoredFrame
    crop: VolumeCrop
    affine: NDArray[np.float64] = field(repr=False, compare=False)

    def enter(self, voxel: Sequence[int]) -> Index3D:
        """The image's (z, y, x) of a voxel of the file.

        Args:
            voxel: (i, j, k), counted from 0.

        Raises:
            ValueError: it is no voxel of the file, or lies in the background that was cut away.
        """
        numbers = _whole_numbers(voxel)
        if len(numbers) != 3 or not all(0 <= at < side for at, side in zip(numbers, self.frame.shape, strict=True)):
            message = (
                f"voxel must be three whole numbers, (i, j, k) from 0 to size - 1 of the file's {self.frame.shape}, "
                f"but it is {voxel}; places in mm go through voxel_at."
            )
            raise ValueError(message)
        inside = self.crop.enter(self.frame.enter((numbers[0], numbers[1], numbers[2])))
        if not all(0 <= at < side for at, side in zip(inside, self.crop.size, strict=True)):
            raise ValueError(self._cut_away(f"voxel {numbers}"))
        return inside

    def leave(self, position: Index3D) -> Index3D:
        """The file's voxel (i, j, k) of the image's (z, y, x); undoes `enter`."""
        return self.frame.leave(self.crop.leave(position))

    def enter_box(self, box: Sequence[int]) -> Box6:
        """The image's (z0, y0, x0, z1, y1, x1) of a box in the file; what was cut away is left out of it.

        Args:
            box: (i0, j0, k0, i1, j1, k1), its first and its last voxel.

        Raises:
            ValueError: it is no box, is empty, leaves the volume, or lies in the background that was cut away.
        """
        numbers = _whole_numbers(box)
        fits = len(numbers) == 6 and all(
            0 <= first <= last < side
            for first, last, side in zip(numbers[:3], numbers[3:], self.frame.shape, strict=True)
        )
        if not fits:
            message = (
                "box must be six whole numbers, the first and then the last voxel (i, j, k) inside the file's "
                f"{self.frame.shape}, but it is {box}; the last is at most the size less 1."
            )
            raise ValueError(message)
        i0, j0, k0, i1, j1, k1 = numbers
        corners = [self.crop.enter(self.frame.enter(one)) for one in ((i0, j0, k0), (i1, j1, k1))]
        first = [max(min(pair), 0) for pair in zip(*corners, strict=True)]
        last = [min(max(pair), side - 1) for *pair, side in zip(*corners, self.crop.size, strict=True)]
        if any(low > high for low, high in zip(first, last, strict=True)):
            raise ValueError(self._cut_away(f"box {numbers}"))
        return first[0], first[1], first[2], last[0], last[1], last[2]

    def leave_box(self, box: Sequence[int]) -> Box6:
        """The file's (i0, j0, k0, i1, j1, k1) of a box in the image."""
        z0, y0, x0, z1, y1, x1 = box
        corners = self.leave((z0, y0, x0)), self.leave((z1, y1, x1))
        (i0, i1), (j0, j1), (k0, k1) = (sorted(pair) for pair in zip(*corners, strict=True))
        return i0, j0, k0, i1, j1, k1

    def voxel_at(self, place: Sequence[float]) -> Index3D:
        """The file's voxel (i, j, k) that holds a place in the scanner's coordinates.

        Args:
            place: (x, y, z) in mm, x to the patient's right, y to the front, z up, as NIfTI has them. (DICOM and ITK
                count x to the left and y to the back: change the signs of both.)

        Raises:
            ValueError: it is not three finite numbers, or lies outside the volume.
        """
        numbers = [float(one) for one in place]
        if len(numbers) != 3 or not all(math.isfinite(one) for one in numbers):
            message = f"place must be three finite numbers, (x, y, z) in mm, but it is {tuple(place)}."
            raise ValueError(message)
        exact = np.linalg.solve(self.affine, [*numbers, 1.0])[:3]
        i, j, k = (math.floor(at + 0.5) for at in exact)  # a voxel reaches half a voxel to either side of its centre
        if not all(0 <= at < side for at, side in zip((i, j, k), self.frame.shape, strict=True)):
            ends = [self.place_of((0, 0, 0)), self.place_of([side - 1 for side in self.frame.shape])]
            low, high = (tuple(round(pick(pair), 2) for pair in zip(*ends, strict=True)) for pick in (min, max))
            message = (
                f"place must lie inside the volume, whose first and last voxel span {low} to {high} mm, but it is "
                f"{tuple(numbers)}, voxel {(i, j, k)} of {self.frame.shape}; where another program counts x to the "
                "left and y to the back (DICOM, ITK), change the signs of both."
            )
            raise ValueError(message)
        return i, j, k

    def place_of(self, voxel: Sequence[int]) -> tuple[float, float, float]:
        """(x, y, z) in mm of the centre of the file's voxel (i, j, k)."""
        x, y, z = (float(one) for one in (self.affine @ [*voxel, 1.0])[:3])
        return x, y, z

    def stored(self, part: Shaped[Tensor, "1 d h w"], *, fill: float = 0.0) -> Shaped[np.ndarray, "i j k"]:
        """Values on the image's voxels, on the file's: nothing is resampled.

        Args:
            part: a mask or any other map over the image.
            fill: the value where the background was cut away.

        Returns:
            The values in the file's order of axes.

        Raises:
            ValueError: it is not of the image's size.
        """
        whole = self.crop.put_back(part.detach().cpu(), fill=fill)[0]
        return np.ascontiguousarray(self.frame.restore(whole.numpy()))

    def write(self, path: str | os.PathLike[str], mask: Bool[Tensor, "1 d h w"]) -> None:
        """Write a mask over the image as NIfTI on the file's own voxels, with its affine (`write_mask`).

        Args:
            path: ".nii.gz"; its folder is made. It appears whole or not at all.
            mask: the object.

        Raises:
            ValueError: the path does not end in ".nii.gz", or is the volume itself; the mask has another size.
        """
        place = checked_mask_path(path, self.path)
        write_mask(place, self.stored(mask), like=self.path)

    def _cut_away(self, what: str) -> str:
        z, y, x = self.crop.start
        d, h, w = self.crop.stop
        i0, j0, k0, i1, j1, k1 = self.frame.leave((z, y, x)) + self.frame.leave((d - 1, h - 1, w - 1))
        kept = tuple(sorted(pair) for pair in ((i0, i1), (j0, j1), (k0, k1)))
        return (
            f"{what} of {self.path} lies in the background that was cut away, where no object is ever found; voxels "
            f"{kept[0][0]} to {kept[0][1]}, {kept[1][0]} to {kept[1][1]} and {kept[2][0]} to {kept[2][1]} were kept: "
            "open_volume(path, crop=None) keeps all."
        )


def open_volume(
    path: str | os.PathLike[str],
    *,
    normalise: Callable[[Tensor], Tensor] = normalise_foreground,
    crop: Callable[[Tensor], VolumeCrop] | None = foreground_crop,
    read: Callable[[Path], NDArray[Any]] = read_voxels,
) -> CanonicalVolume:
    """Open a NIfTI file as SegVol's training saw volumes: oriented (RAS), normalised, cropped to the foreground.

    Axes are swapped and turned round as the affine says, like ``nibabel.as_closest_canonical``; nothing is resampled,
    so a mask goes back to the file's voxels exactly.

    Args:
        path: ".nii" or ".nii.gz", of three axes.
        normalise: from the file's numbers to the network's, (1, d, h, w) each, the same voxels.
        crop: which part of the normalised volume to keep; None keeps all.
        read: the voxels of the file (i, j, k), as stored. `read_voxels` refuses NaN; where they mean background, pass
            ``lambda path: np.nan_to_num(nibabel.load(path).get_fdata())``.

    Returns:
        The oriented, normalised, cropped volume, which knows the way back to the file's voxels.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: nibabel is not installed.
        ValueError: the file is damaged, not 3-D, has NaN, or an affine that orients nothing; a part answers with other
            voxels than it was given.

    Example:
        >>> import tempfile, nibabel
        >>> path = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> voxels = np.zeros((6, 5, 4), np.int16)
        >>> voxels[1:3, 2:5, 1:4] = np.arange(18).reshape(2, 3, 3) + 100
        >>> nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.0, 1.0, 2.0, 1.0])), path)
        >>> volume = open_volume(path)
        >>> volume.image.shape, volume.spacing, volume.enter((2, 3, 1)), volume.leave((0, 1, 0))
        (torch.Size([1, 3, 3, 2]), (2.0, 1.0, 1.0), (0, 1, 0), (2, 3, 1))
        >>> volume.voxel_at((-2.0, 3.4, 2.9)), volume.stored(volume.image > 0).shape
        ((2, 3, 1), (6, 5, 4))

    References:
        Du, Bai, Huang, Zhao: SegVol: Universal and Interactive Volumetric Medical Image Segmentation. NeurIPS 2024.
    """
    path = Path(path)
    header = read_header(path)
    affine = _in_millimetres(header)
    try:
        frame = closest_canonical(header.shape, affine)
    except ValueError as error:
        message = f"{path} cannot be oriented: {error}"
        raise ValueError(message) from error
    image = normalise(_image(path, frame, read(path)))
    if tuple(image.shape) != (1, *frame.size):
        message = f"normalise must keep the shape {(1, *frame.size)}, but it answered {tuple(image.shape)}; check it."
        raise ValueError(message)
    part = VolumeCrop((0, 0, 0), frame.size, frame.size) if crop is None else crop(image)
    z, y, x = (header.spacing[axis] for axis in frame.axes)
    # A copy, so that what was cut away is freed.
    kept = image if part.size == frame.size else part.crop(image).clone()
    return CanonicalVolume(path, kept, (z, y, x), frame, part, affine)


def checked_mask_path(path: str | os.PathLike[str], scan: Path) -> Path:
    """Where a mask may be written.

    Raises:
        ValueError: the path does not end in ".nii.gz", or is the scan's own.

    Example:
        >>> checked_mask_path("out/mask.nii.gz", Path("scan.nii.gz")).name
        'mask.nii.gz'
    """
    place = Path(path)
    if not place.name.lower().endswith(".nii.gz"):
        message = f"path must end in .nii.gz, for masks are written compressed, but it is {place}; rename it."
        raise ValueError(message)
    if place.resolve() == scan.resolve():
        message = f"path must not be the volume itself, {scan}, which the mask would replace; choose another name."
        raise ValueError(message)
    return place


def _image(path: Path, frame: StoredFrame, voxels: NDArray[Any]) -> Float[Tensor, "1 d h w"]:
    if voxels.shape != frame.shape:
        message = (
            f"read must give the voxels of {path} as stored, {frame.shape}, but it gave {voxels.shape}; leave out "
            "nothing and swap no axes."
        )
        raise ValueError(message)
    return torch.from_numpy(np.ascontiguousarray(frame.orient(voxels), dtype=np.float32))[None]


def _in_millimetres(header: NiftiHeader) -> NDArray[np.float64]:
    """The affine in mm: its unit, metres to microns, is the thousandfold that brings it to the header's sizes in mm."""
    sides = np.linalg.norm(header.affine[:3, :3], axis=0)
    told = [size / side for size, side in zip(header.spacing, sides.tolist(), strict=True) if side > 0]
    unit = 1000.0 ** round(math.log(sorted(told)[len(told) // 2], 1000.0)) if told else 1.0
    affine: NDArray[np.float64] = header.affine.copy()
    affine[:3] *= unit
    return affine


def _whole_numbers(values: Any) -> tuple[int, ...]:
    plain = values.tolist() if isinstance(values, Tensor | np.ndarray) else values
    if not isinstance(plain, Sequence) or isinstance(plain, str) or not all(isinstance(one, Integral) for one in plain):
        return ()
    return tuple(int(one) for one in plain)
