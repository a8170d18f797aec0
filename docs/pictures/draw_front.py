"""Draw front.png: two phantoms through the pair that comes with the package, and the gradient that comes back.

python docs/pictures/draw_front.py

Of forty phantoms, which nobody was trained on, the one that the refinement improves most and the one in the middle.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from kornia.filters import gaussian_blur2d
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

import ultrarefiner as ur
from ultrarefiner.data import FittedCases, Phantoms, collate
from ultrarefiner.ops import dice_coefficient
from ultrarefiner.systems import prompts_on_image

ORANGE, BLUE = "#E69F00", "#56B4E9"
SIDE = 256
COLUMNS = (
    "your network's soft mask",
    "prompts made of it",
    "what SAM makes of them",
    "gradient of the loss of SAM's mask\nin the soft mask",
)


def refined_phantoms(model: ur.UltraRefiner, count: int, seed: int) -> list[dict[str, Any]]:
    """Each phantom with its masks, prompts and gradient, ordered by how much the refinement improves it."""
    cases = FittedCases(Phantoms(count, size=(SIDE, SIDE), seed=seed), SIDE)
    found = []
    for index in range(count):
        batch = collate([cases[index]])
        with torch.no_grad():
            out = model(batch.images)
        soft = out.coarse_probability.requires_grad_()
        ur.QualityAwareLoss()(model.refiner(batch.images, soft).logits, batch.masks, soft.detach()).backward()
        before, after = (
            dice_coefficient((mask >= 0.5).float(), batch.masks).item()
            for mask in (soft, out.refined_probability)
        )
        found.append(
            {
                "image": batch.images[0].mean(dim=0),
                "truth": batch.masks[0, 0],
                "coarse": soft[0, 0].detach(),
                "refined": out.refined_probability[0, 0],
                "prompts": prompts_on_image(model.refiner, out.refinement, (SIDE, SIDE)),
                "gradient": gaussian_blur2d(soft.grad, (13, 13), (2.5, 2.5))[0, 0],
                "dice": (before, after),
            }
        )
    return sorted(found, key=lambda case: case["dice"][1] - case["dice"][0])


def outline(axis: Axes, mask: Tensor, colour: str, style: str = "solid") -> None:
    if (mask >= 0.5).any():
        axis.contour(mask.numpy(), levels=[0.5], colors=colour, linestyles=style, linewidths=1.8)


def draw_row(axes: Any, case: dict[str, Any]) -> None:
    soft, told, refined, back = axes
    for axis in axes:
        axis.imshow(case["image"].numpy(), cmap="gray", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
    soft.imshow(case["coarse"].numpy(), cmap="inferno", vmin=0, vmax=1, alpha=0.8 * case["coarse"].sqrt().numpy())
    soft.set_xlabel(f"Dice {case['dice'][0]:.2f}")
    draw_prompts(told, case["prompts"])
    outline(told, case["coarse"], ORANGE)
    outline(refined, case["coarse"], ORANGE)
    outline(refined, case["refined"], BLUE)
    outline(refined, case["truth"], "white", "dashed")
    refined.set_xlabel(f"Dice {case['dice'][1]:.2f}")
    gradient = -case["gradient"]
    limit = gradient.abs().quantile(0.995).clamp(min=1e-12)
    strength = (gradient.abs() / limit).clamp(max=1).sqrt()
    back.imshow((gradient / limit).numpy(), cmap="coolwarm", vmin=-1, vmax=1, alpha=strength.numpy())
    outline(back, case["truth"], "white", "dashed")
    back.set_xlabel("red: wants more, blue: wants less")


def draw_prompts(axis: Axes, prompts: Any) -> None:
    x0, y0, x1, y1 = prompts.boxes[0, 0].tolist()
    axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=ORANGE, linewidth=1.6))
    for (x, y), label in zip(prompts.points[0, 0].tolist(), prompts.labels[0, 0].tolist(), strict=True):
        marker, colour = ("*", BLUE) if label == 1 else ("X", "#D55E00")
        axis.scatter([x], [y], s=150, marker=marker, color=colour, edgecolors="white", zorder=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="breast-ultrasound-light", help="that comes with the package, or a folder")
    parser.add_argument("--seed", type=int, default=5, help="of the phantoms")
    parser.add_argument("--to", type=Path, default=Path(__file__).with_name("front.png"), help="the picture")
    args = parser.parse_args()
    packaged = args.model in ur.packaged_models()
    model = ur.load_pretrained(args.model) if packaged else ur.UltraRefiner.from_pretrained(args.model)
    cases = refined_phantoms(model.eval(), 40, args.seed)
    mean = [sum(case["dice"][which] for case in cases) / len(cases) for which in (0, 1)]
    print(f"mean Dice of {len(cases)} phantoms: {mean[0]:.3f} coarse, {mean[1]:.3f} refined")
    figure = Figure(figsize=(11, 6.2), layout="constrained", facecolor="white")
    grid = figure.subplots(2, len(COLUMNS))
    for axes, case in zip(grid, (cases[-1], cases[len(cases) // 2]), strict=True):
        draw_row(axes, case)
    for axis, title in zip(grid[0], COLUMNS, strict=True):
        axis.set_title(title, fontsize=11)
    handles = [
        Rectangle((0, 0), 1, 1, fill=False, edgecolor=ORANGE, label="coarse mask, box"),
        Rectangle((0, 0), 1, 1, fill=False, edgecolor=BLUE, label="refined mask"),
        Rectangle((0, 0), 1, 1, fill=False, edgecolor="grey", linestyle="dashed", label="truth (white)"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(args.to, dpi=90, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
