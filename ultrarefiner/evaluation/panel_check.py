"""What every row of a picture must be: an image, masks on its pixels, a threshold."""

from __future__ import annotations

from torch import Tensor


def check_row(name: str, image: Tensor, masks: dict[str, Tensor], threshold: float) -> None:
    """Raise unless a row of a picture can be drawn.

    Args:
        name: of its case.
        image: the picture that the masks lie on.
        masks: by what they are called.
        threshold: where contours are drawn.

    Raises:
        ValueError: the image is not grey or RGB, a mask is not on its pixels, or the threshold is not between 0 and 1.

    Example:
        >>> import torch
        >>> check_row("a", torch.rand(3, 4, 5), {"target": torch.zeros(1, 4, 5)}, 0.5)
    """
    size = tuple(image.shape[-2:])
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        message = f"image of panel {name!r} must be (1 or 3, h, w) in [0, 1]; got {tuple(image.shape)}."
        raise ValueError(message)
    for field, mask in masks.items():
        if tuple(mask.shape) != (1, *size):
            message = (
                f"{field} of panel {name!r} must be on the image's pixels, {(1, *size)}; got {tuple(mask.shape)}. "
                "Resize it to the image first."
            )
            raise ValueError(message)
    if not 0 < threshold < 1:
        message = f"threshold of panel {name!r} must be between 0 and 1, both excluded; got {threshold}."
        raise ValueError(message)
