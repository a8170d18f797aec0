"""A folder of the challenge's cases, answered one after the other; a run that was stopped goes on where it was."""

from __future__ import annotations

import csv
import io
import os
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from torch import Tensor

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.data.challenge_npz import read_interactive_case, write_challenge_result
from ultrarefiner.data.progress import progress_bar
from ultrarefiner.data.volume_intensity import normalise_foreground
from ultrarefiner.evaluation.challenge_answers import answer_case
from ultrarefiner.systems import InteractiveModel


@dataclass(frozen=True)
class ChallengeAnswer:
    """What became of one case.

    Attributes:
        name: of its file.
        objects: how many were asked for; None where that is not known: the case could not be read, or was answered
            before.
        seconds: what reading, answering and writing took; None where it was answered before.
        error: why there is no answer; "" where there is one.
    """

    name: str
    objects: int | None
    seconds: float | None
    error: str = ""


@dataclass(frozen=True)
class ChallengeAnswers:
    """What became of a folder of cases.

    Attributes:
        rows: one a case, by name.
    """

    rows: tuple[ChallengeAnswer, ...]

    @property
    def failed(self) -> tuple[ChallengeAnswer, ...]:
        """The cases without an answer."""
        return tuple(row for row in self.rows if row.error)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one row a case: name, objects, seconds, error. The file appears whole or not at all."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([column.name for column in fields(ChallengeAnswer)])
        writer.writerows(astuple(row) for row in self.rows)
        with replaced_file(path) as file:
            file.write(text.getvalue().encode())


def answer_challenge_folder(
    model: InteractiveModel,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    normalise: Callable[[Tensor], Tensor] = normalise_foreground,
    progress: bool = True,
) -> ChallengeAnswers:
    """Answer every case of a folder (`answer_challenge`), each into a file of the same name.

    A case whose answer is there already is left out, so a run that was stopped goes on where it was: give every model
    a folder of its own. A case that cannot be read or answered stops nothing, whatever the model raises; a warning at
    the end counts them, and the next run tries them again. An answer that cannot be written, on a full disk for
    example, ends the run.

    Args:
        model: `VolumeSegmenter`, or any other `InteractiveModel`.
        folder: its ".npz" files are the cases; folders inside are not looked into.
        out: gets the answers; another folder, which is made.
        normalise: from a file's numbers to the network's, (1, d, h, w) each.
        progress: whether to show a bar over the cases.

    Returns:
        What became of each.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no cases, or ``out`` is the folder itself.

    Example:
        >>> import tempfile, numpy as np
        >>> from ultrarefiner.networks import build_segvol
        >>> from ultrarefiner.systems import VolumeSegmenter
        >>> folder = Path(tempfile.mkdtemp())
        >>> image = np.arange(192, dtype=np.uint8).reshape(4, 6, 8)
        >>> np.savez(folder / "a.npz", imgs=image, spacing=(3.0, 1.0, 1.0), clicks=[{"fg": [[1, 2, 3]], "bg": []}])
        >>> model = VolumeSegmenter(build_segvol("tiny", volume_size=(8, 16, 16)))
        >>> answers = answer_challenge_folder(model, folder, folder / "segs", progress=False)
        >>> [(row.name, row.objects, row.error) for row in answers.rows]
        [('a.npz', 1, '')]
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        message = f"there is no folder {folder}; check the path."
        raise FileNotFoundError(message)
    paths = sorted(path for path in folder.glob("*.npz") if path.is_file() and not path.name.startswith("."))
    if not paths or out.resolve() == folder.resolve():
        message = (
            f"folder must hold .npz files and out be another folder, but {folder} has {len(paths)} and out is {out}; "
            "check both paths."
        )
        raise ValueError(message)
    rows = []
    with progress_bar(len(paths), "answer", "case", shown=progress) as bar:
        for path in paths:
            place = out / path.name
            rows.append(
                ChallengeAnswer(path.name, None, None) if _finished(place) else _tried(model, path, place, normalise)
            )
            bar.update(1)
    answers = ChallengeAnswers(tuple(rows))
    if answers.failed:
        first = answers.failed[0]
        warnings.warn(
            f"{len(answers.failed)} of {len(rows)} cases have no answer, the first is {first.name}: {first.error}",
            stacklevel=2,
        )
    return answers


def _tried(model: InteractiveModel, path: Path, place: Path, normalise: Callable[[Tensor], Tensor]) -> ChallengeAnswer:
    begin = time.perf_counter()
    objects: int | None = None
    try:
        case = read_interactive_case(path)
        objects = case.objects
        segs = answer_case(model, case, normalise=normalise, progress=False)
    except Exception as error:
        told = isinstance(error, (OSError, ValueError, RuntimeError)) and str(error)
        why = told or f"{type(error).__name__}: {error}".removesuffix(": ")
        return ChallengeAnswer(path.name, objects, time.perf_counter() - begin, why)
    write_challenge_result(place, segs)
    return ChallengeAnswer(path.name, objects, time.perf_counter() - begin)


def _finished(place: Path) -> bool:
    """Whether an answer is there and not cut short by a copy: an archive's list of contents stands at its end."""
    try:
        with zipfile.ZipFile(place) as archive:
            return "segs.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
