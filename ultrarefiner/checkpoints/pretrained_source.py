"""Where a saved system is: a folder of this machine, or a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from ultrarefiner.checkpoints.files import Location
from ultrarefiner.checkpoints.pretrained import CONFIG, WEIGHTS

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*", re.ASCII)


def pretrained_folder(
    folder_or_hub_id: Location,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: Location | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a saved system, fetched from the hub if it is not a folder of this machine.

    A folder of this machine wins over a repository of the same name; nothing is then asked of the hub. Of a repository
    only config.json and model.safetensors are fetched, both of one revision.

    Args:
        folder_or_hub_id: a folder, or "owner/name" on the hub.
        revision: a branch, tag or commit of the repository; None for its main branch.
        token: for private repositories; None takes what ``hf auth login`` left.
        cache_dir: where fetched files are kept; None for the hub's own cache.
        local_files_only: whether to take only what was fetched before.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: there is neither such a folder nor such a repository, or it could not be fetched.
        ValueError: a file was named, not its folder.
        ModuleNotFoundError: it is on the hub, and huggingface-hub is not installed.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> pretrained_folder(folder) == Path(folder)
        True
        >>> pretrained_folder("no folder, no id")
        Traceback (most recent call last):
        FileNotFoundError: There is no folder no folder, no id (looked in ...), and it is no repository ...
    """
    folder = Path(folder_or_hub_id)
    with suppress(RuntimeError):  # "~somebody" who has no home here
        folder = folder.expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        message = f"{folder} is a file, but a saved system is a folder; give {folder.parent}, if it lies in there."
        raise ValueError(message)
    name = str(folder_or_hub_id)
    if not isinstance(folder_or_hub_id, str) or not _HUB_ID.fullmatch(name) or ".." in name:
        message = (
            f"There is no folder {name} (looked in {Path.cwd()}), and it is no repository either: an id on the Hugging "
            'Face hub is "owner/name". Models that come with the package are loaded with ultrarefiner.load_pretrained.'
        )
        raise FileNotFoundError(message)
    return _fetched(name, revision, token, cache_dir, local_files_only)


def _fetched(
    name: str, revision: str | None, token: str | None, cache_dir: Location | None, local_files_only: bool
) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        message = (
            f"There is no folder {name} here, and to fetch it from the Hugging Face hub needs the package "
            "huggingface-hub: pip install 'ultrarefiner[hub]'."
        )
        raise ModuleNotFoundError(message) from error
    try:
        found = snapshot_download(
            name,
            revision=revision,
            token=token,
            cache_dir=None if cache_dir is None else str(cache_dir),
            local_files_only=local_files_only,
            allow_patterns=[CONFIG, WEIGHTS],
        )
    except Exception as error:  # what a failed connection raises is another class in each version of the package
        where = "among the files that were fetched before" if local_files_only else "on the Hugging Face hub"
        at = "" if revision is None else f" at revision {revision}"
        message = (
            f"There is no folder {name} here, and {name}{at} could not be had {where} ({_first_line(error)}). Check "
            "the name, the connection, and for a private repository the token."
        )
        raise FileNotFoundError(message) from error
    folder = Path(found)
    if missing := [file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()]:
        message = (
            f"{name} on the Hugging Face hub has no {' and no '.join(missing)}, so it is no system that "
            "save_pretrained wrote; choose another repository."
        )
        raise FileNotFoundError(message)
    return folder


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
