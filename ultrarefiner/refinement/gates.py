"""Gates: how much of SAM's mask enters the final mask, pixel by pixel, blended in probability space."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Gate(Protocol):
    """What `UltraRefiner` asks of a gate, which is an `nn.Module` besides: it moves, trains and is saved with it."""

    def __call__(self, images: Tensor, coarse_probability: Tensor, refined_probability: Tensor) -> Tensor:
        """The share of the refined mask in [0, 1], pixel by pixel.

        Args:
            images: (b, c, h, w), grey or RGB in [0, 1].
            coarse_probability: (b, k, h, w), the coarse network's masks, in [0, 1].
            refined_probability: (b, k, h, w), SAM's masks on the same pixels, in [0, 1].

        Returns:
            (b, k, h, w), in [0, 1]: 0 keeps the coarse mask, 1 takes SAM's.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """The gate as plain values."""
        ...


def blend(
    coarse_probability: Float[Tensor, "b k h w"],
    refined_probability: Float[Tensor, "b k h w"],
    gate: Float[Tensor, "b k h w"],
) -> Float[Tensor, "b k h w"]:
    r"""The gated mask :math:`c + g (s - c)`, in probability space.

    Args:
        coarse_probability: c, in [0, 1].
        refined_probability: s, in [0, 1].
        gate: g, in [0, 1].

    Returns:
        In [0, 1], between the two masks.

    Example:
        >>> blend(torch.tensor([[[[0.2]]]]), torch.tensor([[[[0.8]]]]), torch.tensor([[[[0.5]]]])).item()
        0.5
    """
    return coarse_probability + gate * (refined_probability - coarse_probability)


class UncertaintyGate(nn.Module):
    r"""Trust SAM where the coarse network is unsure: :math:`g = g_0 + (g_1 - g_0)(1 - |2c - 1|^\gamma)`.

    The gate is largest (:math:`g_1`) at c = 0.5 and smallest (:math:`g_0`) where c is 0 or 1, so with :math:`g_0 = 0`
    it can never undo a confident error; the minimum is there for that. For :math:`\gamma < 1` the power has an infinite
    slope at c = 0.5, so with :math:`r = \sqrt{(2c - 1)^2 + \epsilon^2}` and :math:`\epsilon = 10^{-3}` it is replaced
    by :math:`(r^\gamma - \epsilon^\gamma) / ((1 + \epsilon^2)^{\gamma / 2} - \epsilon^\gamma)`: 0 at c = 0.5, 1 at
    c = 0 and 1, finite gradients everywhere.

    Args:
        gamma: above 0; smaller confines SAM to the most uncertain pixels.
        minimum: g0, in [0, 1].
        maximum: g1, in [minimum, 1].

    Raises:
        ValueError: gamma, minimum or maximum out of range.

    Example:
        >>> gate = UncertaintyGate(maximum=0.8)
        >>> gate(torch.zeros(1, 1, 1, 3), torch.tensor([[[[0.0, 0.5, 1.0]]]]), torch.ones(1, 1, 1, 3)).round(decimals=2)
        tensor([[[[0.0000, 0.8000, 0.0000]]]])
    """

    EPSILON = 1e-3

    def __init__(self, gamma: float = 1.0, *, minimum: float = 0.0, maximum: float = 1.0) -> None:
        super().__init__()
        if gamma <= 0 or not 0 <= minimum <= maximum <= 1:
            message = (
                "UncertaintyGate takes gamma > 0 and 0 <= minimum <= maximum <= 1, but was given "
                f"gamma={gamma}, minimum={minimum}, maximum={maximum}."
            )
            raise ValueError(message)
        self.gamma = gamma
        self.minimum = minimum
        self.maximum = maximum

    def forward(
        self,
        images: Float[Tensor, "b c h w"],  # noqa: ARG002 - every gate is called alike
        coarse_probability: Float[Tensor, "b k h w"],
        refined_probability: Float[Tensor, "b k h w"],  # noqa: ARG002 - likewise
    ) -> Float[Tensor, "b k h w"]:
        """The gate of every pixel; it looks at the coarse mask alone.

        Args:
            images: grey or RGB in [0, 1].
            coarse_probability: the coarse network's masks, in [0, 1].
            refined_probability: SAM's masks on the same pixels, in [0, 1].

        Returns:
            In [0, 1]: 0 keeps the coarse mask, 1 takes SAM's.
        """
        # (sqrt(d^2 + e^2) - e) / (sqrt(1 + e^2) - e) is 0 at d = 0 and 1 at d = 1, smooth between.
        epsilon = self.EPSILON
        distance = ((2 * coarse_probability - 1).square() + epsilon**2).sqrt()
        floor = epsilon**self.gamma
        ceiling = (1 + epsilon**2) ** (self.gamma / 2)
        confidence: Tensor = (distance**self.gamma - floor) / (ceiling - floor)
        return self.minimum + (self.maximum - self.minimum) * (1 - confidence)

    def settings(self) -> dict[str, Any]:
        """The gate as plain values."""
        return {"gate": "uncertainty", "gamma": self.gamma, "minimum": self.minimum, "maximum": self.maximum}

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"gamma={self.gamma}, minimum={self.minimum}, maximum={self.maximum}"


class LearnedGate(nn.Module):
    """A small network that sees the grey image, the coarse and the refined mask and says where to trust SAM.

    Two 3x3 convolutions and a sigmoid; its last layer starts at zero weights, so that every gate starts at the share
    ``sigmoid(bias)``: at the default of -2 that is 0.12, and training has to earn each change to the coarse mask; at 0
    it is the mean of both masks.

    Args:
        width: hidden channels.
        bias: of the last layer at the start.

    Example:
        >>> gate = LearnedGate()
        >>> masks = torch.rand(2, 3, 16, 16)
        >>> gate(torch.rand(2, 1, 16, 16), masks, masks).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(self, width: int = 32, *, bias: float = -2.0) -> None:
        super().__init__()
        self.width = width
        self.bias = bias
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 1, 1),
        )
        last = self.layers[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]  # the last layer is the convolution above
        nn.init.constant_(last.bias, bias)  # type: ignore[arg-type]  # likewise

    def forward(
        self,
        images: Float[Tensor, "b c h w"],
        coarse_probability: Float[Tensor, "b k h w"],
        refined_probability: Float[Tensor, "b k h w"],
    ) -> Float[Tensor, "b k h w"]:
        """The gate of every pixel of every mask; masks of one image do not see one another.

        Args:
            images: grey or RGB in [0, 1].
            coarse_probability: the coarse network's masks, in [0, 1].
            refined_probability: SAM's masks on the same pixels, in [0, 1].

        Returns:
            In [0, 1]: 0 keeps the coarse mask, 1 takes SAM's.
        """
        grey = images.mean(1, keepdim=True).expand_as(coarse_probability)
        seen = torch.stack([grey, coarse_probability, refined_probability], 2)
        gate = self.layers(rearrange(seen, "b k c h w -> (b k) c h w").to(next(self.layers.parameters()).dtype))
        return rearrange(torch.sigmoid(gate), "(b k) 1 h w -> b k h w", b=images.shape[0])

    def settings(self) -> dict[str, Any]:
        """The gate as plain values."""
        # Left out where it is the default, as in checkpoints from before there was a choice.
        return {"gate": "learned", "width": self.width, **({} if self.bias == -2.0 else {"bias": self.bias})}


class ProductGate(nn.Module):
    """The product of several gates: SAM enters only where all of them let it.

    Args:
        gates: the gates to multiply, at least one.

    Raises:
        ValueError: there is no gate.

    Example:
        >>> gate = ProductGate(UncertaintyGate(), LearnedGate())
        >>> masks = torch.rand(2, 1, 16, 16)
        >>> bool((gate(torch.rand(2, 1, 16, 16), masks, masks) < 0.12).all())
        True
    """

    def __init__(self, *gates: nn.Module) -> None:
        super().__init__()
        if not gates:
            message = "gates must be at least one gate; an empty product would take SAM's mask everywhere."
            raise ValueError(message)
        self.gates = nn.ModuleList(gates)

    def forward(
        self,
        images: Float[Tensor, "b c h w"],
        coarse_probability: Float[Tensor, "b k h w"],
        refined_probability: Float[Tensor, "b k h w"],
    ) -> Float[Tensor, "b k h w"]:
        """The product, pixel by pixel.

        Args:
            images: grey or RGB in [0, 1].
            coarse_probability: the coarse network's masks, in [0, 1].
            refined_probability: SAM's masks on the same pixels, in [0, 1].

        Returns:
            In [0, 1]: 0 keeps the coarse mask, 1 takes SAM's.
        """
        product = torch.ones_like(coarse_probability)
        for gate in self.gates:
            product = product * gate(images, coarse_probability, refined_probability)
        return product

    def settings(self) -> dict[str, Any]:
        """The gates as plain values."""
        return {"gate": "product", "gates": [gate.settings() for gate in self.gates]}  # type: ignore[operator]  # gates have settings
