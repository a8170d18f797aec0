"""Any backbone that returns several feature maps, as the pyramid that `PromptGenerator` looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.ops.checks import check_layout


class FeaturePyramid(nn.Module):
    """A finished backbone, and which of its maps count.

    Backbones of timm with ``features_only=True`` say themselves what they return. For others, torchvision's among
    them, say it in ``levels``.

    Args:
        backbone: images to feature maps, (b, channels, h / stride, w / stride) each, in a list, a tuple or a mapping.
        strides: image pixels a feature, on each axis, of the maps that count, from fine to coarse.
        levels: stride and channels of every map that the backbone returns, in its order; None asks the backbone's
            ``feature_info``, as timm defines it.
        colours: channels of the images that the backbone takes; grey images are repeated to that many.

    Attributes:
        channels: of each map that counts.
        strides: likewise.

    Raises:
        ValueError: the backbone does not say what it returns and nor does ``levels``, or a stride is not there.

    Example:
        >>> import torch
        >>> class Two(nn.Module):
        ...     def forward(self, images):
        ...         return [torch.nn.functional.avg_pool2d(images, stride) for stride in (4, 8)]
        >>> pyramid = FeaturePyramid(Two(), strides=(4, 8), levels=((4, 3), (8, 3)))
        >>> [tuple(features.shape) for features in pyramid(torch.rand(1, 3, 16, 24))]
        [(1, 3, 4, 6), (1, 3, 2, 3)]
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        strides: Sequence[int] = (4, 8, 16),
        levels: Sequence[tuple[int, int]] | None = None,
        colours: int = 3,
    ) -> None:
        super().__init__()
        found = _levels(backbone) if levels is None else tuple((int(stride), int(width)) for stride, width in levels)
        offered = [stride for stride, _ in found]
        wanted = tuple(int(stride) for stride in strides)
        if not wanted or list(wanted) != sorted(set(wanted)) or any(offered.count(stride) != 1 for stride in wanted):
            message = (
                f"strides must be some of those that the backbone offers, from fine to coarse, but they are {wanted} "
                f"and it offers {tuple(offered)}; choose others, or another backbone."
            )
            raise ValueError(message)
        self.backbone = backbone
        self.strides = wanted
        self.picked = tuple(offered.index(stride) for stride in wanted)
        self.channels = tuple(found[index][1] for index in self.picked)
        self.levels = len(found)
        self.colours = colours

    def forward(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b _ _ _"], ...]:
        """The maps that count, from fine to coarse.

        Args:
            images: grey, or in as many channels as the backbone takes; prepared as its weights expect.

        Returns:
            One map for each of ``strides``.

        Raises:
            ValueError: images of another rank or dtype, or the backbone returned other maps than it said.
        """
        check_layout(images)
        answer = self.backbone(images.expand(-1, self.colours, -1, -1) if images.shape[1] == 1 else images)
        maps = tuple(answer.values()) if isinstance(answer, Mapping) else tuple(answer)
        if len(maps) != self.levels:
            message = f"the backbone must return {self.levels} feature maps, but it returned {len(maps)}; mend levels."
            raise ValueError(message)
        picked = tuple(maps[index] for index in self.picked)
        for features, channels, stride in zip(picked, self.channels, self.strides, strict=True):
            expected = (images.shape[0], channels, images.shape[2] // stride, images.shape[3] // stride)
            if tuple(features.shape) != expected:
                message = (
                    f"the backbone's features at stride {stride} must have the shape {expected}, but theirs is "
                    f"{tuple(features.shape)}; mend levels, put channels before rows and columns if they come last, "
                    f"and give images whose sides are multiples of {self.strides[-1]}."
                )
                raise ValueError(message)
        return picked

    def settings(self) -> dict[str, Any]:
        """Everything but the weights, as plain values."""
        described = getattr(self.backbone, "settings", None)
        return {
            "backbone": described() if callable(described) else type(self.backbone).__name__,
            "strides": list(self.strides),
            "channels": list(self.channels),
        }


def _levels(backbone: nn.Module) -> tuple[tuple[int, int], ...]:
    """What a backbone of timm says of its maps."""
    info: Any = getattr(backbone, "feature_info", None)
    if not callable(getattr(info, "reduction", None)) or not callable(getattr(info, "channels", None)):
        message = (
            f"levels must be given for a {type(backbone).__name__}, as it has no feature_info: (stride, channels) of "
            "every map that it returns. A backbone of timm has one if it is made with features_only=True."
        )
        raise ValueError(message)
    return tuple((int(stride), int(width)) for stride, width in zip(info.reduction(), info.channels(), strict=True))
