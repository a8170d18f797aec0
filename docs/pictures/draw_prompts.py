"""Draw soft_prompts.png: where the plain formulas go wrong, what mends them, and the gradient that pulls a prompt.

python docs/pictures/draw_prompts.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

import ultrarefiner as ur

SIDE = 128
ORANGE, GREEN, BLUE = "#E69F00", "#009E73", "#56B4E9"


def disc(x: float, y: float, radius: float) -> Tensor:
    """A soft disc, (h, w) in [0, 1]."""
    centres = torch.arange(SIDE) + 0.5
    distance = ((centres[None, :] - x) ** 2 + (centres[:, None] - y) ** 2).sqrt()
    return torch.sigmoid((radius - distance) / 1.5)


def box(axis: Axes, prompts: ur.Prompts, colour: str, style: str, label: str) -> None:
    x0, y0, x1, y1 = prompts.boxes[0, 0].tolist()
    axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=colour, ls=style, lw=2, label=label))


def show(axis: Axes, mask: Tensor, title: str) -> None:
    axis.imshow(mask, cmap="gray", vmin=0, vmax=1)
    axis.set_title(title, fontsize=10)
    axis.set_axis_off()


def floors(axis: Axes) -> None:
    """A probability of 0.01 everywhere, with and without a floor."""
    mask = disc(64, 64, 14).clamp(min=0.01)
    show(axis, mask, "0.01 everywhere: the box")
    for floor, colour, style, label in ((0.0, ORANGE, "--", "plain formula"), (0.01, BLUE, "-", "floor=0.01")):
        box(
            axis, ur.DifferentiablePromptExtractor(image_size=SIDE, floor=floor)(mask[None, None]), colour, style, label
        )


def points(axis: Axes, mask: Tensor, title: str) -> None:
    """The centroid and the mean-shift point of a mask."""
    show(axis, mask, title)
    for rule, colour, mark, label in (
        (ur.Centroid(), ORANGE, "x", "Centroid"),
        (ur.MeanShift(), GREEN, "*", "MeanShift"),
    ):
        extractor = ur.DifferentiablePromptExtractor(image_size=SIDE, positive=rule)
        x, y = extractor(mask[None, None]).points[0, 0, 0].tolist()
        axis.plot(x, y, mark, color=colour, ms=13, mew=3 if mark == "x" else 1, ls="", label=label)


def gradient(axis: Axes) -> None:
    """How the box's right side answers to each pixel."""
    mask = (0.9 * disc(54, 64, 22))[None, None].requires_grad_()
    prompts = ur.DifferentiablePromptExtractor(image_size=SIDE)(mask)
    prompts.boxes[0, 0, 2].backward()
    limit = mask.grad.abs().max().item()
    axis.imshow(mask.grad[0, 0], cmap="RdBu_r", vmin=-limit, vmax=limit)
    box(axis, ur.Prompts(None, None, prompts.boxes.detach(), None, prompts.valid), "black", "-", "the box")
    axis.set_title("d (right side) / d P: red pulls it right", fontsize=10)
    axis.set_axis_off()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the picture")
    args = parser.parse_args()
    figure = Figure(figsize=(13, 3.7), layout="constrained")
    axes = figure.subplots(1, 4)
    floors(axes[0])
    points(axes[1], disc(64, 64, 40) - disc(64, 64, 24), "a ring: the positive point")
    points(axes[2], torch.maximum(disc(34, 40, 18), disc(96, 90, 14)), "two lesions: the positive point")
    gradient(axes[3])
    for axis in axes:
        axis.legend(loc="lower center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=9)
    figure.savefig(args.out / "soft_prompts.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
