"""DICOM files: frames as a viewer shows them, and the size of their pixels."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float32

from ultrarefiner.prediction.spacing import Spacing, usable_spacing

_MAGIC = b"DICM"
_CENTIMETRE, _TISSUE = 3, 1  # PhysicalUnits and RegionSpatialFormat, PS3.3 C.8.5.5


def is_dicom(path: str | Path) -> bool:
    """Whether a file has DICOM's four letters behind its preamble, whatever it is called.

    Example:
        >>> is_dicom("nowhere")
        False
    """
    try:
        if not Path(path).is_file():  # to open a pipe would wait for whoever writes into it
            return False
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == _MAGIC
    except OSError:
        return False


def read_dicom(path: str | Path, *, pixels: bool = True) -> Any:
    """Read a DICOM file; its pixels are decoded frame by frame (`frame_numbers`).

    Args:
        path: the file.
        pixels: False to read no further than its header.

    Raises:
        ModuleNotFoundError: pydicom is not installed.
        ValueError: the file is damaged, no DICOM file, or has no pixels.

    Example:
        >>> read_dicom("nowhere.dcm")
        Traceback (most recent call last):
        ValueError: nowhere.dcm cannot be read as DICOM (...
    """
    path = Path(path)
    pydicom = _pydicom(path)
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
        if pixels and "PixelData" not in dataset:
            raise _NoPixelsError(dataset.get("Modality", "of no modality"))
    except _NoPixelsError as error:
        message = f"{path} is a DICOM file without pixels ({error}); leave it out."
        raise ValueError(message) from None
    except Exception as error:  # damaged files raise whatever their first wrong byte leads to
        raise ValueError(_unreadable(path, error)) from error
    return dataset


def frame_count(dataset: Any) -> int:
    """How many frames a dataset has, at least 1."""
    try:
        return max(1, int(dataset.get("NumberOfFrames", 1) or 1))
    except (TypeError, ValueError):
        return 1


def frame_numbers(dataset: Any, index: int, path: str | Path) -> Float32[np.ndarray, "h w c"]:
    r"""One frame in [0, 1], as a viewer shows it.

    Colours (RGB, YBR, palette) are divided by the largest number of their bits. Grey numbers pass the modality's
    rescaling, then the first VOI window or table (PS3.3 C.11.2); without one they are divided by the range that their
    stored bits can hold, and nothing is stretched. MONOCHROME1 is turned over, so that echoes are bright.

    Args:
        dataset: what `read_dicom` returned.
        index: of the frame, from 0.
        path: named in errors.

    Returns:
        (height, width, 1 or 3).

    Raises:
        ValueError: the pixels are damaged, or compressed in a way that no installed package decodes.
    """
    from pydicom import pixels

    try:
        # Colour comes back as RGB, whatever was stored.
        stored = pixels.pixel_array(dataset, index=index)
        bits = int(dataset.BitsStored)
        kind = str(dataset.PhotometricInterpretation)
        if kind == "PALETTE COLOR":
            coloured = pixels.apply_color_lut(stored, dataset)
            largest = float(np.iinfo(coloured.dtype).max)
            return np.asarray(coloured[:, :, :3] / largest, dtype=np.float32)
        if stored.ndim == 3:
            return np.asarray(stored / float(2**bits - 1), dtype=np.float32)
        shown = _shown(stored, dataset, bits)
    except Exception as error:  # decoders raise whatever their first wrong byte leads to
        raise ValueError(_unreadable(Path(path), error)) from error
    return np.asarray(1 - shown if kind == "MONOCHROME1" else shown, dtype=np.float32)[:, :, None]


def pixel_spacing(dataset: Any) -> tuple[Spacing | None, tuple[str, ...]]:
    """(row, column) size of a pixel in mm; None where the file does not say, or says it differently for its regions.

    Looked for in PixelSpacing, in the shared functional groups of an enhanced file, and in the ultrasound regions,
    whose physical deltas are in cm. What can be no size is none, and a note says so (`usable_spacing`).

    Returns:
        The size, and notes.

    Example:
        >>> pixel_spacing({})
        (None, ())
    """
    try:
        return _from_tags(dataset)
    except (AttributeError, TypeError, ValueError, IndexError) as error:  # a tag that is not what it is to be
        return usable_spacing(f"unreadable ({error})", "the size of its pixels")


def _from_tags(dataset: Any) -> tuple[Spacing | None, tuple[str, ...]]:
    spacing = dataset.get("PixelSpacing")
    groups = dataset.get("SharedFunctionalGroupsSequence")
    if spacing is None and groups and groups[0].get("PixelMeasuresSequence"):
        spacing = groups[0].PixelMeasuresSequence[0].get("PixelSpacing")
    if spacing is not None:
        return usable_spacing(spacing, "PixelSpacing")
    regions = {
        (10 * abs(float(region.PhysicalDeltaY)), 10 * abs(float(region.PhysicalDeltaX)))
        for region in dataset.get("SequenceOfUltrasoundRegions") or ()
        if region.get("RegionSpatialFormat") == _TISSUE
        and region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == _CENTIMETRE
    }
    return usable_spacing(regions.pop(), "the region's physical delta") if len(regions) == 1 else (None, ())


def _shown(stored: np.ndarray, dataset: Any, bits: int) -> np.ndarray:
    """Grey numbers through modality and VOI transformation, in [0, 1]."""
    from pydicom import pixels

    signed = int(dataset.get("PixelRepresentation", 0)) == 1
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    if "ModalityLUTSequence" in dataset:
        values = np.asarray(pixels.apply_modality_lut(stored, dataset), dtype=np.float64)
        ends = np.array([0, 2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1])
    else:
        slope, intercept = float(dataset.get("RescaleSlope", 1) or 1), float(dataset.get("RescaleIntercept", 0) or 0)
        values, ends = stored * slope + intercept, np.sort(ends * slope + intercept)
    if dataset.get("VOILUTSequence"):
        table = pixels.apply_voi(values.round().astype(np.int64), dataset)
        return np.asarray(table / float(2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1))
    if dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
        centre, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
        return _windowed(values, centre, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    return np.asarray((values - ends[0]) / (ends[1] - ends[0]))


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3, with outputs from 0 to 1."""
    if function == "SIGMOID" and width > 0:
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
    if function == "LINEAR_EXACT" and width > 0:
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width <= 1:  # a step
        return np.asarray((values > centre - 0.5).astype(np.float64))
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _first(value: Any) -> float:
    return float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)


class _NoPixelsError(Exception):
    """A sound file that is no picture."""


def _pydicom(path: Path) -> ModuleType:
    try:
        import pydicom
    except ModuleNotFoundError as error:
        message = f"{path.name} needs the package pydicom: pip install 'ultrarefiner[dicom]'."
        raise ModuleNotFoundError(message) from error
    module: ModuleType = pydicom
    return module


def _unreadable(path: Path, error: Exception) -> str:
    return (
        f"{path} cannot be read as DICOM ({' '.join(str(error).split())[:200]}); it is truncated, damaged, of another "
        "kind, or compressed in a way that needs another package (pylibjpeg): export it again, uncompressed"
    )
