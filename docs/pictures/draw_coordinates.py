"""Draw coordinates.png: the two ways to number pixels, one image in SAM's and in MedSAM's frame, a region and its crop.

python docs/pictures/draw_coordinates.py
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

import ultrarefiner as ur
from ultrarefiner.data import Phantoms
from ultrarefiner.ops import Frame, pad_frame, squash_frame, tight_box

FRAME = 256
ORANGE, GREEN, BLUE = "#E69F00", "#009E73", "#56B4E9"


def numbering(axis: Axes) -> None:
    """A row of four pixels: edges below, indices above."""
    greys = (0.35, 0.85, 0.55, 0.7)
    for index, grey in enumerate(greys):
        axis.add_patch(Rectangle((index, 0), 1, 1, facecolor=str(grey), edgecolor="black"))
        axis.plot(index + 0.5, 0.5, "o", color=BLUE, ms=7)
        axis.text(index + 0.5, 1.12, str(index), ha="center", color="#1f6fb2", fontsize=12)
    for edge in range(5):
        axis.plot([edge, edge], [-0.12, 0], color=ORANGE, lw=2)
        axis.text(edge, -0.2, str(edge), ha="center", va="top", color="#b26f00", fontsize=12)
    axis.text(2, 1.42, "pixel indices: what SAM is told", ha="center", color="#1f6fb2", fontsize=10)
    axis.text(2, -0.6, "pixel edges: what is cropped and scaled", ha="center", va="top", color="#b26f00", fontsize=10)
    axis.text(2, -0.95, "edge = index + 0.5", ha="center", va="top", fontsize=10)
    axis.set_xlim(-0.3, 4.3)
    axis.set_ylim(-1.3, 1.7)
    axis.set_aspect("equal")
    axis.set_title("one row of pixels", fontsize=10)
    axis.set_axis_off()


def in_frame(axis: Axes, image: Tensor, box: Tensor, frame: Frame, title: str) -> None:
    """An image where it lies in the frame, with a lesion's box moved by the frame's map."""
    height, width = frame.content
    axis.add_patch(Rectangle((0, 0), FRAME, FRAME, facecolor="#d9d9d9", hatch="//", edgecolor="#b0b0b0", lw=0))
    axis.imshow(image[0], cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0), zorder=2)
    x0, y0, x1, y1 = frame.to_frame(box).tolist()
    axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=ORANGE, lw=2, zorder=3))
    axis.set_xlim(0, FRAME)
    axis.set_ylim(FRAME, 0)
    axis.set_xticks([0, FRAME])
    axis.set_yticks([0, height, FRAME] if height < FRAME else [0, FRAME])
    axis.tick_params(labelsize=8)
    axis.set_title(title, fontsize=10)


def region(whole: Axes, cut: Axes, image: Tensor, mask: Tensor) -> None:
    """The region around a soft mask, and what SAM sees of it."""
    soft = torch.nn.functional.avg_pool2d(mask[None], 9, 1, 4)
    cropper = ur.ROICropper(size=FRAME, expand=0.2)
    box = cropper.locate(soft)
    whole.imshow(image[0], cmap="gray", vmin=0, vmax=1, extent=(0, image.shape[-1], image.shape[-2], 0))
    whole.contour(
        torch.arange(soft.shape[-1]) + 0.5, torch.arange(soft.shape[-2]) + 0.5, soft[0, 0], [0.5], colors=ORANGE
    )
    x0, y0, x1, y1 = box[0, 0].tolist()
    whole.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=BLUE, lw=2))
    whole.set_title("ROICropper: a region around the mask …", fontsize=10)
    whole.set_axis_off()
    cut.imshow(cropper.crop(image[None], box)[0, 0, 0], cmap="gray", vmin=0, vmax=1)
    cut.contour(cropper.crop_masks(soft, box)[0, 0], [0.5], colors=ORANGE)
    cut.set_title("… is all that SAM sees", fontsize=10)
    for side in cut.spines.values():
        side.set(color=BLUE, linewidth=2)
    cut.set_xticks([])
    cut.set_yticks([])


def save(figure: Figure, path: Path) -> None:
    """With a palette, for a small file."""
    memory = io.BytesIO()
    figure.savefig(memory, dpi=74)
    Image.open(memory).convert("RGB").quantize(200, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the picture")
    args = parser.parse_args()
    case = Phantoms(8, size=(180, 280), seed=2)[1]
    box = tight_box(case.mask[None] > 0.5)[0, 0].float()
    figure = Figure(figsize=(10.5, 6.4), layout="constrained")
    axes = figure.subplot_mosaic(
        [["row", "sam", "medsam"], ["row", "whole", "crop"]],
        width_ratios=[1.2, 1, 1],
    )
    numbering(axes["row"])
    size = (case.image.shape[-2], case.image.shape[-1])
    in_frame(axes["sam"], case.image, box, pad_frame(size, FRAME), f"{size[0]} x {size[1]} in SAM's frame: padded")
    in_frame(axes["medsam"], case.image, box, squash_frame(size, FRAME), "in MedSAM's: stretched")
    region(axes["whole"], axes["crop"], case.image, case.mask)
    save(figure, args.out / "coordinates.png")


if __name__ == "__main__":
    main()
