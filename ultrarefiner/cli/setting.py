"""What the training commands have in common: the cases, SAM, and what they tell the loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ultrarefiner.checkpoints import load_weights
from ultrarefiner.cli.cases import DatasetName, open_cases
from ultrarefiner.cli.split import Split, split_cases, synthetic_split
from ultrarefiner.data import BoxTable
from ultrarefiner.sam import SAM, build_sam
from ultrarefiner.training import Recipe, TrainingResult, train

_TINY = 256


@dataclass(frozen=True)
class Setting:
    """Cases, SAM, and numbers of a run.

    Args:
        out: folder for checkpoints, curves, snapshots and results; the same command goes on there.
        data: folder of the data set.
        dataset: its layout; "folder" is any folder of images and masks with the same names.
        masks: folder of the masks, for "folder"; by default that of the images.
        mask_suffix: what follows an image's name in its mask's name, for "folder", such as _mask.
        boxes: table case,x0,y0,x1,y1 of tight boxes, for "folder": no mask is read anywhere.
        synthetic: made-up cases instead of a folder, and the tiny SAM unless another is named: to see that all runs.
        fold: reported at the end, and nothing else; the next one chooses the checkpoint, the rest trains.
        folds: how many; groups (patients, near-duplicates) stay together.
        sam: which SAM; by default vit_b, with synthetic tiny.
        sam_weights: its checkpoint; without one its weights are random.
        input_policy: how images become its input; it belongs to the weights.
        seed: of folds, order, augmentation and initial weights.
        epochs: passes over the training cases.
        precision: 32-true, or mixed with bf16-mixed or 16-mixed.
        accelerator: auto, cpu, cuda, mps.
        devices: how many, which, or auto.
        num_nodes: machines; start the same command on each.
        workers: processes that read ahead.
        keep_every: epochs between checkpoints that stay.
        snapshot_every: epochs between pictures of validation cases.
        progress: show a progress bar on a terminal.

    Raises:
        ValueError: flags that do not go together, or a number out of range.
    """

    out: Path
    data: Path | None = None
    dataset: DatasetName = "busi"
    masks: Path | None = None
    mask_suffix: str = ""
    boxes: Path | None = None
    synthetic: bool = False
    fold: int = 0
    folds: int = 5
    sam: Literal["tiny", "vit_b", "vit_l", "vit_h"] | None = None
    sam_weights: Path | None = None
    input_policy: Literal["sam", "medsam"] = "sam"
    seed: int = 0
    epochs: int = 100
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    workers: int = 0
    keep_every: int | None = 25
    snapshot_every: int = 10
    progress: bool = True

    def __post_init__(self) -> None:
        if self.synthetic == (self.data is not None):
            message = "give either data, the folder of a data set, or synthetic, made-up cases; not both."
            raise ValueError(message)
        if self.boxes is not None and (self.dataset != "folder" or self.masks is not None or self.mask_suffix):
            message = "boxes go with dataset folder and without masks; leave masks out, or boxes."
            raise ValueError(message)

    @property
    def has_masks(self) -> bool:
        """Whether the cases have true masks, or boxes alone."""
        return self.boxes is None

    def split(self) -> Split:
        """The cases."""
        if self.synthetic:
            return synthetic_split(self.seed)
        cases: Any
        if self.boxes is not None and self.data is not None:
            cases = BoxTable(self.data, self.boxes)
        else:
            cases = open_cases(self.dataset, data=self.data, masks=self.masks, mask_suffix=self.mask_suffix)
        return split_cases(cases, self.out, fold=self.fold, folds=self.folds, seed=self.seed)

    def frozen_sam(self) -> SAM:
        """SAM with its weights."""
        name = self.sam or ("tiny" if self.synthetic else "vit_b")
        torch.manual_seed(self.seed)
        sam = build_sam(name, input_policy=self.input_policy, image_size=_TINY if name == "tiny" else None)
        if self.sam_weights is not None:
            load_weights(sam, self.sam_weights, layout="sam")
        return sam.to(self.device())

    def device(self) -> torch.device:
        """Where one process computes outside of the loop."""
        gpu = self.accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available()
        return torch.device("cuda" if gpu else "cpu")

    def train(
        self, recipe: Recipe, training: Any, validation: Any, *, name: str, batch_size: int, shown: Any
    ) -> TrainingResult:
        """Train with curves, history and snapshots.

        Args:
            recipe: the phase.
            training: fitted cases, perhaps with stored embeddings.
            validation: fitted cases that choose, likewise.
            name: of the run's folder.
            batch_size: images in a batch, in each process.
            shown: what draws snapshots.
        """
        from ultrarefiner.evaluation import Curves, History  # brings matplotlib

        return train(
            recipe,
            training,
            validation=validation,
            folder=self.out / name,
            epochs=self.epochs,
            batch_size=batch_size,
            seed=self.seed,
            precision=self.precision,
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.num_nodes,
            workers=self.workers,
            keep_every=self.keep_every,
            watchers=(Curves(), History(), shown),
            progress=self.progress,
        )


def report(
    models: dict[str, nn.Module], setting: Setting, test: Any, *, size: int, name: str, baselines: dict[str, Any]
) -> str:
    """Measure models on the reported fold: a table, a file of cases, a picture.

    Args:
        models: by what the table calls them; pictures are of the first.
        setting: of the command.
        test: the cases.
        size: side of the square that they are fitted to.
        name: of the folder.
        baselines: further rows of the table.

    Returns:
        The table, Markdown.
    """
    from ultrarefiner.checkpoints.files import replaced_file
    from ultrarefiner.evaluation import (
        evaluate_segmentation,
        segmentation_figure,
        segmentation_table,
        write_segmentation_csv,
    )

    folder = setting.out / name
    found = {
        said: evaluate_segmentation(model, test, size=size, batch_size=2, progress=setting.progress)
        for said, model in models.items()
    }
    said, first = next(iter(found.items()))
    write_segmentation_csv(folder / "test.csv", first)
    segmentation_figure(first.panels, folder / "test.png")
    table = segmentation_table({**found, **baselines}, against=said)
    with replaced_file(folder / "test.md") as file:
        file.write(table.encode())
    return table
