"""Strict loading of weights into a network: every tensor is accounted for, or nothing is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ultrarefiner.checkpoints.files import read_tensors


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave to a network.

    Attributes:
        path: the file.
        layout: how its keys were read.
        loaded: names of the tensors that were loaded.
        left_out: names of tensors in the file that the network does not need, and why.
    """

    path: str
    layout: str
    loaded: tuple[str, ...]
    left_out: Mapping[str, str]

    def __str__(self) -> str:
        """One line a person reads."""
        left = "".join(f"; left out {name}: {reason}" for name, reason in self.left_out.items())
        return f"{self.path} ({self.layout}): {len(self.loaded)} tensors loaded{left}"


@dataclass(frozen=True)
class Layout:
    """How a family of files names its tensors.

    Attributes:
        wrappers: keys under which the state dict may lie inside the file.
        prefixes: prefixes that other tools put before every key.
        surplus: names of tensors that such files may hold and a network does not need, and why.
    """

    wrappers: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ("module.", "_orig_mod.")
    surplus: Mapping[str, str] | None = None


LAYOUTS: dict[str, Layout] = {
    "native": Layout(wrappers=("model",)),
    "sam": Layout(
        wrappers=("model", "state_dict"),
        prefixes=("module.", "_orig_mod.", "sam."),
        surplus={
            "pixel_mean": "a constant of the input policy",
            "pixel_std": "a constant of the input policy",
        },
    ),
}


def load_weights(network: nn.Module, path: str | Path, *, layout: str = "native") -> LoadReport:
    """Load a checkpoint into a network, strictly.

    Nothing in the file is executed (``weights_only``, safetensors). Wrappers and prefixes of the layout are taken off;
    after that every tensor of the network must be in the file with its shape, and every tensor of the file in the
    network or named by the layout. If not, the network is left as it was.

    Args:
        network: for instance from `build_sam`.
        path: a ``.pth``/``.pt`` or ``.safetensors`` file.
        layout: "native" for this library's files, "sam" for segment-anything's and MedSAM's.

    Returns:
        What was loaded and what was left out.

    Raises:
        ValueError: an unknown layout, a file that is not of this network, or one that is not only tensors.
        FileNotFoundError: there is no such file.

    Example:
        >>> import tempfile, torch
        >>> network = nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"module.weight": torch.ones(1, 2), "module.bias": torch.zeros(1)}, f"{folder}/a.pth")
        ...     load_weights(network, f"{folder}/a.pth").loaded
        ('bias', 'weight')
    """
    if layout not in LAYOUTS:
        message = f"layout must be one of {', '.join(LAYOUTS)}, but it is {layout!r}."
        raise ValueError(message)
    known = LAYOUTS[layout]
    state = _strip_prefixes(_unwrap(read_tensors(path), known, path), known.prefixes)
    target = network.state_dict()
    surplus = known.surplus or {}
    left_out = {name: surplus[name] for name in state if name in surplus and name not in target}
    wanted = {name: tensor for name, tensor in state.items() if name not in left_out}
    _refuse_mismatch(wanted, target, Path(path), type(network).__name__)
    network.load_state_dict(wanted, strict=True)
    return LoadReport(str(path), layout, tuple(sorted(wanted)), left_out)


def _unwrap(content: Any, layout: Layout, path: str | Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = [name for name in layout.wrappers if isinstance(content.get(name), Mapping)]
        if not inner:
            break
        content = content[inner[0]]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        keys = ", ".join(map(str, list(content)[:6])) if isinstance(content, Mapping) else type(content).__name__
        message = (
            f"{path} must hold a state dict, tensors by name, but it holds {keys}; save network.state_dict(), "
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


def _refuse_mismatch(state: Mapping[str, Tensor], target: Mapping[str, Tensor], path: Path, network: str) -> None:
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
        "made with, or name its layout."
    )
    raise ValueError(message)
