"""``ultrarefiner train correction``: clicks into the masks of a trained network, or into damaged masks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from ultrarefiner.checkpoints import read_tensors, write_tensors
from ultrarefiner.cli.flag_checks import refuse_idle, refuse_negative
from ultrarefiner.cli.phase_click_report import ClickReport
from ultrarefiner.cli.phase_clicks import LARGEST_LOGIT
from ultrarefiner.cli.phase_masks import TrainingMasks, with_lesions
from ultrarefiner.cli.phase_pair import trained_coarse, trained_joint, trained_refiner
from ultrarefiner.cli.phase_record import PhaseRecord, refuse_told
from ultrarefiner.cli.phase_refiner import joined
from ultrarefiner.cli.phase_setting import PhaseSetting
from ultrarefiner.cli.setting import Augment, augmentation, is_first_process
from ultrarefiner.cli.split import Split
from ultrarefiner.data import FittedCases, SimulatedFailures
from ultrarefiner.refinement import GRUCorrection
from ultrarefiner.training import ImageCorrectionRecipe

RUN = "correction"
_BY = "train correction"
_FRAME = 256
After = Literal["coarse", "refiner", "joint", "failures"]


@dataclass(frozen=True)
class CorrectionParts:
    """What a correction is built from.

    Attributes:
        after: whose masks it corrects.
        correction: `GRUCorrection`'s arguments.
        side: of its raster, to be given to `CorrectedNetwork`.
    """

    after: After
    correction: dict[str, Any]
    side: int | None

    def build(self) -> GRUCorrection:
        """The correction with random weights."""
        return GRUCorrection(**self.correction)


def correction(
    after: After = "coarse",
    learn_from: Literal["network", "predicted"] = "network",
    points: int = 200,
    hidden: int = 128,
    gain: float = 1.0,
    radius: float | None = None,
    side: int | None = None,
    frame: int | None = None,
    failure_preset: Literal["default", "mild", "severe", "boundary", "structural"] = "default",
    clicks: int = 5,
    choosing_clicks: int = 3,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-5,
    batch_size: int = 8,
    epochs: int = 50,
    augment: Augment | None = None,
    **options: Any,
) -> str:
    """Train a correction by clicks for images, and measure Dice over clicks.

    Beside it stand the masks without a click, and a rule that has nothing to learn and writes each click into its
    neighbours. Each gets its own clicks, in the middle of the largest error of its last answer.

    Args:
        after: whose masks are corrected, those of what train coarse, train refiner (behind coarse) or train joint left
            in the same out; failures are damaged true masks, of no network.
        learn_from: network learns after it; predicted learns from masks of train coarse --out_of_fold, of cases that
            the network had not seen.
        points: how many uncertain and how many clicked pixels it looks at.
        hidden: size of its memory.
        gain: multiplies what it writes.
        radius: how far a click reaches, in pixels of its raster; by default a sixth of the raster's side.
        side: longest side of the raster on which it works; by default the frame.
        frame: side of the square that images are fitted to; by default the network's, which alone is taken, and 256
            for failures.
        failure_preset: which mixture of errors is simulated, for failures.
        clicks: in the report.
        choosing_clicks: after which the checkpoint is chosen.
        learning_rate: AdamW's.
        weight_decay: AdamW's.
        batch_size: images in a batch, in each process.
        epochs: passes over the training cases.
        augment: how images are moved and shaded; by default as the data set was published with, else for ultrasound.
        options: the rest.

    Returns:
        The results on what is reported.
    """
    setting = PhaseSetting(epochs=epochs, **options)
    _refuse_wrong(after, learn_from, clicks=clicks, choosing_clicks=choosing_clicks, preset=failure_preset)
    refuse_negative(learning_rate=learning_rate, weight_decay=weight_decay)
    split = setting.split()
    network, behind = _network(after, setting, split)
    if behind is not None:
        refuse_told("frame", frame, behind.frame, setting.run_folder(after))
        frame = behind.frame
    frame = _FRAME if frame is None else frame
    torch.manual_seed(setting.seed)
    numbers = {
        "points": points,
        "hidden": hidden,
        "dimensions": 2,
        "radius": (frame if side is None else side) / 6 if radius is None else radius,
        "gain": gain,
    }
    parts = CorrectionParts(after, numbers, side)
    recipe = ImageCorrectionRecipe(
        None if learn_from == "predicted" else network,
        parts.build(),
        correction_side=side,
        largest_logit=LARGEST_LOGIT if after == "failures" else None,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        augmentation=augmentation(augment, setting.dataset),
        clicks=choosing_clicks,
    )
    masks = TrainingMasks("predicted" if learn_from == "predicted" else "simulated", 0.5, failure_preset, frame)
    sets = _sets(network, masks, setting, split, frame)

    def shown(cases: Any) -> Any:
        fitted = FittedCases(cases, frame, keep_in_memory=False)
        return fitted if network is not None else _damaged(fitted, masks, setting, times=2)

    report = ClickReport(
        network=network,
        correction=recipe.correction,
        shown=shown,
        side=side,
        clicks=clicks,
        choosing_clicks=choosing_clicks,
        batch_size=batch_size,
    )
    return _run(recipe, parts, report, setting, split, sets=sets, frame=frame)


def _refuse_wrong(after: str, learn_from: str, *, clicks: int, choosing_clicks: int, preset: str) -> None:
    """Raise if a flag is out of range, or has no effect beside the others."""
    for name, number in (("clicks", clicks), ("choosing_clicks", choosing_clicks)):
        if number < 1:
            message = f"{name} must be at least 1, but it is {number}."
            raise ValueError(message)
    but = f"but after is {after!r}"
    refuse_idle(
        {
            f"learn_from predicted is about the masks of train coarse, {but}": learn_from == "predicted"
            and after != "coarse",
            f"failure_preset is of failures, {but}": after != "failures" and preset != "default",
        }
    )


def _run(
    recipe: ImageCorrectionRecipe,
    parts: CorrectionParts,
    report: ClickReport,
    setting: PhaseSetting,
    split: Split,
    *,
    sets: tuple[Any, Any, int],
    frame: int,
) -> str:
    """Train, load the best, measure it over clicks."""
    dataset, chooses, size = sets
    result = setting.train(recipe, dataset, chooses, name=RUN, batch_size=report.batch_size, epoch_size=size)
    if not is_first_process():
        return ""
    recipe.module.load_state_dict(read_tensors(result.best)["model"])
    folder = setting.run_folder(RUN)
    write_tensors(folder / "correction.pt", {"model": recipe.correction.state_dict()})
    PhaseRecord(RUN, frame, setting.cases(), asdict(parts)).write(folder)
    table = report.tables(setting, split, RUN)
    return f"{setting.told(result)}\nthe correction alone: {folder / 'correction.pt'}\n\n{table}"


def _sets(
    network: nn.Module | None, masks: TrainingMasks, setting: PhaseSetting, split: Split, frame: int
) -> tuple[Any, Any, int]:
    """What trains, what chooses, and how many cases an epoch has."""
    training, validation = setting.fitted(split, frame)
    dataset: Any = training
    chooses: Any = validation
    if masks.failures == "predicted":
        dataset, chooses = masks.sets(training, validation, setting, by=_BY)
    elif network is None:
        dataset, chooses = _damaged(training, masks, setting), _damaged(validation, masks, setting, times=2)
    return dataset, chooses, min(len(training), len(dataset))


def _network(after: After, setting: PhaseSetting, split: Split) -> tuple[nn.Module | None, PhaseRecord | None]:
    """Whose masks are corrected, and how it was trained; none for failures."""
    if after == "failures":
        return None, None
    by = f"{_BY} after {after}"
    if after == "joint":
        return trained_joint(setting, split, by=by)
    network, record = trained_coarse(setting, split, by=by)
    if after == "coarse":
        return network, record
    refiner, gate, _, record = trained_refiner(setting, split, by=by)
    return joined(network, refiner, gate, frame=record.frame), record


def _damaged(cases: FittedCases, masks: TrainingMasks, setting: PhaseSetting, *, times: int = 0) -> SimulatedFailures:
    """Damaged true masks, of each case so many; 0 is as many as the run will see."""
    lesions = with_lesions(cases)
    samples = times * len(lesions) if times else setting.epochs * len(cases)
    return SimulatedFailures(lesions, masks.simulator(), samples=samples, seed=setting.seed, size=masks.size)
