"""NIfTI files: their geometry, their voxels, and masks written beside them."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from ultrarefiner.checkpoints.files import replaced_file

SUFFIXES = (".nii.gz", ".nii")

_GZIP = b"\x1f\x8b"
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


@dataclass(frozen=True)
class NiftiHeader:
    """Where a volume's voxels lie.

    Attributes:
        shape: voxels along the three axes, as stored.
        spacing: size of a voxel along them, in mm.
        affine: from voxel indices to the scanner's coordinates, (4, 4), in the file's own unit.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64] = field(repr=False, compare=False)


def read_header(path: str | Path) -> NiftiHeader:
    """Read a volume's geometry and none of its voxels.

    Trailing axes of one entry are dropped, and a single picture is a volume of one slice. Sizes are those of the
    header's ``pixdim``, in mm whatever unit it names; a header without a unit means mm.

    Args:
        path: a NIfTI file, ".nii" or ".nii.gz", of version 1 or 2.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: nibabel is not installed.
        ValueError: the file is no NIfTI file, is damaged, is not 3-D, has no voxels, or a voxel without a size.

    Example:
        >>> import tempfile, nibabel
        >>> path = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nibabel.save(nibabel.Nifti1Image(np.zeros((4, 3, 2), np.uint8), np.diag([0.5, 0.25, 1.0, 1.0])), path)
        >>> header = read_header(path)
        >>> header.shape, header.spacing
        ((4, 3, 2), (0.5, 0.25, 1.0))
    """
    path = Path(path)
    shape, spacing, header = _geometry(path)
    if not all(math.isfinite(size) and size > 0 for size in spacing):
        message = (
            f"{path} gives its voxels the sizes {spacing} mm, three positive ones are expected; distances in mm would "
            "mean nothing: export it again with its spacing"
        )
        raise ValueError(message)
    return NiftiHeader(shape, spacing, _affine(path, header))


def read_geometry(path: str | Path) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Read a volume's shape and voxel sizes as they are stored, for whoever can do without sizes that make sense.

    Args:
        path: a NIfTI file, see `read_header`.

    Returns:
        The shape, and the sizes in mm, which may be zero, negative or NaN.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: nibabel is not installed.
        ValueError: the file is no NIfTI file, is damaged, is not 3-D, or has no voxels.

    Example:
        >>> import tempfile, nibabel
        >>> path = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.uint8), np.eye(4))
        >>> image.header["pixdim"][1] = 0
        >>> with gzip.open(path, "wb") as file:
        ...     _ = file.write(image.to_bytes())
        >>> read_geometry(path)
        ((4, 3, 2), (0.0, 1.0, 1.0))
    """
    return _geometry(Path(path))[:2]


def _geometry(path: Path) -> tuple[tuple[int, int, int], tuple[float, float, float], Any]:
    """Shape, voxel sizes in mm as stored, and the header that says so."""
    _, header = _parsed(path, _bytes(path, 540))
    shape = _three_axes(header.get_data_shape())
    if len(shape) != 3:
        message = (
            f"{path} has the shape {shape}, a volume of three axes is expected; save each time point or channel as a "
            "file of its own"
        )
        raise ValueError(message)
    if min(shape) < 1:
        message = f"{path} has the shape {shape}, that is, no slices or no pixels; export it again"
        raise ValueError(message)
    unit = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    spacing = tuple(float(str(size)) * unit for size in header["pixdim"][1:4])  # 0.2, not float32's 0.20000000298
    if len(header.get_data_shape()) == 2:  # a picture has no third size
        spacing = (*spacing[:2], spacing[2] if spacing[2] > 0 else 1.0)
    return shape, spacing, header  # type: ignore[return-value] # three, as was checked


def read_voxels(path: str | Path) -> NDArray[Any]:
    """Read a volume's voxels, scaled as its header says (``scl_slope``, ``scl_inter``).

    The whole file is read, so that the checksum of a compressed one is verified.

    Returns:
        (x, y, z) as stored: whole numbers in the type they have on disk, all others as float32.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: nibabel is not installed.
        ValueError: the file is truncated or damaged, or holds colours, complex numbers, NaN or infinities.

    Example:
        >>> import tempfile, nibabel
        >>> path = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nibabel.save(nibabel.Nifti1Image(np.full((4, 3, 2), 7, np.uint8), np.eye(4)), path)
        >>> read_voxels(path).dtype, int(read_voxels(path).max())
        (dtype('uint8'), 7)
    """
    path = Path(path)
    content = _bytes(path)
    image_class, header = _parsed(path, content)
    kind = header.get_data_dtype()
    if kind.kind not in "iuf":
        message = f"{path} holds voxels of the type {kind}, grey numbers are expected; convert it"
        raise ValueError(message)
    needed = int(header["vox_offset"]) + math.prod(int(side) for side in header.get_data_shape()) * kind.itemsize
    if len(content) < needed:
        raise ValueError(_unreadable(path, f"{len(content):,} bytes of {needed:,} are there"))
    try:
        voxels: NDArray[Any] = np.asanyarray(image_class.from_bytes(content).dataobj)
    except (OSError, ValueError) as error:
        raise ValueError(_unreadable(path, error)) from error
    voxels = voxels.reshape(_three_axes(voxels.shape))
    if voxels.dtype.kind in "iu":
        return voxels
    numbers: NDArray[Any] = voxels.astype(np.float32)
    if not np.isfinite(numbers).all():
        message = (
            f"{path} has {int((~np.isfinite(numbers)).sum())} voxels that are NaN or infinite; replace them by the "
            "value of the background"
        )
        raise ValueError(message)
    return numbers


def write_mask(path: str | Path, mask: Bool[np.ndarray, "x y z"], *, like: str | Path) -> None:
    """Write a mask with the geometry of another volume: 0 and 1 in bytes, compressed.

    The file appears whole or not at all, and the same mask gives the same bytes.

    Args:
        path: ".nii.gz"; its folder is made.
        mask: in the order of the stored voxels.
        like: the volume whose header it gets.

    Raises:
        FileNotFoundError: there is no such volume.
        ModuleNotFoundError: nibabel is not installed.
        ValueError: the mask has another shape than the volume.

    Example:
        >>> import tempfile, nibabel
        >>> scan = Path(tempfile.mkdtemp()) / "scan.nii.gz"
        >>> nibabel.save(nibabel.Nifti1Image(np.zeros((4, 3, 2), np.uint8), np.diag([0.5, 0.25, 1.0, 1.0])), scan)
        >>> write_mask(scan.with_name("mask.nii.gz"), np.ones((4, 3, 2), bool), like=scan)
        >>> read_header(scan.with_name("mask.nii.gz")).spacing
        (0.5, 0.25, 1.0)
    """
    like = Path(like)
    expected, _ = read_geometry(like)
    if mask.shape != expected:
        message = f"mask must have the shape of {like}, {expected}, got {mask.shape}; write it on its voxels"
        raise ValueError(message)
    image_class, header = _parsed(like, _bytes(like, 540))
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)  # the scan may be scaled
    header["cal_min"], header["cal_max"], header["descrip"] = 0, 1, b"mask"
    image = image_class(mask.astype(np.uint8).reshape(header.get_data_shape()), None, header)
    with replaced_file(path) as file:
        file.write(gzip.compress(image.to_bytes(), mtime=0))


def _parsed(path: Path, content: bytes) -> tuple[Any, Any]:
    """Nibabel's class for the file, and its header as it is on disk: nibabel would mend impossible spacings."""
    nibabel = _nibabel(path)
    sizes = {int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")}
    classes = {348: nibabel.Nifti1Image, 540: nibabel.Nifti2Image}
    size = next((size for size in classes if size in sizes), None)
    if size is None or len(content) < size:
        raise ValueError(_unreadable(path, f"it starts with {content[:12]!r}"))
    magic = content[344:347] if size == 348 else content[4:7]
    if magic not in (b"n+1", b"n+2"):
        message = (
            f"{path} is the header of a pair of files, or of Analyze ({magic!r}); one NIfTI file (.nii or .nii.gz) is "
            "expected: convert it"
        )
        raise ValueError(message)
    try:
        header = classes[size].header_class(content[:size], check=False)
        header.get_data_dtype()
    except (ValueError, nibabel.spatialimages.HeaderDataError) as error:
        raise ValueError(_unreadable(path, error)) from error
    return classes[size], header


def _three_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without trailing axes of one entry, which some programs write; a single picture is one slice."""
    sides = [int(side) for side in shape]
    while len(sides) > 3 and sides[-1] == 1:
        sides.pop()
    return (*sides, 1) if len(sides) == 2 else tuple(sides)


def _affine(path: Path, header: Any) -> NDArray[np.float64]:
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except Exception as error:  # nibabel has several, some of them plain Exceptions
        raise ValueError(_unreadable(path, error)) from error
    if not np.isfinite(affine).all():
        message = f"{path} has an affine that is not finite, {affine.tolist()}; export it again"
        raise ValueError(message)
    return affine


def _bytes(path: Path, count: int = -1) -> bytes:
    """The file's first bytes, or all, decompressed if it is compressed, whatever it is called."""
    if not path.is_file():
        message = f"there is no volume {path}; check the path, and that the data set was unpacked completely"
        raise FileNotFoundError(message)
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == _GZIP
        with gzip.open(path) if compressed else path.open("rb") as stream:
            return stream.read(count)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(_unreadable(path, error)) from error


def _nibabel(path: Path) -> ModuleType:
    try:
        import nibabel
    except ModuleNotFoundError as error:
        message = f"{path.name} needs the package nibabel: pip install 'ultrarefiner[volumes]'."
        raise ModuleNotFoundError(message) from error
    module: ModuleType = nibabel
    return module


def _unreadable(path: Path, error: object) -> str:
    return (
        f"{path} cannot be read as NIfTI ({error}); it is truncated, damaged or of another kind: download or export "
        "it again"
    )
