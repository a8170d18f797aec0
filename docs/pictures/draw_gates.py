"""Draw gates.png: what each gate does with the coarse mask, on numbers and on a lesion, and the gradient that SAM gets.

python docs/pictures/draw_gates.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

import ultrarefiner as ur
from ultrarefiner.refinement import blend

SIDE = 96
ORANGE, GREEN, BLUE, PURPLE = "#E69F00", "#009E73", "#56B4E9", "#CC79A7"


def gates() -> dict[str, tuple[nn.Module, str]]:
    """What is compared, with a colour each."""
    return {
        "UncertaintyGate()": (ur.UncertaintyGate(), BLUE),
        "UncertaintyGate(gamma=0.5)": (ur.UncertaintyGate(gamma=0.5), PURPLE),
        "UncertaintyGate(minimum=0.4)": (ur.UncertaintyGate(minimum=0.4), GREEN),
        "LearnedGate() at its start": (ur.LearnedGate(), ORANGE),
    }


def share_of(gate: nn.Module, coarse: Tensor, sam: Tensor) -> Tensor:
    with torch.no_grad():
        share: Tensor = gate(torch.zeros_like(coarse), coarse, sam)
    return share


def curves(share_axis: Axes, final_axis: Axes) -> None:
    """The gate over the coarse probability, and the final mask where SAM says 0.9."""
    coarse = torch.linspace(0, 1, 201).view(1, 1, 1, -1)
    sam = torch.full_like(coarse, 0.9)
    x = coarse.flatten()
    for name, (gate, colour) in gates().items():
        share = share_of(gate, coarse, sam)
        share_axis.plot(x, share.flatten(), color=colour, lw=2, label=name)
        final_axis.plot(x, blend(coarse, sam, share).flatten(), color=colour, lw=2)
    final_axis.axhline(0.9, color="black", lw=1, ls=":")
    final_axis.text(0.02, 0.92, "SAM alone", fontsize=9, va="bottom")
    final_axis.plot(x, x, color="black", lw=1, ls="--")
    final_axis.text(0.5, 0.43, "coarse alone", fontsize=9, rotation=36, ha="left", va="top")
    share_axis.set_title("share of SAM's mask, g", fontsize=10)
    final_axis.set_title("final mask where SAM says 0.9", fontsize=10)
    for axis in (share_axis, final_axis):
        axis.set_xlabel("coarse probability, c", fontsize=9)
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1.04)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)


def disc(x: float, y: float, radius: float, softness: float) -> Tensor:
    """A soft disc, (1, 1, h, w) in [0, 1]."""
    centres = torch.arange(SIDE) + 0.5
    distance = ((centres[None, :] - x) ** 2 + (centres[:, None] - y) ** 2).sqrt()
    return torch.sigmoid((radius - distance) / softness)[None, None]


def masks(coarse_axis: Axes, sam_axis: Axes, final_axis: Axes) -> None:
    """A coarse mask that is soft on its right and has an island it is sure of; SAM's; the blend."""
    coarse = torch.maximum(0.97 * disc(44, 50, 24, 5.0), 0.97 * disc(80, 20, 8, 0.8))
    sam = disc(50, 50, 27, 0.8)
    final = blend(coarse, sam, share_of(ur.UncertaintyGate(), coarse, sam))
    for axis, mask, title in (
        (coarse_axis, coarse, "coarse: soft border, a sure island"),
        (sam_axis, sam, "SAM's"),
        (final_axis, final, "final, UncertaintyGate()"),
    ):
        axis.imshow(mask[0, 0], cmap="gray", vmin=0, vmax=1)
        axis.contour(mask[0, 0], levels=[0.5], colors=ORANGE, linewidths=1.5)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()


def gradient(axis: Axes) -> None:
    """How much of the final mask's gradient SAM's mask gets: the share itself."""
    coarse = torch.maximum(0.97 * disc(44, 50, 24, 5.0), 0.97 * disc(80, 20, 8, 0.8))
    sam = disc(50, 50, 27, 0.8).requires_grad_()
    gate = ur.UncertaintyGate()
    blend(coarse, sam, gate(torch.zeros_like(coarse), coarse, sam)).sum().backward()
    shown = axis.imshow(sam.grad[0, 0], cmap="viridis", vmin=0, vmax=1)
    axis.set_title("gradient that SAM gets: g", fontsize=10)
    axis.set_axis_off()
    axis.figure.colorbar(shown, ax=axis, shrink=0.8).ax.tick_params(labelsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the picture")
    args = parser.parse_args()
    torch.manual_seed(0)
    figure = Figure(figsize=(10.5, 6.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1.15, 1])
    share_axis, final_axis = upper.subplots(1, 2)
    curves(share_axis, final_axis)
    upper.legend(
        *share_axis.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    coarse_axis, sam_axis, blended_axis, gradient_axis = lower.subplots(1, 4)
    masks(coarse_axis, sam_axis, blended_axis)
    gradient(gradient_axis)
    figure.savefig(args.out / "gates.png", dpi=75, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
