"""What a refiner is built from: SAM, its prompts, its region, its gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from torch import nn

from ultrarefiner.prompts import BoxBackground, Centroid, DifferentiablePromptExtractor, FarCorner, MeanShift
from ultrarefiner.refinement import AcceptanceRule, LearnedGate, ROICropper, UncertaintyGate
from ultrarefiner.sam import SAM, build_light_sam, build_sam
from ultrarefiner.systems import AtSize, SAMRefiner, UltraRefiner

SAMName = Literal["light", "tiny", "vit_b", "vit_l", "vit_h"]
GateName = Literal["none", "uncertainty", "learned"]
MaskPrompt = Literal["direct", "gaussian", "none"]
Positive = Literal["centroid", "mean_shift", "none"]
Negative = Literal["box", "far_corner", "none"]

_POINTS: dict[str, Any] = {
    "none": None,
    "centroid": Centroid(),
    "mean_shift": MeanShift(),
    "box": BoxBackground(),
    "far_corner": FarCorner(),
}
_SIGMAS = 2.5


@dataclass(frozen=True, kw_only=True)
class RefinerParts:
    """What a `SAMRefiner` and its gate are built from.

    Args:
        sam: which SAM.
        sam_size: side of its input.
        sam_backbone: of the light one, a name of timm's; "" of the others.
        input_policy: how images become its input.
        mask_style: of the mask prompt.
        positive: rule of the positive point.
        negative: rule of the negative point.
        box: whether SAM is told a box.
        floor: probability that counts as nothing.
        roi: whether SAM sees a region around the mask rather than the whole image.
        roi_expand: margin of the region on each side, as a share of the box's side.
        gate: how much of SAM's mask enters the final mask.
        gate_bias: of the learned gate at the start.
        trained_encoder: whether SAM's image encoder trained.
        freeze: parts of the image encoder that never train.
        learning_rate: with which it was trained.

    Raises:
        ValueError: an unknown name, or no prompt at all.

    Example:
        >>> parts = RefinerParts(sam="tiny", sam_size=64, box=False, roi=False)
        >>> parts.build().cropper is None, parts.build_gate() is None
        (True, True)
    """

    sam: SAMName
    sam_size: int
    sam_backbone: str = ""
    input_policy: Literal["sam", "medsam"] = "sam"
    mask_style: MaskPrompt = "direct"
    positive: Positive = "centroid"
    negative: Negative = "box"
    box: bool = True
    floor: float = 0.05
    roi: bool = True
    roi_expand: float = 0.2
    gate: GateName = "none"
    gate_bias: float = 0.0
    trained_encoder: bool = True
    freeze: Sequence[str] = ()
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        object.__setattr__(self, "freeze", tuple(self.freeze))  # JSON knows lists alone
        known: dict[str, Any] = {
            "sam": SAMName,
            "mask_style": MaskPrompt,
            "positive": Positive,
            "negative": Negative,
            "gate": GateName,
        }
        for name, names in known.items():
            if getattr(self, name) not in get_args(names):
                message = f"{name} must be one of {', '.join(get_args(names))}, but it is {getattr(self, name)!r}."
                raise ValueError(message)
        if (self.mask_style, self.positive, self.negative, self.box) == ("none", "none", "none", False):
            message = (
                "SAM must be told something of the mask, but mask_style, positive, negative and box are all off; leave "
                "one of them on."
            )
            raise ValueError(message)

    def build_sam(self) -> SAM:
        """SAM with random weights."""
        if self.sam == "light":
            return build_light_sam(self.sam_backbone, image_size=self.sam_size)
        return build_sam(self.sam, input_policy=self.input_policy, image_size=self.sam_size)

    def build(self, sam: SAM | None = None) -> SAMRefiner:
        """The refiner.

        Args:
            sam: with weights; by default one with random weights.
        """
        prompts = DifferentiablePromptExtractor(
            mask_style=None if self.mask_style == "none" else self.mask_style,
            positive=_POINTS[self.positive],
            negative=_POINTS[self.negative],
            sigmas=_SIGMAS if self.box else None,
            floor=self.floor,
        )
        cropper = ROICropper(expand=self.roi_expand, floor=self.floor) if self.roi else None
        return SAMRefiner(self.build_sam() if sam is None else sam, prompts=prompts, cropper=cropper)

    def build_gate(self) -> nn.Module | None:
        """The gate, as it is before training."""
        return built_gate(self.gate, bias=self.gate_bias)

    def frozen_parts(self) -> dict[str, int | None]:
        """The parts that never train, by their names within the refiner."""
        return {f"sam.image_encoder.{part}": None for part in self.freeze}


def built_gate(name: GateName, *, bias: float) -> nn.Module | None:
    """A gate by its name.

    Args:
        name: "none" is None: SAM's mask as it is.
        bias: of the learned gate at the start; 0 begins with the mean of both masks.

    Example:
        >>> type(built_gate("learned", bias=0.0)).__name__
        'LearnedGate'
    """
    if name == "learned":
        return LearnedGate(bias=bias)
    return UncertaintyGate() if name == "uncertainty" else None


def joined(
    coarse: AtSize,
    refiner: SAMRefiner,
    gate: nn.Module | None,
    *,
    frame: int,
    gradient_scale: float = 1.0,
    accept_iou: float = 0.0,
    accept_agreement: float = 0.0,
) -> UltraRefiner:
    """Coarse network, refiner and gate as one model.

    Args:
        coarse: the network.
        refiner: behind it.
        gate: or None.
        frame: side of the square that images are fitted to.
        gradient_scale: factor on the gradient that the refined mask sends to the coarse network.
        accept_iou: `AcceptanceRule`'s lowest estimate of SAM's.
        accept_agreement: its lowest Dice of both masks; without both numbers there is no rule.
    """
    rule = None
    if accept_iou or accept_agreement:
        rule = AcceptanceRule(minimum_iou=accept_iou, minimum_agreement=accept_agreement)
    return UltraRefiner(
        coarse=coarse,
        refiner=refiner,
        gate=gate,
        gradient_scale=gradient_scale,
        acceptance=rule,
        frame=frame,
    )


def encoder_backbone(sam: SAM) -> nn.Module:
    """Timm's network in the image encoder of a light SAM."""
    return cast("nn.Module", cast("Any", sam.image_encoder).backbone)
