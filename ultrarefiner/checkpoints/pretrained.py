"""A whole system as a folder, as the Hugging Face ecosystem keeps models: config.json and model.safetensors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ultrarefiner.checkpoints.files import Location, replaced_file
from ultrarefiner.checkpoints.pretrained_config import SavedConfig, config_text, pair_digest, read_config
from ultrarefiner.checkpoints.pretrained_tensors import state_of

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

_CHUNK = 2**20
_HEADER = {"format": "pt"}
"""What the ecosystem's readers look for in the file's header."""


@dataclass(frozen=True)
class SavedSystem:
    """What a folder holds.

    Attributes:
        folder: where it is.
        system: the class that was saved.
        settings: its constructor's arguments as plain values.
        version: of the library that wrote it.
        tensors: the weights by name, on the CPU; those that were one tensor under several names are so again.
    """

    folder: Path
    system: str
    settings: Mapping[str, Any]
    version: str
    tensors: Mapping[str, Tensor]


def write_pretrained(
    folder: Location, model: nn.Module, *, system: str, settings: Mapping[str, Any], dtype: torch.dtype | None = None
) -> Path:
    """Write config.json and model.safetensors of a system.

    Both files are complete on the disk before either takes its name, each in one step. Were a process killed just
    between the two steps, the digest in config.json tells `read_pretrained` that they are no pair. Buffers that are
    not persistent are not stored; a tensor with several names is stored once.

    Args:
        folder: is made if there is none; files of these names in it are replaced, others are left alone.
        model: whose state dict is written.
        system: its class.
        settings: what it is built from, as plain values.
        dtype: of the floating-point tensors in the file: float16, bfloat16, float32 or float64; None for what they
            are. Whole numbers, such as the counters of batch normalisation, stay whole.

    Returns:
        The folder.

    Raises:
        ValueError: the folder is a file, a setting is not plain or not finite, ``dtype`` is another or cannot hold a
            weight, or the model has a state that is no plain tensor.

    Example:
        >>> import tempfile
        >>> folder = write_pretrained(tempfile.mkdtemp(), nn.Linear(2, 1), system="Linear", settings={"inputs": 2})
        >>> sorted(path.name for path in folder.iterdir())
        ['config.json', 'model.safetensors']
        >>> saved = read_pretrained(folder)
        >>> saved.settings, saved.tensors["weight"].shape
        ({'inputs': 2}, torch.Size([1, 2]))

    References:
        The layout and the format are those of github.com/huggingface/huggingface_hub and
        github.com/huggingface/safetensors.
    """
    from safetensors.torch import save

    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        message = f"folder must be a folder, but {folder} is a file; give another name."
        raise ValueError(message)
    tensors, names = state_of(model, dtype)
    content = save(tensors, {**_HEADER, **names})
    config = SavedConfig(
        system=system,
        settings=settings,
        version=version("ultrarefiner"),
        tensors=len(tensors),
        digest=pair_digest(system, settings, [content]),
    )
    text = config_text(config).encode()
    with replaced_file(folder / WEIGHTS) as weights_file, replaced_file(folder / CONFIG) as config_file:
        weights_file.write(content)
        weights_file.flush()
        os.fsync(weights_file.fileno())
        config_file.write(text)
    return folder


def read_pretrained(folder: Location) -> SavedSystem:
    """Read what `write_pretrained` wrote. Nothing in the files is executed.

    Args:
        folder: with config.json and model.safetensors.

    Returns:
        Settings and weights, which belong together.

    Raises:
        FileNotFoundError: one of the files is not there.
        ValueError: config.json is not as this library writes it or of a newer format; model.safetensors is a pickle,
            truncated or damaged, or holds more or fewer tensors than it should; or the two were not written together.

    Example:
        >>> import tempfile
        >>> folder = write_pretrained(tempfile.mkdtemp(), nn.Linear(2, 1), system="Linear", settings={"inputs": 2})
        >>> sorted(read_pretrained(folder).tensors)
        ['bias', 'weight']
        >>> read_pretrained("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: There is no config.json in ...nowhere; ...
    """
    folder = Path(folder)
    config = read_config(folder / CONFIG)
    path = folder / WEIGHTS
    if not path.is_file():
        message = f"There is no {WEIGHTS} in {folder.resolve()} beside {CONFIG}; copy the folder again."
        raise FileNotFoundError(message)
    before = _identity(path)
    tensors, names = _read_weights(path)
    if len(tensors) != config.tensors:
        message = (
            f"{path} must hold {config.tensors} tensors, as {CONFIG} says, but it holds {len(tensors)}; one of the two "
            "files is another's or was changed. Copy the folder again, or save the system again."
        )
        raise ValueError(message)
    found = pair_digest(config.system, config.settings, _pieces(path))
    if found != config.digest or _identity(path) != before:
        message = (
            f"{CONFIG} and {WEIGHTS} in {folder.resolve()} were not written together: their digest is {found}, but "
            f"{CONFIG} says {config.digest!r:.80}. One was changed or replaced, or a program was stopped while it "
            "wrote them. Copy the folder again, or save the system again; to change a setting, load the system, change "
            "it there and save."
        )
        raise ValueError(message)
    tensors.update({name: tensors[kept] for name, kept in names.items()})
    return SavedSystem(folder, config.system, config.settings, config.version, tensors)


def _read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, and the further names of some."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
            header = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ValueError(_explain(path, error)) from error
    names = {name: kept for name, kept in header.items() if (name, kept) not in _HEADER.items()}
    if strange := [name for name, kept in names.items() if name in tensors or kept not in tensors]:
        message = (
            f"{path} says in its header that {strange[0]!r:.100} is another name of {names[strange[0]]!r:.100}, which "
            "does not fit its tensors; copy the folder again, or save the system again."
        )
        raise ValueError(message)
    return tensors, names


def _explain(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return (
            f"{path} is a pickle or a zip archive, as PyTorch's own files are, and no safetensors file; it was not "
            "opened, and nothing in it was executed. Ask its author for safetensors, or save the system again with "
            "save_pretrained."
        )
    return (
        f"{path} ({path.stat().st_size:,} bytes) is truncated, damaged or no safetensors file ({error}). Copy or "
        "download it again."
    )


def _identity(path: Path) -> tuple[int, int, int]:
    """What changes when another file takes the name."""
    told = path.stat()
    return told.st_ino, told.st_size, told.st_mtime_ns


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            yield piece
