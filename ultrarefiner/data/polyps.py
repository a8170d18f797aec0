"""Polyps in colonoscopy: five sets in PraNet's split."""

from __future__ import annotations

from pathlib import Path

from ultrarefiner.data.cases import CaseDataset, CaseFiles, natural_key
from ultrarefiner.data.folder import find_folder, find_root, pair_files
from ultrarefiner.data.tables import groups_of

_IMAGES, _MASKS = ("images", "image"), ("masks", "mask")


class Polyps(CaseDataset):
    """Colour images of polyps: 1450 to train on (900 of Kvasir, 550 of CVC-ClinicDB), and five sets to test on.

    Expected, as PraNet publishes them: ``TrainDataset/{images,masks}/`` (or ``{image,mask}``) and
    ``TestDataset/SET/{images,masks}/`` with SET one of Kvasir (100 images), CVC-ClinicDB (62), CVC-ColonDB (380),
    ETIS-LaribPolypDB (196) and CVC-300 (60). Cases are called "train/1" or "CVC-ColonDB/1", for the numbers come again
    in every set. Labels are unknown.

    The files do not say which images are of one patient or one sequence, and the CVC sets and ETIS are frames of
    videos: many are near-copies of each other. Without a table of groups every case is a group of its own: folds of the
    training set then have copies on both sides. So has PraNet's own split, for its 62 test images of CVC-ClinicDB were
    drawn by frame, not by sequence; CVC-300 and CVC-ColonDB share sequences, too.

    Masks are cut at half of their range (`read_mask`); AutoSAM's code takes any number above 0, which adds the faint
    rim of smoothed masks.

    Args:
        root: the folder with TrainDataset and TestDataset, or its parent.
        split: "train", or the name of a set in TestDataset, which is an unseen set.
        groups: a CSV file with the columns case and group: images of one group are of one sequence or patient. It
            names every case; names of other cases are passed over.

    Raises:
        FileNotFoundError: the folder is not in this layout, has no such set, or there is no such CSV file.
        ValueError: a folder has no pictures, an image has no mask, or the CSV file lacks a column or a case.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for folder, kind in (("images", "RGB"), ("masks", "L")):
        ...     (root / "TestDataset" / "Kvasir" / folder).mkdir(parents=True)
        ...     Image.new(kind, (4, 3)).save(root / "TestDataset" / "Kvasir" / folder / "cju0.png")
        >>> Polyps(root, split="Kvasir").names, Polyps(root, split="Kvasir").unseen
        (('Kvasir/cju0',), True)

    References:
        Fan et al.: PraNet: parallel reverse attention network for polyp segmentation. MICCAI 2020, arXiv 2006.11392;
        github.com/DengPingFan/PraNet. Jha et al.: Kvasir-SEG, 2020. Bernal et al.: CVC-ClinicDB, 2015, and CVC-ColonDB,
        2012. Silva et al.: ETIS-Larib, 2014. Vázquez et al.: CVC-300, 2017.
    """

    def __init__(self, root: str | Path, *, split: str = "train", groups: str | Path | None = None) -> None:
        folder = "TrainDataset" if split == "train" else "TestDataset"
        outer = find_root(root, [folder], inside=["polyp", "PolypDataset"], dataset="polyp set in PraNet's split")
        places = [outer / folder, outer / folder / folder]
        if split != "train":
            places = [_test_set(places, split)]
        images = find_folder(places, _IMAGES, dataset=f"polyp set {split!r}")
        masks = find_folder([images.parent], _MASKS, dataset=f"polyp set {split!r}")
        named = [(f"{split}/{stem}", image, mask) for stem, image, mask in pair_files(images, masks)]
        group_of = groups_of([name for name, _, _ in named], groups=groups)
        files = [CaseFiles(name, image, (mask,), "unknown", group_of[name]) for name, image, mask in named]
        super().__init__(files, colour=True, unseen=split != "train")


def _test_set(places: list[Path], split: str) -> Path:
    for place in places:
        if split and (place / split).is_dir():
            return place / split
    inner = (path for place in places if place.is_dir() for path in place.iterdir() if path.is_dir())
    found = sorted({path.name for path in inner} - {"TestDataset"}, key=natural_key)
    message = (
        f"split must be 'train' or the name of a set in {places[0]}, got {split!r}; there is "
        f"{', '.join(map(repr, found)) or 'none'}: give one of them, or unpack the set"
    )
    raise FileNotFoundError(message)
