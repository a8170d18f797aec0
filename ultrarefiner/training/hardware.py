"""Where a run takes place: Lightning Fabric, with what these models need of it."""

from __future__ import annotations

from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

_START_METHODS = {"ddp": "popen", "ddp_spawn": "spawn", "ddp_fork": "fork", "ddp_notebook": "fork"}


def make_fabric(strategy: str, **hardware: Any) -> Fabric:
    """Make Fabric; where several processes each hold the model, they cope with parameters that get no gradient.

    A frozen part, or a prompt that SAM is not given, leaves such parameters.

    Args:
        strategy: Fabric's name; "auto" is one device, or "ddp" on several.
        hardware: accelerator, devices, num_nodes and precision, as Fabric takes them.

    Returns:
        Fabric, not yet launched.

    Example:
        >>> make_fabric("auto", accelerator="cpu", devices=1).world_size
        1
    """
    if strategy == "auto":
        fabric = Fabric(strategy="auto", **hardware)
        if not isinstance(fabric.strategy, DDPStrategy):
            return fabric
        strategy = "ddp"
    if strategy in _START_METHODS:
        parallel = DDPStrategy(find_unused_parameters=True, start_method=_START_METHODS[strategy])
        return Fabric(strategy=parallel, **hardware)
    return Fabric(strategy=strategy, **hardware)
