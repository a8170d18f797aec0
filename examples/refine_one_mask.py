"""Refine one mask of one image with SAM: files in, a better mask and a picture out.

With SAM's or MedSAM's own weights, which want a GPU or patience:
    python examples/refine_one_mask.py --image scan.png --mask mask.png --sam-weights sam_vit_b_01ec64.pth
    python examples/refine_one_mask.py --image scan.png --mask mask.png --sam-weights medsam_vit_b.pth \\
        --input-policy medsam
Without weights a small SAM learns to repair masks of phantoms first, in some minutes on a CPU; without an image it
refines a damaged mask of a phantom:
    python examples/refine_one_mask.py

A grey mask is soft: black is surely background, white surely lesion.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

import ultrarefiner as ur
from ultrarefiner.data import FittedCases, Phantoms, read_image
from ultrarefiner.evaluation import segmentation_metrics
from ultrarefiner.systems import prompts_on_image
from ultrarefiner.training import RefinerRecipe, load_refiner, train

SIDE = 128


def small_refiner() -> ur.SAMRefiner:
    """A SAM of 0.8 million parameters that looks at 128 x 128 pixels around a mask; untrained."""
    prompts = ur.DifferentiablePromptExtractor(positive=ur.MeanShift(), negative=ur.FarCorner(), floor=0.02)
    return ur.SAMRefiner(
        ur.build_sam("tiny", image_size=SIDE), prompts=prompts, cropper=ur.ROICropper(expand=0.2, floor=0.02)
    )


def pretrained_refiner(weights: Path, input_policy: str) -> ur.SAMRefiner:
    """SAM with weights of its own. They have never seen a network's probabilities, so the mask prompt is blurred."""
    sam = ur.build_sam("vit_b", input_policy=input_policy)
    print(ur.load_weights(sam, weights, layout="sam"))
    prompts = ur.DifferentiablePromptExtractor(positive=ur.MeanShift(), mask_style="gaussian", floor=0.02)
    return ur.SAMRefiner(sam, prompts=prompts, cropper=ur.ROICropper(expand=0.2, floor=0.02))


def trained_refiner(folder: Path, epochs: int, seed: int, device: str) -> ur.SAMRefiner:
    """The small one, trained on simulated failures of phantoms; the same folder is not trained twice."""
    torch.manual_seed(seed)
    refiner = small_refiner()
    training, choosing = (
        FittedCases(Phantoms(count, size=(SIDE, SIDE), seed=seed + number), SIDE)
        for number, count in enumerate((200, 24))
    )
    recipe = RefinerRecipe(refiner, learning_rate=1e-3, train_image_encoder=True)
    accelerator, _, number = device.partition(":")
    options = {"validation": choosing, "batch_size": 8, "seed": seed, "tensorboard": False}
    options |= {"accelerator": accelerator, "devices": [int(number)] if number else 1}
    load_refiner(refiner, train(recipe, training, folder=folder, epochs=epochs, **options).best)
    return refiner


def damaged_phantom(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """An image (1, 1, h, w), a wrong mask of it, and the true one; of phantoms that nothing was trained on."""
    case = Phantoms(1, size=(192, 256), seed=seed + 100)[0]
    made = ur.FailureSimulator().simulate(case.mask > 0.5, seed=seed, index=torch.tensor([0]))
    return case.image[None], made.probability[None], case.mask[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="picture; without it, a phantom")
    parser.add_argument("--mask", type=Path, help="picture of the coarse mask, of the image's size")
    parser.add_argument("--sam-weights", type=Path, help="of SAM's or MedSAM's ViT-B; without it, a small SAM")
    parser.add_argument("--input-policy", choices=("sam", "medsam"), default="sam", help="belongs to --sam-weights")
    parser.add_argument("--epochs", type=int, default=16, help="of the small SAM's training")
    parser.add_argument("--device", default="cpu", help="where SAM trains and runs: cpu, cuda, cuda:1, mps")
    parser.add_argument("--seed", type=int, default=0, help="of phantoms, weights and training")
    parser.add_argument("--out", type=Path, default=Path("outputs/refine_one_mask"), help="folder for the results")
    args = parser.parse_args()
    if (args.image is None) != (args.mask is None):
        parser.error("--image and --mask belong together; give both, or neither for a phantom")
    if args.image is None:
        image, coarse, truth = damaged_phantom(args.seed)
    else:
        image, coarse, truth = read_image(args.image)[None], read_image(args.mask)[None], None
    if args.sam_weights is None:
        refiner = trained_refiner(args.out / "small_sam", args.epochs, args.seed, args.device)
        if args.image is not None:
            print(
                "This SAM has learnt from drawn phantoms and never saw a real image, so expect little of its mask; "
                "--sam-weights takes SAM's or MedSAM's own."
            )
    else:
        refiner = pretrained_refiner(args.sam_weights, args.input_policy)
    with torch.no_grad():
        refinement = refiner.eval().to(args.device)(image.to(args.device), coarse.to(args.device))
    write(args.out, refiner, (image, coarse, truth), refinement)


def write(
    folder: Path, refiner: ur.SAMRefiner, given: tuple[Tensor, Tensor, Tensor | None], refinement: ur.Refinement
) -> None:
    """The refined mask as a grey picture, and a picture of how it came about."""
    image, coarse, truth = given
    refined = refinement.logits.sigmoid().cpu()
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((refined[0, 0] * 255).round().byte().numpy()).save(folder / "refined.png")
    told = prompts_on_image(refiner, refinement, image.shape[-2:])
    draw(image, {"coarse": coarse, "refined": refined}, told, refinement.boxes).savefig(folder / "panel.png", dpi=110)
    print(f"SAM's own estimate of the IoU: {refinement.iou.item():.2f}")
    if truth is not None:
        dice = [segmentation_metrics(mask[0] > 0.5, truth[0] > 0.5).dice for mask in (coarse, refined)]
        print(f"Dice with the truth: {dice[0]:.3f} before, {dice[1]:.3f} after")
    print(f"refined.png and panel.png are in {folder}")


def draw(image: Tensor, masks: dict[str, Tensor], told: ur.Prompts, regions: Tensor) -> Figure:
    """Both masks as contours on the image; what SAM was told, and the region that it saw, beside the first."""
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    for axis, (name, mask) in zip(figure.subplots(1, 2), masks.items(), strict=True):
        axis.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
        if (mask > 0.5).any():
            axis.contour(mask[0, 0], [0.5], colors="#E69F00" if name == "coarse" else "#56B4E9")
        axis.set_title(name)
        axis.set_axis_off()
        if name == "coarse":
            # The region is in pixel edges, prompts are in indices, as the picture's axes are.
            for (x0, y0, x1, y1), colour, style in (
                ((regions[0, 0] - 0.5).tolist(), "white", "--"),
                (told.boxes[0, 0].tolist(), "#F0E442", "-"),
            ):
                axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linestyle=style))
            for (x, y), label in zip(told.points[0, 0].tolist(), told.labels[0, 0].tolist(), strict=True):
                if label >= 0:
                    axis.plot(x, y, "*" if label else "X", color="#009E73" if label else "#D55E00", mec="white", ms=11)
    return figure


if __name__ == "__main__":
    main()
