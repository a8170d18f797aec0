"""Large volumes made ready once: normalised, cropped and stored so that a patch is read without the rest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.checkpoints.files import Location, claim_file, replaced_file, sweep_parts
from ultrarefiner.checkpoints.settings import first_difference
from ultrarefiner.data.cases import natural_key
from ultrarefiner.data.nifti import SUFFIXES, read_voxels
from ultrarefiner.data.progress import progress_bar
from ultrarefiner.data.sparse_files import FORMAT, KINDS, VolumeFolder, VolumeRecord, read_settings
from ultrarefiner.data.sparse_labels import SparseLabels
from ultrarefiner.data.volume_intensity import VolumeCrop, foreground_crop, normalise_foreground
from ultrarefiner.data.volumes import VolumeFiles, VolumeSlices

_TOLD = 5  # sentences about broken volumes


def nifti_pairs(images: Location, masks: Location, *, mask_suffix: str = "") -> list[VolumeFiles]:
    """Every NIfTI file of a folder with its mask: that of "a.nii.gz" is "a.nii.gz", or "a_mask.nii.gz" with a suffix.

    Args:
        images: the folder of scans; hidden files and others are passed over.
        masks: the folder of masks; it may be the same one if there is a suffix.
        mask_suffix: what stands between a scan's name and the end of its mask's, for example "_mask".

    Returns:
        In natural order of the names; every volume is a group of its own (`dataclasses.replace` gives it another).

    Raises:
        FileNotFoundError: a folder is not there.
        ValueError: the folder has no scan, a scan has no mask, or every scan would be its own mask.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("p1.nii.gz", "p1_mask.nii"):
        ...     _ = (root / name).write_bytes(b"")
        >>> [(pair.name, pair.mask.name) for pair in nifti_pairs(root, root, mask_suffix="_mask")]
        [('p1', 'p1_mask.nii')]
    """
    images, masks = Path(images), Path(masks)
    of_image, of_mask = _volumes_in(images), _volumes_in(masks)
    if images.resolve() == masks.resolve():
        if not mask_suffix:
            message = f"images and masks are both {images}; give mask_suffix, what the name of a mask ends in."
            raise ValueError(message)
        of_image = {name: path for name, path in of_image.items() if not name.endswith(mask_suffix)}
    alone = next((name for name in of_image if name + mask_suffix not in of_mask), None)
    if not of_image or alone is not None:
        what = (
            "has no NIfTI file" if alone is None else f"has {of_image[alone].name} without {alone}{mask_suffix}.nii.gz"
        )
        message = f"{images} {what} ({masks} was looked at for masks); check both folders and mask_suffix."
        raise ValueError(message)
    return [VolumeFiles(name, path, of_mask[name + mask_suffix], None, name) for name, path in of_image.items()]


def prepare_volumes(
    files: Iterable[VolumeFiles],
    folder: Location,
    *,
    organs: Mapping[str, int] | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    margin: int = 0,
    affine_tolerance: float | None = 0.1,
    progress: bool = True,
) -> int:
    """Make volumes ready for `SparseVolumes`, once.

    Each is normalised (`normalise_foreground`), and cropped to what is brighter than 0 (`foreground_crop`) or has a
    label, so that no voxel of an object is lost. Of each a folder is written: ``image.npy``, ``labels.npz``
    (`SparseLabels`), and ``volume.json`` with spacing, affine and crop. Nothing is reoriented or resampled. One volume
    at a time is in memory, in float32.

    The same call again goes on where it was stopped or killed, and makes those again whose files have changed. A broken
    file stops nothing, whatever is wrong with it: the rest is prepared first, then a sentence tells of each.

    Args:
        files: scans with masks; `nifti_pairs` finds them.
        folder: gets the files. What earlier calls have prepared in it stays.
        organs: the number of each organ in the masks; what has another number becomes background. None takes all that
            is above 0 as one organ, called "object".
        dtype: of the stored image. float16 takes half the room and is exact to 0.00025.
        margin: voxels around the crop, as far as the volume goes.
        affine_tolerance: see `VolumeSlices`.
        progress: show a progress bar on a terminal, if tqdm is installed.

    Returns:
        How many volumes this call prepared.

    Raises:
        ModuleNotFoundError: nibabel is not installed.
        OSError: the folder cannot be written, above all because the disk is full; what was prepared stays.
        ValueError: there is no volume, two have one name or one has none, an option is out of range, the folder was
            begun with other settings, or, at the end, some volumes could not be prepared.

    Example:
        >>> import tempfile, nibabel
        >>> root = Path(tempfile.mkdtemp())
        >>> values = np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float32)
        >>> nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), root / "p1.nii.gz")
        >>> nibabel.save(nibabel.Nifti1Image((values > 1).astype(np.uint8), np.eye(4)), root / "p1_mask.nii.gz")
        >>> pairs = nifti_pairs(root, root, mask_suffix="_mask")
        >>> prepare_volumes(pairs, root / "prepared"), prepare_volumes(pairs, root / "prepared")
        (1, 0)
    """
    root, volumes = Path(folder), tuple(files)
    _check(volumes, organs, dtype, margin)
    numbers: dict[str, int | None] = {"object": None} if organs is None else dict(organs)
    _claim(root, {"format": FORMAT, "organs": numbers, "dtype": dtype, "margin": margin})
    prepared, broken = 0, []
    with progress_bar(len(volumes), "prepare", "volume", shown=progress) as bar:
        for volume in volumes:
            place = VolumeFolder.of(root, volume.name)
            try:
                source = _source(volume)
                there = _is_there(place, source, dtype)
                ready = None if there else _ready(volume, numbers, margin, affine_tolerance, source)
            except ModuleNotFoundError:
                raise
            except Exception as error:
                broken.append(f"{volume.name!r}: {_said(error)}")
            else:
                if ready is not None:
                    _write(place, ready, dtype)
                    prepared += 1
            bar.update(1)
    if broken:
        more = f" And {len(broken) - _TOLD} more." if len(broken) > _TOLD else ""
        message = (
            f"{len(broken)} of {len(volumes)} volumes could not be prepared; the others are ready in {root}. Mend or "
            f"leave out: {' '.join(broken[:_TOLD])}{more}"
        )
        raise ValueError(message)
    return prepared


def _said(error: Exception) -> str:
    """What an error says; of one that is no sentence of ours, its kind too."""
    return str(error) if isinstance(error, (ValueError, FileNotFoundError)) else f"{type(error).__name__}: {error}"


class _Ready(NamedTuple):
    image: Float[Tensor, "d h w"]
    labels: SparseLabels
    record: VolumeRecord


def _ready(
    files: VolumeFiles,
    organs: Mapping[str, int | None],
    margin: int,
    tolerance: float | None,
    source: tuple[int, ...],
) -> _Ready:
    """Image and labels of a volume, cropped."""
    (volume,) = VolumeSlices([files], affine_tolerance=tolerance).volumes  # it compares the headers
    labels = _labels(files, organs)
    voxels = np.ascontiguousarray(read_voxels(files.image).transpose(2, 1, 0), dtype=np.float32)
    image = normalise_foreground(torch.from_numpy(voxels)[None])
    box = foreground_crop(image, margin=margin)
    for label in labels.labels:
        box = _around(box, labels.box_of(label))
    x, y, z = volume.voxel_size
    labels = labels.crop(box)
    found = labels.counts()
    counts = tuple(found.get(place + 1, 0) for place in range(len(organs)))
    record = VolumeRecord(files.name, files.group, files.label, (z, y, x), volume.affine, box, counts, source)
    return _Ready(box.crop(image)[0], labels, record)


def _around(one: VolumeCrop, other: VolumeCrop | None) -> VolumeCrop:
    """The smallest box that holds both."""
    if other is None:
        return one
    z0, y0, x0 = (min(pair) for pair in zip(one.start, other.start, strict=True))
    z1, y1, x1 = (max(pair) for pair in zip(one.stop, other.stop, strict=True))
    return VolumeCrop((z0, y0, x0), (z1, y1, x1), one.shape)


def _labels(files: VolumeFiles, organs: Mapping[str, int | None]) -> SparseLabels:
    """I + 1 for the i-th organ, whatever its number in the file."""
    if files.mask is None:
        message = f"{files.image} has no mask, and nothing can be learnt from it; leave it out, or give its mask"
        raise ValueError(message)
    voxels = read_voxels(files.mask)
    lowest, highest = float(voxels.min()), float(voxels.max())
    if lowest < 0 or highest > 2**31 - 1 or (voxels.dtype.kind == "f" and bool((voxels != np.rint(voxels)).any())):
        message = (
            f"{files.mask} must hold whole numbers from 0, one an object, but it has {lowest:g} to {highest:g}, or "
            "fractions; export it as a label map"
        )
        raise ValueError(message)
    found = SparseLabels.of(torch.from_numpy(np.ascontiguousarray(voxels.transpose(2, 1, 0), dtype=np.int32)))
    numbered = {number: place + 1 for place, number in enumerate(organs.values()) if number is not None}
    return found.renumbered(numbered or dict.fromkeys(found.labels, 1))


def _write(place: VolumeFolder, ready: _Ready, kind: str) -> None:
    """A record that was there goes first, the new one comes last: where one is, the rest belongs to it."""
    sweep_parts(place.path)
    place.record.unlink(missing_ok=True)
    with replaced_file(place.image, shared=True) as file:
        np.save(file, np.ascontiguousarray(ready.image.numpy(), dtype=kind), allow_pickle=False)
    ready.labels.save(place.labels)
    ready.record.write(place.record)


def _source(files: VolumeFiles) -> tuple[int, ...]:
    """Bytes and time of both files."""
    found: list[int] = []
    for path in (files.image, files.mask):
        if path is not None:
            if not path.is_file():
                message = f"there is no volume {path}; check the path, and that the data set was unpacked completely"
                raise FileNotFoundError(message)
            told = path.stat()
            found += [told.st_size, told.st_mtime_ns]
    return tuple(found)


def _is_there(place: VolumeFolder, source: tuple[int, ...], kind: str) -> bool:
    """Whether a volume was prepared from these very files, and all of its image is there."""
    if not (place.record.is_file() and place.image.is_file() and place.labels.is_file()):
        return False
    try:
        record = VolumeRecord.read(place.record)
        image = np.load(place.image, mmap_mode="r", allow_pickle=False)  # refuses a file that is too short
    except (ValueError, OSError, EOFError, TypeError, OverflowError, SyntaxError):
        return False
    return record.source == source and image.shape == record.crop.size and image.dtype == kind


def _claim(root: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or make sure that those in the folder are the same."""
    claim_file(root / "settings.json", (json.dumps(settings, indent=1) + "\n").encode())
    before = read_settings(root)
    different = first_difference(before, settings)
    if different is None and list(before["organs"]) != list(settings["organs"]):
        different = "the organs in the order", list(before["organs"]), list(settings["organs"])
    if different is not None:
        name, old, new = different
        message = (
            f"{root} holds volumes that were prepared with {name} {old!r}, but now it is {new!r}. Go on with the "
            "settings it was begun with, or give another folder."
        )
        raise ValueError(message)


def _check(files: Sequence[VolumeFiles], organs: Mapping[str, int] | None, dtype: str, margin: int) -> None:
    if not files:
        message = "prepare_volumes needs at least one volume, none was given; check the folder."
        raise ValueError(message)
    name, count = Counter(volume.name for volume in files).most_common(1)[0]
    if count > 1:
        message = f"the names of volumes must be unique, but {count} are called {name!r}; give them a prefix."
        raise ValueError(message)
    if any(not volume.name for volume in files):
        message = "the names of volumes must have a letter at least, but one is ''; name its folder for it."
        raise ValueError(message)
    numbers = [] if organs is None else list(organs.values())
    wrong = not all(_counts(number, 1) for number in numbers) or len(set(numbers)) < len(numbers)
    if organs is not None and (wrong or not numbers or "" in organs):
        message = f"organs must be names, each with a whole number of its own from 1, got {dict(organs)}."
        raise ValueError(message)
    if dtype not in KINDS or not _counts(margin, 0):
        message = (
            f"dtype must be one of {', '.join(KINDS)} and margin a whole number, not negative, got {dtype!r} and "
            f"{margin!r}."
        )
        raise ValueError(message)


def _counts(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _volumes_in(folder: Path) -> dict[str, Path]:
    """The NIfTI files of a folder by their names without ending, sorted."""
    if not folder.is_dir():
        message = f"there is no folder {folder}; check the path, and that the data set was unpacked."
        raise FileNotFoundError(message)
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)):
        ending = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
        if ending is None or path.name.startswith("."):
            continue
        name = path.name.removesuffix(ending)
        if name in found:
            message = f"{path} and {found[name]} have the same name without ending; remove one."
            raise ValueError(message)
        found[name] = path
    return found
