"""Phase 2: SAM learns to repair failures of coarse masks, simulated or out-of-fold predictions.

Full size, on a GPU:      python examples/phase2_refiner.py --data BUSI --sam-weights sam_vit_b_01ec64.pth
Small, on two CPU cores:  python examples/phase2_refiner.py --small
With the masks of phase1_out_of_fold.py mixed in: --failures mixed
"""

from __future__ import annotations

import setting
import torch

from ultrarefiner.simulation import AtResolution, SimpleFailures
from ultrarefiner.training import RefinerRecipe, train


def main() -> None:
    args = setting.arguments(__doc__)
    torch.manual_seed(args.seed)
    sizes = setting.scale(args)
    recipe = RefinerRecipe(
        setting.refiner(args),
        failures=AtResolution(SimpleFailures(), sizes.coarse),  # unused where the data set brings coarse masks
        learning_rate=sizes.rates[1],
        train_image_encoder=sizes.train_image_encoder,
    )
    dataset, validation = setting.repaired(args)
    cases = len(setting.split(args).training)
    print(f"phase 2: {cases} images train as {len(dataset)} samples, {len(validation)} choose the checkpoint")
    print(
        train(
            recipe,
            dataset,
            validation=validation,
            epoch_size=cases,
            folder=setting.folder(args, f"refiner_{args.failures}"),
            **setting.run_options(args, 2),
        )
    )


if __name__ == "__main__":
    main()
