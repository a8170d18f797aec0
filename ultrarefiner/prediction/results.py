"""The folder of results: masks, probabilities and panels, each file whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.data.nifti import write_mask
from ultrarefiner.prediction.finding import RESULT_FOLDERS, TABLE_NAME
from ultrarefiner.prediction.rows import PredictionRow


class ResultFolder:
    """Where results lie: ``masks``, ``coarse``, ``probabilities``, ``panels``, and two tables.

    Args:
        path: the folder; it is made when the first file is written.
        probabilities: whether there are probability maps.
        panels: whether there are panels.

    Raises:
        ValueError: the folder has one of these names already, with something in it, and no table of predictions beside
            it: an annotator's masks would be written over.

    Example:
        >>> ResultFolder("results").mask_file("a")
        'masks/a.png'
    """

    def __init__(self, path: str | Path, *, probabilities: bool = False, panels: bool = True) -> None:
        self.path = Path(path)
        self.probabilities = probabilities
        self.panels = panels
        if self.path.exists() and not self.path.is_dir():
            message = f"out must be a folder, but {self.path} is a file; give another name."
            raise ValueError(message)
        foreign = [name for name in RESULT_FOLDERS if any(self.path.joinpath(name).glob("*"))]
        if foreign and not self.table.is_file():
            message = (
                f"out must be a new folder, or one that predictions were written to, but {self.path} has a folder "
                f"{foreign[0]!r} and no {TABLE_NAME}: its files would be written over. Give another folder."
            )
            raise ValueError(message)

    @property
    def table(self) -> Path:
        """The table of predictions."""
        return self.path / TABLE_NAME

    @property
    def failures(self) -> Path:
        """The table of what failed."""
        return self.path / "failures.csv"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say where and why results could not be written, of a block that does nothing else with files.

        Raises:
            OSError: there is no room, no right, or no such place.
        """
        try:
            yield
        except OSError as error:
            message = (
                f"results cannot be written to {self.path} ({error.strerror or error}); make room there, or give "
                "another folder. What was finished before stays, and the same call goes on from there."
            )
            raise OSError(message) from error

    def mask_file(self, name: str, *, volume: bool = False) -> str:
        """Where a final mask lies, below the folder."""
        return f"masks/{name}.nii.gz" if volume else f"masks/{name}.png"

    def write_masks(self, mask_file: str, coarse: Bool[np.ndarray, "h w"], refined: Bool[np.ndarray, "h w"]) -> None:
        """Write both masks of a picture: grey PNGs of 8 bits, 0 and 255."""
        for place, mask in ((_coarse(mask_file), coarse), (mask_file, refined)):
            self._write(place, Image.fromarray(mask.astype(np.uint8) * np.uint8(255)))

    def write_volume_masks(
        self, mask_file: str, coarse: Bool[np.ndarray, "x y z"], refined: Bool[np.ndarray, "x y z"], *, like: Path
    ) -> None:
        """Write both masks of a volume, with its geometry."""
        for place, mask in ((_coarse(mask_file), coarse), (mask_file, refined)):
            write_mask(self.path / place, mask, like=like)

    def write_probability(self, name: str, probability: Float[Tensor, "h w"]) -> None:
        """Write a probability map: a grey PNG of 16 bits, the probability times 65535, rounded."""
        numbers = (probability * 65535).round().numpy().astype(np.uint16)
        self._write(f"probabilities/{name}.png", Image.fromarray(numbers))

    def write_panel(self, name: str, panel: Image.Image) -> None:
        """Write a panel."""
        self._write(f"panels/{name}.png", panel)

    def files_of(self, name: str, mask_file: str) -> list[Path]:
        """All files of a picture that a run with these options writes; ``mask_file`` may be a whole volume's."""
        wanted = [("probabilities", self.probabilities), ("panels", self.panels)]
        return [file for file, written in self._places(name, mask_file, wanted) if written]

    def has(self, row: PredictionRow) -> bool:
        """Whether all files of a row are there."""
        return all(file.is_file() for file in self.files_of(row.name, row.mask_file))

    def discard(self, name: str, mask_file: str) -> None:
        """Delete what was written of a picture that could not be predicted to its end, or no longer can be."""
        for file, _ in self._places(name, mask_file, [("probabilities", True), ("panels", True)]):
            file.unlink(missing_ok=True)

    def _places(self, name: str, mask_file: str, more: list[tuple[str, bool]]) -> list[tuple[Path, bool]]:
        masks = [(self.path / mask_file, True), (self.path / _coarse(mask_file), True)]
        return masks + [(self.path / kind / f"{name}.png", written) for kind, written in more]

    def _write(self, place: str, picture: Image.Image) -> None:
        with replaced_file(self.path / place) as file:
            picture.save(file, format="PNG", compress_level=4)


def _coarse(mask_file: str) -> str:
    return "coarse" + mask_file.removeprefix("masks")
