"""SAMRefiner: a soft mask and its image in, a better mask out, the gradient back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from ultrarefiner.ops.checks import check_images, check_probability
from ultrarefiner.ops.coordinates import Frame, squash_frame, stretch_frame
from ultrarefiner.ops.logits import finite_logit
from ultrarefiner.prompts import MASK_PROMPT_STRIDE, DifferentiablePromptExtractor, mask_prompt_logits
from ultrarefiner.refinement import ROICropper, SoftSelection
from ultrarefiner.sam import InputPolicy, SAMLike, decode, encode_images
from ultrarefiner.systems.pretrained_system import PretrainedSystem
from ultrarefiner.types import Prompts, Refinement


class SAMRefiner(PretrainedSystem, nn.Module):
    """Refine soft masks with SAM, differentiably.

    The mask becomes prompts, SAM's decoder answers with candidates, one is selected at low resolution and brought to
    the mask's pixels. With a cropper SAM sees a region around each mask, cut from the image at its own resolution;
    outside it the result is the coarse mask. A mask that is empty comes back unchanged.

    A frozen image encoder builds no graph. The gradient of the refined mask reaches the coarse mask through points,
    box, mask prompt and, with a cropper, the region in which masks are cropped and pasted. The remaining path, through
    the *image* crop's place, needs the encoder's graph; ``through_crop=True`` opens it.

    Args:
        sam: built by `build_sam`, or any module with ``image_encoder``, ``prompt_encoder`` and ``mask_decoder`` that
            are called as segment-anything's are.
        prompts: what turns the mask into prompts; `DifferentiablePromptExtractor` with its defaults if not given.
        cropper: `ROICropper` to let SAM look at a region; None for the whole image.
        selection: how one of SAM's candidates is chosen; `SoftSelection` if not given.
        through_crop: whether gradients also flow through the image crop and the image encoder.
        dense_prompts: called with what SAM sees, (n, 3, size, size); returns dense prompts (n, d, h, w) on the raster
            of SAM's embedding, in place of the mask prompt: AutoSAM's generator, for one. None for the mask prompt.
        input_policy: how images become SAM's input, for a foreign ``sam`` that does not bring its own.

    Raises:
        ValueError: ``sam`` lacks an organ, or no input policy is known.

    Example:
        >>> from ultrarefiner.sam import build_sam
        >>> refiner = SAMRefiner(build_sam("tiny"), cropper=ROICropper(expand=0.2))
        >>> probability = torch.rand(2, 1, 48, 64, requires_grad=True)
        >>> refinement = refiner(torch.rand(2, 1, 48, 64), probability)
        >>> refinement.logits.shape, refinement.iou.shape
        (torch.Size([2, 1, 48, 64]), torch.Size([2, 1]))

    After UltraRefiner (github.com/Autzoko/UltraRefiner) on Kirillov et al., "Segment Anything", ICCV 2023.
    """

    def __init__(
        self,
        sam: nn.Module | SAMLike,
        *,
        prompts: nn.Module | None = None,
        cropper: ROICropper | None = None,
        selection: nn.Module | None = None,
        through_crop: bool = False,
        dense_prompts: nn.Module | None = None,
        input_policy: InputPolicy | None = None,
    ) -> None:
        super().__init__()
        missing = [organ for organ in ("image_encoder", "prompt_encoder", "mask_decoder") if not hasattr(sam, organ)]
        if missing:
            message = (
                f"sam must have image_encoder, prompt_encoder and mask_decoder, but {type(sam).__name__} lacks "
                f"{', '.join(missing)}; use build_sam, or SAM(image_encoder, prompt_encoder, "
                "mask_decoder, input_policy=...)."
            )
            raise ValueError(message)
        policy = getattr(sam, "input_policy", None) if input_policy is None else input_policy
        if policy is None:
            message = (
                f"input_policy must be given for {type(sam).__name__}, which does not say how images become its input; "
                "pass SAMInput(size) for SAM's weights or MedSAMInput(size) for MedSAM's."
            )
            raise ValueError(message)
        self.sam = sam
        self.input_policy = policy
        self.prompts = DifferentiablePromptExtractor(image_size=policy.size) if prompts is None else prompts
        self.cropper = cropper
        self.selection = SoftSelection() if selection is None else selection
        self.through_crop = through_crop
        self.dense_prompts = dense_prompts

    def forward(
        self,
        images: Float[Tensor, "b c image_h image_w"] | None,
        probability: Float[Tensor, "b k h w"],
        *,
        embeddings: Tensor | None = None,
        boxes: Float[Tensor, "b k 4"] | None = None,
        image_size: Sequence[int] | None = None,
        coarse_logits: Float[Tensor, "b k h w"] | None = None,
        content_sizes: Int[Tensor, "b 2"] | None = None,
    ) -> Refinement:
        """Refine every mask.

        Args:
            images: grey or RGB in [0, 1], at their own resolution; None where ``embeddings`` are given.
            probability: soft masks in [0, 1] that show the same field of view, at any resolution.
            embeddings: (b, d, h, w), or with a cropper (b, k, d, h, w), what `encode` returned for these
                images, to refine again without running the encoder.
            boxes: with a cropper, the regions that ``embeddings`` were made for; SAM then looks at those.
            image_size: (height, width) of the images behind ``embeddings``; by default the masks' size.
            coarse_logits: the masks' logits where they are known; by default taken from ``probability``, within 13.9.
            content_sizes: (height, width) of what of each image is not padding right or below, on the device of the
                masks: SAM's regions stay inside it. None where images are not padded to a common size.

        Returns:
            The refinement, on the pixels of ``probability``.

        Raises:
            ValueError: images or masks of the wrong rank, dtype or range, or that do not match; neither images nor
                embeddings; embeddings for a refiner with ``dense_prompts``.
        """
        check_probability(probability)
        size = _image_size(images, probability, embeddings, image_size)
        _check_companions(probability, coarse_logits, content_sizes)
        if embeddings is None:
            cropper = self.cropper
            boxes = None if cropper is None else cropper.locate(probability, size, content_sizes=content_sizes)
            inputs = self._inputs(cast("Tensor", images), boxes)
            embeddings = self._encoded(inputs, len(probability), boxes)
        else:
            self._check_regions(boxes)
            inputs = None
        prompts, frame = self._prompts(probability, boxes, size)
        prompts = self._with_dense(prompts, inputs)
        candidates = decode(cast("SAMLike", self.sam), embeddings, prompts)
        low_logits, iou = self.selection(candidates)
        coarse_logits = finite_logit(probability) if coarse_logits is None else coarse_logits
        logits = self._to_mask_pixels(low_logits, boxes, frame, coarse_logits, size)
        return Refinement(
            logits=torch.where(prompts.valid[..., None, None], logits, coarse_logits.to(logits.dtype)),
            iou=iou.where(prompts.valid, 0.0),
            candidates=candidates,
            prompts=prompts,
            boxes=boxes,
        )

    def encode(self, images: Float[Tensor, "b c h w"], boxes: Float[Tensor, "b k 4"] | None = None) -> Tensor:
        """Run SAM's image encoder on whole images, or on one crop a mask.

        Args:
            images: in [0, 1].
            boxes: with a cropper, regions in pixel edges of the images (from ``cropper.locate``); without one, None.

        Returns:
            Embeddings (b, d, h, w), or (b, k, d, h, w) with a cropper. Without a graph unless the encoder trains or
            ``through_crop``.

        Raises:
            ValueError: a cropper and no boxes, or boxes and no cropper.
        """
        return self._encoded(self._inputs(images, boxes), images.shape[0], boxes)

    def in_sam_frame(
        self,
        masks: Float[Tensor, "b k h w"],
        boxes: Float[Tensor, "b k 4"] | None = None,
        image_size: Sequence[int] | None = None,
    ) -> Float[Tensor, "b k low_h low_w"]:
        """Bring masks to where SAM's candidates are: its frame (or each mask's region) at low resolution.

        Args:
            masks: in [0, 1], for instance the true ones.
            boxes: the refinement's regions; None without a cropper.
            image_size: (height, width) of the images; by default the masks'.

        Returns:
            Masks in [0, 1]; 0 where the frame is padding.

        Raises:
            ValueError: a cropper and no boxes, or boxes and no cropper.
        """
        self._check_regions(boxes)
        size = tuple(masks.shape[-2:]) if image_size is None else tuple(image_size)
        seen, frame = self._view(masks, boxes, size)
        return mask_prompt_logits(seen, frame, logit_scale=1.0) / 2 + 0.5

    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as plain values: what a checkpoint remembers."""
        described = getattr(self.sam, "settings", None)
        sam = {"name": type(self.sam).__name__} if described is None else described()
        return {
            "sam": {**sam, "input": self.input_policy.settings()},
            "prompts": cast("Any", self.prompts).settings(),
            "cropper": None if self.cropper is None else self.cropper.settings(),
            "selection": cast("Any", self.selection).settings(),
            "through_crop": self.through_crop,
            # Left out where there is none, as in checkpoints from before there was this part.
            **({} if self.dense_prompts is None else {"dense_prompts": _described(self.dense_prompts)}),
        }

    def _inputs(self, images: Tensor, boxes: Tensor | None) -> Tensor:
        """What SAM sees: every image, or the region of every mask."""
        self._check_regions(boxes)
        if boxes is None or self.cropper is None:
            return self.input_policy(images)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.through_crop):
            crops = self.cropper.crop(images, boxes, size=self.input_policy.size)
            return self.input_policy(crops.flatten(0, 1))

    def _encoded(self, inputs: Tensor, images: int, boxes: Tensor | None) -> Tensor:
        sam = cast("SAMLike", self.sam)
        if boxes is None:
            return encode_images(sam, inputs)
        embeddings = encode_images(sam, inputs, through_inputs=self.through_crop)
        return rearrange(embeddings, "(b k) d h w -> b k d h w", b=images)

    def _with_dense(self, prompts: Prompts, inputs: Tensor | None) -> Prompts:
        if self.dense_prompts is None:
            return prompts
        if inputs is None:
            message = "images must be given to a refiner with dense_prompts, made from them, but embeddings came."
            raise ValueError(message)
        images, masks = prompts.valid.shape
        dense: Tensor = self.dense_prompts(inputs)
        per_image = rearrange(dense, "(b k) d h w -> b k d h w", b=images)
        return replace(prompts, dense_embedding=per_image.expand(-1, masks, -1, -1, -1))

    def _check_regions(self, boxes: Tensor | None) -> None:
        """With a cropper there are regions, without one there are none."""
        if (self.cropper is None) == (boxes is None):
            return
        message = (
            "boxes must be given with a cropper: each mask's region, from cropper.locate(probability, image_size)."
            if boxes is None
            else "boxes were given, but this refiner has no cropper; leave them out, or build it with ROICropper()."
        )
        raise ValueError(message)

    def _view(self, masks: Tensor, boxes: Tensor | None, image_size: Sequence[int]) -> tuple[Tensor, Frame]:
        """Masks as SAM sees them and where they lie in its frame: whole, or each cropped to its region."""
        if boxes is None or self.cropper is None:
            return masks, self.input_policy.frame(image_size).of_raster(masks.shape[-2:])
        # Half the frame's side: twice the mask prompt's resolution, so that its antialiasing has something to average.
        side = self.input_policy.size * 2 // MASK_PROMPT_STRIDE
        crops = self.cropper.crop_masks(masks, _on_raster(boxes, masks, image_size), size=side)
        return crops, squash_frame((side, side), self.input_policy.size)

    def _prompts(self, probability: Tensor, boxes: Tensor | None, image_size: Sequence[int]) -> tuple[Prompts, Frame]:
        seen, frame = self._view(probability, boxes, image_size)
        return self.prompts(seen, frame), frame

    def _to_mask_pixels(
        self,
        low_logits: Tensor,
        boxes: Tensor | None,
        frame: Frame,
        coarse_logits: Tensor,
        image_size: Sequence[int],
    ) -> Tensor:
        if boxes is None or self.cropper is None:
            return self.input_policy.restore(low_logits, frame)
        size = coarse_logits.shape[-2:]
        on_raster = _on_raster(boxes, coarse_logits, image_size)
        return self.cropper.paste(low_logits.to(coarse_logits.dtype), on_raster, size=size, background=coarse_logits)


def _described(module: nn.Module) -> Any:
    own: Any = getattr(module, "settings", None)
    return type(module).__name__ if own is None else own()


def _image_size(
    images: Tensor | None, probability: Tensor, embeddings: Tensor | None, image_size: Sequence[int] | None
) -> tuple[int, int]:
    """(height, width) of the images, or of the images behind the embeddings."""
    if (images is None) == (embeddings is None):
        message = (
            "either images or embeddings (from SAMRefiner.encode) must be given, but "
            f"{'both are None' if images is None else 'both came'}."
        )
        raise ValueError(message)
    if images is None:
        height, width = probability.shape[-2:] if image_size is None else image_size
        return int(height), int(width)
    check_images(images)
    if images.shape[0] != probability.shape[0]:
        message = (
            "images and probability must hold the same number of images, but there are "
            f"{images.shape[0]} images and masks for {probability.shape[0]}; masks are (b, k, h, w) with b "
            "the images' first dimension."
        )
        raise ValueError(message)
    return int(images.shape[-2]), int(images.shape[-1])


def _check_companions(probability: Tensor, coarse_logits: Tensor | None, content_sizes: Tensor | None) -> None:
    """What describes the masks has their shape."""
    if coarse_logits is not None and coarse_logits.shape != probability.shape:
        message = (
            f"coarse_logits must have the masks' shape {tuple(probability.shape)}, but theirs is "
            f"{tuple(coarse_logits.shape)}; give the logits that probability is the sigmoid of."
        )
        raise ValueError(message)
    if content_sizes is not None and tuple(content_sizes.shape) != (probability.shape[0], 2):
        message = (
            f"content_sizes must be ({probability.shape[0]}, 2), a (height, width) for each image, but its shape is "
            f"{tuple(content_sizes.shape)}."
        )
        raise ValueError(message)


def _on_raster(boxes: Tensor, masks: Tensor, image_size: Sequence[int]) -> Tensor:
    """Boxes in the image's pixel edges to the masks' pixel edges."""
    return stretch_frame(masks.shape[-2:], image_size).from_frame(boxes)
