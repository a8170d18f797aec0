"""What the training commands have in common: the cases, SAM, and what they tell the loop."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from ultrarefiner.cli.accelerator import device_of
from ultrarefiner.cli.cases import CaseFlags
from ultrarefiner.cli.flag_checks import refuse_devices, refuse_no_folder
from ultrarefiner.cli.frozen_sam import SAMFlags
from ultrarefiner.cli.split import Split, split_cases, synthetic_split
from ultrarefiner.data import Augmentation, CachedEmbeddings, EmbeddingCache, FittedCases
from ultrarefiner.sam import SAM
from ultrarefiner.training import Recipe, TrainingResult, train

Augment = Literal["none", "ultrasound", "glas", "monuseg", "polyp"]

_LOGGER = logging.getLogger("ultrarefiner")
_SHOWN = 4
_PRESETS = {"glas": "glas", "monuseg": "monuseg", "polyps": "polyp"}


@dataclass(frozen=True, kw_only=True)
class RunFlags(CaseFlags):
    """Which cases, and how a run goes: what all training commands are told.

    Args:
        out: folder for checkpoints, curves, snapshots and results, of all folds; the same command goes on there.
        synthetic: made-up cases instead of a folder, and a tiny frozen SAM unless another is named: to see that all
            runs.
        fold: reported at the end, and nothing else; the next one chooses the checkpoint, the rest trains. Sets with
            published test parts are reported on those, and the fold chooses.
        folds: how many; groups (patients, near-duplicates) stay together where they are known.
        seed: of folds, order, augmentation and initial weights.
        accelerator: auto, cpu, cuda, mps.
        epochs: passes over the training cases.
        precision: 32-true, or mixed with bf16-mixed or 16-mixed.
        devices: how many, which, or auto.
        num_nodes: machines; start the same command on each (where embeddings are stored, after the command cache).
        workers: processes that read ahead.
        keep_in_memory: whether fitted images stay there; in colour one of 1024 pixels takes 14 MB.
        keep_every: epochs between checkpoints that stay.
        snapshot_every: epochs between pictures of validation cases.
        progress: show a progress bar on a terminal.

    Raises:
        ValueError: flags that do not go together, no such device or no number of them, or out takes no files.
    """

    out: Path
    synthetic: bool = False
    fold: int = 0
    folds: int = 5
    seed: int = 0
    accelerator: str = "auto"
    epochs: int = 100
    precision: str = "32-true"
    devices: int | str = 1
    num_nodes: int = 1
    workers: int = 0
    keep_in_memory: bool = True
    keep_every: int | None = 25
    snapshot_every: int = 10
    progress: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.synthetic == (self.data is not None):
            message = "give either data, the folder of a data set, or synthetic, made-up cases; not both."
            raise ValueError(message)
        if self.dataset == "images":
            message = "dataset must have masks or boxes to learn from, but images has none; give folder and boxes."
            raise ValueError(message)
        refuse_no_folder(self.out)
        refuse_devices(self.devices, on_cpu=self.device().type == "cpu")

    def device(self) -> torch.device:
        """Where this process computes outside of the loop."""
        return device_of(self.accelerator)

    def split(self) -> Split:
        """The cases."""
        if self.synthetic:
            return synthetic_split(self.seed)
        split = split_cases(self.open(), self.out, fold=self.fold, folds=self.folds, seed=self.seed, tests=self.tests())
        if split.note:
            _LOGGER.warning(split.note)
        return split

    def run_folder(self, name: str) -> Path:
        """Where a run of this fold keeps all that it makes."""
        return self.out / (name if self.synthetic else f"{name}_fold{self.fold}")

    def loop_options(self) -> dict[str, Any]:
        """What the loop is told of every run of this command, whatever is trained in it."""
        return {
            "epochs": self.epochs,
            "seed": self.seed,
            "precision": self.precision,
            "accelerator": self.accelerator,
            "devices": self.devices,
            "num_nodes": self.num_nodes,
            "workers": self.workers,
            "progress": self.progress,
        }

    def train(
        self, recipe: Recipe, training: Any, validation: Any, *, name: str, batch_size: int, **options: Any
    ) -> TrainingResult:
        """Train with curves, history and snapshots.

        Args:
            recipe: the phase.
            training: fitted cases, perhaps with stored embeddings.
            validation: fitted cases that choose, likewise.
            name: of the run's folder.
            batch_size: images in a batch, in each process.
            options: further ones of the loop.
        """
        from ultrarefiner.evaluation import Curves, History, Snapshots  # brings matplotlib

        shown = [validation[index] for index in spread(len(validation), _SHOWN)]
        return train(
            recipe,
            training,
            validation=validation,
            folder=self.run_folder(name),
            batch_size=batch_size,
            keep_every=self.keep_every,
            watchers=(
                Curves(),
                History(),
                Snapshots(shown, every=self.snapshot_every, boxes_only=not self.has_masks),
            ),
            **self.loop_options(),
            **options,
        )

    def told(self, result: TrainingResult) -> str:
        """How a run went, in a sentence: steps, the best epoch, its checkpoint.

        Example:
            >>> result = TrainingResult(0.5, 1, 8, Path("out"))
            >>> RunFlags(out=Path("out"), synthetic=True, epochs=2).told(result)
            '8 steps, the best after epoch 2 of 2 (Dice in validation 0.500): out/best.pt'
        """
        went_on = "" if result.resumed_from is None else f", going on after step {result.resumed_from}"
        best = ""
        if result.best_epoch is not None:
            reached = f"{result.score_name} in validation {result.best_dice:.3f}"
            best = f", the best after epoch {result.best_epoch + 1} of {self.epochs} ({reached})"
        return f"{result.steps} steps{went_on}{best}: {result.best}"


@dataclass(frozen=True, kw_only=True)
class Setting(SAMFlags, RunFlags):
    """Cases, SAM, and numbers of a run.

    Args:
        embeddings: folder of SAM's embeddings, as the command cache makes them; by default embeddings in out.
        measures: S-measure, E-measure, weighted and mean F-measure and sensitivity too (PySODMetrics).

    Raises:
        ValueError: flags that do not go together, or a number out of range.
    """

    embeddings: Path | None = None
    measures: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measures and not self.has_masks:
            message = "measures are of masks, but there are boxes alone; leave measures out."
            raise ValueError(message)

    def sets(self, split: Split, sam: SAM, *, cached: bool) -> tuple[Any, Any]:
        """Fitted training and validation cases, with stored embeddings where asked."""
        fitted = [
            FittedCases(cases, sam.input_policy.size, keep_in_memory=self.keep_in_memory)
            for cases in (split.training, split.validation)
        ]
        if not cached:
            return fitted[0], fitted[1]
        store = EmbeddingCache(self.embeddings or self.out / "embeddings", sam)
        for dataset in fitted:
            store.fill(dataset, batch_size=1, progress=self.progress)
        return CachedEmbeddings(fitted[0], store), CachedEmbeddings(fitted[1], store)


def augmentation(chosen: Augment | None, dataset: str) -> Augmentation | None:
    """What moves and shades images in training.

    Args:
        chosen: a preset, "none", or None for the data set's own: as AutoSAM published it, else for ultrasound.
        dataset: its name.

    Example:
        >>> augmentation("none", "busi") is None, augmentation(None, "glas") is None
        (True, False)
    """
    name = chosen or _PRESETS.get(dataset, "ultrasound")
    return None if name == "none" else Augmentation.preset(cast("Any", name))


def spread(count: int, wanted: int) -> list[int]:
    """Indices from all over a set, at most as many as wanted.

    Example:
        >>> spread(100, 4), spread(2, 4)
        ([12, 37, 62, 87], [0, 1])
    """
    wanted = min(count, wanted)
    return [(2 * place + 1) * count // (2 * wanted) for place in range(wanted)]


def is_first_process() -> bool:
    """Whether this process is the one that reports, after a run of one or several.

    Example:
        >>> is_first_process()
        True
    """
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0
