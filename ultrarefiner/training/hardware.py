"""Where a run takes place: Lightning Fabric, with what these models need of it."""

from __future__ import annotations

from typing import Any, Literal

from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

_START_METHODS: dict[str, Literal["popen", "spawn", "fork", "forkserver"]] = {
    "ddp": "popen",
    "ddp_spawn": "spawn",
    "ddp_fork": "fork",
    "ddp_notebook": "fork",
}


def make_fabric(strategy: str, **hardware: Any) -> Fabric:
    """Make Fabric; where several processes each hold the model, they cope with parameters that get no gradient.

    A frozen part, or a prompt that SAM is not given, leaves such parameters.

    Args:
        strategy: "auto" is one device, or "ddp" on several; "ddp", "ddp_spawn", "ddp_fork" and "ddp_notebook" differ
            in how the processes start. Strategies that split the model would leave parts of it out of a checkpoint.
        hardware: accelerator, devices, num_nodes and precision, as Fabric takes them.

    Returns:
        Fabric, not yet launched.

    Raises:
        ValueError: another strategy.

    Example:
        >>> make_fabric("auto", accelerator="cpu", devices=1).world_size
        1
    """
    if strategy != "auto" and strategy not in _START_METHODS:
        message = (
            f"strategy must be one of auto, {', '.join(_START_METHODS)}, but it is {strategy!r}; each process has to "
            "hold the whole model."
        )
        raise ValueError(message)
    if strategy == "auto":
        fabric = Fabric(strategy="auto", **hardware)
        if not isinstance(fabric.strategy, DDPStrategy):
            return fabric
        strategy = "ddp"
    parallel = DDPStrategy(find_unused_parameters=True, start_method=_START_METHODS[strategy])
    return Fabric(strategy=parallel, **hardware)
