"""Means over images, gathered on the device: only reading them makes an accelerator wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Averages:
    """Running means of named scalars, weighted by images.

    Example:
        >>> averages = Averages()
        >>> averages.add({"loss": torch.tensor(1.0)}, images=3)
        >>> averages.add({"loss": torch.tensor(2.0)}, images=1)
        >>> averages.means()
        {'loss': 1.25}
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._images = 0

    def add(self, values: Mapping[str, Tensor], *, images: int) -> None:
        """Add the means of a batch.

        Args:
            values: scalars; each name is always there, or never.
            images: how many images they are means of.
        """
        for name, value in values.items():
            # Sums in double precision, where the device has it.
            dtype = torch.float32 if value.device.type == "mps" else torch.float64
            term = value.detach().to(dtype) * images
            self._sums[name] = term if name not in self._sums else self._sums[name] + term
        self._images += images

    def means(self, fabric: Any = None) -> dict[str, float]:
        """The means so far, over all processes; this waits for the device.

        Args:
            fabric: the run's Fabric, to gather what other processes have; None for this one alone.
        """
        if not self._sums:
            return {}
        totals = torch.stack([*self._sums.values(), torch.full_like(next(iter(self._sums.values())), self._images)])
        if fabric is not None and fabric.world_size > 1:
            totals = fabric.all_reduce(totals, reduce_op="sum")
        *sums, images = totals.tolist()
        return {name: total / images for name, total in zip(self._sums, sums, strict=True)}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"sums": {name: total.item() for name, total in self._sums.items()}, "images": self._images}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a checkpoint.

        Args:
            state: what `state` returned.
            device: where the sums go on.
        """
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums = {name: torch.tensor(total, dtype=dtype, device=device) for name, total in state["sums"].items()}
        self._images = int(state["images"])

    def clear(self) -> None:
        """Begin again."""
        self._sums, self._images = {}, 0
