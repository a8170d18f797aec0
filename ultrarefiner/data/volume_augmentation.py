"""Another view of a volume and its mask: flips, rotation in the slice, brightness and contrast, by MONAI."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_SEEDS = 2**32  # of NumPy's RandomState, which MONAI draws from


@dataclass(frozen=True)
class VolumeAugmentation:
    r"""Random flips, rotation, scaling and shift of intensities, image and mask alike.

    Each of the three axes is flipped with probability ``flip``. With probability ``move`` the volume is turned about
    the axis across its slices and zoomed within them (not across: slices are often thick), grey values bilinear, masks
    by their nearest voxel, zeros around. Then intensities are multiplied by :math:`1 + s`, and :math:`t` is added, each
    with probability ``intensity``, s and t uniform to either side. Intensities are not clipped: expected is a volume in
    [0, 1]. The defaults are those of SegVol's fork for the CVPR 2025 challenge, which moves nothing.

    The transforms are MONAI's (``pip install 'ultrarefiner[evaluation]'``), imported on the first call. All draws
    come from the generator that is passed in.

    Args:
        flip: probability of each of the three flips.
        scale: largest s.
        shift: largest t.
        intensity: probability of each of the two.
        move: probability that the volume is turned and zoomed.
        rotation: largest angle to either side, in degrees.
        zoom: largest change of size, as a share, to either side.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> image, mask = torch.rand(1, 4, 8, 8), torch.ones(1, 4, 8, 8)
        >>> augment = VolumeAugmentation(flip=0.5)
        >>> first, _ = augment(image, mask, torch.Generator().manual_seed(0))
        >>> again, _ = augment(image, mask, torch.Generator().manual_seed(0))
        >>> torch.equal(first, again)
        True

    References:
        Du, Bai, Huang, Zhao: SegVol: Universal and Interactive Volumetric Medical Image Segmentation. NeurIPS 2024.
        MONAI: monai.io.
    """

    flip: float = 0.2
    scale: float = 0.2
    shift: float = 0.2
    intensity: float = 0.2
    move: float = 0.0
    rotation: float = 15.0
    zoom: float = 0.1

    def __post_init__(self) -> None:
        highest = {
            "flip": 1.0,
            "scale": 1.0,
            "shift": 1.0,
            "intensity": 1.0,
            "move": 1.0,
            "rotation": 180.0,
            "zoom": 0.9,
        }
        for name, most in highest.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                message = f"{name} must be in [0, {most:g}], got {value}; 0 switches it off."
                raise ValueError(message)

    def __call__(
        self, image: Float[Tensor, "1 d h w"], mask: Float[Tensor, "1 d h w"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "1 d h w"], Float[Tensor, "1 d h w"]]:
        """Another view of both, in new tensors.

        Args:
            image: one volume, in [0, 1].
            mask: its object.
            generator: for all that is random.

        Returns:
            Image and mask, moved together.

        Raises:
            ModuleNotFoundError: MONAI is not installed.
            ValueError: image and mask differ in shape.
        """
        if image.shape != mask.shape:
            message = f"mask must lie on the voxels of image, {tuple(image.shape)}, but it has {tuple(mask.shape)}."
            raise ValueError(message)
        seed = int(torch.randint(_SEEDS, (), generator=generator))
        self._transforms.set_random_state(seed)
        found = self._transforms({"image": image.clone(), "mask": mask.clone()})
        # MONAI's tensors carry a list of what was done to them.
        return found["image"].as_subclass(Tensor), found["mask"].as_subclass(Tensor)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_transforms"}

    @cached_property
    def _transforms(self) -> Any:
        try:
            from monai import transforms  # takes seconds
        except ModuleNotFoundError as error:
            message = "VolumeAugmentation needs the package monai: pip install 'ultrarefiner[evaluation]'."
            raise ModuleNotFoundError(message) from error
        both = ["image", "mask"]
        angle = math.radians(self.rotation)
        moved = transforms.RandAffined(
            both,
            prob=self.move,
            rotate_range=(angle, 0.0, 0.0),
            scale_range=(0.0, self.zoom, self.zoom),
            mode=["bilinear", "nearest"],
            padding_mode="zeros",
        )
        return transforms.Compose(
            [
                *(transforms.RandFlipd(both, prob=self.flip, spatial_axis=axis) for axis in range(3)),
                *([moved] if self.move > 0 else []),
                transforms.RandScaleIntensityd("image", factors=self.scale, prob=self.intensity),
                transforms.RandShiftIntensityd("image", offsets=self.shift, prob=self.intensity),
            ]
        )
