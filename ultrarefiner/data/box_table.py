"""Images with boxes and no masks: a folder of pictures and a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ultrarefiner.data.boxes_of import BoxesOf
from ultrarefiner.data.cases import CaseDataset, CaseFiles
from ultrarefiner.data.folder import pictures_in
from ultrarefiner.data.tables import groups_of


class BoxTable(BoxesOf):
    r"""A folder of images and a CSV file with the columns case, x0, y0, x1, y1.

    A case is called as its image's file, without the ending. What the boxes mean, and what a case's mask is: `BoxesOf`.
    An image without a row has no lesion, so the folder must not hold masks or other pictures beside the images: each
    would be a case without a lesion. ``unboxed`` names those without a row; look at it before training.

    All boxes are held against the sizes of their images here, from the images' headers.

    Args:
        images: the folder.
        table: the CSV file.
        group: the group (patient) of a case, from its name; without it and without ``groups`` every case is a group of
            its own.
        groups: in place of ``group`` a CSV file with the columns case and group, as `BUSI` takes it: cases of one group
            are of one patient, or near-duplicates. It names every case; names of other cases are passed over.
        colour: whether images are read with their colours; the default is grey.
        unseen: whether the set is kept for testing alone.

    Raises:
        FileNotFoundError: the folder or one of the tables is not there.
        ValueError: a row names no image, its numbers are no box, or boxes lie outside of their images; the table of
            groups lacks a column or a case, or ``group`` is given beside it.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> Image.new("L", (8, 6)).save(root / "a.png")
        >>> _ = (root / "boxes.csv").write_text("case,x0,y0,x1,y1\na,1,2,5,4\n")
        >>> cases = BoxTable(root, root / "boxes.csv")
        >>> cases[0].mask[0, :, 1:5].sum(1).tolist(), cases.unboxed
        ([0.0, 0.0, 4.0, 4.0, 0.0, 0.0], ())
    """

    dataset: CaseDataset

    def __init__(
        self,
        images: str | Path,
        table: str | Path,
        *,
        group: Callable[[str], str] | None = None,
        groups: str | Path | None = None,
        colour: bool = False,
        unseen: bool = False,
    ) -> None:
        found: dict[str, Path] = {}
        for path in pictures_in(Path(images)):
            if path.stem in found:
                message = f"{path} and {found[path.stem].name} would be one case; rename one of them."
                raise ValueError(message)
            found[path.stem] = path
        group_of = groups_of(list(found), groups=groups, group=group)
        files = [CaseFiles(name, path, (), "unknown", group_of[name]) for name, path in found.items()]
        super().__init__(CaseDataset(files, colour=colour, unseen=unseen), table)

    @property
    def files(self) -> tuple[CaseFiles, ...]:
        """Where the images lie."""
        return self.dataset.files
