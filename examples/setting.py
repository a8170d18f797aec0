"""What the three phases share: their arguments, networks and data. Each phase is a script of its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import ultrarefiner as ur
from ultrarefiner.data import (
    BUSI,
    CaseDataset,
    CoarsePredictions,
    FittedCases,
    Folds,
    Mixed,
    Phantoms,
    PredictedCases,
    SimulatedFailures,
    group_folds,
)
from ultrarefiner.training import TRANSUNET, CoarseRecipe, transunet_recipe


@dataclass(frozen=True)
class Scale:
    """Numbers that go together: a full-size run wants a GPU, a small one two CPU cores.

    ``epochs`` and ``rates`` are those of the three phases; phase 3 has a rate for the coarse network, frozen in its
    first ``frozen_coarse`` epochs, and one for the refiner.
    """

    image: int
    coarse: int
    sam: str
    batch: int
    epochs: tuple[int, int, int]
    rates: tuple[float, float, tuple[float, float]]
    train_image_encoder: bool
    frozen_coarse: int


FULL = Scale(
    1024, 224, "vit_b", 4, (150, 50, 50), (1e-3, 1e-4, (1e-5, 1e-5)), train_image_encoder=False, frozen_coarse=10
)
SMALL = Scale(320, 128, "tiny", 8, (50, 50, 24), (1e-3, 5e-4, (1e-5, 5e-4)), train_image_encoder=True, frozen_coarse=16)


def arguments(description: str, *, more: Callable[[argparse.ArgumentParser], None] | None = None) -> argparse.Namespace:
    """The command line of every phase; a script adds its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of BUSI in the Kaggle layout; without it, phantoms")
    parser.add_argument("--groups", type=Path, help="table case,group of near-duplicates that stay in one fold")
    parser.add_argument("--small", action="store_true", help="small networks and images, for a CPU")
    parser.add_argument("--fold", type=int, default=0, help="tested; the next one chooses checkpoints, the rest trains")
    parser.add_argument("--folds", type=int, default=5, help="number of folds")
    parser.add_argument("--epochs", type=int, help="instead of the scale's own number")
    parser.add_argument("--seed", type=int, default=0, help="of folds, order, augmentation and initial weights")
    parser.add_argument("--out", type=Path, default=Path("outputs/phases"), help="folder of all three phases")
    parser.add_argument("--sam-weights", type=Path, help="segment-anything's or MedSAM's checkpoint for --sam")
    parser.add_argument("--imagenet", type=Path, help="ImageNet-21k file R50+ViT-B_16.npz for the full-size network")
    parser.add_argument("--input-policy", choices=("sam", "medsam"), default="sam", help="belongs to --sam-weights")
    parser.add_argument("--mask-style", choices=("direct", "gaussian"), default="direct", help="of the mask prompt")
    parser.add_argument(
        "--failures",
        choices=("simple", "simulated", "mixed"),
        default="simulated",
        help="what phase 2 repairs: the simple set, the full simulation, or that and out-of-fold predictions",
    )
    parser.add_argument("--share", type=float, default=0.5, help="of out-of-fold predictions in --failures mixed")
    parser.add_argument("--no-roi", action="store_true", help="let SAM see the whole image")
    parser.add_argument("--precision", default="32-true", help="Fabric's: 32-true, bf16-mixed, 16-mixed")
    parser.add_argument("--devices", default="1", help="Fabric's: how many, or which")
    parser.add_argument("--workers", type=int, default=0, help="processes that read data ahead")
    if more is not None:
        more(parser)
    return parser.parse_args()


def scale(args: argparse.Namespace) -> Scale:
    """The sizes that were asked for."""
    return SMALL if args.small else FULL


def coarse_network(args: argparse.Namespace) -> nn.Module:
    """The coarse network, at a resolution of its own: TransUNet, or a small U-Net."""
    if args.small:
        from monai.networks.nets import UNet

        network = UNet(2, 1, 1, channels=(24, 48, 96, 192, 256), strides=(2, 2, 2, 2), num_res_units=2, norm="batch")
    else:
        network = ur.build_transunet("r50_vit_b16", image_size=scale(args).coarse)
        if args.imagenet is not None:
            print(ur.load_weights(network, args.imagenet, layout="vit_npz"))
    return ur.AtSize(network, scale(args).coarse)


def coarse_recipe(network: nn.Module, args: argparse.Namespace) -> CoarseRecipe:
    """Phase 1, of the one network and of those for out-of-fold predictions alike."""
    if args.small:
        return CoarseRecipe(network, learning_rate=scale(args).rates[0])
    return transunet_recipe(network)


def coarse_options(args: argparse.Namespace) -> dict[str, Any]:
    """What phase 1 tells the loop; full size is TransUNet's published run."""
    options = run_options(args, 1)
    if args.small:
        return options
    return {**options, **{name: value for name, value in TRANSUNET.options().items() if name != "epochs"}}


def refiner(args: argparse.Namespace) -> ur.SAMRefiner:
    """SAM behind soft prompts; phase 2 and phase 3 both call this, so they cannot differ."""
    sam = ur.build_sam(scale(args).sam, input_policy=args.input_policy)
    if args.sam_weights is not None:
        print(ur.load_weights(sam, args.sam_weights, layout="sam"))
    return ur.SAMRefiner(
        sam,
        prompts=ur.DifferentiablePromptExtractor(mask_style=args.mask_style, floor=0.02),
        cropper=None if args.no_roi else ur.ROICropper(expand=0.2, floor=0.02),
    )


@dataclass(frozen=True)
class Split:
    """Cases of one fold: what trains, what chooses the checkpoint, what is reported."""

    training: Any
    validation: Any
    test: Any

    def fitted(self, size: int) -> tuple[FittedCases, FittedCases]:
        """Training and validation cases in squares of one size."""
        return FittedCases(self.training, size), FittedCases(self.validation, size)


def split(args: argparse.Namespace) -> Split:
    """Grouped folds of BUSI's benign and malignant images, the same in every phase; or three sets of phantoms."""
    if args.data is None:
        counts = (64, 16, 16) if args.small else (2000, 200, 400)
        return Split(*(Phantoms(count, seed=args.seed + index) for index, count in enumerate(counts)))
    groups = args.groups
    if groups is None and (args.data / "near_duplicate_groups.csv").exists():
        groups = args.data / "near_duplicate_groups.csv"
    if groups is None:
        print("no --groups: near-duplicates of one lesion may stand in two folds, and the result will flatter")
    cases: CaseDataset = BUSI(args.data, groups=groups)
    path = args.out / "folds.tsv"
    if path.exists():
        folds = Folds.load(path)
        folds.check(cases)
        if (folds.count, folds.seed) != (args.folds, args.seed):
            message = (
                f"{path} holds {folds.count} folds of seed {folds.seed}, but {args.folds} of seed {args.seed} were "
                "asked for; give the same, or another --out."
            )
            raise SystemExit(message)
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        folds = group_folds(cases, folds=args.folds, seed=args.seed)
        folds.save(path)
    choosing = (args.fold + 1) % folds.count
    test, validation = folds.validation(args.fold), folds.validation(choosing)
    training = [name for name in folds.training(args.fold) if name not in set(validation)]
    return Split(cases.subset(training), cases.subset(validation), cases.subset(test))


def training_folds(args: argparse.Namespace) -> Folds:
    """The folds of the training cases: those of all cases, without the tested one and the one that chooses."""
    training = split(args).training
    if args.data is None:
        return group_folds(training, folds=3, seed=args.seed)
    return Folds.load(args.out / "folds.tsv").within(training.names)


def repaired(args: argparse.Namespace) -> tuple[Any, Any]:
    """What phase 2 trains on and what chooses its checkpoint.

    Where there are stored predictions, those of the choosing cases choose, whatever the training set is: they are what
    phase 3 will see.
    """
    sizes = scale(args)
    training, validation = split(args).fitted(sizes.image)
    stored = folder(args, "predictions.pt")
    if args.failures == "mixed" and not stored.exists():
        message = f"--failures mixed needs {stored}; run phase1_coarse.py and phase1_out_of_fold.py first."
        raise SystemExit(message)
    predictions = CoarsePredictions.load(stored) if stored.exists() else None
    chooses = validation if predictions is None else PredictedCases(validation, predictions)
    if args.failures == "simple":
        return training, chooses
    mixed = args.failures == "mixed" and predictions is not None
    # As many samples as the run will see, so that the share of the mixture is that of the run.
    samples = (sizes.epochs[1] if args.epochs is None else args.epochs) * len(training)
    simulated = SimulatedFailures(
        training,
        ur.FailureSimulator(),
        samples=round(samples * (1 - args.share)) if mixed else samples,
        seed=args.seed,
        size=sizes.coarse,
    )
    if not mixed:
        return simulated, chooses
    return Mixed(simulated, PredictedCases(training, predictions), share=args.share), chooses


def folder(args: argparse.Namespace, name: str) -> Path:
    """Where one phase of one fold keeps its checkpoints and results."""
    return args.out / ("phantoms" if args.data is None else f"fold{args.fold}") / name


def run_options(args: argparse.Namespace, phase: int) -> dict[str, Any]:
    """What every phase tells the loop."""
    sizes = scale(args)
    return {
        "epochs": sizes.epochs[phase - 1] if args.epochs is None else args.epochs,
        "batch_size": sizes.batch * (2 if phase == 1 else 1),
        "seed": args.seed,
        "precision": args.precision,
        "devices": int(args.devices) if args.devices.isdigit() else args.devices,
        "workers": args.workers,
    }
