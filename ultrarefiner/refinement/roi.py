"""ROICropper: where SAM looks. A region around the soft mask, cut from the image's own pixels, and pasted back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from ultrarefiner.ops.boxes import expand_box, soft_box
from ultrarefiner.ops.checks import check_probability, without_overshoot
from ultrarefiner.ops.coordinates import accumulation_dtype, stretch_frame
from ultrarefiner.ops.crop import crop_to_boxes, paste_from_boxes
from ultrarefiner.ops.moments import moments, remove_floor


class ROICropper(nn.Module):
    r"""Locate a region around each soft mask, crop images and masks to it, and paste masks back.

    The region is centred on the soft box :math:`c \mp 2.5\sigma`, every side moved outwards by ``expand`` of the box's
    own side, then made square (SAM sees the lesion undistorted) or of the image's aspect, between ``minimum`` of the
    image's longer side and that side, and moved inside the image where it fits. A mask that is empty has the whole
    image as its region. Gradients reach the mask through the region's coordinates.

    Args:
        size: side of the square crop, in pixels; `SAMRefiner` takes its SAM's input size instead.
        expand: margin on each side, as a share of the box's side.
        sigmas: half the soft box's side in standard deviations.
        aspect: "square", or "image" for the image's own aspect: the crop is then stretched to a square, as MedSAM
            stretches whole images.
        minimum: smallest width of the region as a share of the image's longer side.
        floor: probability that counts as nothing, see `DifferentiablePromptExtractor`.
        minimum_probability: a mask whose largest value is below this is empty.

    Raises:
        ValueError: an unknown aspect, or a number out of range.

    Example:
        >>> cropper = ROICropper(size=64)
        >>> probability = torch.zeros(1, 1, 100, 100)
        >>> probability[..., 40:60, 30:70] = 1.0
        >>> boxes = cropper.locate(probability)
        >>> boxes[0, 0].round()
        tensor([10., 10., 90., 90.])
        >>> cropper.crop(torch.rand(1, 1, 100, 100), boxes).shape
        torch.Size([1, 1, 1, 64, 64])
    """

    def __init__(
        self,
        *,
        size: int = 1024,
        expand: float = 0.2,
        sigmas: float = 2.5,
        aspect: Literal["square", "image"] = "square",
        minimum: float = 1 / 16,
        floor: float = 0.0,
        minimum_probability: float = 0.1,
    ) -> None:
        super().__init__()
        if aspect not in ("square", "image"):
            message = f"aspect must be 'square' or 'image', but it is {aspect!r}."
            raise ValueError(message)
        if expand < 0 or not 0 < minimum <= 1 or not 0 <= floor < minimum_probability <= 1 or size < 1 or sigmas <= 0:
            message = (
                "ROICropper takes size >= 1, sigmas > 0, expand >= 0, 0 < minimum <= 1 and "
                "0 <= floor < minimum_probability <= 1, "
                f"but was given size={size}, sigmas={sigmas}, expand={expand}, minimum={minimum}, floor={floor}, "
                f"minimum_probability={minimum_probability}."
            )
            raise ValueError(message)
        self.size = size
        self.expand = expand
        self.sigmas = sigmas
        self.aspect = aspect
        self.minimum = minimum
        self.floor = floor
        self.minimum_probability = minimum_probability

    def locate(
        self,
        probability: Float[Tensor, "b k h w"],
        image_size: Sequence[int] | None = None,
        *,
        content_sizes: Int[Tensor, "b 2"] | None = None,
    ) -> Float[Tensor, "b k 4"]:
        """The region of every mask.

        Args:
            probability: soft masks in [0, 1], the whole field of view of the image.
            image_size: (height, width) of the image that is to be cropped; by default the mask's own.
            content_sizes: (height, width) of what of each image is not padding right or below, in the image's pixels:
                regions stay inside it. None where nothing is padded.

        Returns:
            (x0, y0, x1, y1) in pixel edges of the image. A square region of a long lesion may reach beyond a narrow
            image.

        Raises:
            ValueError: the masks are not (b, k, h, w), not floating point, not in [0, 1], or hold NaN.
        """
        check_probability(probability)
        height, width = probability.shape[-2:] if image_size is None else image_size
        wide = without_overshoot(probability.to(accumulation_dtype(probability)))
        valid = wide.detach().amax((-2, -1)) >= self.minimum_probability
        wide = wide.where(valid[..., None, None], 0.0)
        found = moments(remove_floor(wide, self.floor) if self.floor > 0 else wide)
        box = soft_box(found.centroid, found.variance, sigmas=self.sigmas)
        to_image = stretch_frame(probability.shape[-2:], (height, width))
        limits = _limits(box, (height, width), content_sizes)
        region = self._shape(expand_box(to_image.to_frame(box), self.expand), *limits)
        whole = torch.stack([torch.zeros_like(limits[1]), torch.zeros_like(limits[0]), limits[1], limits[0]], -1)
        return region.where(valid[..., None], whole)

    def crop(
        self, images: Float[Tensor, "b c h w"], boxes: Float[Tensor, "b k 4"], *, size: int | None = None
    ) -> Float[Tensor, "b k c size size"]:
        """Every region of every image, ``size`` pixels square.

        Args:
            images: (b, c, h, w); all c channels are cropped to each of the k boxes.
            boxes: in pixel edges of the images.
            size: side of the crops; by default the constructor's.

        Returns:
            The crops; what lies outside the image repeats its border.
        """
        _check_pair("images", images, boxes, masks=False)
        side = self.size if size is None else size
        flat = repeat(images, "b c h w -> (b k) c h w", k=boxes.shape[1])
        crops = crop_to_boxes(flat, boxes.flatten(0, 1), (side, side), padding="border")
        return rearrange(crops, "(b k) c h w -> b k c h w", k=boxes.shape[1])

    def crop_masks(
        self, masks: Float[Tensor, "b k h w"], boxes: Float[Tensor, "b k 4"], *, size: int | None = None
    ) -> Float[Tensor, "b k size size"]:
        """Each mask cropped to its own region; what lies outside the picture is 0.

        Args:
            masks: one mask a box.
            boxes: in pixel edges of the masks.
            size: side of the crops; by default the constructor's.

        Returns:
            The cropped masks.
        """
        _check_pair("masks", masks, boxes, masks=True)
        side = self.size if size is None else size
        flat = rearrange(masks, "b k h w -> (b k) 1 h w")
        crops = crop_to_boxes(flat, boxes.flatten(0, 1), (side, side))
        return rearrange(crops, "(b k) 1 h w -> b k h w", k=masks.shape[1])

    def paste(
        self,
        crops: Float[Tensor, "b k *channels crop_h crop_w"],
        boxes: Float[Tensor, "b k 4"],
        *,
        size: Sequence[int],
        background: Tensor | float,
    ) -> Float[Tensor, "b k *channels h w"]:
        """Put crops back where they came from; outside its region each result is the background.

        Args:
            crops: what `crop` or `crop_masks` returned, or something of the same place at any resolution.
            boxes: in pixel edges of the result.
            size: (height, width) of the result.
            background: one number; a tensor of the result's shape; or, for crops of images, the images (b, c, h, w).
                There is no default on purpose: the published code's 0 is, read as a logit, a probability of 0.5.

        Returns:
            The pictures.

        Raises:
            ValueError: crops, boxes and background do not belong together.
        """
        _check_pair("crops", crops, boxes, masks=True)
        shape = (*crops.shape[:-2], *size)
        if isinstance(background, Tensor):
            images_behind_crops = crops.ndim == 5 and background.ndim == 4
            behind = background[:, None].expand(shape) if images_behind_crops else background
            if tuple(behind.shape) != shape:
                message = (
                    f"background must have the result's shape {shape}, or be the images (b, c, h, w) behind crops of "
                    f"images, but its shape is {tuple(background.shape)}."
                )
                raise ValueError(message)
            background = behind.flatten(0, 1).reshape(boxes.shape[0] * boxes.shape[1], -1, *size)
        flat = crops.reshape(boxes.shape[0] * boxes.shape[1], -1, *crops.shape[-2:])
        return paste_from_boxes(flat, boxes.flatten(0, 1), size, background=background).reshape(shape)

    def settings(self) -> dict[str, Any]:
        """Everything that decides where SAM looks, as plain values (the crop's size is the SAM's)."""
        return {
            "expand": self.expand,
            "sigmas": self.sigmas,
            "aspect": self.aspect,
            "minimum": self.minimum,
            "floor": self.floor,
            "minimum_probability": self.minimum_probability,
        }

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return ", ".join(f"{name}={value!r}" for name, value in {"size": self.size, **self.settings()}.items())

    def _shape(self, box: Tensor, height: Tensor, width: Tensor) -> Tensor:
        """Centre kept, sides of the wanted aspect and large enough, moved inside the image where it fits."""
        centre = (box[..., :2] + box[..., 2:]) / 2
        side_x, side_y = (box[..., 2:] - box[..., :2]).unbind(-1)
        longer = torch.maximum(height, width)
        aspect, most = (torch.ones_like(width), longer) if self.aspect == "square" else (height / width, width)
        span_x = torch.maximum(side_x, side_y / aspect).clamp(self.minimum * longer, most)
        span_y = span_x * aspect
        spans = []
        for middle, span, limit in ((centre[..., 0], span_x, width), (centre[..., 1], span_y, height)):
            room = (limit - span).clamp(min=0)
            inside = torch.minimum((middle - span / 2).clamp(min=0), room)
            low = torch.where(span <= limit, inside, (limit - span) / 2)
            spans.append((low, low + span))
        (x0, x1), (y0, y1) = spans
        return torch.stack([x0, y0, x1, y1], -1)


def _check_pair(name: str, pictures: Tensor, boxes: Tensor, *, masks: bool) -> None:
    """Pictures and boxes of the same images (and, for masks and crops, of the same masks)."""
    shared = 2 if masks else 1
    if boxes.ndim != 3 or pictures.ndim < 4 or pictures.shape[:shared] != boxes.shape[:shared]:
        expected = "(b, k, ..., h, w)" if masks else "(b, c, h, w)"
        message = (
            f"{name} must be {expected} and boxes (b, k, 4) of the same images, but their shapes are "
            f"{tuple(pictures.shape)} and {tuple(boxes.shape)}; make the boxes with locate from these images' masks."
        )
        raise ValueError(message)


def _limits(box: Tensor, image_size: Sequence[int], content_sizes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Height and width that each mask's region must stay inside, (b, k) each, made on the device."""
    like = box[..., 0]
    if content_sizes is None:
        return torch.full_like(like, image_size[0]), torch.full_like(like, image_size[1])
    sizes = content_sizes.to(like.dtype)[:, None, :].expand(-1, like.shape[1], -1)
    return sizes[..., 0], sizes[..., 1]
