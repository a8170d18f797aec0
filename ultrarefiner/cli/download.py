"""``ultrarefiner download``: published weights, fetched once and checked."""

from __future__ import annotations

import math
from pathlib import Path

from ultrarefiner.checkpoints import KNOWN_FILES, KnownFile, cache_folder
from ultrarefiner.checkpoints import download as fetch
from ultrarefiner.cli.outcome import DONE, FAILED, SOME_BROKEN, Outcome

# A licence of a repository need not be that of its weights; of SAM the README names it for the model.
_LICENCES = {
    "sam_vit_": "Apache-2.0",
    "medsam_": "Apache-2.0 of MedSAM's repository, as others report it; this copy's page on Zenodo may name another",
    "R50+ViT": "Apache-2.0 of the vision_transformer repository; for the weights none was found",
    "ViT-": "Apache-2.0 of the vision_transformer repository; for the weights none was found",
}
_FOR = {
    "sam": "--sam_weights of cache and train; ultrarefiner.load_weights(sam, file)",
    "vit_npz": "ultrarefiner.load_weights of TransUNet and MicroSegNet",
}


def download(
    names: list[str] | None = None, list: bool = False, folder: Path | None = None, progress: bool = True
) -> Outcome:
    """Download published weights and check them, or list what is known.

    A file that is there is checked and not downloaded again; one that is not whole never gets its name.

    Args:
        names: which files; words without a flag are names, too.
        list: show all that is known: name, size, licence as far as one is stated, what it is, what it is for, and
            whether it is here.
        folder: where to keep them; by default the folder of the environment variable ULTRAREFINER_CACHE, else the
            system's folder for caches.
        progress: show a progress bar.

    Returns:
        Where each file is; or the list. The exit code is 0, 3 if some could not be had, and 1 if none could.

    Raises:
        ValueError: no name, or one that is not known.
    """
    if list:
        return Outcome("\n\n".join(_described(known, folder) for known in KNOWN_FILES.values()))
    if not names:
        message = "give the names of files to download, or --list to see them."
        raise ValueError(message)
    unknown = [name for name in names if name not in KNOWN_FILES]
    if unknown:
        message = f"names must be of {', '.join(KNOWN_FILES)}, but {unknown[0]!r} is none of them; see --list."
        raise ValueError(message)
    told: dict[str, str] = {}
    failures: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            path = fetch(name, folder=folder, progress=progress)
        except (ValueError, OSError) as error:
            failures[name] = f"{name}: {error}"
        else:
            told[name] = f"{path} ({_size(path.stat().st_size)}; {_checked(KNOWN_FILES[name])})"
    code = DONE if not failures else SOME_BROKEN if told else FAILED
    text = "\n".join([*told.values(), f"{len(told)} of {len(told) + len(failures)} files are there."])
    return Outcome(text, tuple(failures.values()), code)


def _described(known: KnownFile, folder: Path | None) -> str:
    licence = next(licence for start, licence in _LICENCES.items() if known.name.startswith(start))
    size = "size not published" if known.size is None else _size(known.size)
    here = ", downloaded" if _is_here(known.name, folder) else ""
    lines = [f"{known.name} ({size}; licence {licence}{here})", known.note, f"For {_FOR[known.layout]}."]
    return "\n  ".join(lines)


def _is_here(name: str, folder: Path | None) -> bool:
    try:
        return ((cache_folder() if folder is None else folder.expanduser()) / name).exists()
    except ModuleNotFoundError:  # without pooch nothing was downloaded to its folder, and the list is still of use
        return False


def _checked(known: KnownFile) -> str:
    return "no hash of it is published" if known.hash is None else f"{known.hash.partition(':')[0]} is right"


def _size(count: int) -> str:
    """Bytes, as people say them.

    Example:
        >>> _size(375_042_383), _size(2_564_550_879), _size(900)
        ('375 MB', '2.6 GB', '1 kB')
    """
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{math.ceil(count / 1e3)} kB"
