"""Pictures on disk to tensors: images to grey or RGB in [0, 1], masks to 0 and 1, however they are stored."""

from __future__ import annotations

import zlib
from pathlib import Path
from struct import error as struct_error

import numpy as np
import torch
from jaxtyping import Float, Float32
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ultrarefiner.data.channels import in_channels

_ORIENTATION = 0x0112  # in EXIF: 1 is upright, 2 to 4 keep height and width, 5 to 8 swap them
_BROKEN = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct_error, zlib.error)


def read_image(path: str | Path) -> Float[Tensor, "1 h w"]:
    r"""Read a picture as one grey channel in [0, 1].

    The stored number is divided by the largest that its format can hold: 255 for 8 bits, 65535 for 16 bits, 1
    for 1 bit; a floating-point picture must lie in [0, 1] already. Nothing is stretched to the picture's own
    range. Colours (RGB, palette) become their luminance :math:`0.299 R + 0.587 G + 0.114 B`; what is
    transparent is laid over black. A picture that says that it lies on its side (EXIF) is turned upright, as every
    viewer shows it, where boxes and masks are drawn; so are masks. A mask without EXIF, of an image that has it, must
    be drawn on the image as shown.

    Args:
        path: a PNG, TIFF, BMP, JPEG or any other file that Pillow reads, with one picture in it. Pillow gives
            colour pictures of 16 bits a channel with 8 bits.

    Returns:
        The picture, float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, is no picture, holds several pictures or numbers of unknown range.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "one.png"
        >>> Image.new("L", (3, 2), 51).save(path)
        >>> read_image(path).shape, read_image(path).max().item()
        (torch.Size([1, 2, 3]), 0.2...)
    """
    colours, _ = _read(Path(path))
    return in_channels(colours, colour=False)


def read_rgb(path: str | Path) -> Float[Tensor, "3 h w"]:
    """Read a picture as red, green and blue in [0, 1]; the three are equal where the file is grey.

    Args:
        path: as for `read_image`, which says how the numbers are scaled and what is raised.

    Returns:
        The picture, float32.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "red.png"
        >>> Image.new("RGB", (3, 2), (255, 0, 51)).save(path)
        >>> read_rgb(path).shape, read_rgb(path)[:, 0, 0].tolist()
        (torch.Size([3, 2, 3]), [1.0, 0.0, 0.2...])
    """
    colours, _ = _read(Path(path))
    return in_channels(colours, colour=True)


def read_mask(path: str | Path) -> Float[Tensor, "1 h w"]:
    r"""Read a mask as 0 and 1.

    A pixel belongs to the mask where its brightest colour channel reaches half of what the format can hold
    (128 of 255). Any number above zero would not do: the faint rim of an anti-aliased edge would make every
    lesion larger. The brightest channel and not the luminance: a lesion painted pure red has the luminance
    0.3. A file whose largest number is 1 is a label map (0 background, 1 lesion) and is read as such.

    Args:
        path: as for `read_image`.

    Returns:
        The mask, float32, each pixel 0 or 1. A file that is all black is an empty mask.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or it is neither black and white nor a 0/1 label map: it has
            numbers above 1, and none reaches half of the range.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mask.png"
        >>> Image.fromarray(np.array([[0, 100, 128, 255]], dtype=np.uint8)).save(path)
        >>> read_mask(path)
        tensor([[[0., 0., 1., 1.]]])
    """
    colours, unit = _read(Path(path))
    brightest = colours.max(axis=2)
    largest = float(brightest.max())
    label_map = unit < 1 and largest < 1.5 * unit
    if 0 < largest < 0.5 and not label_map:
        message = (
            f"{path} is not a mask that can be read without guessing: its largest number is {largest / unit:g}, "
            f"but a mask has 0 and {round(1 / unit)}, or 0 and 1 as labels; save the lesion's pixels with one of those"
        )
        raise ValueError(message)
    inside = brightest > 0 if label_map else brightest >= 0.5
    return torch.from_numpy(inside.astype(np.float32))[None]


def read_labels(path: str | Path) -> Float[Tensor, "1 h w"]:
    r"""Read a label map, one number an object (0 background, 1 to n objects), as the union of all objects.

    A pixel belongs to the mask where its number is above 0, whatever the number means; of a palette picture that is the
    index, not the colour. It is not for masks of black and white, whose faint rims would count in full: `read_mask`
    reads those. No file says which of the two it is; the reader of its data set does (`CaseFiles`).

    Args:
        path: as for `read_image`, in a format that keeps numbers as they are.

    Returns:
        The mask, float32, each pixel 0 or 1. A file of zeros is an empty mask.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or it is a JPEG, whose compression leaves numbers beside every edge.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "glands.bmp"
        >>> Image.fromarray(np.array([[0, 1, 2, 17]], dtype=np.uint8)).save(path)
        >>> read_labels(path)
        tensor([[[0., 1., 1., 1.]]])
    """
    numbers, _ = _read(Path(path), labels=True)
    return torch.from_numpy((numbers.max(axis=2) > 0).astype(np.float32))[None]


def read_colours(path: str | Path) -> Float32[np.ndarray, "h w c"]:
    """Read a picture with its colours, one channel (grey) or three, in [0, 1], laid over black.

    Args:
        path: as for `read_image`, which says how the numbers are scaled and what is raised.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "red.png"
        >>> Image.new("RGB", (1, 1), (255, 0, 0)).save(path)
        >>> read_colours(path).tolist()
        [[[1.0, 0.0, 0.0]]]
    """
    colours, _ = _read(Path(path))
    return colours


def picture_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of a picture as `read_image` gives it, turned upright, from its header alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no picture.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "one.png"
        >>> Image.new("L", (3, 2)).save(path)
        >>> picture_size(path)
        (2, 3)
    """
    try:
        with Path(path).open("rb") as stream, Image.open(stream) as picture:
            turned = _orientation(picture) >= 5
            # Whether the size of an unread TIFF is that of the upright picture differs from Pillow to Pillow.
            if turned and picture.format == "TIFF":
                ImageOps.exif_transpose(picture, in_place=True)
                turned = False
            height, width = int(picture.height), int(picture.width)
            return (width, height) if turned else (height, width)
    except FileNotFoundError:
        raise FileNotFoundError(_missing(Path(path))) from None
    except _BROKEN as error:
        raise ValueError(_unreadable(Path(path), error)) from error


def _read(path: Path, *, labels: bool = False) -> tuple[np.ndarray, float]:
    """Colours (h, w, 1 or 3) in [0, 1], laid over black, and the smallest step that the format knows.

    Of a palette picture the colours, or, for labels, the indices.
    """
    try:
        # Not by its path: Pillow then maps a plain TIFF into memory and mixes up the rows of one that lies askew.
        with path.open("rb") as stream, Image.open(stream) as picture:
            frames, turned = getattr(picture, "n_frames", 1), _orientation(picture) > 1
            picture.load()
            if turned:
                ImageOps.exif_transpose(picture, in_place=True)
            lossy = picture.format == "JPEG"
            stored, largest = (None, 1.0) if frames > 1 else _numbers(picture, labels=labels)
    except FileNotFoundError:
        raise FileNotFoundError(_missing(path)) from None
    except _BROKEN as error:
        raise ValueError(_unreadable(path, error)) from error
    if stored is None:
        message = f"{path} holds {frames} pictures, one is expected; save each as a file of its own"
        raise ValueError(message)
    if labels and lossy:
        message = (
            f"{path} is a JPEG, which does not keep the numbers of a label map: beside every edge it has some above 0; "
            "take the map in its first format (PNG, BMP, TIFF), or read the file as a mask of black and white"
        )
        raise ValueError(message)
    numbers = stored.astype(np.float32).reshape(*stored.shape[:2], -1) / np.float32(largest)
    if not (np.isfinite(numbers).all() and numbers.min() >= 0 and numbers.max() <= 1):
        message = (
            f"{path} has numbers from {stored.min()} to {stored.max()}, whose range the file does not say; "
            "save it with 8 or "
            "16 bits a pixel, or as floating point in [0, 1]"
        )
        raise ValueError(message)
    channels = numbers.shape[2]
    if channels in (2, 4):
        numbers = numbers[:, :, : channels - 1] * numbers[:, :, channels - 1 :]
    return numbers, 1.0 / largest


def _orientation(picture: Image.Image) -> int:
    """EXIF's number for how a picture lies, 1 where it says nothing that can be read; from the header alone."""
    try:
        # Not the method of PNG's own class, which reads all pixels to look behind them; nor do browsers.
        found = Image.Image.getexif(picture).get(_ORIENTATION, 1)
    except (*_BROKEN, KeyError, TypeError):
        return 1
    return int(found) if found in range(1, 9) else 1


def _numbers(picture: Image.Image, *, labels: bool) -> tuple[np.ndarray, float]:
    """The stored numbers, (h, w) or (h, w, channels), and the largest that the format can hold."""
    if picture.mode in ("1", "F"):
        return np.asarray(picture, dtype=np.float32), 1.0
    if picture.mode.startswith("I"):  # "I;16" and its byte orders; "I" is how older Pillows open 16-bit PNG
        return np.asarray(picture), 65535.0
    if picture.mode in ("L", "LA", "RGB", "RGBA") or (labels and picture.mode == "P"):
        plain = picture
    else:
        transparent = picture.mode in ("PA", "La", "RGBa") or "transparency" in picture.info
        plain = picture.convert("RGBA" if transparent else "RGB")
    return np.asarray(plain), 255.0


def _missing(path: Path) -> str:
    return f"there is no picture {path}; check the path, and that the data set was unpacked completely"


def _unreadable(path: Path, error: Exception) -> str:
    return (
        f"{path} cannot be read as a picture ({error}); it is truncated, damaged or of another kind: "
        "download or export it again"
    )
