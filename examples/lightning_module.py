"""UltraRefiner in PyTorch Lightning: a phase of this library's, unchanged, as a LightningModule.

A recipe holds what a phase is: its losses, what trains when, its optimiser. The module below hands Lightning's calls
on to it, so nothing is written twice, and any recipe fits (`CoarseRecipe`, `RefinerRecipe`, `JointRecipe`, your own).
For a trainer of the library's own, which also resumes to the same bits, see `ultrarefiner.training.train`.

    pip install lightning
    python examples/lightning_module.py --small
    python examples/lightning_module.py --images 200 --epochs 20 --accelerator gpu --precision bf16-mixed
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader

import ultrarefiner as ur
from ultrarefiner.data import Batch, FittedCases, Phantoms, collate
from ultrarefiner.training import JointRecipe, Recipe, dice_of_images


class RecipeModule(lightning.LightningModule):
    """A recipe of this library's as a LightningModule.

    Lightning's checkpoints hold the model's weights under ``model.``; the optimiser and the epoch come back with them.
    """

    def __init__(self, recipe: Recipe, *, seed: int = 0) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = recipe.module
        self.seed = seed
        self.stages = recipe.unfreezing.bind(recipe.module)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.recipe.optimizer()

    def on_train_epoch_start(self) -> None:
        self.stages.enter(self.current_epoch)

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        # Of the step alone, so that a resumed run damages and turns images as an unbroken one.
        generator = torch.Generator().manual_seed(hash((self.seed, self.current_epoch, index)) % 2**63)
        result = self.recipe.step(batch, generator)
        images = len(batch.images)
        self.log("loss", result.loss.detach(), prog_bar=True, batch_size=images)
        self.log_dict(dict(result.terms), batch_size=images)
        return result.loss

    def validation_step(self, batch: Batch, index: int) -> None:
        first = index * len(batch.images)
        found = self.recipe.predict(batch, range(first, first + len(batch.images)))
        dice = dice_of_images(found.probability, batch.masks)
        self.log("dice", dice.mean(), prog_bar=True, batch_size=len(dice))


def model_of(args: argparse.Namespace) -> ur.UltraRefiner:
    """Small networks from nothing, or the light pair's at a size for a GPU."""
    if args.small:
        coarse: nn.Module = ur.build_transunet("tiny", image_size=64)
        sam = ur.build_sam("tiny", image_size=64)
    else:
        coarse = ur.BackboneUNet()
        sam = ur.build_light_sam(image_size=256)
    return ur.UltraRefiner(
        coarse=coarse, refiner=ur.SAMRefiner(sam, cropper=ur.ROICropper(expand=0.2)), gradient_scale=0.1
    )


def loaders(args: argparse.Namespace) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Phantoms: the first three quarters train, the others validate."""
    size = 64 if args.small else 256
    few = args.images * 3 // 4
    whole = FittedCases(Phantoms(args.images, size=(size, size)), size)
    parts = (torch.utils.data.Subset(whole, range(few)), torch.utils.data.Subset(whole, range(few, args.images)))
    training, validation = (
        DataLoader(part, batch_size=4, shuffle=shuffled, collate_fn=collate)
        for part, shuffled in zip(parts, (True, False), strict=True)
    )
    return training, validation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small networks and images, for a CPU")
    parser.add_argument("--images", type=int, default=64, help="phantoms, of which a quarter validates")
    parser.add_argument("--epochs", type=int, default=8, help="epochs")
    parser.add_argument("--accelerator", default="cpu", help="Lightning's: cpu, gpu, auto")
    parser.add_argument("--precision", default="32-true", help="Lightning's: 32-true, bf16-mixed")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation")
    parser.add_argument("--out", type=Path, default=Path("outputs/lightning"), help="folder of checkpoints and log")
    args = parser.parse_args()
    lightning.seed_everything(args.seed)
    model = model_of(args)
    recipe = JointRecipe(
        model,
        coarse_learning_rate=1e-3,
        refiner_learning_rate=5e-4,
        freeze_coarse_epochs=1,
        freeze_image_encoder=not args.small,
    )
    training, validation = loaders(args)
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        accelerator=args.accelerator,
        devices=1,
        precision=args.precision,
        default_root_dir=args.out,
        logger=lightning.pytorch.loggers.CSVLogger(args.out),
        log_every_n_steps=1,
        enable_model_summary=False,
        enable_progress_bar=not args.small,
        gradient_clip_val=1.0,
    )
    trainer.fit(RecipeModule(recipe, seed=args.seed), training, validation)
    folder = model.save_pretrained(args.out / "model")
    print(f"Dice of refined masks in validation: {trainer.callback_metrics['dice']:.3f}; the model is in {folder}")


if __name__ == "__main__":
    main()
