"""A small SAM that knows what boxes and points mean, for examples that need a trained one and cannot download it.

It stands in for MedSAM, and is trained as MedSAM was: a tight box whose sides moved a little, or a point inside the
lesion, one mask, cross entropy and Dice. On phantoms, so that no mask of a real image has been seen by anybody:

    python examples/small_sam.py
    python examples/small_sam.py --data BUSI --fold 0     on the true masks of one fold's training images

Also how to train something of one's own on the library's loop: a recipe is a dataclass with four methods.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import setting
import torch
from torch import Tensor, nn

import ultrarefiner as ur
from ultrarefiner.checkpoints import read_tensors, write_tensors
from ultrarefiner.data import Augmentation, Batch, FittedCases, Phantoms
from ultrarefiner.losses import DiceBCELoss
from ultrarefiner.ops import edge_to_index, jitter_box, tight_box
from ultrarefiner.sam import encode_images
from ultrarefiner.systems import segment_prompted
from ultrarefiner.training import ParameterGroup, Prediction, Recipe, StepResult, dice_of_images, train
from ultrarefiner.types import Prompts

SIZE = 256
JITTER = 0.1


@dataclass(frozen=True, eq=False)
class PromptableRecipe(Recipe):
    """Train SAM to answer a box, or a point inside the lesion, with the lesion's mask."""

    sam: ur.SAM
    learning_rate: float = 5e-4
    weight_decay: float = 1e-4
    augmentation: nn.Module = field(default_factory=Augmentation)
    loss: nn.Module = field(default_factory=DiceBCELoss)

    @property
    def module(self) -> nn.Module:
        return self.sam

    def parts(self) -> Mapping[str, nn.Module]:
        return {"sam": self.sam}

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        return [ParameterGroup("sam", self.sam, self.learning_rate, self.weight_decay)]

    def step(self, batch: Batch, generator: torch.Generator) -> StepResult:
        images, masks = self.augmentation(batch.images, batch.masks, generator)
        # One kind of prompt for a whole batch, so that it is one call of the decoder.
        box = bool(torch.rand((), generator=generator) < 0.5)
        prompts = box_prompts(masks, generator) if box else point_prompts(masks, generator)
        logits = self._logits(images, prompts)
        loss = self.loss(logits, masks)
        return StepResult(loss, {"segmentation": loss.detach()}, dice_of_images(logits.sigmoid(), masks).mean())

    def predict(self, batch: Batch, cases: Sequence[int]) -> Prediction:  # noqa: ARG002 - nothing is drawn
        return Prediction(self._logits(batch.images, box_prompts(batch.masks, None)).sigmoid())

    def _logits(self, images: Tensor, prompts: Prompts) -> Tensor:
        embeddings = encode_images(self.sam, self.sam.input_policy(images))
        return segment_prompted(self.sam, self.sam.input_policy, embeddings, prompts, images.shape[-2:]).logits


def box_prompts(masks: Tensor, generator: torch.Generator | None) -> Prompts:
    """Tight boxes, their sides moved where there is a generator. The images have SAM's own size here."""
    boxes = tight_box(masks > 0.5)
    if generator is not None:
        boxes = jitter_box(boxes, JITTER, generator)
    return Prompts(None, None, edge_to_index(boxes), None, valid=masks.any((2, 3)))


def point_prompts(masks: Tensor, generator: torch.Generator) -> Prompts:
    """A pixel of each lesion, all equally likely; "not a point" where there is no lesion."""
    noise = torch.rand(masks.shape, generator=generator).to(masks.device)
    place = (noise * (masks > 0.5)).flatten(2).argmax(-1)
    rows, columns = place // masks.shape[-1], place % masks.shape[-1]
    valid = masks.any((2, 3))
    labels = torch.where(valid, 1, -1)[..., None]
    return Prompts(torch.stack([columns, rows], -1)[:, :, None].float(), labels, None, None, valid=valid)


def more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--phantoms", type=int, default=2000, help="how many to train on, without --data")
    parser.set_defaults(small=True)


def frozen_sam(args: argparse.Namespace) -> ur.SAM:
    """What AutoSAM and AutoMedSAM leave as it is: SAM or MedSAM with their weights; small, one trained on phantoms."""
    if args.sam_weights is not None or not args.small:
        size = "tiny" if args.small else "vit_b"
        sam = ur.build_sam(size, input_policy=args.input_policy, image_size=SIZE if args.small else None)
        if args.sam_weights is None:
            print("no --sam-weights: a SAM of random weights has nothing to say; this shows that everything runs")
        else:
            print(ur.load_weights(sam, args.sam_weights, layout="sam"))
        return sam
    path = args.out / "phantoms" / "small_sam" / "sam.pt"
    if not path.exists():
        print("a small SAM is trained first, once, on phantoms (examples/small_sam.py)")
        run = argparse.Namespace(**{**vars(args), "data": None, "epochs": args.sam_epochs, "phantoms": args.phantoms})
        train_sam(run)
    sam = ur.build_sam("tiny", image_size=SIZE)
    ur.load_weights(sam, path, layout="sam")
    return sam


def sam_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--phantoms", type=int, default=2000, help="how many the small SAM is trained on")
    parser.add_argument("--sam-epochs", type=int, default=8, help="epochs of the small SAM on phantoms")


def main() -> None:
    args = setting.arguments(__doc__, more=more)
    train_sam(args)


def train_sam(args: argparse.Namespace) -> None:
    """On phantoms, or on the training cases of a fold."""
    torch.manual_seed(args.seed)
    sam = ur.build_sam("tiny", image_size=SIZE)
    if args.data is None:
        training: FittedCases = FittedCases(Phantoms(args.phantoms, seed=args.seed), SIZE)
        choosing = FittedCases(Phantoms(64, seed=args.seed + 1), SIZE)
    else:
        training, choosing = setting.split(args).fitted(SIZE)
    training.fill()
    folder = setting.folder(args, "small_sam")
    options = {**setting.run_options(args, 1), "epochs": args.epochs or (8 if args.data is None else 50)}
    result = train(PromptableRecipe(sam), training, validation=choosing, folder=folder, **options)
    print(result)
    sam.load_state_dict(read_tensors(result.best)["model"])
    write_tensors(folder / "sam.pt", sam.state_dict())
    print(f"Dice with the true box: {result.best_dice:.3f}. For --sam-weights: {folder / 'sam.pt'}")


if __name__ == "__main__":
    main()
