"""SegVol: a volume is encoded once, and decoded as often as somebody prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.networks.segvol.checks import check_embedding, check_prompts, check_volume
from ultrarefiner.networks.segvol.decoder import UPSCALING, VolumeMaskDecoder
from ultrarefiner.networks.segvol.position import PEOrder
from ultrarefiner.networks.segvol.prompt_encoder import Points, VolumePromptEncoder


@dataclass(frozen=True)
class SegVolOutput:
    """What `SegVol` answers to prompts: m masks of each volume, and how good it believes each to be.

    Attributes:
        mask_logits: on the network's coarse grid from `SegVol.decode`, on the volume's own from `SegVol` itself.
        iou: its estimate of each mask's intersection over union (not clamped to [0, 1]; the published weights were
            trained without a loss on it).
    """

    mask_logits: Float[Tensor, "b m d h w"]
    iou: Float[Tensor, "b m"]


class SegVol(nn.Module):
    """A volume, and points, a box or a text, to a mask; `build_segvol` holds the numbers.

    Volumes are (D, H, W): slices, rows, columns. Prompts are in **voxel indices (z, y, x) of the network's input**:
    the centre of the first voxel is (0, 0, 0), that of the last (D - 1, H - 1, W - 1). A volume that was resized or
    cropped to the input's size needs its prompts in that frame. The state dict has the published names.

    Args:
        image_encoder: volumes (b, 1, D, H, W) to tokens (b, d * h * w, c) and anything else.
        prompt_encoder: prompts to tokens.
        mask_decoder: both to mask logits.
        patch: voxels a cell of the embedding, on each axis.
        text_encoder: what makes the ``text`` of `decode` from words; it is only kept with the weights.
        name: what the architecture is called; it goes into checkpoints.

    Attributes:
        volume_size: (D, H, W) of the input, the only one that the weights fit.
        embedding_size: (d, h, w) of the embedding.
        mask_size: (d, h, w) of the logits that `decode` returns.
        width: channels of the embedding and of a text.

    Du et al., "SegVol: Universal and Interactive Volumetric Medical Image Segmentation", arXiv 2311.13385
    (github.com/BAAI-DCAI/SegVol). Its two-dimensional embedding of mask prompts, which no volume fits, is left out.
    """

    def __init__(
        self,
        *,
        image_encoder: nn.Module,
        prompt_encoder: VolumePromptEncoder,
        mask_decoder: VolumeMaskDecoder,
        patch: tuple[int, int, int],
        text_encoder: nn.Module | None = None,
        name: str = "custom",
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.text_encoder = text_encoder
        self.volume_size = prompt_encoder.pe_layer.volume_size
        depth, height, width = (length // step for length, step in zip(self.volume_size, patch, strict=True))
        self.embedding_size = (depth, height, width)
        self.mask_size = (UPSCALING * depth, UPSCALING * height, UPSCALING * width)
        self.width = prompt_encoder.no_mask_embed.embedding_dim
        self.name = name

    @property
    def pe_order(self) -> PEOrder:
        """In which order of axes prompts are encoded."""
        return self.prompt_encoder.pe_layer.order

    def encode(self, volume: Float[Tensor, "b 1 depth height width"]) -> Float[Tensor, "b c d h w"]:
        """The embedding of volumes, which any number of prompts may ask.

        Args:
            volume: (b, 1, D, H, W) of ``volume_size``, in the range that the weights saw: [0, 1] for the published.

        Returns:
            ``width`` channels on the grid ``embedding_size``.

        Raises:
            ValueError: a volume of another size or dtype, or, on a CPU, one with NaN or infinity.
        """
        check_volume(volume, self.volume_size, self._dtype())
        tokens: Tensor = self.image_encoder(volume)[0]
        return torch.unflatten(tokens.transpose(1, 2), 2, self.embedding_size)

    def decode(
        self,
        embedding: Float[Tensor, "e c d h w"],
        *,
        points: Points | None = None,
        boxes: Real[Tensor, "b 6"] | None = None,
        text: Float[Tensor, "b c"] | None = None,
        multimask: bool = False,
    ) -> SegVolOutput:
        """Mask logits for prompts; at least one kind is given, and all for the same b.

        Args:
            embedding: of b volumes, or of one that b prompts ask.
            points: voxel indices (z, y, x), (b, n, 3), and labels, (b, n): 1 object, 0 background, -1 no point, with
                which rows of fewer points are filled up.
            boxes: (z0, y0, x0, z1, y1, x1): voxel indices of the first and the last voxel inside, one box each.
            text: an embedding (`SegVolTextEncoder`) of ``width`` channels.
            multimask: three candidates for an ambiguous prompt in place of one mask.

        Returns:
            Logits of 1 or 3 masks on the grid ``mask_size``, and their estimated IoU.

        Raises:
            ValueError: no prompt, prompts or an embedding of another shape, no point in ``points``, or, on a CPU, a
                label that is none, NaN or infinity, a box whose last voxel lies before its first, or a box or point
                outside the input (by more than half a voxel).
        """
        check_embedding(embedding, (self.width, *self.embedding_size))
        volumes, size = embedding.shape[0], self.volume_size
        count = check_prompts(points, boxes, text, volumes=volumes, width=self.width, size=size)
        tokens = self.prompt_encoder(points=points, boxes=boxes, text=text)
        source = (embedding + self.prompt_encoder.dense()).expand(count, -1, -1, -1, -1)
        position = self.prompt_encoder.pe_layer.grid(self.embedding_size).to(tokens.dtype)
        if text is not None:
            text = text.to(tokens.dtype)
        logits, iou = self.mask_decoder(source, position, tokens, text=text, multimask=multimask)
        return SegVolOutput(logits, iou)

    def forward(
        self,
        volume: Float[Tensor, "e 1 depth height width"],
        *,
        points: Points | None = None,
        boxes: Real[Tensor, "b 6"] | None = None,
        text: Float[Tensor, "b c"] | None = None,
        multimask: bool = False,
    ) -> SegVolOutput:
        """`encode`, `decode`, and the logits interpolated (trilinearly) to the volume's own grid.

        Args:
            volume: as for `encode`.
            points: as for `decode`.
            boxes: likewise.
            text: likewise.
            multimask: likewise.

        Returns:
            Logits of the volume's size, and their estimated IoU.

        Raises:
            ValueError: as `encode` and `decode`.
        """
        coarse = self.decode(self.encode(volume), points=points, boxes=boxes, text=text, multimask=multimask)
        return SegVolOutput(self.enlarge(coarse.mask_logits), coarse.iou)

    def enlarge(self, mask_logits: Float[Tensor, "b m d h w"]) -> Float[Tensor, "b m depth height width"]:
        """Logits of `decode` on the volume's own grid, interpolated trilinearly.

        Args:
            mask_logits: at the decoder's resolution.

        Returns:
            At ``volume_size``.
        """
        return functional.interpolate(mask_logits, self.volume_size, mode="trilinear", align_corners=False)

    def settings(self) -> dict[str, Any]:
        """Architecture and order of axes as plain values."""
        return {
            "name": self.name,
            "volume_size": list(self.volume_size),
            "embedding_size": list(self.embedding_size),
            "pe_order": self.pe_order,
        }

    def _dtype(self) -> torch.dtype:
        return self.prompt_encoder.no_mask_embed.weight.dtype
