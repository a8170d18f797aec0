"""What the masks look like while a model learns: a few cases, drawn again after some epochs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol, runtime_checkable

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.data.batches import collate
from ultrarefiner.data.cases import Case
from ultrarefiner.data.fit import Fit, FittedCase, as_fit
from ultrarefiner.evaluation.finished_epoch import FinishedEpoch, check_every, is_due
from ultrarefiner.evaluation.snapshot_figure import SnapshotRow, draw_snapshot

_MOST = 16  # rows that one picture can hold and be looked at


@runtime_checkable
class Samples(Protocol):
    """A data set of cases, or of cases that are fitted to a square already."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Case | FittedCase: ...


class Snapshots:
    """A watcher of `ultrarefiner.training.train` that draws a few cases after some epochs (`draw_snapshot`).

    ``snapshots/epoch0009.png`` in the run's folder is what the model predicts after epoch 9, the tenth, as
    ``metrics.csv`` counts. A resumed run draws over the pictures of the epochs that it does again. The cases go through
    the model one by one, so little memory is needed, and are read once, here.

    Args:
        cases: at most 16, such as ``dataset.subset(names)``. Fitted ones are shown to the model as they are, with the
            coarse masks and stored embeddings that they may have.
        size: the side of the square or the fit, as in training, for cases that are not fitted; None for fitted ones.
        every: epochs between two pictures; there is one after the last epoch in any case.
        boxes_only: the true masks are the filled boxes of a `ultrarefiner.data.BoxTable`: only boxes are scored.

    Raises:
        ValueError: there is no case or there are too many, the size is missing or one too many, or every is below 1;
            while watching, the model does not predict one mask an image on the square's pixels.

    Example:
        >>> from ultrarefiner.data import Phantoms
        >>> watcher = Snapshots(Phantoms(2, size=(48, 64)), 32, every=5)
        >>> len(watcher.batches), watcher.batches[0].images.shape
        (2, torch.Size([1, 1, 32, 32]))
    """

    def __init__(
        self, cases: Samples, size: int | Fit | None = None, *, every: int = 10, boxes_only: bool = False
    ) -> None:
        check_every(every)
        if not 1 <= len(cases) <= _MOST:
            message = (
                f"cases must be 1 to {_MOST}, which one picture can hold, but there are {len(cases)}; choose some with "
                "dataset.subset(names)."
            )
            raise ValueError(message)
        self.every = every
        self.boxes_only = boxes_only
        self.batches = tuple(collate([_fitted(cases[index], size)]) for index in range(len(cases)))

    def __call__(self, moment: FinishedEpoch) -> None:
        """Draw if it is time.

        Raises:
            ValueError: the model does not give one mask an image, on the pixels of the batch.
        """
        if not is_due(moment, self.every):
            return
        rows = []
        for batch in self.batches:
            probability = moment.predict(batch).detach().float().cpu()
            if probability.shape != batch.masks.shape:
                message = (
                    f"predict must give one mask an image on the pixels of the batch, {tuple(batch.masks.shape)}, but "
                    f"it gave {tuple(probability.shape)}."
                )
                raise ValueError(message)
            height, width = batch.content_sizes[0].tolist()
            original_height, original_width = batch.original_sizes[0].tolist()
            rows.append(
                SnapshotRow(
                    name=batch.names[0],
                    image=batch.images[0, :, :height, :width],
                    target=batch.masks[0, :, :height, :width],
                    probability=probability[0, :, :height, :width],
                    height_over_width=original_height / original_width,
                )
            )
        figure = draw_snapshot(rows, title=_title(moment), boxes_only=self.boxes_only)
        with replaced_file(Path(moment.folder) / "snapshots" / f"epoch{moment.epoch:04d}.png") as file:
            figure.savefig(file, format="png", dpi=110)


def _title(moment: FinishedEpoch) -> str:
    done = f"after {moment.epoch + 1} of {moment.epochs} epochs"
    dice = moment.scores.get("dice", math.nan)
    return done if math.isnan(dice) else f"{done}; {moment.score_name} in validation {dice:.4f}"


def _fitted(case: Case | FittedCase, size: int | Fit | None) -> FittedCase:
    if isinstance(case, FittedCase):
        if size is not None:
            message = f"size must be None for cases that are fitted already, as {case.name!r} is, but it is {size}."
            raise ValueError(message)
        return case
    if size is None:
        message = f"size must be that of the training's square, because {case.name!r} is not fitted yet; got None."
        raise ValueError(message)
    return as_fit(size)(case)
