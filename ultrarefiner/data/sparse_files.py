"""The files of prepared volumes: of each an image, labels as runs, and what is known of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.data.volume_cases import Spacing3D
from ultrarefiner.data.volume_intensity import VolumeCrop

FORMAT = "ultrarefiner prepared volumes 1"
KINDS = ("float16", "float32")

_LARGEST = 2**20  # bytes of a JSON file
_LONGEST = 200  # letters of a folder's name; file systems take 255 bytes
_WRONG = (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError)


@dataclass(frozen=True)
class VolumeFolder:
    """Where one prepared volume lies.

    Attributes:
        path: its folder.

    Example:
        >>> VolumeFolder.of(Path("prepared"), "patient 1/.scan").path.as_posix()
        'prepared/volumes/patient 1%2F.scan'
    """

    path: Path

    @classmethod
    def of(cls, root: Path, name: str) -> VolumeFolder:
        """The folder of a volume of any name: what no file system takes is written as a web address writes it.

        What would be longer than a file's name may be is cut, and ends in a hash of the name.
        """
        stem = quote(name, safe=" ")
        if len(stem) > _LONGEST:
            stem = f"{stem[: _LONGEST - 33]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        return cls(root / "volumes" / (f"%2E{stem[1:]}" if stem.startswith(".") else stem))

    @property
    def image(self) -> Path:
        """Intensities in [0, 1], (slices, rows, columns), as NumPy stores them."""
        return self.path / "image.npy"

    @property
    def labels(self) -> Path:
        """`SparseLabels`, i + 1 for the i-th organ."""
        return self.path / "labels.npz"

    @property
    def record(self) -> Path:
        """`VolumeRecord`; written last, so that where it is, the others are."""
        return self.path / "volume.json"


@dataclass(frozen=True)
class VolumeRecord:
    """What is known of a prepared volume.

    Attributes:
        name: unique in its folder.
        group: what must stay together in a fold.
        label: as `VolumeFiles` has it.
        spacing: (z, y, x) size of a voxel in mm.
        affine: from the indices (x, y, z, 1) of a voxel of the file to the scanner's coordinates, (4, 4).
        crop: which voxels of the file were kept.
        counts: voxels of each organ.
        source: bytes and time of the files it was made from: when they change, it is made again.
    """

    name: str
    group: str
    label: str
    spacing: Spacing3D
    affine: NDArray[np.float64] = field(repr=False, compare=False)
    crop: VolumeCrop
    counts: tuple[int, ...]
    source: tuple[int, ...]

    def write(self, path: Path) -> None:
        """Write it as JSON, in one step."""
        told = {
            "format": FORMAT,
            "name": self.name,
            "group": self.group,
            "label": self.label,
            "spacing": self.spacing,
            "affine": self.affine.tolist(),
            "crop": {"start": self.crop.start, "stop": self.crop.stop, "shape": self.crop.shape},
            "counts": self.counts,
            "source": self.source,
        }
        with replaced_file(path, shared=True) as file:
            file.write((json.dumps(told, indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> VolumeRecord:
        """Read what `write` wrote, with no trust in the file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or something else.
        """
        told = _read(path)
        try:
            z, y, x = (_positive(size) for size in told["spacing"])
            affine = np.array(told["affine"], dtype=np.float64)
            if affine.shape != (4, 4) or not np.isfinite(affine).all():
                message = "its affine is not 4 x 4 finite numbers"
                raise ValueError(message)
            crop = VolumeCrop(*(_three(told["crop"][name]) for name in ("start", "stop", "shape")))
            counts = tuple(_whole(one) for one in told["counts"])
            source = tuple(_whole(one, least=-(2**63)) for one in told["source"])  # a time before 1970 is below 0
            name, group, label = (_text(told[field]) for field in ("name", "group", "label"))
            return cls(name, group, label, (z, y, x), affine, crop, counts, source)
        except _WRONG as error:
            raise ValueError(_damaged(path, error)) from error


def read_organs(root: Path) -> dict[str, int | None]:
    """The organs of a folder of prepared volumes, each with its number in the files they were made from.

    Raises:
        FileNotFoundError: the folder holds no prepared volumes.
        ValueError: its settings are damaged.
    """
    path = root / "settings.json"
    if not path.is_file():
        message = f"{root} must hold prepared volumes, but it has no settings.json; make them with prepare_volumes."
        raise FileNotFoundError(message)
    told = _read(path)
    try:
        organs = {_text(name): None if number is None else _whole(number) for name, number in told["organs"].items()}
        if not organs:
            message = "it names no organ"
            raise ValueError(message)
    except _WRONG as error:
        raise ValueError(_damaged(path, error)) from error
    return organs


def read_settings(root: Path) -> dict[str, Any]:
    """All of a folder's settings, as they are."""
    return dict(_read(root / "settings.json"))


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        message = f"there is no file {path}; prepare the volumes again, which goes on with what is missing."
        raise FileNotFoundError(message)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        told = json.loads(content) if len(content) <= _LARGEST else None
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            message = f"it does not say that it is of {FORMAT!r}"
            raise ValueError(message)
    except (*_WRONG, OSError) as error:
        raise ValueError(_damaged(path, error)) from error
    return told


def _damaged(path: Path, error: BaseException) -> str:
    return (
        f"{path} cannot be read as a file of prepared volumes ({type(error).__name__}: {error!s:.200}); delete it and "
        "prepare the volumes again."
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        message = f"{value!r:.50} is no name"
        raise TypeError(message)
    return value


def _whole(value: object, *, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        message = f"{value!r:.50} is no whole number from {least}"
        raise TypeError(message)
    return value


def _positive(value: object) -> float:
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        message = f"{value!r:.50} is no size of a voxel"
        raise TypeError(message)
    return float(value)


def _three(values: Any) -> tuple[int, int, int]:
    z, y, x = (_whole(value) for value in values)
    return z, y, x
