"""The correction learns from clicks into images: after a trained network, or on coarse masks with no network at all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor, nn

from ultrarefiner.data import Augmentation, Batch
from ultrarefiner.losses import BoundaryLoss, ConsistencyLoss, DiceBCELoss
from ultrarefiner.ops.logits import LOGIT_EPSILON, finite_logit
from ultrarefiner.prompts import draw_rounds
from ultrarefiner.refinement import GRUCorrection
from ultrarefiner.systems import UltraRefiner
from ultrarefiner.systems.click_correction import check_correction_options, on_raster
from ultrarefiner.systems.one_mask import one_mask_logits
from ultrarefiner.training.click_terms import check_losses, click_terms, weighted_sum
from ultrarefiner.training.coarse import augmented
from ultrarefiner.training.freezing import Unfreezing
from ultrarefiner.training.interaction import Answer, simulate_corrections
from ultrarefiner.training.recipe import (
    ParameterGroup,
    Prediction,
    Recipe,
    StepResult,
    dice_of_images,
    full_precision,
    inside_content,
)

_NOTHING = math.log(LOGIT_EPSILON)
"""The logit of what is surely no lesion, as near to 0 as `finite_logit` goes."""


@dataclass(frozen=True, eq=False)
class ImageCorrectionRecipe(Recipe):
    r"""Train a `GRUCorrection` for images, after a network that is trained and takes no prompt.

    The network is asked once and stays as it is. Or there is none, and the data set brings the masks that are to be
    corrected (`SimulatedFailures`, `PredictedCases`, `Mixed` of `ultrarefiner.data`): their `finite_logit` is the first
    answer. A step draws the number of clicks (`draw_rounds`, at least one), and makes each into the largest error of
    the last corrected mask (`next_click`), with the hidden state carried, as `CorrectedNetwork` answers a person
    (`simulate_corrections`). The loss is the mean over the corrected masks of every click of

    .. math:: L_{Dice} + L_{BCE} + w_b L_{boundary} + w_c L_{consistency}

    as in `CorrectionRecipe`. Every image counts once: one without a lesion too, for a click takes away what is not
    there. Beside the content nothing is predicted before the clicks, and nothing is clicked. Checkpoints are chosen
    after ``clicks`` clicks; the answer before the first stands beside it.

    Args:
        network: of one mask, called with images: logits on any raster over the same view, or what `UltraRefiner` (which
            is told the content sizes), `AutoSAM` or a network with deep supervision returns. None where the data set
            brings coarse masks.
        correction: for two dimensions.
        correction_side: the longest side of the raster on which the correction works, to be given to `CorrectedNetwork`
            as well; None for the images' own pixels.
        largest_logit: coarse masks' logits are cut off at it on either side, above 0; None leaves `finite_logit`'s, up
            to 13.8. Masks that are as good as binary are surer than most networks, and a correction that adds has far
            to go; 4 is about as sure as a network.
        learning_rate: AdamW's, of the correction.
        weight_decay: AdamW's.
        augmentation: called with images, masks and a generator; None for none.
        loss: called with the logits and the masks of k answers, (b, k, h, w) both; returns (b, k).
        boundary: called with the logits of k answers and the masks (b, 1, h, w); returns (b, k).
        boundary_weight: w_b.
        consistency: called with corrected logits, first logits, and the pixels near a click; returns one value a mask.
        consistency_weight: w_c.
        clicks: in validation.

    Raises:
        ValueError: a correction for volumes, a number out of range, or a loss with one value for the batch; while
            training, coarse masks beside a network, neither of both, or an answer that is not one mask an image.

    Example:
        >>> import tempfile
        >>> from ultrarefiner.data import FittedCases, Phantoms, SimulatedFailures
        >>> from ultrarefiner.simulation import FailureSimulator
        >>> from ultrarefiner.training import train
        >>> cases = SimulatedFailures(FittedCases(Phantoms(4, size=(48, 64)), 48), FailureSimulator(), samples=8)
        >>> correction = GRUCorrection(points=20, hidden=16, dimensions=2, radius=8.0)
        >>> recipe = ImageCorrectionRecipe(None, correction, augmentation=None)
        >>> result = train(
        ...     recipe, cases, folder=tempfile.mkdtemp(), epochs=1, batch_size=4, tensorboard=False, progress=False
        ... )
        >>> recipe.unfreezing, [group.name for group in recipe.parameter_groups()]
        (Unfreezing(starts={}), ['correction'])

    After SegVol-GRU-Correction, github.com/MoriiHuang/SegVol_GRU_Correction, whose correction needs logits and clicks
    only.
    """

    network: nn.Module | None
    correction: GRUCorrection
    _: KW_ONLY
    correction_side: int | None = None
    largest_logit: float | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    augmentation: nn.Module | None = field(default_factory=Augmentation)
    loss: nn.Module = field(default_factory=lambda: DiceBCELoss(reduction="none"))
    boundary: nn.Module = field(default_factory=lambda: BoundaryLoss(limit=10.0, reduction="none"))
    boundary_weight: float = 0.1
    consistency: nn.Module = field(default_factory=lambda: ConsistencyLoss(reduction="none"))
    consistency_weight: float = 0.1
    clicks: int = 3
    _module: nn.ModuleDict = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_correction_options(self.correction_side, 0)
        if self.largest_logit is not None and not 0 < self.largest_logit < math.inf:
            message = (
                f"largest_logit must be None or a finite number above 0, but it is {self.largest_logit}; 4 is a good "
                "value."
            )
            raise ValueError(message)
        if self.correction.dimensions != 2 or self.clicks < 1:
            message = (
                "correction must be for 2 dimensions and clicks at least 1, but they are "
                f"{self.correction.dimensions} and {self.clicks}; CorrectionRecipe is for volumes."
            )
            raise ValueError(message)
        check_losses(self, ("loss", "boundary", "consistency"))
        object.__setattr__(self, "_module", nn.ModuleDict(dict(self.parts())))

    @property
    def module(self) -> nn.Module:
        """All there is, as "correction" and "network"."""
        return self._module

    @property
    def unfreezing(self) -> Unfreezing:
        """The network never trains."""
        return Unfreezing({} if self.network is None else {"network": None})

    def parts(self) -> Mapping[str, nn.Module]:
        """The correction, and the network if there is one."""
        network = {} if self.network is None else {"network": self.network}
        return {"correction": self.correction, **network}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """One."""
        return [ParameterGroup("correction", self.correction, self.learning_rate, self.weight_decay)]

    def step(self, batch: Batch, generator: torch.Generator) -> StepResult:
        """Clicks, and what the correction makes of each, compared with the truth."""
        seen = augmented(self.augmentation, batch, generator)
        answers = self._answers(seen, max(draw_rounds(generator), 1), generator)
        terms = click_terms(self, answers, seen.masks, radius=self._radius(seen.masks))
        means = {name: values.mean() for name, values in terms.items()}
        loss = weighted_sum(self, means)
        first, last = (dice_of_images(one.logits.sigmoid(), seen.masks).mean() for one in (answers[0], answers[-1]))
        return StepResult(loss, {**{name: mean.detach() for name, mean in means.items()}, "coarse_dice": first}, last)

    def predict(self, batch: Batch, cases: Sequence[int]) -> Prediction:  # noqa: ARG002 - nothing is drawn
        """The corrected masks after some clicks, and before the first."""
        answers = self._answers(batch, self.clicks, None)
        return Prediction(answers[-1].logits.sigmoid(), answers[0].logits.sigmoid())

    def _answers(self, batch: Batch, clicks: int, generator: torch.Generator | None) -> tuple[Answer, ...]:
        inside = inside_content(batch.content_sizes, batch.images.shape[-2:])
        logits = on_raster(self._first(batch), batch.masks.shape[-2:])
        with full_precision(batch.images):
            return simulate_corrections(
                logits.masked_fill(~inside, _NOTHING),
                batch.masks,
                clicks=clicks,
                correction=self.correction,
                correction_side=self.correction_side,
                inside=inside,
                generator=generator,
            )

    @torch.no_grad()
    def _first(self, batch: Batch) -> Tensor:
        """What is to be corrected, on a raster of its own."""
        if (self.network is None) == (batch.coarse_probability is None):
            there = "is None and there are none" if self.network is None else "is there and so are they"
            message = (
                f"network must be None exactly where the data set brings coarse masks, but it {there}; give a network "
                "the fitted cases alone, without SimulatedFailures, PredictedCases or Mixed around them."
            )
            raise ValueError(message)
        if batch.coarse_probability is not None:
            logits = finite_logit(batch.coarse_probability)
            return logits if self.largest_logit is None else logits.clamp(-self.largest_logit, self.largest_logit)
        network, images = self.network, batch.images
        told = (batch.content_sizes,) if isinstance(network, UltraRefiner) else ()
        return one_mask_logits(network(images, *told), images=len(images), axes=2)  # type: ignore[misc]

    def _radius(self, masks: Tensor) -> float:
        """How near a click is near, in the masks' pixels."""
        longest = max(masks.shape[-2:])
        return self.correction.radius * longest / (self.correction_side or longest)
