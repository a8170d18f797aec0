"""Phase 2: SAM learns to repair simulated failures of the true masks.

Full size, on a GPU:      python examples/phase2_refiner.py --data BUSI --sam-weights sam_vit_b_01ec64.pth
Small, on two CPU cores:  python examples/phase2_refiner.py --small
"""

from __future__ import annotations

import setting
import torch

from ultrarefiner.training import RefinerRecipe, train


def main() -> None:
    args = setting.arguments(__doc__)
    torch.manual_seed(args.seed)
    sizes = setting.scale(args)
    recipe = RefinerRecipe(
        setting.refiner(args), learning_rate=sizes.rates[1], train_image_encoder=sizes.train_image_encoder
    )
    training, validation = setting.split(args).fitted(sizes.image)
    print(f"phase 2: {len(training)} images train, {len(validation)} choose the checkpoint")
    print(
        train(
            recipe,
            training,
            validation=validation,
            folder=setting.folder(args, "refiner"),
            **setting.run_options(args, 2),
        )
    )


if __name__ == "__main__":
    main()
