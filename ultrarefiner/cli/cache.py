"""``ultrarefiner cache``: a frozen encoder's embeddings of a data set, computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from ultrarefiner.checkpoints import load_weights
from ultrarefiner.cli.cases import DatasetName, open_cases
from ultrarefiner.data import EmbeddingCache, FittedCases
from ultrarefiner.sam import build_sam


def cache(
    out: Path,
    data: Path | None = None,
    dataset: DatasetName = "busi",
    masks: Path | None = None,
    mask_suffix: str = "",
    phantoms: int | None = None,
    sam: Literal["tiny", "vit_b", "vit_l", "vit_h"] = "vit_b",
    sam_weights: Path | None = None,
    input_policy: Literal["sam", "medsam"] = "sam",
    image_size: int | None = None,
    batch_size: int = 1,
    part: int = 0,
    parts: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> str:
    """Compute and keep the embeddings of SAM's image encoder, float16, for training without it.

    The same command again goes on where it was stopped or killed, and computes damaged entries anew. On several GPUs or
    nodes with a file system in common, give each its part.

    Args:
        out: folder for the embeddings.
        data: folder of the data set.
        dataset: its layout; "folder" is any folder of images and masks with the same names.
        masks: folder of the masks, for "folder"; by default that of the images.
        mask_suffix: what follows an image's name in its mask's name, for "folder", such as _mask.
        phantoms: this many made-up cases instead of a folder.
        sam: which SAM.
        sam_weights: its checkpoint; without one its weights are random, from the seed.
        input_policy: how images become its input; it belongs to the weights.
        image_size: another side of SAM's input, a multiple of 16.
        batch_size: images at once; of ViT-B at 1024 pixels one takes 3 GB, four take 10.
        part: which share of the images to compute, from 0.
        parts: in how many shares.
        seed: of random weights.
        progress: show a progress bar on a terminal.

    Returns:
        What is there now, in a sentence.
    """
    cases = open_cases(dataset, data=data, masks=masks, mask_suffix=mask_suffix, phantoms=phantoms)
    torch.manual_seed(seed)
    model = build_sam(sam, input_policy=input_policy, image_size=image_size)
    if sam_weights is not None:
        load_weights(model, sam_weights, layout="sam")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    fitted = FittedCases(cases, model.input_policy.size, keep_in_memory=False)
    kept = EmbeddingCache(out, model)
    computed = kept.fill(fitted, batch_size=batch_size, part=part, parts=parts, progress=progress)
    return f"{computed} embeddings computed; {out} holds {len(kept)} for {len(cases)} cases."
