"""The parts together: AutoMedSAM's mask is the coarse mask, AutoSAM's dense prompt joins the mask's points and box.

    image ── AutoMedSAM ──► coarse mask ──► points, box ─┐
      └───── AutoSAM's generator ──► dense prompt ───────┴──► SAM ──► refined mask

Everything is differentiable: the refined mask's loss reaches the generator through the dense prompt, and AutoMedSAM's
prompt module through the points and the box. Phase 3's recipe trains all of it. Takes over what automedsam.py and
autosam.py left in --out, where they were run; else it starts from what they would start from.

Full size, on a GPU:      python examples/composed.py --data BUSI --sam-weights sam_vit_b_01ec64.pth
Small, on two CPU cores:  python examples/composed.py --small
"""

from __future__ import annotations

import argparse

import automedsam
import autosam
import setting
import torch
from small_sam import frozen_sam, sam_options
from torch import nn

import ultrarefiner as ur
from ultrarefiner.data import collate
from ultrarefiner.evaluation import Curves, evaluate, markdown_table, panel_figure, write_csv
from ultrarefiner.losses import DiceLoss
from ultrarefiner.training import JointRecipe, load_coarse, train


class ResizedTo(nn.Module):
    """AutoSAM's generator behind what SAM sees: it looks at a smaller picture."""

    def __init__(self, generator: nn.Module, side: int) -> None:
        super().__init__()
        self.generator = generator
        self.side = side

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        seen = nn.functional.interpolate(prepared, (self.side, self.side), mode="bilinear", antialias=True)
        return self.generator(seen)

    def settings(self) -> dict[str, object]:
        return {"generator": self.generator.settings(), "side": self.side}


def build(args: argparse.Namespace) -> ur.UltraRefiner:
    """AutoMedSAM in front of a refiner with AutoSAM's dense prompt; each has a SAM of its own."""
    coarse = automedsam.build(args, frozen_sam(args))
    from_image = autosam.build(args, frozen_sam(args), "sam")
    for model, folder in ((coarse, automedsam.folder(args, "boxes")), (from_image, autosam.folder(args, "sam"))):
        if (folder / "best.pt").exists():
            load_coarse(model, folder / "best.pt", unseen=(setting.split(args).test,))
        else:
            print(f"{folder} holds no run; its part starts from scratch")
    refiner = ur.SAMRefiner(
        from_image.sam,
        prompts=ur.DifferentiablePromptExtractor(mask_style=None, floor=0.05),  # the generator is the mask prompt
        dense_prompts=ResizedTo(from_image.generator, from_image.input_size),
    )
    return ur.UltraRefiner(coarse=coarse, refiner=refiner)


def show_gradients(model: ur.UltraRefiner, batch: object) -> None:
    """How far the refined mask's loss reaches."""
    DiceLoss()(model(batch.images, batch.content_sizes).refined_logits, batch.masks).backward()
    parts = {
        "AutoSAM's generator, through the dense prompt": model.refiner.dense_prompts,
        "AutoMedSAM's prompt module, through points and box": model.coarse.prompt_module,
        "SAM's mask decoder": model.refiner.sam.mask_decoder,
    }
    for name, part in parts.items():
        squares = [parameter.grad.square().sum() for parameter in part.parameters() if parameter.grad is not None]
        print(f"norm of the gradient in {name}: {sum(squares).sqrt():.2e}")
    model.zero_grad(set_to_none=True)


def main() -> None:
    args = setting.arguments(__doc__, more=more)
    model, cases = build(args), setting.split(args)
    size = model.refiner.input_policy.size
    training, validation = cases.fitted(size)
    show_gradients(model, collate([training[0], training[1]]))
    recipe = JointRecipe(
        model,
        coarse_learning_rate=1e-4,
        refiner_learning_rate=3e-4,
        frozen={"coarse.sam": None},  # AutoMedSAM's own SAM stays as it is
    )
    options = {**setting.run_options(args, 3), "epochs": args.epochs or 20}
    result = train(
        recipe,
        training,
        validation=validation,
        folder=setting.folder(args, "composed"),
        watchers=(Curves(),),
        **options,
    )
    print(result)
    ur.load_weights(model, result.best)
    found = evaluate(model, cases.test, size=size, batch_size=setting.scale(args).batch)
    folder = setting.folder(args, "composed")
    (folder / "table.md").write_text(markdown_table(found.comparison))
    write_csv(folder / "cases.csv", found.comparison)
    panel_figure(found.panels, folder / "panels.png")
    print(f"AutoMedSAM's masks (coarse) against the refined ones, on {len(cases.test)} images that trained nothing:")
    print(markdown_table(found.comparison))


def more(parser: argparse.ArgumentParser) -> None:
    sam_options(parser)
    parser.set_defaults(preset="project", hardnet=None, input_size=None)


if __name__ == "__main__":
    main()
