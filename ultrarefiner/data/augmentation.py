"""Augmentation of images and masks together, on the device of the batch."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from kornia.augmentation import (
    AugmentationSequential,
    ColorJitter,
    RandomAffine,
    RandomGamma,
    RandomHorizontalFlip,
    RandomVerticalFlip,
)
from kornia.constants import DataKey
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn

from ultrarefiner.data.fit import PADDING_GREY

Preset = Literal["ultrasound", "glas", "monuseg", "polyp"]

_AUTOSAM: dict[str, Any] = {
    "flip": 0.5,
    "scale": (0.75, 1.25),
    "translation": 0.0,
    "gamma": (1.0, 1.0),
    "gain": (1.0, 1.0),
    "speckle": 0.0,
    "blur": 0.0,
}
_PRESETS: dict[str, dict[str, Any]] = {
    "ultrasound": {},
    "glas": {**_AUTOSAM, "rotation": 5.0, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
    "monuseg": {**_AUTOSAM, "rotation": 22.0, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "polyp": {
        **_AUTOSAM,
        "vertical_flip": 0.5,
        "rotation": 90.0,
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.4,
        "hue": 0.1,
    },
}


class Augmentation(nn.Module):
    r"""Another view of each image, its masks moved along; in evaluation mode too: call it for training only.

    In this order: flips; rotation, scale and translation about the frame's centre, bilinear; jitter of brightness,
    contrast, saturation and hue, the four in an order drawn for each batch; brightness and contrast as
    :math:`g I^{\gamma}`; speckle, :math:`I (1 + s n)` with standard normal n; a slight blur. Moved masks are 1 where
    the moved mask reaches one half.

    The defaults are for breast ultrasound: left and right are alike there, up and down are not, so nothing is flipped
    upside down; and nothing jitters, for brightness and contrast are drawn as gain and gamma. `preset` has options for
    other images. Jitter is torchvision's (and AutoSAM's): brightness multiplies by a factor of 1 - b to 1 + b, contrast
    blends the image with its mean grey (of the frame, padding and all), saturation with its own grey, hue turns the
    wheel of colours. Grey images have no saturation and no hue.

    Padding stays padding: pixels that are exactly `PADDING_GREY` in all channels (no grey of 8 bits is) move along, and
    get that grey back when all is done, as does what the frame did not show before.

    Args:
        flip: probability of the flip.
        rotation: largest angle to either side, in degrees.
        scale: smallest and largest factor.
        translation: largest shift along each axis, as a share of the side.
        gamma: smallest and largest exponent.
        gain: smallest and largest factor of brightness.
        speckle: largest standard deviation of the speckle, drawn evenly from 0 up for each image.
        blur: largest standard deviation of the blur, in pixels of a frame of 256 (scaled with the frame),
            drawn likewise.
        vertical_flip: probability of being turned upside down.
        brightness: largest change of the factor of brightness, b above; 0 is none.
        contrast: likewise of contrast.
        saturation: likewise of saturation, for RGB images.
        hue: largest turn of the hue to either side, as a share of the whole wheel, up to 0.5, for RGB images.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> images, masks = torch.rand(2, 1, 32, 32), torch.ones(2, 1, 32, 32)
        >>> augment = Augmentation()
        >>> first, _ = augment(images, masks, torch.Generator().manual_seed(0))
        >>> again, _ = augment(images, masks, torch.Generator().manual_seed(0))
        >>> torch.equal(first, again)
        True

    References:
        Shaharabany et al., "AutoSAM", arXiv 2306.06370, and github.com/talshaharabany/AutoSAM, for the jitter and for
        `preset`.
    """

    def __init__(
        self,
        *,
        flip: float = 0.5,
        rotation: float = 20.0,
        scale: tuple[float, float] = (0.85, 1.15),
        translation: float = 0.1,
        gamma: tuple[float, float] = (0.7, 1.4),
        gain: tuple[float, float] = (0.8, 1.2),
        speckle: float = 0.15,
        blur: float = 1.0,
        vertical_flip: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
    ) -> None:
        super().__init__()
        shares = {"flip": flip, "vertical_flip": vertical_flip, "translation": translation, "speckle": speckle}
        jitter = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, number in (shares | jitter).items():
            _check_range(name, (number,), 0.0, 1.0)
        _check_range("rotation", (rotation,), 0.0, 180.0)
        _check_range("blur", (blur,), 0.0, 10.0)
        _check_range("hue", (hue,), 0.0, 0.5)
        for name, pair in (("scale", scale), ("gamma", gamma), ("gain", gain)):
            _check_range(name, pair, 0.1, 10.0)
        self.speckle = speckle
        self.blur = blur
        self._coloured = {name: number for name, number in (("saturation", saturation), ("hue", hue)) if number > 0}
        # What is not asked for draws no number and stands in no checkpoint's description.
        upside_down = [RandomVerticalFlip(p=vertical_flip)] if vertical_flip > 0 else []
        self.geometry = AugmentationSequential(
            RandomHorizontalFlip(p=flip),
            *upside_down,
            RandomAffine(degrees=rotation, translate=(translation, translation), scale=scale, p=1.0),
            data_keys=["input", "mask"],
            extra_args={DataKey.MASK: {"resample": "bilinear", "align_corners": False}},
        )
        tone = RandomGamma(gamma=gamma, gain=gain, p=1.0)
        jitters = hue > 0 or any(number > 0 for number in jitter.values())
        self.tone = nn.Sequential(ColorJitter(**jitter, hue=hue, p=1.0), tone) if jitters else tone

    @classmethod
    def preset(cls, name: Preset) -> Augmentation:
        """The options for a kind of images, by name.

        * "ultrasound": the defaults.
        * "glas", "monuseg", "polyp": AutoSAM's for these data sets. All flip left to right at 0.5, scale by 0.75 to
          1.25 and draw nothing of gamma, gain, speckle, blur and translation. GlaS: 5 degrees to either side, jitter of
          brightness, contrast and saturation 0.2, of hue 0.1. MoNuSeg: 22 degrees, 0.4 and 0.1. Polyps: 90 degrees, 0.4
          and 0.1, and upside down at 0.5. There the jitter comes first, on the image alone; here after the motion.

        Raises:
            ValueError: there is no such preset.

        Example:
            >>> images, masks = torch.rand(2, 3, 32, 32), torch.ones(2, 1, 32, 32)
            >>> Augmentation.preset("glas")(images, masks, torch.Generator().manual_seed(0))[0].shape
            torch.Size([2, 3, 32, 32])

        References:
            Shaharabany et al., "AutoSAM", arXiv 2306.06370; the numbers are those of its published code.
        """
        if name not in _PRESETS:
            message = f"name must be one of {', '.join(map(repr, _PRESETS))}, got {name!r}; or give your own options"
            raise ValueError(message)
        return cls(**_PRESETS[name])

    def forward(
        self, images: Float[Tensor, "b c h w"], masks: Float[Tensor, "b k h w"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k h w"]]:
        """Another view of every image, and its masks.

        Args:
            images: grey or RGB in [0, 1], padded with `PADDING_GREY` as `FitToSquare` does, or not at all.
            masks: 0 or 1; an empty mask stays empty.
            generator: one number is drawn from it; the same state gives the same views on the same kind of
                device. The global random state is left as it was. One on the CPU spares the device a
                synchronisation.

        Returns:
            Images in [0, 1] and masks of 0 and 1.

        Raises:
            ValueError: saturation or hue of grey images is to jitter.
        """
        moved, moved_masks = self.view(images, masks, generator)
        return moved, (moved_masks >= 0.5).to(masks.dtype)

    def view(
        self, images: Float[Tensor, "b c h w"], masks: Float[Tensor, "b k h w"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b k h w"]]:
        """Another view of every image, and its masks as interpolation left them: soft masks stay soft.

        Args:
            images: as in `forward`.
            masks: in [0, 1].
            generator: as in `forward`; the same state gives the same views there and here.

        Returns:
            Images in [0, 1] and masks in [0, 1]; 0 is what the frame did not show before.

        Raises:
            ValueError: as in `forward`.
        """
        if self._coloured and images.shape[1] != 3:
            message = (
                f"images must be RGB (3 channels) for the jitter of {' and '.join(self._coloured)}, got "
                f"{images.shape[1]} channels; read them with colour=True, or leave {' and '.join(self._coloured)} at 0"
            )
            raise ValueError(message)
        drawn = torch.randint(2**62, (), generator=generator, device=generator.device)
        seed = int(drawn.item())
        content = (images != PADDING_GREY).any(1, keepdim=True).to(masks.dtype)
        with torch.random.fork_rng(devices=[]):  # kornia draws from the CPU's global generator
            torch.default_generator.manual_seed(seed)
            # kornia fills with 0; less the grey, that is the grey.
            moved, moved_masks = self.geometry(images - PADDING_GREY, torch.cat([masks, content], 1))
            moved = self.tone((moved + PADDING_GREY).clamp(0, 1))
        own = torch.Generator(device=images.device).manual_seed(seed + 1)
        moved = add_speckle(moved, self.speckle, own)
        moved = blur_randomly(moved, self.blur * max(images.shape[-2:]) / 256, own)
        inside = moved_masks[:, -1:] >= 0.5
        return moved.clamp(0, 1).where(inside, PADDING_GREY), moved_masks[:, :-1]


def add_speckle(
    images: Float[Tensor, "b c h w"], strength: float, generator: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """Multiply every pixel by 1 + s n, n standard normal, s drawn for each image evenly from [0, strength].

    Example:
        >>> black = torch.zeros(1, 1, 4, 4)
        >>> add_speckle(black, 0.5, torch.Generator()).sum().item()
        0.0
    """
    if strength == 0:
        return images
    share = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device, dtype=images.dtype)
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return images * (1 + strength * share * noise)


def blur_randomly(
    images: Float[Tensor, "b c h w"], strength: float, generator: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """Blur each image with a Gaussian whose standard deviation is drawn evenly from [0, strength] pixels.

    Example:
        >>> flat = torch.full((1, 1, 8, 8), 0.5)
        >>> torch.allclose(blur_randomly(flat, 1.0, torch.Generator()), flat)
        True
    """
    if strength == 0:
        return images
    reach = min(max(1, round(3 * strength)), min(images.shape[-2:]) - 1)
    sigma = strength * torch.rand(len(images), 1, generator=generator, device=images.device, dtype=images.dtype)
    blurred: Tensor = gaussian_blur2d(images, 2 * reach + 1, sigma.clamp(min=1e-3).expand(-1, 2))
    return blurred


def _check_range(name: str, values: tuple[float, ...], low: float, high: float) -> None:
    if not (all(low <= value <= high for value in values) and list(values) == sorted(values)):
        shown = values[0] if len(values) == 1 else values
        message = f"{name} must be in {low} to {high}, a pair in rising order, got {shown}; choose a number inside"
        raise ValueError(message)
