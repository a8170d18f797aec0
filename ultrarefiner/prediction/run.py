"""One run over files: pictures are read, fitted, predicted in batches, and written one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ultrarefiner.data.cases import natural_key
from ultrarefiner.data.fit import FitToSquare
from ultrarefiner.prediction.panel import draw_panel, shown_image
from ultrarefiner.prediction.picture import Picture
from ultrarefiner.prediction.plan import Plan, PlannedFile
from ultrarefiner.prediction.predictor import Prediction, Predictor
from ultrarefiner.prediction.reading import open_pictures
from ultrarefiner.prediction.results import ResultFolder
from ultrarefiner.prediction.rows import PredictionFailure, PredictionRow, append_rows, write_failures, write_rows
from ultrarefiner.prediction.segmenting import PredictedMasks, restored
from ultrarefiner.prediction.telling import described, drawing_of, why_failed


@dataclass(frozen=True)
class _Waiting:
    """A picture on its way: its fitted image, and of the picture itself only what is shown."""

    file: PlannedFile
    index: int
    picture: Picture  # as it is shown, with its name, spacing and notes
    size: tuple[int, int]
    square: Tensor
    content: tuple[int, int]


@dataclass
class _Volume:
    """Masks of a volume's slices so far, in the order of its voxels."""

    coarse: np.ndarray
    refined: np.ndarray
    rows: list[PredictionRow] = field(default_factory=list)


class PredictionRun:
    """What `predict_files` does between planning and reporting.

    Args:
        predictor: the model.
        fit: the square that it was trained on.
        folder: of results.
        plan: what to do.
        threshold: probability from which on a pixel is lesion.
        colour: whether pictures keep their colours.
        stretch: whether each is divided by its largest number.
        done: called with 1 for each picture that is finished.

    Attributes:
        rows: of this run's files, by the pictures' names.
        failures: so far.
    """

    def __init__(
        self,
        predictor: Predictor,
        fit: FitToSquare,
        folder: ResultFolder,
        plan: Plan,
        threshold: float,
        colour: bool,
        stretch: bool,
        done: Callable[[int], object],
    ) -> None:
        self.predictor = predictor
        self.fit = fit
        self.folder = folder
        self.plan = plan
        self.threshold = threshold
        self.colour = colour
        self.stretch = stretch
        self.done = done
        self.rows = dict(plan.kept)
        self.failures: list[PredictionFailure] = []
        self._broken: set[PlannedFile] = set()
        self._volumes: dict[PlannedFile, _Volume] = {}
        for failure in plan.failures:
            self._forget(failure)

    def predict(self, batch_size: int) -> None:
        """Predict all that the plan has not taken over."""
        for row in self.plan.left_over:
            self.folder.discard(row.name, row.mask_file)
        # What an earlier run left is written in whole lines, for the new ones to follow.
        write_rows(self.folder.table, [*self.plan.others, *self.rows.values()])
        waiting: list[_Waiting] = []
        for one in self._pictures():
            waiting.append(one)
            if len(waiting) == batch_size:
                self._batch(waiting)
                waiting = []
        if waiting:
            self._batch(waiting)

    def finish(self) -> None:
        """Bring both tables into order, whatever happened."""
        everything = [*self.plan.others, *self.rows.values()]
        write_rows(self.folder.table, sorted(everything, key=lambda row: natural_key(row.name)))
        write_failures(self.folder.failures, self.failures)

    def ordered_rows(self) -> Iterator[PredictionRow]:
        """The rows in the order of the files."""
        place = {str(file.path): number for number, file in enumerate(self.plan.files)}
        return iter(sorted(self.rows.values(), key=lambda row: (place[row.file], natural_key(row.name))))

    def _pictures(self) -> Iterator[_Waiting]:
        for file in self.plan.files:
            missing = [index for index in range(file.count) if file.picture(index) not in self.rows]
            if not missing:
                continue
            try:
                opened = open_pictures(file.path, colour=self.colour, stretch=self.stretch)
            except Exception as error:  # a decoder raises whatever a damaged file leads it to
                self._fail(file, error)
                continue
            for index in missing:
                if self._lost(file):
                    break
                try:
                    waiting = self._waiting(file, index, opened[index])
                except Exception as error:  # likewise
                    self._fail(file, error, index)
                else:
                    yield waiting

    def _lost(self, file: PlannedFile) -> bool:
        """Whether nothing more can come of a file: a volume's slices have one mask, frames have their own."""
        return file.kind == "nifti" and file in self._broken

    def _waiting(self, file: PlannedFile, index: int, picture: Picture) -> _Waiting:
        size = picture.size
        shown = shown_image(picture.image) if self.folder.panels else picture.image[:, :1, :1].clone()
        kept = Picture(file.picture(index), shown, picture.spacing, picture.notes)
        return _Waiting(file, index, kept, size, self.fit.image(picture.image), self.fit.content_size(size))

    def _batch(self, waiting: Sequence[_Waiting]) -> None:
        found = self._predicted(waiting)
        if isinstance(found, Exception):
            # One image may be what the model cannot bear, or all together what the memory cannot.
            if len(waiting) == 1:
                self._fail(waiting[0].file, found, waiting[0].index)
                return
            for one in waiting:
                self._batch([one])
            return
        masks = found.refined_probability.shape[1]
        if masks != 1:
            message = (
                f"the model must answer one mask an image for its results to be files, but it answers {masks}; call "
                "segment for each image, and write what it returns."
            )
            raise ValueError(message)
        for index, one in enumerate(waiting):
            if self._lost(one.file):
                continue
            try:
                self._finished(one, found, index)
            except (MemoryError, RuntimeError) as error:  # a picture may be too large to be drawn at its own size
                self._fail(one.file, error, one.index)
            else:
                self.done(1)

    def _predicted(self, waiting: Sequence[_Waiting]) -> Prediction | Exception:
        try:
            images = torch.stack([one.square for one in waiting])
            return self.predictor(images, torch.tensor([one.content for one in waiting]))
        except (ValueError, RuntimeError) as error:
            return error.with_traceback(None)  # which would keep alive what its frames hold

    def _finished(self, one: _Waiting, prediction: Prediction, index: int) -> None:
        found = restored(prediction, index, fit=self.fit, size=one.size, threshold=self.threshold)
        name, volume = one.picture.name, one.file.kind == "nifti"
        mask_file = self.folder.mask_file(one.file.name if volume else name, volume=volume)
        row = described(found, one.file, one.picture, mask_file, self.plan.options)
        if self.folder.probabilities:
            self.folder.write_probability(name, found.refined_probability[0])
        if self.folder.panels:
            shown = (one.picture.image.shape[-2], one.picture.image.shape[-1])
            coarse, refined = self._shown(prediction, index, shown)
            self.folder.write_panel(name, draw_panel(drawing_of(found, row, one.picture, coarse, refined)))
        if volume:
            self._slice(one, found, row)
            return
        self.folder.write_masks(mask_file, found.coarse_mask[0].numpy(), found.mask[0].numpy())
        self._write([row])

    def _shown(self, prediction: Prediction, index: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Both masks at the size at which the picture is shown."""
        both = (prediction.coarse_probability[index, 0], prediction.refined_probability[index, 0])
        coarse, refined = (self.fit.restore(mask.float().cpu(), size) >= self.threshold for mask in both)
        return coarse, refined

    def _slice(self, one: _Waiting, found: PredictedMasks, row: PredictionRow) -> None:
        height, width = one.size
        shape = (width, height, one.file.count)
        volume = self._volumes.setdefault(one.file, _Volume(np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)))
        volume.coarse[:, :, one.index] = found.coarse_mask[0].numpy().T
        volume.refined[:, :, one.index] = found.mask[0].numpy().T
        volume.rows.append(row)
        if len(volume.rows) == one.file.count:
            try:
                self.folder.write_volume_masks(row.mask_file, volume.coarse, volume.refined, like=one.file.path)
            except (FileNotFoundError, ValueError) as error:  # the scan went away, or changed, while it was predicted
                self._fail(one.file, error)
            else:
                self._write(self._volumes.pop(one.file).rows)

    def _write(self, rows: Sequence[PredictionRow]) -> None:
        append_rows(self.folder.table, rows)
        self.rows.update((row.name, row) for row in rows)

    def _fail(self, file: PlannedFile, error: Exception, index: int = 0) -> None:
        """Report a file once, and let nothing of an unfinished volume stay."""
        if file in self._broken:
            return
        self._broken.add(file)
        if self._volumes.pop(file, None) is not None or file.kind == "nifti":
            for number in range(file.count):
                self.folder.discard(file.picture(number), self.folder.mask_file(file.name, volume=True))
        self._forget(PredictionFailure(str(file.path), why_failed(file, error, index)))

    def _forget(self, failure: PredictionFailure) -> None:
        """Report a failure, and delete what an earlier run wrote of that file as it was then."""
        self.failures.append(failure)
        for row in self.plan.stale:
            if row.file == failure.file and row.name not in self.rows:
                self.folder.discard(row.name, row.mask_file)
