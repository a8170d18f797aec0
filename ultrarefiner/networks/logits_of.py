"""What networks of other libraries return, read as logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.types import MultiScaleLogits

_NAMES = ("logits", "out")


class LogitsOf(nn.Module):
    """A network of another library that returns more than a tensor, as one that returns logits.

    * A tensor (b, k, h, w) stays as it is.
    * A dictionary, or an object with attributes: what it calls "logits" (transformers) or "out" (torchvision).
    * A list or tuple of masks at several scales (deep supervision of MONAI's `SegResNetDS` or `BasicUNetPlusPlus`), or
      such masks stacked to (b, n, k, h, w) (its `DynUNet` while it trains): `MultiScaleLogits`, the largest of them
      (of equal ones the first) as the mask and the others as side logits, which `DeepSupervision` knows. A single mask
      in a list is that mask.

    Args:
        network: called with images.

    Example:
        >>> import torch
        >>> class Foreign(nn.Module):
        ...     def forward(self, images):
        ...         return {"out": images, "aux": images[..., ::2, ::2]}
        >>> LogitsOf(Foreign())(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 1, 8, 8])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k _ _"] | MultiScaleLogits:
        """The logits in what the network answers.

        Args:
            images: as the network wants them.

        Returns:
            The logits that were picked, k masks an image.

        Raises:
            ValueError: nothing in the answer is known to be logits.
        """
        answer = _named(self.network(images))
        if isinstance(answer, Tensor) and answer.ndim == 5:
            answer = answer.unbind(1)
        if isinstance(answer, Sequence) and _are_scales(answer):
            return _by_scale(answer)
        if isinstance(answer, MultiScaleLogits) or (isinstance(answer, Tensor) and answer.ndim == 4):
            return answer
        message = (
            "network must return logits (b, k, h, w), masks at several scales, or something that calls them "
            f"{' or '.join(map(repr, _NAMES))}, but it returned {_told(answer)}; build it without further outputs, or "
            "wrap it in a module that picks the logits."
        )
        raise ValueError(message)

    def settings(self) -> dict[str, Any]:
        """The network's settings, or its class."""
        described = getattr(self.network, "settings", None)
        return {"network": type(self.network).__name__ if described is None else described()}


def _named(answer: Any) -> Any:
    """What a dictionary or an object calls logits."""
    if isinstance(answer, (Tensor, MultiScaleLogits)):
        return answer
    for name in _NAMES:
        if isinstance(answer, Mapping) and name in answer:
            return answer[name]
        if not isinstance(answer, Mapping) and isinstance(getattr(answer, name, None), Tensor):
            return getattr(answer, name)
    return answer


def _are_scales(answer: Sequence[Any]) -> bool:
    masks = [one for one in answer if isinstance(one, Tensor) and one.ndim == 4]
    return bool(masks) and len(masks) == len(answer) and len({one.shape[:2] for one in masks}) == 1


def _by_scale(masks: Sequence[Tensor]) -> Tensor | MultiScaleLogits:
    """The largest, and the others from coarse to fine."""
    if len(masks) == 1:
        return masks[0]
    order = sorted(range(len(masks)), key=lambda place: -masks[place].shape[-1] * masks[place].shape[-2])
    main, *sides = (masks[place] for place in order)
    return MultiScaleLogits(main, tuple(reversed(sides)))


def _told(answer: Any) -> str:
    if isinstance(answer, Tensor):
        return f"a tensor of shape {tuple(answer.shape)}"
    if isinstance(answer, Mapping):
        return f"a dictionary of {', '.join(map(str, list(answer)[:6]))}"
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        shapes = [tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__ for one in answer]
        return f"a {type(answer).__name__} of {shapes}"
    return f"a {type(answer).__name__}"
