"""Phase 1: the coarse network alone.

Full size, on a GPU:      python examples/phase1_coarse.py --data BUSI --imagenet R50+ViT-B_16.npz
Small, on two CPU cores:  python examples/phase1_coarse.py --small

Full size is TransUNet with the published numbers: SGD, "poly", 150 epochs of batches of 24. (Images are padded to a
square here, as SAM wants them; published, they are stretched to 224 px.)
"""

from __future__ import annotations

import setting
import torch

from ultrarefiner.training import train


def main() -> None:
    args = setting.arguments(__doc__)
    torch.manual_seed(args.seed)
    recipe = setting.coarse_recipe(setting.coarse_network(args), args)
    training, validation = setting.split(args).fitted(setting.scale(args).image)
    print(f"phase 1: {len(training)} images train, {len(validation)} choose the checkpoint")
    print(
        train(
            recipe,
            training,
            validation=validation,
            folder=setting.folder(args, "coarse"),
            **setting.coarse_options(args),
        )
    )


if __name__ == "__main__":
    main()
