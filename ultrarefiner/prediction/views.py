"""An image and its mirror images, padding left where it is: views that a mask is averaged over."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Flips = bool | Literal["horizontal", "vertical", "both"]
"""Which mirror images are seen besides the image: none (False), left and right swapped (True, "horizontal"), top and
bottom ("vertical"), or both and the two together ("both")."""

View = tuple[bool, bool]
"""Whether top and bottom, and whether left and right, are swapped."""

_VIEWS: dict[Flips, tuple[View, ...]] = {
    False: ((False, False),),
    True: ((False, False), (False, True)),
    "horizontal": ((False, False), (False, True)),
    "vertical": ((False, False), (True, False)),
    "both": ((False, False), (False, True), (True, False), (True, True)),
}


def views_of(flips: Flips) -> tuple[View, ...]:
    """The views that a choice of flips stands for; the first is the image as it is.

    Raises:
        ValueError: there is no such choice.

    Example:
        >>> views_of("vertical")
        ((False, False), (True, False))
    """
    if not isinstance(flips, (bool, str)) or flips not in _VIEWS:
        message = (
            f"flips must be True, False, 'horizontal', 'vertical' or 'both', but it is {flips!r}; True is 'horizontal'."
        )
        raise ValueError(message)
    return _VIEWS[flips]


def mirrored(
    pictures: Float[Tensor, "b c h w"], view: View, content_sizes: Int[Tensor, "b 2"] | None = None
) -> Float[Tensor, "b c h w"]:
    """Mirror each picture within its content; padding right of and below it stays. Done twice, nothing happened.

    Args:
        pictures: images or masks.
        view: whether top and bottom, and whether left and right, are swapped.
        content_sizes: (height, width) of each picture's content; None for all of it.

    Example:
        >>> mirrored(torch.tensor([[[[1.0, 2.0, 9.0]]]]), (False, True), torch.tensor([[1, 2]]))
        tensor([[[[2., 1., 9.]]]])
    """
    if content_sizes is None:
        return pictures.flip([axis for axis, swapped in ((-2, view[0]), (-1, view[1])) if swapped])
    height, width = content_sizes.to(pictures.device)[:, :, None, None].unbind(1)
    row = torch.arange(pictures.shape[-2], device=pictures.device)[:, None]
    column = torch.arange(pictures.shape[-1], device=pictures.device)[None]
    content = (row < height) & (column < width)
    for axis, swapped, place, length in ((-2, view[0], row, height), (-1, view[1], column, width)):
        if swapped:
            source = torch.where(content, length - 1 - place, place)
            pictures = pictures.gather(axis, source[:, None].expand(pictures.shape))
    return pictures
