"""One step of phase 2 and of AutoMedSAM at ViT-B's size: with stored embeddings, and with the frozen encoder running.

    python benchmarks/embedding_cache.py [--size vit_b] [--device cuda] [--repeats 3]

Both ways read the images, collate them, go forward and backward and step the optimiser; random weights, batches of 2.
Prints a Markdown table and writes it to benchmarks/results/embedding_cache.md with the machine's name.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from measure import Work, median_times, write

import ultrarefiner as ur
from ultrarefiner.data import CachedEmbeddings, EmbeddingCache, FittedCases, Phantoms, collate
from ultrarefiner.training import AutoMedSAMRecipe, Recipe, RefinerRecipe, freeze

BATCH = 2


def step(recipe: Recipe, part: torch.nn.Module, dataset: object, device: str) -> Work:
    """One step of the recipe on the first batch of a data set."""
    optimizer = torch.optim.AdamW(part.parameters(), lr=1e-5)

    def work() -> object:
        batch = collate([dataset[index] for index in range(BATCH)])
        moved = batch._replace(
            images=batch.images.to(device),
            masks=batch.masks.to(device),
            content_sizes=batch.content_sizes.to(device),
            embeddings=None if batch.embeddings is None else batch.embeddings.to(device),
        )
        result = recipe.step(moved, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        return result

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="vit_b", help="of SAM: vit_b, tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    sam = ur.build_sam(args.size).to(args.device)
    side = sam.input_policy.size
    cases = FittedCases(Phantoms(BATCH), side).fill(progress=False)
    rows = ["| step of a batch of 2 | encoder runs | stored | ratio |", "|:--|--:|--:|--:|"]
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(folder, sam)
        cache.fill(cases, batch_size=1, progress=False)
        megabytes = sum(path.stat().st_size for path in Path(folder).glob("*.npy")) / len(cache) / 1e6
        stored = CachedEmbeddings(cases, cache)
        freeze(sam.image_encoder)
        refiner = ur.SAMRefiner(sam)
        second = RefinerRecipe(refiner, augmentation=None)
        channels = stored[0].embedding.shape[0]
        module = ur.PromptModule(channels=channels, image_size=side).to(args.device)
        boxes = AutoMedSAMRecipe(ur.AutoMedSAM(sam, module))
        for name, recipe, part in (
            ("phase 2, prompt encoder and mask decoder train", second, sam),
            ("AutoMedSAM, the prompt module trains", boxes, module),
        ):
            works = tuple(step(recipe, part, dataset, args.device) for dataset in (cases, stored))
            live, cached = median_times(works, args.repeats, args.device)
            rows.append(f"| {name} | {live:.2f} s | {cached:.2f} s | {live / cached:.1f} |")
    rows.append("")
    rows.append(f"SAM {args.size}, images of {side} pixels; {megabytes:.1f} MB an embedding on disk.")
    write("embedding_cache", f"python benchmarks/embedding_cache.py --size {args.size}", args.device, rows)


if __name__ == "__main__":
    main()
