"""Any folder of images and any folder of masks, paired by the names of the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ultrarefiner.data.cases import CaseDataset, CaseFiles, natural_key
from ultrarefiner.data.tables import groups_of

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pgm")


class ImageFolder(CaseDataset):
    """A folder of images and one of masks: the mask of "a.jpg" is "a.png", or "a_mask.png" with a suffix.

    Args:
        images: the folder of images. Files that are no pictures, and hidden ones, are passed over.
        masks: the folder of masks; it may be the same folder if there is a suffix.
        mask_suffix: what stands between an image's name and the end of its mask's name, for example "_mask".
        group: the group (patient) of a case, from its name; without it and without ``groups`` every case is a group of
            its own.
        groups: in place of ``group`` a CSV file with the columns case and group, as `BUSI` takes it: cases of one group
            are of one patient, or near-duplicates. It names every case; names of other cases are passed over.
        label: the label of a case, from its name; without it every label is "unknown".
        label_maps: whether the masks are label maps, one number an object, in which any number above 0 is lesion.
        colour: whether images are read with their colours; the default is grey.
        unseen: whether the set is kept for testing alone.

    Raises:
        FileNotFoundError: one of the folders, or the table of groups, is not there.
        ValueError: a folder has no pictures, two pictures have the same name, an image has no mask, or the
            same folder is given twice without a suffix (masks without an image are passed over); the table lacks a
            column or a case, or ``group`` is given beside it.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> Image.new("L", (4, 3)).save(root / "p1-left.png")
        >>> Image.new("L", (4, 3), 255).save(root / "p1-left_mask.png")
        >>> folder = ImageFolder(root, root, mask_suffix="_mask", group=lambda name: name.split("-")[0])
        >>> folder.names, folder.groups, folder[0].mask.mean().item()
        (('p1-left',), ('p1',), 1.0)
    """

    def __init__(
        self,
        images: str | Path,
        masks: str | Path,
        *,
        mask_suffix: str = "",
        group: Callable[[str], str] | None = None,
        groups: str | Path | None = None,
        label: Callable[[str], str] | None = None,
        label_maps: bool = False,
        colour: bool = False,
        unseen: bool = False,
    ) -> None:
        pairs = pair_files(images, masks, mask_stem=lambda stem: stem + mask_suffix)
        group_of = groups_of([name for name, _, _ in pairs], groups=groups, group=group)
        files = [
            CaseFiles(
                name=name,
                image=image,
                masks=(mask,),
                label="unknown" if label is None else label(name),
                group=group_of[name],
                label_maps=label_maps,
            )
            for name, image, mask in pairs
        ]
        super().__init__(files, colour=colour, unseen=unseen)


def pair_files(
    images: str | Path, masks: str | Path, *, mask_stem: Callable[[str], str] = str
) -> list[tuple[str, Path, Path]]:
    """(name, image, mask) of every image in a folder, in natural order of the names.

    Args:
        images: the folder of images.
        masks: the folder of masks; it may be the same one if masks have other names than images.
        mask_stem: the name of the mask, without its ending, from the name of the image; by default the same
            name.

    Raises:
        FileNotFoundError: one of the folders is not there.
        ValueError: a folder has no pictures, two pictures have the same name, an image has no mask or would
            be its own mask.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("a", "a_mask"):
        ...     Image.new("L", (4, 3)).save(root / f"{name}.png")
        >>> pairs = pair_files(root, root, mask_stem=lambda stem: stem + "_mask")
        >>> [(name, mask.name) for name, _, mask in pairs]
        [('a', 'a_mask.png')]
    """
    images, masks = Path(images), Path(masks)
    image_of, mask_of = _by_stem(pictures_in(images)), _by_stem(pictures_in(masks))
    if images.resolve() == masks.resolve():
        if any(mask_stem(stem) == stem for stem in image_of):
            message = (
                f"images and masks are both {images}, so every image would be its own mask; give another "
                "folder or a suffix"
            )
            raise ValueError(message)
        taken = {mask_stem(stem) for stem in image_of}
        image_of = {stem: path for stem, path in image_of.items() if stem not in taken}
    unpaired = [path for stem, path in image_of.items() if mask_stem(stem) not in mask_of]
    if unpaired:
        message = (
            f"{len(unpaired)} of {len(image_of)} images in {images} have no mask in {masks}; the first is "
            f"{unpaired[0].name!r}, whose mask must be called {mask_stem(unpaired[0].stem)!r}; add it (black for no "
            "lesion) or take the image away"
        )
        raise ValueError(message)
    return [(stem, path, mask_of[mask_stem(stem)]) for stem, path in image_of.items()]


def pictures_in(folder: str | Path) -> list[Path]:
    """The pictures of a folder, not of folders inside it, in natural order of their names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there is no picture in it; of volumes the sentence says what opens them.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("10.png", "2.PNG", "notes.txt", "._2.png"):
        ...     _ = (root / name).write_bytes(b"")
        >>> [path.name for path in pictures_in(root)]
        ['2.PNG', '10.png']
    """
    folder = Path(folder)
    if not folder.is_dir():
        message = f"there is no folder {folder}; check the path, and that the data set was unpacked"
        raise FileNotFoundError(message)
    found = [
        path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")
    ]
    volumes = [] if found else [path for path in folder.iterdir() if path.name.lower().endswith((".nii", ".nii.gz"))]
    if volumes:
        message = (
            f"the folder {folder} has no pictures, but {len(volumes)} NIfTI volumes (such as "
            f"{min(volumes).name!r}); open them with VolumeSlices, or as the command's data set 'volumes'"
        )
        raise ValueError(message)
    if not found:
        message = (
            f"the folder {folder} has no pictures ({', '.join(PICTURE_SUFFIXES)}); give the folder that holds them"
        )
        raise ValueError(message)
    return sorted(found, key=lambda path: natural_key(path.name))


def find_root(root: str | Path, parts: Sequence[str], *, inside: Sequence[str], dataset: str) -> Path:
    """The folder that has all the parts: the given one, or a named folder inside it (also twice nested).

    Raises:
        FileNotFoundError: none of them has all the parts; the sentence says which folders were looked at.

    Example:
        >>> import tempfile
        >>> outer = Path(tempfile.mkdtemp())
        >>> (outer / "BUS" / "GT").mkdir(parents=True)
        >>> find_root(outer, ["GT"], inside=["BUS"], dataset="BUS").name
        'BUS'
    """
    root = Path(root)
    places = [root, *(root / name for name in inside), *(root / name / name for name in inside)]
    for place in places:
        if all((place / part).exists() for part in parts):
            return place
    looked = ", ".join(str(place) for place in places)
    message = (
        f"no {dataset} here: expected {' and '.join(parts)} in one of {looked}; give the folder that has them as root"
    )
    raise FileNotFoundError(message)


def find_folder(places: Sequence[Path], names: Sequence[str], *, dataset: str) -> Path:
    """The first folder of one of the names in one of the places: the same data set is packed under several names.

    Raises:
        FileNotFoundError: there is none; the sentence says which folders were looked at.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp())
        >>> (place / "masks").mkdir()
        >>> find_folder([place], ["mask", "masks"], dataset="MoNuSeg").name
        'masks'
    """
    for place in places:
        for name in names:
            if (place / name).is_dir():
                return place / name
    looked = ", ".join(str(place) for place in places)
    message = (
        f"no {dataset} here: expected a folder {' or '.join(names)} in one of {looked}; check the root, and that the "
        "data set was unpacked completely"
    )
    raise FileNotFoundError(message)


def _by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for path in paths:
        if path.stem in by_stem:
            message = (
                f"{path} and {by_stem[path.stem]} have the same name without ending; a case needs one "
                "picture: remove one"
            )
            raise ValueError(message)
        by_stem[path.stem] = path
    return by_stem
