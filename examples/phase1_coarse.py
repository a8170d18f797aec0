"""Phase 1: the coarse network alone.

Full size, on a GPU:      python examples/phase1_coarse.py --data BUSI --precision bf16-mixed
Small, on two CPU cores:  python examples/phase1_coarse.py --small
"""

from __future__ import annotations

import setting
import torch

from ultrarefiner.training import CoarseRecipe, train


def main() -> None:
    args = setting.arguments(__doc__)
    torch.manual_seed(args.seed)
    recipe = CoarseRecipe(setting.coarse_network(args), learning_rate=setting.scale(args).rates[0])
    training, validation = setting.split(args).fitted(setting.scale(args).image)
    print(f"phase 1: {len(training)} images train, {len(validation)} choose the checkpoint")
    print(
        train(
            recipe,
            training,
            validation=validation,
            folder=setting.folder(args, "coarse"),
            **setting.run_options(args, 1),
        )
    )


if __name__ == "__main__":
    main()
