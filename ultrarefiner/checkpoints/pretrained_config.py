"""config.json of a saved system: plain values that a person reads, checked before anything is built from them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1
"""The layout of the folder that this version writes, and the newest that it reads."""

_KEYS = ("digest", "format", "library", "settings", "system", "tensors", "version")
_LARGEST = 2**20
_DEEPEST = 50


@dataclass(frozen=True)
class SavedConfig:
    """What config.json says.

    Attributes:
        system: the class that was saved, such as "UltraRefiner".
        settings: its constructor's arguments as plain values.
        version: of the library that wrote it.
        tensors: how many model.safetensors holds.
        digest: of system, settings and model.safetensors together (`pair_digest`).
    """

    system: str
    settings: Mapping[str, Any]
    version: str
    tensors: int
    digest: str


def config_text(config: SavedConfig) -> str:
    """The text of config.json: sorted, two spaces a step, a line break at the end.

    Example:
        >>> config_text(SavedConfig("UltraRefiner", {"frame": 512}, "0.1", 3, "sha256:00")).splitlines()[2:7]
        ['  "format": 1,', '  "library": "ultrarefiner",', '  "settings": {', '    "frame": 512', '  },']
    """
    fields = {
        "format": FORMAT,
        "library": "ultrarefiner",
        "version": config.version,
        "system": config.system,
        "settings": config.settings,
        "tensors": config.tensors,
        "digest": config.digest,
    }
    return json.dumps(fields, indent=2, sort_keys=True, allow_nan=False) + "\n"


def read_config(path: Path) -> SavedConfig:
    """Read config.json; nothing in it is executed.

    Args:
        path: the file.

    Returns:
        What it says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, not from this library, of a newer or unknown format, lacks something, has something
            unknown, or holds a number that is not finite.

    Example:
        >>> read_config(Path("nowhere/config.json"))
        Traceback (most recent call last):
        FileNotFoundError: There is no config.json in ...nowhere; ...
    """
    if not path.is_file():
        message = (
            f"There is no {path.name} in {path.parent.resolve()}; give a folder that save_pretrained wrote, with "
            "config.json and model.safetensors."
        )
        raise FileNotFoundError(message)
    fields = _parsed(path)
    if not isinstance(fields, dict) or fields.get("library") != "ultrarefiner":
        said = fields.get("library", "nothing") if isinstance(fields, dict) else f"a {type(fields).__name__}"
        message = (
            f"{path} must be of a system that ultrarefiner's save_pretrained wrote, with "
            f'"library": "ultrarefiner", but it says {said!r:.100}.'
        )
        raise ValueError(message)
    _check_format(path, fields)
    for word, names in (("lacks", set(_KEYS) - set(fields)), ("has the unknown", set(fields) - set(_KEYS))):
        if names:
            message = f"{path} {word} {', '.join(sorted(names))}; copy the folder again, or save the system again."
            raise ValueError(message)
    _check_kinds(path, fields)
    _check_plain(fields["settings"], "settings", 0)
    return SavedConfig(**{name: fields[name] for name in ("system", "settings", "version", "tensors", "digest")})


def pair_digest(system: str, settings: Mapping[str, Any], weights: Iterable[bytes]) -> str:
    """One SHA-256 over what config.json says and what model.safetensors holds, so that neither changes alone.

    Args:
        system: the class that was saved.
        settings: its settings.
        weights: the file's bytes, in pieces.

    Raises:
        ValueError: a setting is no plain value, or a number that is not finite.

    Example:
        >>> pair_digest("UltraRefiner", {"frame": 512}, [b"weights"])[:15]
        'sha256:12fc85f0'
    """
    _check_plain(settings, "settings", 0)
    content = json.dumps([system, settings], sort_keys=True, separators=(",", ":"), allow_nan=False)
    digest = hashlib.sha256(content.encode() + b"\n")
    for piece in weights:
        digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def _parsed(path: Path) -> Any:
    size = path.stat().st_size
    if size > _LARGEST:
        message = f"{path} must be a short text, but it has {size:,} bytes; copy it again."
        raise ValueError(message)
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        message = f"{path} is not JSON as save_pretrained writes it ({error}); copy it again, or save the system again."
        raise ValueError(message) from error


def _refuse_constant(constant: str) -> Any:
    message = f"it holds {constant}, but every number must be finite"
    raise ValueError(message)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        message = f"it says {next(name for name in names if names.count(name) > 1)!r} twice"
        raise ValueError(message)
    return found


def _check_format(path: Path, fields: Mapping[str, Any]) -> None:
    found = fields.get("format")
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        message = f"{path} must say its format, a whole number from 1 to {FORMAT}, but it says {found!r:.100}."
        raise ValueError(message)
    if found > FORMAT:
        message = (
            f"{path} has format {found}, written by ultrarefiner {fields.get('version')!s:.40}, but this version reads "
            f"formats up to {FORMAT}; install that version or a newer one."
        )
        raise ValueError(message)


def _check_kinds(path: Path, fields: Mapping[str, Any]) -> None:
    kinds = {"system": str, "settings": dict, "version": str, "tensors": int, "digest": str}
    for name, kind in kinds.items():
        if type(fields[name]) is not kind:
            message = f"{path} must give {name} as {kind.__name__}, but it is {fields[name]!r:.100}; save it again."
            raise ValueError(message)


def _check_plain(value: Any, name: str, depth: int) -> None:
    """Dictionaries with names, lists, strings, truth values, None and finite numbers."""
    if depth > _DEEPEST:
        message = f"{name} is nested more than {_DEEPEST} deep; no system of this library is."
        raise ValueError(message)
    if type(value) is float and not math.isfinite(value):
        message = f"{name} must be a finite number, but it is {value}; a system with such a number answers nothing."
        raise ValueError(message)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        for key, part in value.items():
            _check_plain(part, f"{name}.{key}", depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for index, part in enumerate(value):
            _check_plain(part, f"{name}.{index}", depth + 1)
    elif type(value) not in (str, bool, int, float, type(None)):
        message = f"{name} must be a plain value (number, text, list, dictionary), but it is {value!r:.100}."
        raise ValueError(message)
