"""Which model a flag ``--model`` means, and on which device it computes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import torch

from ultrarefiner.systems import UltraRefiner, load_pretrained

DEFAULT_MODEL = "breast-ultrasound-light"
Device = Literal["auto", "cpu", "cuda", "mps"]
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = (".pt", ".pth", ".json", ".safetensors")
_NAME = re.compile(r"[\w.-]+")


def open_model(model: str) -> UltraRefiner:
    """The model that a flag names.

    Args:
        model: in this order: a folder that `UltraRefiner.save_pretrained` or train joint wrote; a checkpoint of the
            command train joint, in the run's folder that it was written to; ``owner/name`` on the Hugging Face hub; the
            name of a model that comes with this package.

    Raises:
        ValueError: it is none of these, or damaged.
        FileNotFoundError: it is a path, and there is nothing.
        OSError: the hub cannot be reached.
        ModuleNotFoundError: the hub's package is not installed.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        inside = path / "pretrained"  # what train joint writes into the folder of its run
        return UltraRefiner.from_pretrained(inside if inside.is_dir() else path)
    if path.is_file():
        return _of_checkpoint(path)
    a_file = path.suffix in _FILES
    if _HUB.fullmatch(model) and not a_file:
        return UltraRefiner.from_pretrained(model)
    if not _NAME.fullmatch(model) or a_file:
        message = f"there is no {model}; model must be a folder, a checkpoint of train joint, a name or a hub's id."
        raise FileNotFoundError(message)
    return load_pretrained(model)


def _of_checkpoint(path: Path) -> UltraRefiner:
    """What train joint trained, built as the record of its run says."""
    from ultrarefiner.cli.phase_pair import JointParts, load_joint
    from ultrarefiner.cli.phase_record import FILE, PhaseRecord

    folder = path.absolute().parent
    if not (folder / FILE).exists() or PhaseRecord.read(folder).phase != "joint":
        message = (
            f"{path} must be a checkpoint of train joint in the folder of its run, but there is no {FILE} of that "
            "phase beside it; give a checkpoint of a finished train joint where it was written, or a folder that "
            "save_pretrained wrote."
        )
        raise ValueError(message)
    record = PhaseRecord.read(folder)
    model = record.built(JointParts, folder).build(frame=record.frame)
    load_joint(model, path, unseen=())
    return model.eval()


def open_device(device: Device) -> torch.device:
    """Where to compute.

    Args:
        device: auto takes a CUDA GPU where there is one and else the CPU.

    Raises:
        ValueError: there is no such device.

    Example:
        >>> open_device("cpu")
        device(type='cpu')
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, True):
        message = f"device is {device!r}, but PyTorch finds none here; give cpu, or auto."
        raise ValueError(message)
    return torch.device("cuda" if there["cuda"] else "cpu") if device == "auto" else torch.device(device)
