"""Train the pair that comes with the package, and measure it: three grouped folds of BUSI.

Each stage is a command of its own; all of them can be stopped and go on where they were. For each fold F that is
reported:

    python examples/light_pair.py coarse  --data BUSI --train-on G   (each of the three folds G alone: for predictions)
    python examples/light_pair.py coarse  --data BUSI --fold F       (on the two others)
    python examples/light_pair.py refiner --data BUSI --fold F
    python examples/light_pair.py joint   --data BUSI --fold F

`light_pair_results.py` measures. It needs ``pip install 'ultrarefiner[pretraining]'`` and hours on two CPU cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import ultrarefiner as ur
from ultrarefiner.checkpoints import efficientnet_lite0_file, read_tensors
from ultrarefiner.data import (
    BUSI,
    CoarsePredictions,
    FittedCases,
    Folds,
    Mixed,
    PredictedCases,
    SimulatedFailures,
    group_folds,
)
from ultrarefiner.networks import BackboneUNet
from ultrarefiner.sam import build_light_sam
from ultrarefiner.training import (
    CoarseRecipe,
    JointRecipe,
    RefinerRecipe,
    load_coarse,
    load_refiner,
    predict_cases,
    train,
)

FOLDS = 3
COARSE_SIZE = 224
FRAME = 384
CROP = 256
FLOOR = 0.05
FROZEN = ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2")
SHARES = (0.3, 0.7)
"""Of SAM's mask in the final one, where the coarse network is sure and where it is not: chosen in the pilot."""


def main() -> None:
    args = arguments()
    args.stage(args)


def shared_arguments() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """What every stage takes, and what says which parts the refiner has."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--data", type=Path, required=True, help="folder of BUSI in the Kaggle layout")
    shared.add_argument("--out", type=Path, default=Path("outputs/light"), help="folder of all stages")
    shared.add_argument("--seed", type=int, default=0, help="of folds, order, augmentation and initial weights")
    parts = argparse.ArgumentParser(add_help=False)
    parts.add_argument("--no-roi", action="store_true", help="let SAM see the whole image")
    parts.add_argument("--without", choices=("points", "box", "mask"), help="a prompt that SAM is not given")
    parts.add_argument("--no-gate", action="store_true", help="SAM's mask as it is; phase 2 has no gate anyway")
    parts.add_argument("--shares", type=float, nargs=2, default=SHARES, help="of SAM's mask: coarse sure, unsure")
    parts.add_argument("--plain-loss", action="store_true", help="no quality-aware term")
    return shared, parts


def arguments() -> argparse.Namespace:
    """One command a stage."""
    shared, parts = shared_arguments()
    shared.add_argument("--epochs", type=int, help="instead of the stage's own number")
    shared.add_argument("--precision", default="bf16-mixed", help="Fabric's: 32-true, bf16-mixed")
    shared.add_argument("--normals", action="store_true", help="train on images without a lesion, too")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stages = parser.add_subparsers(required=True)
    coarse = stages.add_parser("coarse", parents=[shared], help="phase 1")
    which = coarse.add_mutually_exclusive_group(required=True)
    which.add_argument("--fold", type=int, help="left out")
    which.add_argument("--train-on", type=int, help="the only fold that trains")
    which.add_argument("--all", action="store_true", help="all folds train")
    coarse.set_defaults(stage=train_coarse)
    refiner = stages.add_parser("refiner", parents=[shared, parts], help="phase 2")
    which = refiner.add_mutually_exclusive_group(required=True)
    which.add_argument("--fold", type=int, help="left out")
    which.add_argument("--all", action="store_true", help="all folds train")
    refiner.add_argument("--name", default="refiner", help="folder of the run")
    refiner.add_argument("--pilot", type=int, help="train on this fold alone, its masks from the rest's network")
    refiner.add_argument("--failures", choices=("simulated", "mixed", "predicted"), default="mixed")
    refiner.add_argument("--share", type=float, default=0.5, help="of out-of-fold predictions in --failures mixed")
    refiner.add_argument("--rate", type=float, default=5e-4, help="learning rate")
    refiner.set_defaults(stage=train_refiner)
    joint = stages.add_parser("joint", parents=[shared, parts], help="phase 3")
    which = joint.add_mutually_exclusive_group(required=True)
    which.add_argument("--fold", type=int, help="left out")
    which.add_argument("--all", action="store_true", help="all folds train")
    joint.add_argument("--pilot", type=int, help="train on this fold alone, with its own network")
    joint.add_argument("--name", default="joint", help="folder of the run")
    joint.add_argument("--after", default="refiner", help="folder of phase 2")
    joint.add_argument("--rate", type=float, default=2e-4, help="learning rate of refiner and gate")
    joint.add_argument("--coarse-rate", type=float, default=1e-4, help="learning rate of the coarse network")
    joint.add_argument("--stored-weight", type=float, default=0.5, help="of refining out-of-fold predictions")
    joint.set_defaults(stage=train_joint)
    return parser.parse_args()


def open_busi(args: argparse.Namespace) -> tuple[BUSI, Folds]:
    """All images, those without a lesion too, and the folds."""
    cases = BUSI(args.data, normal=True, groups=args.data / "near_duplicate_groups.csv")
    path = args.out / "folds.tsv"
    if path.exists():
        folds = Folds.load(path)
        folds.check(cases)
    else:
        folds = group_folds(cases, folds=FOLDS, seed=args.seed)
        args.out.mkdir(parents=True, exist_ok=True)
        folds.save(path)
    return cases, folds


def coarse_network() -> ur.AtSize:
    """A U-Net on EfficientNet-Lite0 with ImageNet weights."""
    network = BackboneUNet()
    ur.load_weights(network.backbone, efficientnet_lite0_file(), layout="efficientnet_lite0")
    return ur.AtSize(network, COARSE_SIZE)


def finished(folder: Path) -> Path:
    """The last checkpoint of a run, refused while epochs are missing: a run that was broken off leaves one, too."""
    path = folder / "last.pt"
    if not path.exists():
        message = f"{folder} must hold a finished run, but there is no {path.name}; train that stage first."
        raise SystemExit(message)
    saved = read_tensors(path)
    done, epochs = saved["progress"]["epoch"], saved["settings"]["plan"]["epochs"]
    if done < epochs:
        message = (
            f"{folder} must hold a finished run, but {done} of its {epochs} epochs are done; give that stage's command "
            "once more, which goes on there."
        )
        raise SystemExit(message)
    return path


def trained_on(args: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Of these cases those that train: the ones with a lesion, all of them with --normals."""
    return [name for name in names if args.normals or not name.startswith("normal")]


def train_coarse(args: argparse.Namespace) -> None:
    cases, folds = open_busi(args)
    if args.all:
        name, names = "all/coarse", list(cases.names)
    elif args.fold is None:
        name, names = f"single{args.train_on}/coarse", list(folds.validation(args.train_on))
    else:
        name, names = f"fold{args.fold}/coarse", list(folds.training(args.fold))
    torch.manual_seed(args.seed)
    recipe = CoarseRecipe(coarse_network(), learning_rate=1e-3)
    fitted = FittedCases(cases.subset(trained_on(args, names)), COARSE_SIZE)
    epochs = args.epochs or (40 if args.fold is None and not args.all else 30)
    print(f"{name}: {len(fitted)} images, {epochs} epochs")
    print(train(recipe, fitted, folder=args.out / name, epochs=epochs, batch_size=8, **options(args)))


def predictions(args: argparse.Namespace, names: list[str]) -> CoarsePredictions:
    """What coarse networks make of folds that they have not seen, nor the fold that is left out."""
    cases, folds = open_busi(args)
    made: CoarsePredictions | None = None
    for fold in range(FOLDS):
        part = [name for name in folds.validation(fold) if name in set(names)]
        if not part:
            continue
        others = [other for other in range(FOLDS) if other not in (fold, args.fold)]
        # With all folds at hand the network of both others; where one is left out, of the one that remains.
        source = f"fold{fold}" if args.all else f"single{others[0]}"
        path = args.out / "predictions" / f"{fold}_by_{source}.pt"
        if not path.exists():
            network = coarse_network()
            load_coarse(network, finished(args.out / source / "coarse"))
            path.parent.mkdir(exist_ok=True, parents=True)
            predict_cases(network, FittedCases(cases.subset(folds.validation(fold)), FRAME)).save(path)
        found = CoarsePredictions.load(path).of(part)
        made = found if made is None else made.joined(found)
    if made is None:
        message = "no case is to be predicted; give a fold that has some."
        raise SystemExit(message)
    return made


def refiner_of(args: argparse.Namespace) -> ur.SAMRefiner:
    """SAM with a light encoder behind soft prompts."""
    without = args.without
    prompts = ur.DifferentiablePromptExtractor(
        mask_style=None if without == "mask" else "direct",
        positive=None if without == "points" else ur.Centroid(),
        negative=None if without == "points" else ur.BoxBackground(),
        sigmas=None if without == "box" else 2.5,
        floor=FLOOR,
    )
    cropper = None if args.no_roi else ur.ROICropper(expand=0.2, floor=FLOOR)
    return ur.SAMRefiner(build_light_sam(image_size=CROP), prompts=prompts, cropper=cropper)


def training_of(args: argparse.Namespace, folds: Folds) -> tuple[list[str], Path, Path]:
    """Which cases train phases 2 and 3, the folder of their coarse network, and where the phases go."""
    if args.pilot is not None:
        names, coarse, place = folds.validation(args.pilot), f"single{args.pilot}", f"pilot{args.pilot}"
    elif args.all:
        names, coarse, place = [name for fold in range(FOLDS) for name in folds.validation(fold)], "all", "all"
    else:
        names, coarse, place = folds.training(args.fold), f"fold{args.fold}", f"fold{args.fold}"
    return trained_on(args, names), args.out / coarse / "coarse", args.out / place


def train_refiner(args: argparse.Namespace) -> None:
    cases, folds = open_busi(args)
    names, trained, place = training_of(args, folds)
    torch.manual_seed(args.seed)
    refiner = refiner_of(args)
    # The features of the coarse network, which was trained on the same cases.
    network = coarse_network()
    load_coarse(network, finished(trained))
    refiner.sam.image_encoder.backbone.load_state_dict(network.network.backbone.state_dict())
    fitted = FittedCases(cases.subset(names), FRAME)
    lesions = fitted.subset([name for name in names if not name.startswith("normal")])
    epochs = args.epochs or 20
    samples = epochs * len(fitted)
    share = {"simulated": 0.0, "mixed": args.share, "predicted": 1.0}[args.failures]
    dataset: Any = None
    if share < 1:
        dataset = SimulatedFailures(
            lesions, ur.FailureSimulator(), samples=round(samples * (1 - share)), seed=args.seed, size=COARSE_SIZE
        )
    if share > 0:
        predicted = PredictedCases(fitted, predictions(args, names))
        dataset = predicted if dataset is None else Mixed(dataset, predicted, share=share)
    recipe = RefinerRecipe(
        refiner,
        learning_rate=args.rate,
        train_image_encoder=True,
        frozen={f"sam.image_encoder.backbone.{part}": None for part in FROZEN},
        loss=ur.QualityAwareLoss(weight=0.0) if args.plain_loss else ur.QualityAwareLoss(),
    )
    run = place / args.name
    print(f"{run}: {len(fitted)} images, {epochs} epochs")
    print(train(recipe, dataset, folder=run, epochs=epochs, epoch_size=len(fitted), batch_size=8, **options(args)))


def assembled(args: argparse.Namespace) -> ur.UltraRefiner:
    """The whole model."""
    gate = None if args.no_gate else ur.UncertaintyGate(minimum=args.shares[0], maximum=args.shares[1])
    return ur.UltraRefiner(
        coarse=coarse_network(), refiner=refiner_of(args), gate=gate, gradient_scale=0.1, frame=FRAME
    )


def load_parts(model: ur.UltraRefiner, path: Path, coarse: Path, unseen: tuple[Any, ...] = ()) -> None:
    """The refiner of one checkpoint, the coarse network of the same or another."""
    load_coarse(model.coarse, coarse, unseen=unseen)
    load_refiner(model.refiner, path, unseen=unseen)


def train_joint(args: argparse.Namespace) -> None:
    cases, folds = open_busi(args)
    names, trained, place = training_of(args, folds)
    model = assembled(args)
    load_parts(model, finished(place / args.after), finished(trained))
    fitted = FittedCases(cases.subset(names), FRAME)
    dataset = PredictedCases(fitted, predictions(args, names))
    recipe = JointRecipe(
        model,
        coarse_learning_rate=args.coarse_rate,
        refiner_learning_rate=args.rate,
        coarse_weight=0.5,
        refined_weight=0.5,
        stored_weight=args.stored_weight,
        freeze_image_encoder=False,
        frozen={f"refiner.sam.image_encoder.backbone.{part}": None for part in FROZEN},
        loss=ur.QualityAwareLoss(weight=0.0) if args.plain_loss else ur.QualityAwareLoss(),
    )
    epochs = args.epochs or 8
    print(f"{place / args.name}: {len(fitted)} images, {epochs} epochs")
    print(train(recipe, dataset, folder=place / args.name, epochs=epochs, batch_size=8, **options(args)))


def options(args: argparse.Namespace) -> dict[str, Any]:
    """What every stage tells the loop."""
    return {"seed": args.seed, "precision": args.precision, "tensorboard": False}


if __name__ == "__main__":
    main()
