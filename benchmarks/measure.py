"""Two ways of one piece of work, timed in turn, and a page with what came out and on which machine."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

Work = Callable[[], object]


def paired_times(works: tuple[Work, Work], repeats: int, device: str) -> tuple[list[float], list[float]]:
    """Seconds of two ways, run in turn; a first round is not counted."""
    seconds: tuple[list[float], list[float]] = ([], [])
    cuda = device.startswith("cuda")
    for round_number in range(repeats + 1):
        for work, times in zip(works, seconds, strict=True):
            if cuda:
                torch.cuda.synchronize()
            started = time.perf_counter()
            work()
            if cuda:
                torch.cuda.synchronize()
            if round_number:
                times.append(time.perf_counter() - started)
    return seconds


def median_times(works: tuple[Work, Work], repeats: int, device: str) -> tuple[float, float]:
    """Median seconds of two ways, run in turn."""
    first, second = paired_times(works, repeats, device)
    return statistics.median(first), statistics.median(second)


def saved_bytes(work: Work, network: nn.Module | None = None) -> int:
    """Bytes that autograd keeps for the backward pass, each storage once, the network's own weights left out."""
    storages: dict[int, int] = {}
    weights = [] if network is None else [parameter.untyped_storage().data_ptr() for parameter in network.parameters()]

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = work()
    del kept
    return sum(size for pointer, size in storages.items() if pointer not in weights)


def write(
    name: str,
    command: str,
    device: str,
    table: Sequence[str],
    *,
    how: str = "median of the repeats, both ways in turn in one process",
) -> None:
    """Print a table and write it to benchmarks/results/NAME.md."""
    machine = (
        torch.cuda.get_device_name()
        if device.startswith("cuda")
        else f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"
    )
    head = [
        f"`{command}`,",
        f"torch {torch.__version__}, {machine}; {how}.",
    ]
    text = "\n".join([f"# Benchmark: {name}", "", *head, "", *table, ""])
    print(text)
    (Path(__file__).parent / "results" / f"{name}.md").write_text(text)
