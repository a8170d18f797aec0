"""The tensors of a saved system: taken out of a model for the file, and put into one that was built anew, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def state_of(model: nn.Module, dtype: torch.dtype | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What of a model goes into a file: its state dict on the CPU, row by row, each tensor with memory of its own.

    Args:
        model: any module.
        dtype: of floating-point tensors: float16, bfloat16, float32 or float64; None for what they are. Others keep
            theirs.

    Returns:
        The tensors by name, without what `torch.compile` puts into names, and for those that have further names, each
        of these with the name that was kept.

    Raises:
        ValueError: ``dtype`` is not one of the four or cannot hold a weight, or there is a state that is no plain
            tensor.

    Example:
        >>> twice = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        >>> twice[1].weight = twice[0].weight
        >>> tensors, names = state_of(twice, torch.float16)
        >>> tensors["0.weight"].dtype, names
        (torch.float16, {'1.weight': '0.weight'})
    """
    if dtype not in (None, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        message = f"dtype must be torch.float16, bfloat16, float32, float64 or None, but it is {dtype}."
        raise ValueError(message)
    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    kept: dict[Any, str] = {}
    for name, value in _state(model).items():
        _check_storable(name, value)
        place = (value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if value.numel() and place in kept:
            names[name] = kept[place]
            continue
        kept[place] = name
        tensors[name] = _for_file(name, value, dtype)
    return tensors, names


def fill_strictly(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Put saved tensors into a model, every one of them, or none.

    Weights keep the model's dtype (float32 as built), so that what was stored in float16 is float32 in memory. What was
    stored in float64 becomes float64, and if that is every weight, so does the rest of the model.

    Args:
        model: with the structure that was saved.
        tensors: by name, as `read_pretrained` gives them.
        source: where they are from, for complaints.

    Raises:
        ValueError: a tensor is missing, one is too many, has another shape or another kind (whole numbers for
            floating-point ones), or two names that are one tensor in the model have two values; the model is then left
            as it was.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> fill_strictly(model, {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, source="the file")
        >>> fill_strictly(model, {"weight": torch.ones(1, 2)}, source="the file")
        Traceback (most recent call last):
        ValueError: the file lacks 1 tensor that Linear needs: bias. ...
    """
    needed = _state(model)
    _check_names(model, set(needed), set(tensors), source)
    for name, target in needed.items():
        _check_alike(name, tensors[name], target, source)
    _check_shared(needed, tensors, source)
    wide = [value.dtype == torch.float64 for value in tensors.values() if value.is_floating_point()]
    if wide and all(wide):
        model.double()  # with buffers that no file holds
    with torch.no_grad():
        for name, target in _state(model, keep_vars=True).items():
            if tensors[name].dtype == torch.float64:
                target.data = target.data.double()
            target.copy_(tensors[name])


def _state(model: nn.Module, *, keep_vars: bool = False) -> dict[str, Any]:
    """The state dict by the names that it has without `torch.compile`."""
    return {name.replace("_orig_mod.", ""): value for name, value in model.state_dict(keep_vars=keep_vars).items()}


def _check_storable(name: str, value: Any) -> None:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta or value.is_quantized:
        what = "on no device (meta)" if isinstance(value, Tensor) and value.is_meta else f"a {type(value).__name__}"
        message = (
            f"{name} must be a plain tensor to be saved, but it is {what}; a part with such a state cannot go into a "
            "safetensors file. Keep it as a tensor, or as a buffer that is not persistent."
        )
        raise ValueError(message)


def _for_file(name: str, value: Tensor, dtype: torch.dtype | None) -> Tensor:
    wanted = dtype if dtype is not None and value.is_floating_point() else value.dtype
    stored = value.detach().to("cpu", wanted, copy=True, memory_format=torch.contiguous_format)
    if wanted != value.dtype and not torch.equal(stored.isfinite(), value.detach().isfinite().cpu()):
        largest = value.detach().abs().amax().item()
        message = (
            f"dtype must hold every weight, but {name} has values up to {largest:.3g} and {wanted} ends at "
            f"{torch.finfo(wanted).max:.3g}; use torch.bfloat16, or None."
        )
        raise ValueError(message)
    return stored


def _check_names(model: nn.Module, needed: set[str], found: set[str], source: str) -> None:
    for word, names in (("lacks {} that {} needs", needed - found), ("has {} that {} does not know", found - needed)):
        if names:
            count = f"{len(names)} tensor{'' if len(names) == 1 else 's'}"
            shown = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
            message = (
                f"{source} {word.format(count, type(model).__name__)}: {shown}. It was changed, or belongs to a system "
                "of other parts; copy the folder again, or give the parts that it was saved with."
            )
            raise ValueError(message)


def _check_alike(name: str, saved: Tensor, target: Tensor, source: str) -> None:
    if saved.shape != target.shape:
        message = (
            f"{source} has {name} with the shape {tuple(saved.shape)}, but the system's is {tuple(target.shape)}; it "
            "was changed, or belongs to a system of other parts."
        )
        raise ValueError(message)
    if _kind(saved) != _kind(target):
        message = (
            f"{source} has {name} as {saved.dtype}, but the system's is {target.dtype}: {_kind(saved)} in place "
            f"of {_kind(target)}. It was changed; copy the folder again."
        )
        raise ValueError(message)


def _kind(tensor: Tensor) -> str:
    if tensor.dtype == torch.bool:
        return "truth values"
    if tensor.is_complex():
        return "complex numbers"
    return "floating-point numbers" if tensor.is_floating_point() else "whole numbers"


def _check_shared(needed: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    """Two names of one tensor cannot take two values."""
    first: dict[Any, str] = {}
    for name, target in needed.items():
        other = first.setdefault((target.device, target.data_ptr(), target.shape, target.stride()), name)
        if target.numel() and other != name and not torch.equal(tensors[name], tensors[other]):
            message = (
                f"{source} has two values for {other} and {name}, which are one tensor in this system; build it with "
                "parts that do not share their weights."
            )
            raise ValueError(message)
