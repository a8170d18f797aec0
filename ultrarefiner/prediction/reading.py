"""Read pictures of any kind: PNG, JPEG, TIFF, BMP and their like, DICOM frames, NIfTI slices."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ultrarefiner.data.channels import in_channels
from ultrarefiner.data.images import read_colours
from ultrarefiner.data.nifti import SUFFIXES as NIFTI_SUFFIXES
from ultrarefiner.data.nifti import read_geometry, read_voxels
from ultrarefiner.prediction.dicom import frame_count, frame_numbers, is_dicom, pixel_spacing, read_dicom
from ultrarefiner.prediction.picture import Picture, stretched
from ultrarefiner.prediction.spacing import usable_spacing

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
Kind = Literal["picture", "dicom", "nifti"]


def kind_of(path: str | Path) -> Kind:
    """What a file is read as: NIfTI by its name, DICOM by its name or its first bytes, else a picture.

    Example:
        >>> kind_of("scan.nii.gz"), kind_of("IM_0001.DCM"), kind_of("a.png")
        ('nifti', 'dicom', 'picture')
    """
    name = Path(path).name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        return "nifti"
    return "dicom" if name.endswith(DICOM_SUFFIXES) or is_dicom(path) else "picture"


def stem_of(path: str | Path) -> str:
    """A file's name without its ending, of which ".nii.gz" is one.

    Example:
        >>> stem_of("a/scan.nii.gz"), stem_of("benign (1).png"), stem_of("1.2.840.10008")
        ('scan', 'benign (1)', '1.2.840.10008')
    """
    path = Path(path)
    ending = next((end for end in NIFTI_SUFFIXES if path.name.lower().endswith(end)), path.suffix)
    bare = path.name[: -len(ending)] if ending and not ending[1:].isdecimal() else path.name
    return bare or path.name


@dataclass(frozen=True)
class PictureFile:
    """A file that was opened, with one picture or several in it.

    Attributes:
        path: of the file.
        kind: what it was read as.
        count: how many pictures it holds: 1, a DICOM file's frames, or a volume's slices along its last stored axis.
        spacing: (row, column) size of a pixel in mm; None where the file does not say, or says what can be no size,
            which its pictures note.
    """

    path: Path
    kind: Kind
    count: int
    spacing: tuple[float, float] | None
    _content: Any = field(repr=False, compare=False, default=None)
    _colour: bool = False
    _stretch: bool = False
    _notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Picture]:
        return (self[index] for index in range(self.count))

    def __getitem__(self, index: int) -> Picture:
        """One picture.

        Raises:
            IndexError: there is none of this number.
            ValueError: it cannot be decoded.
        """
        if not 0 <= index < self.count:
            message = f"{self.path} holds {self.count} pictures, from 0 on, but picture {index} was asked for."
            raise IndexError(message)
        numbers = self._numbers(index)
        image, notes = stretched(in_channels(numbers, colour=self._colour), stretch=self._stretch)
        return Picture(
            picture_name(stem_of(self.path), self.kind, index, self.count), image, self.spacing, (*self._notes, *notes)
        )

    def _numbers(self, index: int) -> np.ndarray:
        if self.kind == "dicom":
            return frame_numbers(self._content, index, self.path)
        if self.kind == "nifti":
            voxels, low, high = self._content
            chosen = voxels[:, :, index].T.astype(np.float64)
            return np.asarray((chosen - low) / ((high - low) or 1), dtype=np.float32)[:, :, None]
        return _pillow_numbers(self.path)


def open_pictures(path: str | Path, *, colour: bool = False, stretch: bool = False) -> PictureFile:
    """Open a file of one picture or several; pictures are decoded when they are asked for.

    A NIfTI volume is read as `VolumeSlices` reads it: a slice for each index of the last stored axis, its columns along
    the first axis and its rows along the second, and the volume's lowest number becomes 0, its highest 1. DICOM is
    shown as a viewer shows it (`ultrarefiner.prediction.dicom`). Either may give its pixels a size that can be none
    (zero, negative, NaN): the pictures are read all the same, without a spacing and with a note. All other pictures are
    read by `ultrarefiner.data.read_image`: whole numbers divided by the largest that their format can hold, colours as
    their luminance, transparent parts over black, turned upright as EXIF says.

    Args:
        path: the file.
        colour: whether to keep red, green and blue; networks of this library learn on grey.
        stretch: whether to divide each picture by its own largest number, for 12 bits in a file of 16.

    Returns:
        The file's pictures, by index; nothing is decoded yet.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: nibabel (NIfTI) or pydicom (DICOM) is not installed.
        ValueError: the file cannot be read as what it seems to be.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "one.png"
        >>> Image.new("L", (3, 2), 51).save(path)
        >>> opened = open_pictures(path)
        >>> len(opened), opened[0].name, opened[0].size
        (1, 'one', (2, 3))
    """
    path = Path(path)
    if path.is_dir():
        message = f"{path} is a folder, one file is expected; give its pictures one by one, or use predict_files."
        raise ValueError(message)
    if not path.exists():
        message = f"there is no picture {path}; check the path."
        raise FileNotFoundError(message)
    if not path.is_file():
        message = f"{path} must be a file, but it is a pipe, a socket or a device; save the picture to a file."
        raise ValueError(message)
    kind = kind_of(path)
    if kind == "nifti":
        shape, sizes = read_geometry(path)
        voxels = read_voxels(path)
        ends = (float(voxels.min()), float(voxels.max()))
        spacing, notes = usable_spacing((sizes[1], sizes[0]), "pixdim (rows, columns)")
        return PictureFile(path, kind, shape[2], spacing, (voxels, *ends), colour, stretch, notes)
    if kind == "dicom":
        dataset = read_dicom(path)
        spacing, notes = pixel_spacing(dataset)
        return PictureFile(path, kind, frame_count(dataset), spacing, dataset, colour, stretch, notes)
    return PictureFile(path, kind, 1, None, None, colour, stretch)


def read_picture(path: str | Path, *, index: int = 0, colour: bool = False, stretch: bool = False) -> Picture:
    """Read one picture of a file, by default its first; where there are more, a note says so.

    Args:
        path: the file, see `open_pictures`.
        index: of the frame or slice, from 0.
        colour: whether to keep red, green and blue.
        stretch: whether to divide the picture by its own largest number.

    Returns:
        The picture in [0, 1], with its name, pixel size and notes.

    Raises:
        FileNotFoundError: there is no such file.
        IndexError: there is no such frame or slice.
        ModuleNotFoundError: nibabel (NIfTI) or pydicom (DICOM) is not installed.
        ValueError: the file cannot be read as what it seems to be.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "one.png"
        >>> Image.new("L", (3, 2), 51).save(path)
        >>> picture = read_picture(path)
        >>> picture.name, picture.image.shape, picture.notes
        ('one', torch.Size([1, 2, 3]), ('every pixel has the same value, 0.2 of the range',))
    """
    opened = open_pictures(path, colour=colour, stretch=stretch)
    picture = opened[index]
    if len(opened) == 1:
        return picture
    note = f"number {index} of the {len(opened)} pictures in the file, counted from 0"
    return Picture(picture.name, picture.image, picture.spacing, (note, *picture.notes))


def picture_name(stem: str, kind: Kind, index: int, count: int) -> str:
    """The name of one picture of a file.

    Example:
        >>> picture_name("scan", "nifti", 7, 40), picture_name("a", "picture", 0, 1)
        ('scan_slice007', 'a')
    """
    return stem if count == 1 else f"{stem}_{'slice' if kind == 'nifti' else 'frame'}{index:03d}"


def _pillow_numbers(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            # A large scan is no attack; beyond twice its limit Pillow refuses, which is passed on.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return read_colours(path)
    except Image.DecompressionBombError as error:
        message = f"{path} is too large to be read as one picture ({error}); cut it into parts, or shrink it first"
        raise ValueError(message) from error


def count_pictures(path: str | Path) -> int:
    """How many pictures a file seems to hold, from its header alone; 1 where that cannot be read.

    Example:
        >>> count_pictures("nowhere.png")
        1
    """
    kind = kind_of(path)
    try:
        if kind == "nifti":
            return read_geometry(path)[0][2]
        return frame_count(read_dicom(path, pixels=False)) if kind == "dicom" else 1
    except (ValueError, OSError, ModuleNotFoundError):
        return 1
