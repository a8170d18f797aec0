"""Phase 3: both networks, the gradient flowing through the prompts; coarse against refined, before and after.

Takes over what phases 1 and 2 left in --out.
Full size, on a GPU:      python examples/phase3_joint.py --data BUSI --precision bf16-mixed
Small, on two CPU cores:  python examples/phase3_joint.py --small
"""

from __future__ import annotations

import argparse

import setting
import torch

import ultrarefiner as ur
from ultrarefiner.data import Cases
from ultrarefiner.evaluation import evaluate, markdown_table, panel_figure, write_csv
from ultrarefiner.training import JointRecipe, load_coarse, load_refiner, train


def main() -> None:
    args = setting.arguments(__doc__)
    torch.manual_seed(args.seed)
    sizes = setting.scale(args)
    model = ur.UltraRefiner(coarse=setting.coarse_network(args), refiner=setting.refiner(args), gradient_scale=0.1)
    cases = setting.split(args)
    unseen = (cases.validation, cases.test)
    load_coarse(model.coarse, setting.folder(args, "coarse") / "best.pt", unseen=unseen)
    load_refiner(model.refiner, setting.folder(args, f"refiner_{args.failures}") / "best.pt", unseen=unseen)
    recipe = JointRecipe(
        model,
        coarse_learning_rate=sizes.rates[2][0],
        refiner_learning_rate=sizes.rates[2][1],
        coarse_weight=0.5,
        refined_weight=1.0,
        freeze_coarse_epochs=sizes.frozen_coarse,
        freeze_image_encoder=not sizes.train_image_encoder,
    )
    training, validation = cases.fitted(sizes.image)
    report(model, cases.test, args, "before phase 3")
    print(f"phase 3: {len(training)} images train, {len(validation)} choose the checkpoint")
    result = train(
        recipe, training, validation=validation, folder=setting.folder(args, "joint"), **setting.run_options(args, 3)
    )
    ur.load_weights(model, result.best)
    report(model, cases.test, args, "after phase 3")


def report(model: ur.UltraRefiner, test: Cases, args: argparse.Namespace, when: str) -> None:
    """Coarse against refined on images that no phase has seen, as a table, a file of cases and a picture."""
    sizes = setting.scale(args)
    found = evaluate(model, test, size=sizes.image, batch_size=sizes.batch)
    table = markdown_table(found.comparison)
    folder = setting.folder(args, when.replace(" ", "_"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(table)
    write_csv(folder / "cases.csv", found.comparison)
    panel_figure(found.panels, folder / "panels.png")
    print(f"{when}, on {len(test)} images that no phase has seen ({folder}):\n{table}")


if __name__ == "__main__":
    main()
