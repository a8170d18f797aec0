"""How much memory the systems around a frozen SAM need at full size: an estimate, and on a GPU measured beside it.

    python benchmarks/memory.py --out benchmarks/results/memory.md

Estimate: the step runs on tensors without contents, every storage that is alive is counted, and the peak is what is
reported: weights, gradients, AdamW's moments, activations, and what an operation returns on the way. It takes the CPU's
operations; a GPU's may keep other things. What an allocator rounds up, a kernel's own workspace and the CUDA context
(0.3 to 0.6 GB) come on top.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import ultrarefiner as ur
from ultrarefiner.training import freeze

GB = 2**30


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return False if args[0].dtype == torch.bool else 1  # no value is out of range; AdamW is at its first step
        result = func(*args, **(kwargs or {}))
        self.see(result)
        return result

    def see(self, values: Any) -> None:
        for value in tree_iter(values):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                key = storage._cdata
                if key not in self._known:
                    self._known[key] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


def embed(sam: ur.SAM, images: torch.Tensor) -> Callable[[], None]:
    """What fills an embedding cache."""

    @torch.no_grad()
    def step() -> None:
        sam(images)

    return step


def training_step(model: nn.Module, loss: nn.Module, truth: torch.Tensor, **call: Any) -> Callable[[], None]:
    """Forward, backward, AdamW, twice, so that the moments are there."""
    freeze(model.sam)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters)

    def step() -> None:
        for _ in range(2):
            loss(model(**call).logits, truth).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def cases(device: str) -> dict[str, tuple[Callable[[], Callable[[], None]], bool]]:
    """What is measured: by name, what builds a step, and whether it runs in bfloat16 where it may."""

    def placed(module: Any) -> Any:
        return module if device == "cpu" else module.to(device)

    def sam() -> ur.SAM:
        return placed(ur.build_sam("vit_b", input_policy="medsam"))

    def images(count: int) -> torch.Tensor:
        return torch.rand(count, 1, 1024, 1024, device=device)

    def boxes(count: int) -> torch.Tensor:
        return torch.tensor([200.0, 300.0, 600.0, 700.0], device=device).expand(count, 1, 4)

    def automedsam(count: int, *, stored: bool) -> Callable[[], None]:
        model = placed(ur.AutoMedSAM(sam(), ur.PromptModule()))
        call: dict[str, Any] = {"images": images(count)}
        if stored:
            embeddings = torch.rand(count, 256, 64, 64, device=device)
            call = {"images": None, "embeddings": embeddings, "image_size": (1024, 1024)}
        return training_step(model, ur.WeakBoxLoss(), boxes(count), **call)

    def autosam(count: int) -> Callable[[], None]:
        model = placed(ur.AutoSAM(ur.build_sam("vit_b"), ur.build_autosam_generator(), input_size=512))
        masks = torch.zeros(count, 1, 1024, 1024, device=device)
        return training_step(model, ur.DiceBCELoss(), masks, images=images(count))

    return {
        "cache: ViT-B, 1 image": (lambda: embed(sam(), images(1)), False),
        "cache: ViT-B, 1 image, bf16": (lambda: embed(sam(), images(1)), True),
        "cache: ViT-B, 4 images": (lambda: embed(sam(), images(4)), False),
        "AutoMedSAM on stored embeddings, batch 4": (lambda: automedsam(4, stored=True), False),
        "AutoMedSAM on stored embeddings, batch 4, bf16": (lambda: automedsam(4, stored=True), True),
        "AutoMedSAM with the encoder, batch 4, bf16": (lambda: automedsam(4, stored=False), True),
        "AutoSAM with HarDNet-85 at 512 px, batch 3, bf16": (lambda: autosam(3), True),
    }


def computed(build: Callable[[], Callable[[], None]], *, half: bool) -> float:
    """Peak of live bytes, in GB, with nothing computed."""
    counter = LiveBytes()
    with FakeTensorMode(), counter, torch.autocast("cpu", torch.bfloat16, enabled=half):
        build()()
    return counter.peak / GB


def measured(build: Callable[[], Callable[[], None]], *, half: bool) -> float:
    """Peak of what PyTorch's allocator handed out on the GPU, in GB."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        build()()
    return torch.cuda.max_memory_allocated() / GB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    args = parser.parse_args()
    gpu = torch.cuda.is_available()
    where = f"{torch.cuda.get_device_name()} (GB)" if gpu else "measured on a GPU"
    lines = [f"| | estimate (GB) | {where} |", "|:--|--:|--:|"]
    on_gpu = cases("cuda") if gpu else {}
    for name, (build, half) in cases("cpu").items():
        real = f"{measured(on_gpu[name][0], half=half):.2f}" if gpu else "not yet"
        lines.append(f"| {name} | {computed(build, half=half):.2f} | {real} |")
        print(lines[-1], flush=True)
    told = f"\n1 GB is 2^30 bytes. torch {torch.__version__}. `python benchmarks/memory.py`.\n"
    if args.out is not None:
        args.out.write_text("\n".join(["# Memory at full size", "", *lines, told]))


if __name__ == "__main__":
    main()
