"""Strict loading of weights into a network: every tensor is accounted for, or nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ultrarefiner.checkpoints.files import read_tensors
from ultrarefiner.checkpoints.layouts import LAYOUTS, Layout
from ultrarefiner.checkpoints.renaming import Renamed
from ultrarefiner.ops.position_embedding import resize_position_grid


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave to a network.

    Attributes:
        path: the file.
        layout: how its keys were read.
        loaded: names of the tensors that were loaded.
        left_out: names of tensors in the file that the network does not need, and why.
        resized: names of tensors that were loaded onto another grid, and from which to which.
        kept: names of the network's tensors that such a file never has; they keep their values.
    """

    path: str
    layout: str
    loaded: tuple[str, ...]
    left_out: Mapping[str, str]
    resized: Mapping[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line a person reads."""
        parts = [f"{self.path} ({self.layout}): {len(self.loaded)} tensors loaded"]
        parts += [f"resized {name}: {how}" for name, how in self.resized.items()]
        parts += [f"left out {name}: {reason}" for name, reason in self.left_out.items()]
        if self.kept:
            parts.append(f"{len(self.kept)} tensors kept as they were ({self.kept[0]} to {self.kept[-1]})")
        return "; ".join(parts)


def load_weights(
    network: nn.Module, path: str | Path, *, layout: str = "native", allow_other_settings: bool = False
) -> LoadReport:
    """Load a checkpoint into a network, strictly.

    Nothing in the file is executed (``weights_only``, safetensors, arrays without pickles). Wrappers and prefixes of
    the layout are taken off and its names translated; after that every tensor of the network must be in the file with
    its shape, and every tensor of the file in the network or named by the layout. Only position embeddings may lie on
    another grid: they are interpolated, which the report says. If not, the network is left as it was. A network that
    other modules wrap (`AtSize`, `ForegroundLogits`) is found inside them, here and in the file.

    Args:
        network: for instance from `build_sam` or `build_transunet`.
        path: a ``.pth``/``.pt``, ``.safetensors`` or ``.npz`` file.
        layout: "native" for this library's files, "sam" for segment-anything's and MedSAM's, "huggingface_sam" for
            transformers' ``SamModel``, "mobile_sam" for MobileSAM's file, "transunet" and "microsegnet" for those
            projects' checkpoints, "vit_npz" for the ImageNet-21k files of vision transformers with or without a ResNet
            (R50+ViT-B_16.npz, ViT-B_16.npz), which have no decoder, "autosam" for the state dict of AutoSAM's
            generator, "automedsam" for Automatic MedSAM's prompt module, "hardnet" for HarDNet's ImageNet files (load
            them into its backbone), "segvol" for SegVol's, with or without a text encoder, "segvol_vit" for its
            pretrained image encoder alone; the rest keeps its values.
        allow_other_settings: load also where tensors fit, but the network is built otherwise than the files were
            trained (``Layout.settings``: prompts of "segvol" are encoded with ``pe_order="legacy"``), to train it on.

    Returns:
        What was loaded, resized, left out and kept.

    Raises:
        ValueError: an unknown layout, a network of other settings, a file that is not of this network, or one that is
            not only tensors.
        FileNotFoundError: there is no such file.

    Example:
        >>> import tempfile, torch
        >>> network = nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"module.weight": torch.ones(1, 2), "module.bias": torch.zeros(1)}, f"{folder}/a.pth")
        ...     load_weights(network, f"{folder}/a.pth").loaded
        ('bias', 'weight')
    """
    known = _known(layout)
    if not allow_other_settings:
        _refuse_other_settings(network, known, layout)
    state = _stripped(read_tensors(path), known, str(path))
    renamed = _renamed(state, known, str(path))
    # torch.compile puts its name into those of the parts that it compiled, here as in the file.
    own = {name.replace("_orig_mod.", ""): name for name in network.state_dict()}
    target = {name: network.state_dict()[full] for name, full in own.items()}
    outside = _leading(renamed.state, target)
    renamed = Renamed({name.removeprefix(outside): tensor for name, tensor in renamed.state.items()}, renamed.left_out)
    inside = _leading(target, renamed.state)
    left_out = dict(renamed.left_out)
    wanted: dict[str, Tensor] = {}
    for name, tensor in renamed.state.items():
        reason = None if inside + name in target else known.reason_to_leave_out(name)
        if reason is None:
            wanted[inside + name] = tensor
        else:
            left_out[name] = reason
    wanted, resized = _on_the_grids_of(target, wanted, known)
    absent = tuple(inside + start for start in known.absent)
    kept = tuple(sorted(name for name in target if name not in wanted and name.startswith(absent)))
    needed = {name: tensor for name, tensor in target.items() if name not in kept}
    _refuse_mismatch(wanted, needed, Path(path), type(network).__name__, hint=_other_layout(state, known))
    network.load_state_dict({own[name]: tensor for name, tensor in wanted.items()}, strict=not kept)
    return LoadReport(str(path), layout, tuple(sorted(wanted)), left_out, resized, kept)


def from_official(layout: str, state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """A published state dict in this library's names; for a file, `load_weights` does this and more.

    Args:
        layout: one of `LAYOUTS`.
        state_dict: what the published code saves, in its wrapper or not, with ``module.`` and ``_orig_mod.`` prefixes
            or not; tensors, or NumPy's arrays as ``dict(numpy.load(path))`` gives them.

    Returns:
        Tensors by our names, for ``load_state_dict``. What no network of ours needs (a class token, a classifier) is
        not in it; position embeddings lie on the grid that they were trained on.

    Raises:
        ValueError: an unknown layout, or a name that it does not have.

    Example:
        >>> import torch
        >>> list(from_official("transunet", {"module.segmentation_head.0.bias": torch.zeros(2)}))
        ['head.bias']
    """
    known = _known(layout)
    return _renamed(_stripped(state_dict, known, "state_dict"), known, "state_dict").state


def _known(layout: str) -> Layout:
    if layout not in LAYOUTS:
        message = f"layout must be one of {', '.join(LAYOUTS)}, but it is {layout!r}."
        raise ValueError(message)
    return LAYOUTS[layout]


def _refuse_other_settings(network: nn.Module, layout: Layout, called: str) -> None:
    for name, expected in layout.settings.items():
        for module in network.modules():
            own = getattr(module, name, expected)
            if own != expected:
                message = (
                    f"network must have {name}={expected!r} for a file of layout {called!r}, which was trained with "
                    f"it, but {type(module).__name__} has {own!r}; its tensors would fit and its answers be wrong. "
                    f"Build it with {name}={expected!r}, or pass allow_other_settings=True to train it on."
                )
                raise ValueError(message)


def _stripped(content: Mapping[str, Any], layout: Layout, source: str) -> dict[str, Tensor]:
    state = _unwrap(content, layout, source)
    plain = {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
    if len(plain) < len(state):
        message = (
            f"{source} holds {len(state) - len(plain)} tensors twice, with and without torch.compile's '_orig_mod.'; "
            "save the state dict of one network."
        )
        raise ValueError(message)
    return _strip_prefixes(plain, layout.prefixes)


def _renamed(state: dict[str, Tensor], layout: Layout, source: str) -> Renamed:
    if layout.rename is None:
        return Renamed(state, {})
    try:
        return layout.rename(state)
    except ValueError as error:
        message = f"{source}: {error}{_other_layout(state, layout)}"
        raise ValueError(message) from error


def _unwrap(content: Any, layout: Layout, source: str) -> dict[str, Tensor]:
    """The state dict inside its wrappers; NumPy's arrays become tensors."""
    while isinstance(content, Mapping):
        inner = [name for name in layout.wrappers if isinstance(content.get(name), Mapping)]
        if not inner:
            break
        content = content[inner[0]]
    if isinstance(content, Mapping):
        content = {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else value
            for name, value in content.items()
        }
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        keys = ", ".join(map(str, list(content)[:6])) if isinstance(content, Mapping) else type(content).__name__
        message = (
            f"{source} must hold a state dict, tensors by name, but it holds {keys}; save network.state_dict(), "
            "or take the state dict out of the file first."
        )
        raise ValueError(message)
    return {str(name): tensor for name, tensor in content.items()}


def _strip_prefixes(state: dict[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Take off every prefix that all keys share, in any order and number."""
    stripped = True
    while stripped and state:
        stripped = False
        for prefix in prefixes:
            if all(name.startswith(prefix) for name in state):
                state = {name[len(prefix) :]: tensor for name, tensor in state.items()}
                stripped = True
    return state


def _leading(longer: Mapping[str, Tensor], shorter: Mapping[str, Tensor]) -> str:
    """What a wrapping module (`AtSize`) puts before all names of the one and not of the other; "" if that is not it."""
    names, prefix = list(longer), ""
    while not any(prefix + name in longer for name in shorter):
        part = names[0][len(prefix) :].partition(".") if names else ("", "", "")
        if not part[1] or not all(name.startswith(f"{prefix}{part[0]}.") for name in names):
            return ""
        prefix += f"{part[0]}."
    return prefix


def _on_the_grids_of(
    target: Mapping[str, Tensor], state: Mapping[str, Tensor], layout: Layout
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Position embeddings interpolated to the network's grid, and which were."""
    fitted, resized = dict(state), {}
    for name, tensor in state.items():
        there = target.get(name)
        if there is None or not name.endswith(layout.resizable) or there.shape == tensor.shape:
            continue
        if there.ndim == tensor.ndim == 4 and there.shape[:2] == tensor.shape[:2]:
            fitted[name] = resize_position_grid(tensor, there.shape[-2:])
            before, after = ("{} x {}".format(*grid.shape[-2:]) for grid in (tensor, there))
            resized[name] = f"from {before} to {after} patches"
    return fitted, resized


def _refuse_mismatch(
    state: Mapping[str, Tensor], target: Mapping[str, Tensor], path: Path, network: str, *, hint: str
) -> None:
    missing = sorted(target.keys() - state.keys())
    unknown = sorted(state.keys() - target.keys())
    reshaped = [
        f"{name} {tuple(state[name].shape)} for {tuple(target[name].shape)}"
        for name in sorted(target.keys() & state.keys())
        if state[name].shape != target[name].shape
    ]
    if not (missing or unknown or reshaped):
        return
    complaints = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", reshaped))
        if names
    ]
    same = len(target.keys() & state.keys()) - len(reshaped)
    message = (
        f"{path} is not a checkpoint of this {network}: of its {len(target)} tensors {same} fit, "
        f"{', '.join(complaints)}. Nothing was loaded. Build the network with the size and settings that the file was "
        f"made with, or name its layout.{_classes_hint(state, target)}{hint}"
    )
    raise ValueError(message)


def _classes_hint(state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    """A hint, where a network of ours was built with another number of classes than the file has."""
    for name, tensor in state.items():
        if name.endswith("head.bias") and name in target and tensor.shape != target[name].shape:
            wrap = ", and ForegroundLogits reads them as one lesion" if tensor.numel() == 2 else ""
            return f" The file has classes={tensor.numel()}{wrap}."
    return ""


def _other_layout(state: Mapping[str, Tensor], layout: Layout) -> str:
    """A hint, where the names are those of another layout."""
    for name, other in LAYOUTS.items():
        if other is not layout and other.signature and any(key.startswith(other.signature) for key in state):
            return f' Its names are those of layout="{name}".'
    return ""
