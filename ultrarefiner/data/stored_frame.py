"""How a file stores a volume's voxels, and the way to the frame of networks and back: axes swapped and turned round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

Index3D = tuple[int, int, int]


@dataclass(frozen=True)
class StoredFrame:
    """The stored axes (i, j, k) of a file against (slices, rows, columns) of the network.

    In the network's frame slices go from the feet up, rows from the back to the front and columns from the left to the
    right of the patient (RAS, its axes in the order z, y, x), as closely as swapping and turning axes round can do.
    Nothing is resampled, so every way there and back is exact.

    Attributes:
        shape: voxels along the stored axes.
        axes: the stored axis along which slices run, that of rows, that of columns: 0, 1 and 2 in some order.
        turned: for slices, rows and columns, whether they run against the stored order.

    Raises:
        ValueError: the axes are not 0, 1 and 2 in some order.

    Example:
        >>> frame = StoredFrame((4, 3, 2), (2, 1, 0), (False, False, True))
        >>> frame.size, frame.enter((0, 1, 1)), frame.leave((1, 1, 3))
        ((2, 3, 4), (1, 1, 3), (0, 1, 1))
        >>> stored = np.arange(24).reshape(4, 3, 2)
        >>> int(frame.orient(stored)[1, 1, 3]) == int(stored[0, 1, 1])
        True
        >>> bool((frame.restore(frame.orient(stored)) == stored).all())
        True
    """

    shape: Index3D
    axes: Index3D
    turned: tuple[bool, bool, bool]

    def __post_init__(self) -> None:
        if sorted(self.axes) != [0, 1, 2]:
            message = f"axes must be 0, 1 and 2 in some order, got {self.axes}; name each stored axis once."
            raise ValueError(message)

    @property
    def size(self) -> Index3D:
        """(slices, rows, columns) in the network's frame."""
        depth, height, width = (self.shape[axis] for axis in self.axes)
        return depth, height, width

    def orient(self, stored: Shaped[np.ndarray, "i j k"]) -> Shaped[np.ndarray, "d h w"]:
        """Stored voxels in the network's frame, a view."""
        return np.flip(stored.transpose(self.axes), self._against)

    def restore(self, oriented: Shaped[np.ndarray, "d h w"]) -> Shaped[np.ndarray, "i j k"]:
        """Voxels of the network's frame as they are stored, a view; undoes `orient`."""
        i, j, k = (self.axes.index(axis) for axis in range(3))
        stored: NDArray[Any] = np.flip(oriented, self._against).transpose(i, j, k)
        return stored

    def enter(self, voxel: Index3D) -> Index3D:
        """The stored voxel (i, j, k) as (z, y, x) of the network's frame."""
        z, y, x = (
            self.shape[axis] - 1 - voxel[axis] if turned else voxel[axis]
            for axis, turned in zip(self.axes, self.turned, strict=True)
        )
        return z, y, x

    def leave(self, position: Index3D) -> Index3D:
        """(z, y, x) of the network's frame as the stored voxel (i, j, k); undoes `enter`."""
        places = (self.axes.index(axis) for axis in range(3))
        i, j, k = (
            self.size[place] - 1 - position[place] if self.turned[place] else position[place] for place in places
        )
        return i, j, k

    @property
    def _against(self) -> tuple[int, ...]:
        return tuple(axis for axis, turned in enumerate(self.turned) if turned)


def closest_canonical(shape: Index3D, affine: NDArray[np.float64]) -> StoredFrame:
    """The frame of a file by its affine, as ``nibabel.as_closest_canonical`` orients images.

    Args:
        shape: voxels along the stored axes.
        affine: from stored indices (i, j, k, 1) to the scanner's coordinates, x to the right, y to the front, z up.

    Returns:
        How the stored axes are swapped and turned so that the array is right, front, up.

    Raises:
        ModuleNotFoundError: nibabel is not installed.
        ValueError: the affine maps different voxels to one place, so it orients nothing.

    Example:
        >>> closest_canonical((4, 3, 2), np.diag([-1.0, -1.0, 2.0, 1.0])).turned
        (False, True, True)
    """
    from nibabel.orientations import io_orientation

    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not (sides > 0).all() or abs(np.linalg.det(affine[:3, :3] / sides)) < 1e-6:
        message = (
            f"affine must give every voxel a place of its own, but it is {affine.tolist()}, in which axes have no "
            "length or fall together; export the volume again."
        )
        raise ValueError(message)
    found: Any = io_orientation(affine)  # one row a stored axis: the axis of RAS along which it runs, and its direction
    stored = [int(axis) for axis in found[:, 0]]
    z, y, x = (stored.index(axis) for axis in (2, 1, 0))
    against_z, against_y, against_x = (bool(found[axis, 1] < 0) for axis in (z, y, x))
    return StoredFrame(shape, (z, y, x), (against_z, against_y, against_x))
