"""DifferentiablePromptExtractor: a soft mask becomes points, a box and a mask prompt, and the gradient flows back."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ultrarefiner.ops.boxes import clip_box, soft_box
from ultrarefiner.ops.checks import check_probability, without_overshoot
from ultrarefiner.ops.coordinates import Frame, accumulation_dtype, edge_to_index, squash_frame
from ultrarefiner.ops.moments import moments, remove_floor
from ultrarefiner.prompts.mask_prompt import MaskStyle, blur_in_frame, mask_prompt_logits
from ultrarefiner.prompts.points import BoxBackground, Centroid, MaskGeometry, PointRule
from ultrarefiner.types import Prompts


class DifferentiablePromptExtractor(nn.Module):
    r"""Turn soft masks into SAM prompts with gradients everywhere.

    For each mask P, with positions x in the mask's own pixels and results in SAM's frame:

    * positive point: :math:`c = \sum P x / \sum P`;
    * negative point: the same of :math:`(1 - P) B`, where B is the box with sigmoid edges;
    * box: :math:`c \mp 2.5 \sigma` on each axis, :math:`\sigma^2 = \sum P (x - c)^2 / \sum P`, cut off at the picture's
      borders;
    * mask prompt: :math:`(2P - 1) \cdot 10` at a quarter of the frame's side; style "gaussian" blurs P first.

    Nothing is upsampled to SAM's 1024 pixels first: moments are taken on the mask and mapped. To agree with a bilinear
    upsampling, :math:`\sigma^2` includes what that interpolation spreads (1/6 of a mask pixel squared).

    A mask in which no pixel reaches ``minimum_probability`` is empty: its ``valid`` is False, its point labels are -1
    ("not a point"), its mask prompt is background everywhere, and no gradient flows through it.

    Args:
        image_size: side of SAM's square frame, used where the call gives no frame (`SAMRefiner` always gives its
            SAM's).
        mask_style: "direct", "gaussian" (for a SAM that was never trained on such masks), or None for no mask prompt.
        positive: the rule of the positive point; None for no such point.
        negative: the rule of the negative point; None for no such point.
        sigmas: half the box's side in standard deviations; None for no box.
        logit_scale: the mask prompt's logit for P = 1.
        blur_sigma: the "gaussian" style's standard deviation as a share of the frame (0.01 is 10 pixels of 1024).
        floor: probability that counts as nothing. A network that says 0.01 everywhere doubles the box; with a floor f >
            0 the points and the box see :math:`q^2 / (q + f)`, :math:`q = \max(P - f, 0)`, which is smooth. 0, the
            seed's, is off.
        minimum_probability: a mask whose largest value is below this is empty.

    Raises:
        ValueError: an unknown style, a number out of range, a floor that would hide a mask that is not empty, or a rule
            that is no dataclass.

    Example:
        >>> probability = torch.zeros(1, 1, 64, 64)
        >>> probability[..., 16:32, 24:40] = 1.0
        >>> prompts = DifferentiablePromptExtractor(image_size=256)(probability)
        >>> prompts.points[0, 0, 0], prompts.boxes[0, 0].round()
        (tensor([127.5000,  95.5000]), tensor([ 81.,  49., 174., 142.]))

    The formulas are those of UltraRefiner (github.com/Autzoko/UltraRefiner).
    """

    def __init__(
        self,
        *,
        image_size: int = 1024,
        mask_style: MaskStyle | None = "direct",
        positive: PointRule | None = Centroid(),  # noqa: B008 - frozen, so sharing it is harmless
        negative: PointRule | None = BoxBackground(),  # noqa: B008 - likewise
        sigmas: float | None = 2.5,
        logit_scale: float = 10.0,
        blur_sigma: float = 0.01,
        floor: float = 0.0,
        minimum_probability: float = 0.1,
    ) -> None:
        super().__init__()
        if mask_style is not None and mask_style not in get_args(MaskStyle):
            message = f"mask_style must be 'direct', 'gaussian' or None, but it is {mask_style!r}."
            raise ValueError(message)
        if not 0 <= floor < minimum_probability <= 1:
            message = (
                "floor must be at least 0 and below minimum_probability, which is at most 1, or masks that are not "
                f"empty would have no weight; but floor is {floor} and minimum_probability is {minimum_probability}. "
                "Lower the floor, or raise minimum_probability."
            )
            raise ValueError(message)
        if (sigmas is not None and sigmas <= 0) or logit_scale <= 0 or blur_sigma <= 0 or image_size < 1:
            message = (
                "sigmas, logit_scale, blur_sigma and image_size must be above 0, but they are "
                f"{sigmas}, {logit_scale}, {blur_sigma} and {image_size}."
            )
            raise ValueError(message)
        for name, rule in (("positive", positive), ("negative", negative)):
            if rule is not None and not is_dataclass(rule):
                message = (
                    f"{name} must be a point rule that is a dataclass, so that a checkpoint remembers its numbers, but "
                    f"it is {type(rule).__name__}; put @dataclass(frozen=True) above it."
                )
                raise ValueError(message)
        self.image_size = image_size
        self.mask_style = mask_style
        self.positive = positive
        self.negative = negative
        self.sigmas = sigmas
        self.logit_scale = logit_scale
        self.blur_sigma = blur_sigma
        self.floor = floor
        self.minimum_probability = minimum_probability

    def forward(self, probability: Float[Tensor, "b k h w"], frame: Frame | None = None) -> Prompts:
        """Extract the prompts of every mask.

        Args:
            probability: soft masks in [0, 1]; float16 and bfloat16 are summed in float32.
            frame: where the masks lie in SAM's frame; by default they are stretched over ``image_size`` squared.

        Returns:
            Prompts in pixel indices of SAM's frame, float32 (float64 for float64 masks).

        Raises:
            ValueError: the masks are not (b, k, h, w), not floating point, not in [0, 1], or hold NaN.
        """
        check_probability(probability)
        frame = squash_frame(probability.shape[-2:], self.image_size) if frame is None else frame
        frame = frame.of_raster(probability.shape[-2:])
        with torch.autocast(probability.device.type, enabled=False):
            wide = without_overshoot(probability.to(accumulation_dtype(probability)))
            valid = wide.detach().amax((-2, -1)) >= self.minimum_probability
            wide = wide.where(valid[..., None, None], 0.0)
            geometry = self._geometry(wide, frame)
            points, labels = self._points(geometry, frame, valid)
            boxes = None if self.sigmas is None else edge_to_index(frame.to_frame(geometry.box))
            return Prompts(points, labels, boxes, self._mask_logits(wide, frame), valid)

    def settings(self) -> dict[str, Any]:
        """Everything that decides what SAM is told, as plain values: what a checkpoint remembers."""
        return {
            "mask_style": self.mask_style,
            "positive": None if self.positive is None else repr(self.positive),
            "negative": None if self.negative is None else repr(self.negative),
            "sigmas": self.sigmas,
            "logit_scale": self.logit_scale,
            "blur_sigma": self.blur_sigma,
            "floor": self.floor,
            "minimum_probability": self.minimum_probability,
        }

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings().items())

    def _geometry(self, wide: Tensor, frame: Frame) -> MaskGeometry:
        weight = remove_floor(wide, self.floor) if self.floor > 0 else wide
        found = moments(weight)
        variance = found.variance + interpolation_variance(frame, found.variance)
        box = soft_box(found.centroid, variance, sigmas=2.5 if self.sigmas is None else self.sigmas)
        return MaskGeometry(weight, found, clip_box(box, frame.source), frame)

    def _points(
        self, geometry: MaskGeometry, frame: Frame, valid: Bool[Tensor, "b k"]
    ) -> tuple[Tensor | None, Tensor | None]:
        points, labels = [], []
        for label, rule in ((1, self.positive), (0, self.negative)):
            if rule is not None:
                choice = rule(geometry)
                points.append(edge_to_index(frame.to_frame(choice.points)))
                labels.append(torch.where(valid & choice.defined, label, -1))
        if not points:
            return None, None
        return torch.stack(points, -2), torch.stack(labels, -1)

    def _mask_logits(self, wide: Tensor, frame: Frame) -> Tensor | None:
        if self.mask_style is None:
            return None
        if self.mask_style == "gaussian":
            wide = blur_in_frame(wide, frame, sigma=self.blur_sigma)
        return mask_prompt_logits(wide, frame, logit_scale=self.logit_scale)


def interpolation_variance(frame: Frame, like: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
    """The variance, (x, y) in mask pixels squared, that bilinear resampling to the frame adds to a mask."""
    vertical, horizontal = (0.0 if scale == 1 else max(1.0, 1 / scale) ** 2 / 6 for scale in frame.scale)
    return torch.stack([torch.full_like(like[..., 0], horizontal), torch.full_like(like[..., 1], vertical)], -1)
