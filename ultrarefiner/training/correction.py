"""The correction learns from clicks: into the largest errors of what it corrected before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import nn

from ultrarefiner.data import VolumeAugmentation, VolumeBatch, VolumeView
from ultrarefiner.losses import BoundaryLoss, ConsistencyLoss, DiceBCELoss
from ultrarefiner.networks import SegVol
from ultrarefiner.prompts import draw_rounds
from ultrarefiner.refinement import GRUCorrection
from ultrarefiner.training.click_terms import click_terms, weighted_sum
from ultrarefiner.training.freezing import Unfreezing
from ultrarefiner.training.interaction import simulate_clicks
from ultrarefiner.training.recipe import ParameterGroup, Prediction, StepResult
from ultrarefiner.training.volumes import BoxKind, VolumeRecipe, over_objects, result, viewed


@dataclass(frozen=True, eq=False)
class CorrectionRecipe(VolumeRecipe):
    r"""Train a `GRUCorrection` after SegVol, which is frozen unless it is given a learning rate.

    A step draws the number of clicks (`draw_rounds`; at least one where the network is frozen, for without a click
    nothing would learn), and makes each into the largest error of the last corrected mask (`next_click`), with the
    hidden state carried. The loss is the mean over the corrected masks of every click of

    .. math:: L_{Dice} + L_{BCE} + w_b L_{boundary} + w_c L_{consistency}

    (`BoundaryLoss`; `ConsistencyLoss` with the answer to the box, of the voxels that are farther than the correction's
    ``radius`` from every click: what nobody has said anything about stays what it was). Volumes without an object in
    view do not count. Checkpoints are chosen after ``clicks`` clicks; the answer to the box stands beside it.

    Args:
        model: the network; whoever trained it should have shown it clicks, with ``redecode``.
        correction: for three dimensions.
        redecode: whether the decoder is told every click, and the correction works on its new answer; otherwise, as in
            SegVol-GRU-Correction, it works on what it corrected last (`simulate_clicks`).
        learning_rate: AdamW's, of the correction.
        model_rate: of the network; None freezes it.
        weight_decay: AdamW's.
        view: see `SegVolRecipe`.
        augmentation: see `SegVolRecipe`.
        loss: see `SegVolRecipe`.
        boundary: see `SegVolRecipe`.
        boundary_weight: w_b.
        consistency: called with corrected logits, first logits, and the voxels near a click; returns one value a mask.
        consistency_weight: w_c.
        box: see `SegVolRecipe`.
        jitter: see `SegVolRecipe`.
        clicks: in validation.

    Raises:
        ValueError: a correction for images, a negative number, an unknown box, or a loss with one value for the batch.

    Example:
        >>> from ultrarefiner.networks import build_segvol
        >>> recipe = CorrectionRecipe(build_segvol("tiny"), GRUCorrection(points=16, hidden=32))
        >>> recipe.unfreezing, [group.name for group in recipe.parameter_groups()]
        (Unfreezing(starts={'segvol': None}), ['correction'])

    SegVol-GRU-Correction, github.com/MoriiHuang/SegVol_GRU_Correction.
    """

    model: SegVol
    correction: GRUCorrection
    _: KW_ONLY
    redecode: bool = False
    learning_rate: float = 1e-3
    model_rate: float | None = None
    weight_decay: float = 1e-5
    view: VolumeView | None = None
    augmentation: VolumeAugmentation | None = field(default_factory=VolumeAugmentation)
    loss: nn.Module = field(default_factory=lambda: DiceBCELoss(reduction="none"))
    boundary: nn.Module = field(default_factory=lambda: BoundaryLoss(limit=10.0, reduction="none"))
    boundary_weight: float = 0.1
    consistency: nn.Module = field(default_factory=lambda: ConsistencyLoss(reduction="none"))
    consistency_weight: float = 0.1
    box: BoxKind = "middle_slice"
    jitter: int | tuple[int, int, int] = 1
    clicks: int = 3
    _module: nn.ModuleDict = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.check()
        if self.correction.dimensions != 3 or self.clicks < 1:
            message = (
                "correction must be for 3 dimensions and clicks at least 1, but they are "
                f"{self.correction.dimensions} and {self.clicks}; ImageCorrectionRecipe is for images."
            )
            raise ValueError(message)
        object.__setattr__(self, "_module", nn.ModuleDict({"segvol": self.model, "correction": self.correction}))

    @property
    def module(self) -> nn.Module:
        """Both, as "segvol" and "correction"."""
        return self._module

    @property
    def unfreezing(self) -> Unfreezing:
        """The network never trains without a rate."""
        return Unfreezing({"segvol": None} if self.model_rate is None else {})

    def parts(self) -> Mapping[str, nn.Module]:
        """Both."""
        return {"segvol": self.model, "correction": self.correction}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """The correction; the network if it has a rate."""
        groups = [ParameterGroup("correction", self.correction, self.learning_rate, self.weight_decay)]
        if self.model_rate is not None:
            groups.append(ParameterGroup("segvol", self.model, self.model_rate, self.weight_decay))
        return groups

    def step(self, batch: VolumeBatch, generator: torch.Generator) -> StepResult:
        """Clicks, and what the correction makes of each, compared with the truth."""
        seen = viewed(batch, self.view, self.augmentation, generator)
        rounds = max(draw_rounds(generator), int(self.model_rate is None))
        told = self.conversation(self.model.encode(seen.images), seen.masks, generator)
        answers = simulate_clicks(
            *told,
            clicks=rounds,
            correction=self.correction,
            redecode=self.redecode,
            generator=generator,
        )
        terms = click_terms(self, answers, seen.masks, radius=self.correction.radius)
        means = {name: over_objects(values, seen.masks) for name, values in terms.items()}
        return result(weighted_sum(self, means), means, answers, seen.masks)

    def predict(self, batch: VolumeBatch, cases: Sequence[int]) -> Prediction:  # noqa: ARG002 - nothing is drawn
        """The corrected masks after some clicks, and before the first."""
        told = self.conversation(self.model.encode(batch.images), batch.masks, None)
        answers = simulate_clicks(*told, clicks=self.clicks, correction=self.correction, redecode=self.redecode)
        return Prediction(answers[-1].logits.sigmoid(), answers[0].logits.sigmoid())
