"""SegVol learns: first from boxes, then from boxes and clicks, and its correction after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.data import VolumeAugmentation, VolumeBatch, VolumeView
from ultrarefiner.losses import BoundaryLoss, DiceBCELoss
from ultrarefiner.networks import SegVol
from ultrarefiner.prompts import ObjectBoxes, box_from_middle_slice, draw_rounds, tight_object_box
from ultrarefiner.training.click_terms import check_losses, region_terms
from ultrarefiner.training.interaction import Answer, simulate_clicks
from ultrarefiner.training.recipe import ParameterGroup, Prediction, Recipe, StepResult, dice_of_images, full_precision

Stage = Literal["box", "box_points"]
BoxKind = Literal["middle_slice", "tight"]


class VolumeRecipe(Recipe):
    """What both have in common: volumes are viewed, boxes are drawn, each volume with an object counts once."""

    model: SegVol
    view: VolumeView | None
    augmentation: VolumeAugmentation | None
    loss: nn.Module
    boundary: nn.Module
    boundary_weight: float
    box: BoxKind
    jitter: int | tuple[int, int, int]

    def dice(self, probability: Tensor, masks: Tensor) -> Tensor:
        """`dice_of_volumes`.

        Args:
            probability: (b, 1, d, h, w).
            masks: (b, 1, d, h, w), the true ones.

        Returns:
            (b,), in [0, 1].
        """
        return dice_of_volumes(probability, masks)

    def boxes(self, masks: Tensor, generator: torch.Generator | None) -> ObjectBoxes:
        """Boxes of the masks, jittered where there is a generator.

        Args:
            masks: (b, 1, d, h, w).
            generator: None in validation: the boxes are tight.

        Returns:
            In voxel indices, and which are valid.
        """
        draw = box_from_middle_slice if self.box == "middle_slice" else tight_object_box
        jitter = 0 if generator is None else self.jitter
        return draw(masks, jitter=jitter, generator=generator)

    def conversation(self, embedding: Tensor, masks: Tensor, generator: torch.Generator | None) -> Any:
        """What to hand to `simulate_clicks`; a volume without an object gets a box of its first voxel.

        Args:
            embedding: (b, c, d', h', w'), of the volumes.
            masks: (b, 1, d, h, w), the true ones.
            generator: None in validation.

        Returns:
            What `simulate_clicks` asks in each round.
        """
        return self.model, embedding, self.boxes(masks, generator).boxes.clamp(min=0), masks

    def region(self, answers: Sequence[Answer], masks: Tensor) -> tuple[Tensor, Tensor]:
        """Dice and cross entropy, and the distance from the surface, one value a volume, means over the answers.

        Args:
            answers: of all rounds.
            masks: (b, 1, d, h, w), the true ones.

        Returns:
            Two tensors (b,).
        """
        return region_terms(self, answers, masks)

    def check(self) -> None:
        """Raise if a field is out of range.

        Raises:
            ValueError: a loss that returns one value for the batch, an unknown box, or a negative weight.
        """
        check_losses(self, [name for name in ("loss", "boundary", "consistency") if hasattr(self, name)])
        if self.box not in ("middle_slice", "tight"):
            message = f'box must be "middle_slice" or "tight", but it is {self.box!r}.'
            raise ValueError(message)


@dataclass(frozen=True, eq=False)
class SegVolRecipe(VolumeRecipe):
    """Train SegVol on boxes (stage 1), then on boxes and clicks with the distance from the surface (stage 2).

    In stage "box" the decoder is told the object's box, and the loss is Dice and cross entropy. In stage "box_points"
    0 to 5 clicks follow (`draw_rounds`), each into the largest error of the answer before (`next_click`); every answer
    counts the same, and `BoundaryLoss` is added. Stage 2 goes on with the weights that stage 1 left in the model. In a
    share of its steps, ``clicks_alone``, there is no box, and the first click lies in the middle of the object: next to
    a box a click changes little, so that a network which always has a box hardly learns to listen to clicks.

    Volumes without an object in view do not count. Checkpoints are chosen by the answer to the box (stage 1), or after
    ``clicks`` clicks, the answer to the box then standing beside it as the coarse one.

    Args:
        model: the network.
        stage: "box" or "box_points".
        learning_rate: AdamW's.
        weight_decay: AdamW's.
        view: a patch or the whole of each volume, drawn in every step, of the size of the network's input; None for
            volumes that have it. Validation sees whole volumes, which must have it.
        augmentation: called with a volume, its mask and a generator; None for none.
        loss: called with logits and masks of k answers, (b, k, d, h * w); returns (b, k).
        boundary: called with the logits of k answers, (b, k, d, h, w), and masks, (b, 1, d, h, w); returns (b, k).
        boundary_weight: of it, in stage 2.
        box: "middle_slice", as the challenge gives it, or "tight".
        jitter: each face of a box moves by up to so many voxels in training.
        clicks: in the validation of stage 2.
        clicks_alone: the share of the steps of stage 2 without a box; SegVol's paper has a third of them.

    Raises:
        ValueError: an unknown stage or box, a negative number, or a loss with one value for the batch; while training,
            volumes of another size than the network's.

    Example:
        >>> from ultrarefiner.networks import build_segvol
        >>> recipe = SegVolRecipe(build_segvol("tiny"), stage="box_points")
        >>> recipe.settings()["stage"], recipe.parameter_groups()[0].learning_rate
        ('box_points', 0.0001)

    Du et al., "SegVol", arXiv 2311.13385 (AdamW, 1e-4 and 1e-5); SegVol-GRU-Correction (its two stages).
    """

    model: SegVol
    _: KW_ONLY
    stage: Stage = "box"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    view: VolumeView | None = None
    augmentation: VolumeAugmentation | None = field(default_factory=VolumeAugmentation)
    loss: nn.Module = field(default_factory=lambda: DiceBCELoss(reduction="none"))
    boundary: nn.Module = field(default_factory=lambda: BoundaryLoss(limit=10.0, reduction="none"))
    boundary_weight: float = 0.1
    box: BoxKind = "middle_slice"
    jitter: int | tuple[int, int, int] = 1
    clicks: int = 3
    clicks_alone: float = 0.5

    def __post_init__(self) -> None:
        self.check()
        if self.stage not in ("box", "box_points") or self.clicks < 0 or not 0 <= self.clicks_alone <= 1:
            message = (
                'stage must be "box" or "box_points", clicks at least 0 and clicks_alone in [0, 1], but they are '
                f"{self.stage!r}, {self.clicks} and {self.clicks_alone}."
            )
            raise ValueError(message)

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self.model

    def parts(self) -> Mapping[str, nn.Module]:
        """The network, as "segvol"."""
        return {"segvol": self.model}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """One."""
        return [ParameterGroup("segvol", self.model, self.learning_rate, self.weight_decay)]

    def step(self, batch: VolumeBatch, generator: torch.Generator) -> StepResult:
        """Answers to a box, and to clicks in stage 2, compared with the truth."""
        seen = viewed(batch, self.view, self.augmentation, generator)
        rounds, alone = 0, False
        if self.stage == "box_points":
            alone = float(torch.rand((), generator=generator)) < self.clicks_alone
            rounds = max(draw_rounds(generator), int(alone))
        model, embedding, boxes, masks = self.conversation(self.model.encode(seen.images), seen.masks, generator)
        answers = simulate_clicks(
            model, embedding, None if alone else boxes, masks, clicks=rounds, generator=generator
        )[int(alone) :]
        region, surface = self.region(answers, seen.masks)
        terms = {"segmentation": over_objects(region, seen.masks)}
        loss = terms["segmentation"]
        if self.stage == "box_points":
            terms["boundary"] = over_objects(surface, seen.masks)
            loss = loss + self.boundary_weight * terms["boundary"]
        return result(loss, terms, answers, seen.masks)

    def predict(self, batch: VolumeBatch, cases: Sequence[int]) -> Prediction:  # noqa: ARG002 - nothing is drawn
        """The masks after the box, or after the box and some clicks."""
        told = self.conversation(self.model.encode(batch.images), batch.masks, None)
        answers = simulate_clicks(*told, clicks=0 if self.stage == "box" else self.clicks)
        coarse = None if self.stage == "box" else answers[0].logits.sigmoid()
        return Prediction(answers[-1].logits.sigmoid(), coarse)


def viewed(
    batch: VolumeBatch,
    view: VolumeView | None,
    augmentation: VolumeAugmentation | None,
    generator: torch.Generator,
) -> VolumeBatch:
    """A batch as the network is to see it: each volume viewed, then augmented.

    Example:
        >>> batch = VolumeBatch(torch.rand(2, 1, 8, 9, 9), torch.ones(2, 1, 8, 9, 9), ("a", "b"))
        >>> viewed(batch, VolumeView((4, 8, 8)), None, torch.Generator()).images.shape
        torch.Size([2, 1, 4, 8, 8])
    """
    if view is None and augmentation is None:
        return batch
    images, masks = [], []
    with full_precision(batch.images):
        for image, mask in zip(batch.images, batch.masks, strict=True):
            for change in (view, augmentation):
                image, mask = (image, mask) if change is None else change(image, mask, generator)
            images.append(image)
            masks.append(mask)
    return batch._replace(images=torch.stack(images), masks=torch.stack(masks))


def over_objects(values: Float[Tensor, " b"], masks: Tensor) -> Tensor:
    """The mean over volumes in which the object is; 0 where there is none.

    Example:
        >>> over_objects(torch.tensor([1.0, 5.0]), torch.eye(2).view(2, 1, 1, 1, 2) * torch.tensor([1.0, 0.0])).item()
        1.0
    """
    there = masks.flatten(1).any(1)
    return values.masked_fill(~there, 0.0).sum() / there.sum().clamp(min=1)


def dice_of_volumes(probability: Float[Tensor, "b 1 d h w"], masks: Float[Tensor, "b 1 d h w"]) -> Float[Tensor, " b"]:
    """Dice of each volume at 0.5; an empty mask that is predicted empty counts 1.

    Args:
        probability: in [0, 1].
        masks: the true ones.

    Returns:
        In [0, 1], one a volume.

    Example:
        >>> mask = torch.ones(1, 1, 2, 2, 2)
        >>> dice_of_volumes(0.9 * mask, mask)
        tensor([1.])
    """
    return dice_of_images(probability.flatten(3), masks.flatten(3))


def result(loss: Tensor, terms: Mapping[str, Tensor], answers: Sequence[Answer], masks: Tensor) -> StepResult:
    """A step's result, with the Dice of the last answer."""
    last = dice_of_volumes(answers[-1].logits.detach().sigmoid(), masks)
    return StepResult(loss, {name: term.detach() for name, term in terms.items()}, over_objects(last, masks))
