"""Draw normalisation.png: one image as SAM and as MedSAM want it, and each with the other's policy.

python docs/pictures/draw_normalisation.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

import ultrarefiner as ur
from ultrarefiner.data import Phantoms
from ultrarefiner.sam import TwiceNormalisedInput

SIDE = 128
LOW, HIGH = -2.2, 2.7
ORANGE, BLUE, RED = "#E69F00", "#56B4E9", "#D55E00"


def show(axis: Axes, values: Axes, seen: Tensor, title: str, colour: str) -> None:
    """The first channel of an input on the scale that all share, and how often each value comes."""
    channel = seen[0, 0]
    axis.imshow(channel, cmap="gray", vmin=LOW, vmax=HIGH)
    axis.set_title(title, fontsize=10, color=colour)
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set(color=colour, linewidth=2)
    values.hist(channel.flatten().numpy(), bins=60, range=(LOW, HIGH), color=colour)
    values.axvspan(0, 1, color="#e8e8e8", zorder=0)
    values.set_xlim(LOW, HIGH)
    values.set_yticks([])
    values.tick_params(labelsize=8)
    values.set_xlabel(f"{channel.min():.2f} to {channel.max():.2f}", fontsize=9)
    values.spines[["top", "right", "left"]].set_visible(False)


def padded_first(sam: ur.SAMInput, image: Tensor) -> Tensor:
    """The image scaled and padded with black, and only then normalised."""
    height, width = sam.frame(image.shape[-2:]).content
    scaled = functional.interpolate(image, (height, width), mode="bilinear", antialias=True)
    return (functional.pad(scaled, (0, SIDE - width, 0, SIDE - height)) - sam.mean) / sam.std


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the picture")
    args = parser.parse_args()
    image = (0.1 + 0.5 * Phantoms(8, size=(180, 280), seed=2)[1].image)[None]
    sam, medsam = ur.SAMInput(SIDE), ur.MedSAMInput(SIDE)
    shown = (
        (sam(image), "SAM's input\nfor SAM's weights", BLUE),
        (medsam(image), "MedSAM's input\nfor MedSAM's weights", ORANGE),
        (TwiceNormalisedInput(SIDE)(image), "normalised twice\n(a published slip)", RED),
        (padded_first(sam, image), "padded with black, then normalised\n(a published slip)", RED),
    )
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    axes = figure.subplots(2, len(shown), height_ratios=[3, 1])
    for index, (seen, title, colour) in enumerate(shown):
        show(axes[0, index], axes[1, index], seen, title, colour)
    figure.supxlabel("values of the first channel; grey: 0 to 1, all that MedSAM's weights know", fontsize=9)
    figure.savefig(args.out / "normalisation.png", dpi=95, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
