"""The files of the CVPR 2025 challenge on interactive segmentation in 3-D: a volume, boxes, clicks, and results."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.data.npz_members import read_members
from ultrarefiner.data.volume_cases import Spacing3D
from ultrarefiner.types import Clicks

_BOX = ("z_min", "z_max", "z_mid", "z_mid_x_min", "z_mid_y_min", "z_mid_x_max", "z_mid_y_max")


@dataclass(frozen=True)
class ChallengeBox:
    """A box as the challenge draws it: all slices of the object, and its extent in the middle slice alone.

    Numbers are voxel indices, the last ones inclusive. The object may leave the box in other slices.

    Attributes:
        z_min: first slice of the object.
        z_max: last slice.
        z_mid: the slice in which the other four were measured.
        x_min: first column of the object in that slice.
        y_min: first row.
        x_max: last column.
        y_max: last row.

    Example:
        >>> ChallengeBox(2, 9, 5, x_min=10, y_min=20, x_max=30, y_max=40).corners
        (2, 20, 10, 9, 40, 30)
    """

    z_min: int
    z_max: int
    z_mid: int
    x_min: int
    y_min: int
    x_max: int
    y_max: int

    @property
    def corners(self) -> tuple[int, int, int, int, int, int]:
        """(z, y, x) of the first voxel and of the last, one after the other."""
        return self.z_min, self.y_min, self.x_min, self.z_max, self.y_max, self.x_max


@dataclass(frozen=True)
class InteractiveCase:
    """A volume with what a person said about each of its objects.

    Object i is number i + 1 in the result, or the i-th of the numbers above 0 in ``labels`` where there are truths.

    Attributes:
        image: one channel, in the file's own numbers (mostly 0 to 255).
        spacing: size of a voxel along the three axes, in mm, as the file has it, taken in the order of the array's
            axes, which is how the challenge's evaluation reads it. Some files hold SimpleITK's order instead, (x, y, z)
            beside an array (z, y, x), as scripts of MedSAM's kind write them; nothing in a file tells which it is.
        labels: the truth, 0 for background; None in test files.
        boxes: one an object; None where the file has none or an empty list (vessels, for example, have no useful box).
        clicks: one `Clicks` an object, of a batch of one, in the order in which they were made if the file tells it,
            else those in the object first; None before the first click. The evaluation notes None in the order where
            an object was perfect and got no click; that is no click.
        previous: the previous answer, numbers like those of the result; None where there is none.
    """

    image: Float[Tensor, "1 d h w"]
    spacing: Spacing3D
    labels: Int[Tensor, "d h w"] | None = None
    boxes: tuple[ChallengeBox, ...] | None = None
    clicks: tuple[Clicks, ...] | None = None
    previous: Int[Tensor, "d h w"] | None = None

    @property
    def objects(self) -> int:
        """How many objects are asked for: as many as there are boxes, or clicks, or numbers in the truth."""
        for prompts in (self.boxes, self.clicks):
            if prompts is not None:
                return len(prompts)
        return 0 if self.labels is None else int((np.unique(self.labels.cpu().numpy()) > 0).sum())


def read_interactive_case(path: str | os.PathLike[str]) -> InteractiveCase:
    """Read a case of the challenge: ``imgs``, ``spacing``, and where they are there ``gts``, ``boxes``, ``clicks``.

    The challenge stores boxes and clicks as pickled dictionaries. They are read by a reader that knows numbers,
    strings, lists, dictionaries and arrays (`load_plain`) and refuses everything else: no file can run code here.

    Args:
        path: an ".npz" file.

    Returns:
        Everything that the file says, checked: boxes and clicks lie inside the volume.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated or damaged, lacks ``imgs`` or ``spacing``, holds values of another shape or
            kind, NaN, a box or a click outside the volume, an order of clicks that does not fit the clicks, or a
            pickle of anything but plain values.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "case.npz"
        >>> box = dict(z_min=0, z_max=3, z_mid=1, z_mid_x_min=2, z_mid_y_min=1, z_mid_x_max=5, z_mid_y_max=4)
        >>> clicks = [{"fg": [[1, 2, 3]], "bg": []}]
        >>> np.savez(path, imgs=np.zeros((4, 6, 8), np.uint8), spacing=(3.0, 1.0, 1.0), boxes=[box], clicks=clicks)
        >>> case = read_interactive_case(path)
        >>> case.image.shape, case.boxes[0].corners, case.clicks[0].positions.tolist()
        (torch.Size([1, 4, 6, 8]), (0, 1, 2, 3, 4, 5), [[[1, 2, 3]]])

    References:
        The challenge's evaluation, github.com/JunMa11/CVPR-MedSegFMCompetition (CVPR25_iter_eval.py).
    """
    path = Path(path)
    found = read_members(path, ("imgs", "gts", "spacing", "boxes", "clicks", "clicks_order", "prev_pred"))
    for needed in ("imgs", "spacing"):
        if needed not in found:
            message = (
                f"{path} must hold {needed!r}, but it has {', '.join(sorted(found)) or 'nothing of the challenge'}; "
                "it is no case of the CVPR 2025 challenge, or a file of truths alone."
            )
            raise ValueError(message)
    image = _image(path, found["imgs"])
    size = tuple(image.shape[1:])
    clicks = _clicks(path, found.get("clicks"), found.get("clicks_order"), size)
    boxes = _boxes(path, found.get("boxes"), size)
    if boxes is not None and clicks is not None and len(boxes) != len(clicks):
        message = f"{path} has {len(boxes)} boxes and clicks for {len(clicks)} objects; export it again."
        raise ValueError(message)
    return InteractiveCase(
        image=image,
        spacing=_spacing(path, found["spacing"]),
        labels=_labels(path, "gts", found.get("gts"), size),
        boxes=boxes,
        clicks=clicks,
        previous=_labels(path, "prev_pred", found.get("prev_pred"), size),
    )


def write_interactive_case(path: str | os.PathLike[str], case: InteractiveCase) -> None:
    """Write a case as the challenge does, so that its programs read it; `read_interactive_case` gives it back.

    Whole numbers from 0 to 255 are written as bytes, others as float32. The file appears whole or not at all.

    Args:
        path: ".npz"; its folder is made.
        case: what to write; a part that is None is left out.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "case.npz"
        >>> write_interactive_case(path, InteractiveCase(torch.ones(1, 4, 6, 8), (3.0, 1.0, 1.0)))
        >>> read_interactive_case(path).image.sum().item()
        192.0
    """
    values = case.image[0].cpu().numpy()
    whole = values.size and 0 <= values.min() <= values.max() <= 255 and bool((values == np.round(values)).all())
    arrays: dict[str, Any] = {"imgs": values.astype(np.uint8 if whole else np.float32)}
    arrays["spacing"] = np.array(case.spacing, dtype=np.float64)
    for name, labels in (("gts", case.labels), ("prev_pred", case.previous)):
        if labels is not None:
            arrays[name] = labels.cpu().numpy().astype(np.int32)
    if case.boxes is not None:
        arrays["boxes"] = _objects([_box_entry(box) for box in case.boxes])
    if case.clicks is not None:
        arrays["clicks"] = _objects([_click_entry(clicks) for clicks in case.clicks])
        arrays["clicks_order"] = _objects([_order(clicks) for clicks in case.clicks])
    with replaced_file(path) as file:
        np.savez_compressed(file, **arrays)


def write_challenge_result(path: str | os.PathLike[str], labels: Int[Tensor, "d h w"]) -> None:
    """Write an answer as the challenge expects it: ``segs``, bytes, object i as the number i + 1.

    Args:
        path: ".npz", with the name of the case; its folder is made.
        labels: 0 for background.

    Raises:
        ValueError: a number is below 0 or above 255.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "case.npz"
        >>> write_challenge_result(path, torch.ones(4, 6, 8, dtype=torch.int64))
        >>> np.load(path)["segs"].dtype
        dtype('uint8')
    """
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) <= 255:
        message = (
            f"labels must be in 0 to 255, got {int(labels.min())} to {int(labels.max())}; the challenge reads bytes."
        )
        raise ValueError(message)
    with replaced_file(path) as file:
        np.savez_compressed(file, segs=labels.cpu().numpy().astype(np.uint8))


def _image(path: Path, values: Any) -> Float[Tensor, "1 d h w"]:
    if not isinstance(values, np.ndarray) or values.ndim != 3 or values.dtype.kind not in "biuf" or 0 in values.shape:
        message = f"imgs of {path} must be numbers (slices, rows, columns), got {_described(values)}; export it again."
        raise ValueError(message)
    numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        message = (
            f"imgs of {path} has {int((~np.isfinite(numbers)).sum())} voxels that are NaN or infinite; replace them by "
            "the value of the background."
        )
        raise ValueError(message)
    return torch.from_numpy(numbers)[None]


def _spacing(path: Path, values: Any) -> Spacing3D:
    sizes = np.ravel(values).tolist() if isinstance(values, np.ndarray | list) else [values]
    if len(sizes) != 3 or not all(isinstance(one, int | float) and 0 < one < math.inf for one in sizes):
        message = f"spacing of {path} must be three positive numbers in mm, got {sizes[:8]}; export it again."
        raise ValueError(message)
    z, y, x = (float(one) for one in sizes)
    return z, y, x


def _labels(path: Path, name: str, values: Any, size: tuple[int, ...]) -> Int[Tensor, "d h w"] | None:
    if values is None:
        return None
    if not isinstance(values, np.ndarray) or values.shape != size or values.dtype.kind not in "biu":
        message = (
            f"{name} of {path} must be whole numbers on the voxels of imgs, {size}, got {_described(values)}; export "
            "it again."
        )
        raise ValueError(message)
    if values.size and (values.min() < 0 or int(values.max()) > 2**31 - 1):
        message = f"{name} of {path} must be numbers of objects from 0 up, got {values.min()} to {values.max()}."
        raise ValueError(message)
    return torch.from_numpy(values.astype(np.int64))


def _boxes(path: Path, values: Any, size: tuple[int, ...]) -> tuple[ChallengeBox, ...] | None:
    if _nothing(values):
        return None
    entries = values if isinstance(values, list) else [values] if isinstance(values, dict) else None
    if entries is None or not all(isinstance(entry, dict) and set(_BOX) <= set(entry) for entry in entries):
        message = f"boxes of {path} must be one dictionary an object with {', '.join(_BOX)}, got {_described(values)}."
        raise ValueError(message)
    boxes = []
    for entry in entries:
        z0, z1, z, x0, y0, x1, y1 = numbers = [_index(entry[key]) for key in _BOX]
        box = None if None in numbers else ChallengeBox(*numbers)  # type: ignore[arg-type] # none is None
        depth, height, width = size
        if box is None or not (0 <= z0 <= z <= z1 < depth and 0 <= y0 <= y1 < height and 0 <= x0 <= x1 < width):  # type: ignore[operator] # likewise
            message = (
                f"boxes of {path} must lie inside the volume {size}, first index to last, with z_mid between z_min and "
                f"z_max; got {entry}."
            )
            raise ValueError(message)
        boxes.append(box)
    return tuple(boxes)


def _clicks(path: Path, values: Any, order: Any, size: tuple[int, ...]) -> tuple[Clicks, ...] | None:
    if _nothing(values):
        return None
    entries = values if isinstance(values, list) else [values] if isinstance(values, dict) else None
    if entries is None or not all(
        isinstance(entry, dict) and all(isinstance(entry.get(kind), list) for kind in ("fg", "bg")) for entry in entries
    ):
        message = (
            f"clicks of {path} must be one dictionary an object with the lists fg and bg, got {_described(values)}."
        )
        raise ValueError(message)
    orders = order.tolist() if isinstance(order, np.ndarray) else order
    if isinstance(values, dict) and isinstance(orders, list) and not any(isinstance(kinds, list) for kinds in orders):
        orders = [orders]  # of the only object
    told = [None] * len(entries) if orders is None else orders
    if not isinstance(told, list) or len(told) != len(entries):
        message = (
            f"clicks_order of {path} must be one list an object, {len(entries)} of them, got {_described(orders)}; "
            "export it again, or leave clicks_order out."
        )
        raise ValueError(message)
    return tuple(_clicks_of(path, entry, kinds, size) for entry, kinds in zip(entries, told, strict=True))


def _clicks_of(path: Path, entry: dict[str, list[Any]], order: Any, size: tuple[int, ...]) -> Clicks:
    for position in (*entry["fg"], *entry["bg"]):
        indices = [_index(one) for one in position] if isinstance(position, list) else [None]
        inside = len(indices) == 3 and all(
            index is not None and 0 <= index < side for index, side in zip(indices, size, strict=True)
        )
        if not inside:
            message = f"clicks of {path} must be (z, y, x) inside the volume {size}, got {position}; count from 0."
            raise ValueError(message)
    kinds = _kinds(path, entry, order)
    if not kinds:
        return Clicks.none(1, 3)
    left = {kind: iter(entry[kind]) for kind in ("fg", "bg")}
    positions = [[int(index) for index in next(left[kind])] for kind in kinds]
    return Clicks.at(positions, positive=[kind == "fg" for kind in kinds])


def _kinds(path: Path, entry: dict[str, list[Any]], order: Any) -> list[str]:
    """Of each click whether it is "fg" or "bg", as they were made; those in the object first where nobody said."""
    plain = ["fg"] * len(entry["fg"]) + ["bg"] * len(entry["bg"])
    if order is None:
        return plain
    kinds = [kind for kind in order if kind is not None] if isinstance(order, list) else []
    if not isinstance(order, list) or sorted(map(str, kinds)) != sorted(plain):
        message = (
            f"clicks_order of {path} must name each click of an object once, {plain.count('fg')} fg and "
            f"{plain.count('bg')} bg, got {_described(order)}; export it again, or leave clicks_order out."
        )
        raise ValueError(message)
    return kinds


def _nothing(values: Any) -> bool:
    """Whether a file says None or has an empty list; an array of numbers without any is how NumPy stores that."""
    return values is None or (values.shape[:1] == (0,) if isinstance(values, np.ndarray) else values == [])


def _index(value: object) -> int | None:
    """A whole number, which some files write as a float; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        return None
    return int(value)


def _described(values: Any) -> str:
    if isinstance(values, np.ndarray):
        return f"{values.dtype} of the shape {values.shape}"
    return f"{type(values).__name__} {str(values)[:80]}"


def _objects(entries: list[Any]) -> NDArray[np.object_]:
    """As the challenge's files hold them: one Python object an entry."""
    array = np.empty(len(entries), dtype=object)
    for index, entry in enumerate(entries):  # all at once, lists of one length would become rows
        array[index] = entry
    return array


def _box_entry(box: ChallengeBox) -> dict[str, int]:
    numbers = (box.z_min, box.z_max, box.z_mid, box.x_min, box.y_min, box.x_max, box.y_max)
    return dict(zip(_BOX, numbers, strict=True))


def _order(clicks: Clicks) -> list[str]:
    kept = clicks.positive[clicks.valid].tolist()
    return ["fg" if positive else "bg" for positive in kept]


def _click_entry(clicks: Clicks) -> dict[str, list[list[int]]]:
    return {
        name: clicks.positions[clicks.valid & (clicks.positive == positive)].tolist()
        for name, positive in (("fg", True), ("bg", False))
    }
